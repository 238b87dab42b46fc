"""DSNs: when one is due, to whom, and bytes that another parser reads back (RFC 3461, 3464, 6522, 6533)."""

from __future__ import annotations

import email
import email.policy
import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relay.bounces.dsn import MAX_HEADER, MAX_RETURNED, Report, compose
from relay.bounces.mime import Words
from relay.bounces.notify import Notifier
from relay.bounces.own_mail import SOURCE
from relay.bounces.words import WIDTH, Templates, local_time
from relay.config.institutions import Language
from relay.config.settings import Config
from relay.mail import headers
from relay.mail.address import Address, parse_address
from relay.mail.status import Reply
from relay.maillog import MailLog
from relay.outgoing.assemble import Assembler
from relay.outgoing.keys import public_record
from relay.outgoing.private_key import pem
from relay.outgoing.sign import Signer
from relay.resources import templates_folder
from relay.spool.records import FINAL, Delivery, NewMessage, Outcome, State
from tests.accepted import accepted
from tests.report import Read

Make = Callable[..., Config]

LETTER = (
    b"From: Library <circ@lib.example>\r\nTo: anna@patron.example\r\nSubject: On the\r\n hold  shelf\r\n"
    b"Message-ID: <1.JavaMail.urm@app01.eu00>\r\n\r\n<p>Your book is here</p>\r\n"
)
HEADER = headers.section(LETTER)
SENDER = "alma@exlibrisgroup.example"
REFUSED = Outcome(
    State.FAILED,
    "mx.patron.example refused it: 550 5.1.1 no such mailbox",
    Reply(550, "5.1.1", "no such mailbox"),
    remote_host="mx.patron.example",
)
TAKEN = Outcome(State.DELIVERED, "taken", Reply(250, "2.0.0", "ok"), remote_host="mx.patron.example")
PRINTED = Outcome(State.DELIVERED, "CUPS completed job 17", evidence="spooler-confirmed")
KINDS = ("failed", "expired", "delayed", "delivered", "relayed")
LANGUAGES: tuple[str, ...] = get_args(Language)


def delivery(content: bytes = LETTER, *, sender: str | None = SENDER, ret: str = "", **fields: Any) -> Delivery:
    """A delivery of a letter, in the middle of its attempt."""
    message = replace(accepted(content, reverse_path=sender), ret=ret, envid=fields.pop("envid", ""))
    values: dict[str, Any] = {
        "recipient": "anna@patron.example",
        "route": "default",
        "destination": "default",
        "begun_at": time.time(),
        "expires_at": time.time() + 3600,
        **fields,
    }
    return Delivery(message, 0, state=State.ACTIVE, attempts=1, next_attempt_at=0.0, **values)


def institution(**settings: Any) -> list[dict[str, Any]]:
    """The tables of one institution."""
    return [{"name": "demo", "domains": ["lib.example"], "bounce_domain": "bounces.lib.example", **settings}]


def some(new: NewMessage | None) -> NewMessage:
    assert new is not None
    return new


# --- when, and to whom


@pytest.mark.parametrize(
    ("outcome", "notify", "route", "action"),
    [
        (REFUSED, "", "default", "failed"),
        (REFUSED, "FAILURE", "default", "failed"),
        (REFUSED, "SUCCESS,FAILURE,DELAY", "default", "failed"),
        (REFUSED, "NEVER", "default", None),
        (REFUSED, "SUCCESS,DELAY", "default", None),
        (REFUSED, "", "print:desk", "failed"),
        (replace(REFUSED, state=State.EXPIRED), "", "default", "failed"),
        (replace(REFUSED, state=State.EXPIRED), "DELAY", "default", None),
        (TAKEN, "", "default", None),
        (TAKEN, "FAILURE,DELAY", "default", None),
        (TAKEN, "SUCCESS", "default", "relayed"),
        (replace(TAKEN, dsn_passed_on=True), "SUCCESS", "default", None),
        (PRINTED, "SUCCESS", "print:desk", "delivered"),
        (PRINTED, "", "print:desk", None),
        (PRINTED, "NEVER", "print:desk", None),
        (Outcome(State.DELIVERED, "discarded by a rule"), "SUCCESS", "discard", None),
        *((Outcome(state), "SUCCESS,FAILURE,DELAY", "default", None) for state in set(State) - FINAL),
        (Outcome(State.CANCELLED), "SUCCESS,FAILURE,DELAY", "default", None),
    ],
)
def test_how_a_delivery_ended_and_what_was_asked_decide(
    make_config: Make, outcome: Outcome, notify: str, route: str, action: str | None
) -> None:
    new = Notifier(make_config()).about(delivery(notify=notify, route=route), outcome, LETTER)
    assert (Read(new.content).fields["action"] if new else None) == action


@pytest.mark.parametrize(
    ("notify", "told"), [("", True), ("DELAY", True), ("FAILURE", False), ("SUCCESS,FAILURE", False), ("NEVER", False)]
)
def test_a_delay_is_told_unless_the_sender_does_not_want_it(make_config: Make, notify: str, told: bool) -> None:
    new = Notifier(make_config()).late(delivery(notify=notify), LETTER)
    assert (Read(new.content).fields["action"] if new else None) == ("delayed" if told else None)


def test_nobody_is_told_about_mail_with_the_null_reverse_path(make_config: Make) -> None:
    for dsn_to in ("sender", "postmaster@lib.example"):
        notifier = Notifier(make_config(institutions=institution(dsn_to=dsn_to)))
        assert notifier.about(delivery(sender=None), REFUSED, LETTER) is None
        assert notifier.late(delivery(sender=None), LETTER) is None


def test_a_dsn_that_fails_causes_no_other(make_config: Make) -> None:
    notifier = Notifier(make_config())
    dsn = some(notifier.about(delivery(), REFUSED, LETTER))
    way = dsn.deliveries[0]
    about_it = replace(
        delivery(), message=dsn.message, recipient=way.recipient, route=way.route, notify=way.notify, warn_at=None
    )
    assert notifier.about(about_it, REFUSED, dsn.content) is None
    assert notifier.about(replace(about_it, notify=""), REFUSED, dsn.content) is None


@pytest.mark.parametrize(
    ("dsn_to", "told"),
    [("sender", SENDER), ("nobody", None), ("postmaster@lib.example", "postmaster@lib.example")],
)
def test_the_institution_decides_who_is_told(make_config: Make, dsn_to: str, told: str | None) -> None:
    notifier = Notifier(make_config(institutions=institution(dsn_to=dsn_to)))
    for new in (notifier.about(delivery(), REFUSED, LETTER), notifier.late(delivery(), LETTER)):
        assert (new.deliveries[0].recipient if new else None) == told


def test_no_dsn_comes_onto_paper(make_config: Make) -> None:
    law = {"name": "law", "domains": ["law.example"], "bounce_domain": "b.law.example"}
    printers = [
        {"name": name, "institution": tenant, "mailboxes": [f"{name}@print.{tenant}.example"], "queue": name,
         "profile": "a4"} for name, tenant in (("desk", "demo"), ("court", "law"))
    ]  # fmt: skip
    rules = [{"name": "old-desk", "recipient": "old-desk@*", "print": "desk"}]
    config = make_config(institutions=[*institution(), law], printers=printers, rules=rules)
    notifier = Notifier(config)
    for sender in ("desk@print.demo.example", "Court@Print.Law.Example", "old-desk@lib.example"):
        assert notifier.about(delivery(sender=str(parse_address(sender))), REFUSED, LETTER) is None


def test_mail_of_an_institution_that_is_gone_ends_all_the_same(make_config: Make) -> None:
    late = replace(delivery(), message=replace(delivery().message, institution="gone"))
    assert Notifier(make_config()).about(late, REFUSED, LETTER) is None


# --- as a message of the spool


def test_it_is_a_message_like_any_other(make_config: Make) -> None:
    config = make_config(
        rules=[{"name": "alma", "recipient": "*@exlibrisgroup.example", "next_hop": "mx"}],
        next_hops=[{"name": "default", "host": "127.0.0.1"}, {"name": "mx", "retry": {"expire_after": "2d"}}],
    )
    before = time.time()
    new = some(Notifier(config).about(delivery(), REFUSED, LETTER))
    message, (way,) = new.message, new.deliveries
    assert message.reverse_path is None
    assert (message.institution, message.source, message.protocol) == ("demo", SOURCE, "")
    assert (message.size, message.sha256) == (len(new.content), hashlib.sha256(new.content).hexdigest())
    assert (message.smtputf8, message.eight_bit, message.ret, message.envid) == (False, False, "", "")
    assert message.message_id == headers.message_id(new.content) == f"<{message.queue_id}@relay.lib.example>"
    assert (way.recipient, way.route, way.destination) == (SENDER, "mx", "mx@exlibrisgroup.example")
    assert (way.notify, way.orcpt, way.warn_at) == ("NEVER", "", None)
    assert way.expires_at == pytest.approx(before + 2 * 86400, abs=10)
    assert headers.from_domains(headers.section(new.content)) == ["lib.example"]


def test_it_leaves_signed_with_the_null_reverse_path(make_config: Make, tmp_path: Path) -> None:
    private = rsa.generate_private_key(65537, 2048)
    (tmp_path / "key.pem").write_bytes(pem(private))
    key = {"domain": "lib.example", "selector": "s1", "key_file": str(tmp_path / "key.pem")}
    config = make_config(institutions=institution(dkim=[key], language="fr"))
    new = some(Notifier(config).about(delivery(), REFUSED, LETTER))
    way = new.deliveries[0]
    outgoing = replace(delivery(), message=new.message, recipient=way.recipient, notify=way.notify)
    mail = Assembler(config, Signer(config.institutions), MailLog()).assemble(outgoing, new.content)
    assert mail.reverse_path is None
    assert (mail.recipient, mail.notify, mail.ret, mail.envid) == (SENDER, "NEVER", "", "")
    assert mail.content.startswith(b"Received: by relay.lib.example (slip-relay) id " + new.message.queue_id.encode())
    record = public_record(private).encode()
    assert dkim.verify(mail.content, dnsfunc=lambda name, timeout=5: record)


def test_internationalised_addresses_are_asked_for_only_where_they_are(make_config: Make) -> None:
    domain = some(Notifier(make_config()).about(delivery(sender="alma@bücher.example"), REFUSED, LETTER))
    assert not domain.message.smtputf8
    assert domain.content.isascii()
    assert b"To: <alma@xn--bcher-kva.example>\r\n" in domain.content
    local = some(Notifier(make_config()).about(delivery(sender="größe@lib.example"), REFUSED, LETTER))
    assert (local.message.smtputf8, local.message.eight_bit) == (True, True)
    assert "To: <größe@lib.example>\r\n".encode() in local.content
    assert Read(local.content).fields["action"] == "failed"


# --- the bytes


def test_the_fields_of_a_failure(make_config: Make) -> None:
    late = delivery(envid="QQ+2B314", orcpt="rfc822;Anna+2BHold@patron.example")
    content = some(Notifier(make_config()).about(late, REFUSED, LETTER)).content
    read = Read(content)
    fields = read.fields
    date = fields.pop("last-attempt-date")
    assert email.utils.parsedate_to_datetime(date).timestamp() == pytest.approx(late.begun_at or 0, abs=1)
    date = fields.pop("arrival-date")
    assert email.utils.parsedate_to_datetime(date).timestamp() == pytest.approx(late.message.received_at, abs=1)
    assert fields == {
        "original-envelope-id": "QQ+314",
        "reporting-mta": "dns; relay.lib.example",
        "original-recipient": "rfc822; Anna+Hold@patron.example",
        "final-recipient": "rfc822; anna@patron.example",
        "action": "failed",
        "status": "5.1.1",
        "remote-mta": "dns; mx.patron.example",
        "diagnostic-code": "smtp; 550 5.1.1 no such mailbox",
        "final-log-id": late.message.queue_id,
    }
    assert read.message["From"] == "Mail delivery <MAILER-DAEMON@lib.example>"
    assert read.message["To"] == f"<{SENDER}>"
    assert read.message["Auto-Submitted"] == "auto-replied"
    assert read.message["In-Reply-To"] == read.message["References"] == "<1.JavaMail.urm@app01.eu00>"
    assert read.returned == ("text/rfc822-headers", HEADER)


def test_the_institution_decides_the_from_address(make_config: Make) -> None:
    notifier = Notifier(make_config(institutions=institution(dsn_from="mail@lib.example", language="de")))
    content = some(notifier.about(delivery(), REFUSED, LETTER)).content
    assert Read(content).message["From"] == "Mailzustellung <mail@lib.example>"


def test_a_judgement_of_our_own_is_not_put_into_a_host_s_mouth(make_config: Make) -> None:
    nowhere = Outcome(
        State.FAILED, "patron.example takes no mail", Reply(556, "5.1.10", "patron.example takes no mail")
    )
    read = Read(some(Notifier(make_config()).about(delivery(), nowhere, LETTER)).content)
    assert read.fields["diagnostic-code"] == "x-slip-relay; 556 5.1.10 patron.example takes no mail"
    assert "remote-mta" not in read.fields
    assert read.fields["status"] == "5.1.10"
    assert "Reason:\r\n\r\n patron.example takes no mail\r\n" in read.text


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (replace(REFUSED, reply=Reply(550, "", "no")), "5.0.0"),
        (replace(REFUSED, reply=Reply(550, "4.2.2", "no")), "5.0.0"),
        (replace(REFUSED, reply=None), "5.0.0"),
        (replace(REFUSED, state=State.EXPIRED, reply=Reply(450, "4.2.0", "busy")), "4.4.7"),
        (Outcome(State.EXPIRED, "not delivered in time"), "4.4.7"),
        (TAKEN, "2.0.0"),
    ],
)
def test_the_status_says_the_same_as_the_action(make_config: Make, outcome: Outcome, status: str) -> None:
    new = some(Notifier(make_config()).about(delivery(notify="SUCCESS,FAILURE"), outcome, LETTER))
    assert Read(new.content).fields["status"] == status


def test_a_delay_says_how_long_it_is_tried(make_config: Make) -> None:
    late = delivery()
    read = Read(some(Notifier(make_config()).late(late, LETTER)).content)
    assert (read.fields["action"], read.fields["status"]) == ("delayed", "4.0.0")
    until = email.utils.parsedate_to_datetime(read.fields["will-retry-until"]).timestamp()
    assert until == pytest.approx(late.expires_at or 0, abs=1)
    assert f"until {local_time(late.expires_at or 0)}" in " ".join(read.text.split())
    assert "diagnostic-code" not in read.fields
    put_off = Read(some(Notifier(make_config()).late(replace(late, reason="mx put it off: 450 busy"), LETTER)).content)
    assert put_off.fields["diagnostic-code"] == "x-slip-relay; mx put it off: 450 busy"
    assert "\r\n mx put it off: 450 busy\r\n" in put_off.text
    for_ever = Read(some(Notifier(make_config()).late(replace(late, expires_at=None), LETTER)).content)
    assert "will-retry-until" not in for_ever.fields
    assert "it will be tried again." in " ".join(for_ever.text.split())


UTF8_LETTER = "From: größe@lib.example\r\nSubject: Über\r\n\r\nhällo\r\n".encode()
LATIN1_LETTER = "From: a@lib.example\r\nSubject: Über\r\n\r\nhällo\r\n".encode("latin-1")
EIGHT_BIT = b"From: a@lib.example\r\n\r\nh\xe4llo\r\n"
LONG_LINE = b"From: a@lib.example\r\n\r\n" + b"x" * 999 + b"\r\n"
LARGE = b"From: a@lib.example\r\n\r\n" + b"x\r\n" * (MAX_RETURNED // 3)


@pytest.mark.parametrize(
    ("content", "kind", "returned"),
    [
        (LETTER, "message/rfc822", LETTER),
        (EIGHT_BIT, "message/rfc822", EIGHT_BIT),
        (UTF8_LETTER, "message/global", UTF8_LETTER),
        (LATIN1_LETTER, "text/rfc822-headers", headers.section(LATIN1_LETTER)),
        (LONG_LINE, "text/rfc822-headers", headers.section(LONG_LINE)),
        (LARGE, "text/rfc822-headers", headers.section(LARGE)),
        (b"From: a@lib.example", "message/rfc822", b"From: a@lib.example"),
    ],
    ids=["plain", "8-bit", "UTF-8", "Latin-1 header", "long line", "large", "no body"],
)
def test_ret_full_brings_back_all_where_that_is_possible(
    make_config: Make, content: bytes, kind: str, returned: bytes
) -> None:
    new = some(Notifier(make_config()).about(delivery(content, ret="FULL"), REFUSED, content))
    assert Read(new.content).returned == (kind, returned)
    assert new.message.eight_bit is not new.content.isascii()


@pytest.mark.parametrize("ret", ["", "HDRS"])
def test_else_the_header_section_comes_back(make_config: Make, ret: str) -> None:
    new = some(Notifier(make_config()).about(delivery(ret=ret), REFUSED, LETTER))
    assert Read(new.content).returned == ("text/rfc822-headers", HEADER)


def test_ret_full_is_for_failures_only(make_config: Make) -> None:
    notifier = Notifier(make_config())
    late = delivery(ret="FULL", notify="SUCCESS,DELAY")
    for new in (notifier.late(late, LETTER), notifier.about(late, TAKEN, LETTER)):
        assert Read(some(new).content).returned == ("text/rfc822-headers", HEADER)


def test_mail_whose_bytes_are_gone_is_told_of_too(make_config: Make) -> None:
    read = Read(some(Notifier(make_config()).about(delivery(ret="FULL"), REFUSED, b"")).content)
    assert len(read.parts) == 2
    assert "attached" not in read.text


def test_a_header_without_end_is_cut_off_between_lines(make_config: Make) -> None:
    content = b"From: a@lib.example\r\n" + b"X-Y: z\r\n" * 20_000 + b"\r\nbody\r\n"
    kind, returned = Read(some(Notifier(make_config()).about(delivery(), REFUSED, content)).content).returned
    assert kind == "text/rfc822-headers"
    assert len(returned) <= MAX_HEADER
    assert content.startswith(returned)
    assert returned.endswith(b"X-Y: z\r\n")


# --- nothing that was stored begins a line of its own

NASTY = st.text(
    st.sampled_from("ab @<>=?\\\"':;,.-_\r\n\t\0\x1b\x85\u2028\u202e\xa0é字\U0001f4a9") | st.characters(codec="utf-8"),
    max_size=120,
)
NASTY_BYTES = st.lists(
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b"\0", b"\xff", b"--=_", b"Subject: x", b"Message-ID: <a@b>", b" ", b".", b"=", b"\t"]
    )
    | st.binary(max_size=40)
    | st.just(b"x" * 1000),
    max_size=20,
).map(b"".join)
LOCAL = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S")) | st.just(" "), min_size=1, max_size=60
).map(lambda local: str(Address(local, "patron.example")))
FIELDS = {
    "original-envelope-id", "reporting-mta", "arrival-date", "original-recipient", "final-recipient", "action",
    "status", "remote-mta", "diagnostic-code", "last-attempt-date", "will-retry-until", "final-log-id",
}  # fmt: skip
ENVIRONMENT = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)


def check(content: bytes) -> Read:
    """What holds for every DSN: lines, the header's fields, and three parts at most."""
    assert b"\0" not in content
    assert content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n")
    assert all(len(line) <= 998 for line in content.split(b"\r\n"))
    read = Read(content)
    names = [name.lower() for name in read.message]
    assert set(names) <= {
        "from", "to", "subject", "date", "message-id", "in-reply-to", "references", "auto-submitted", "mime-version",
        "content-type", "content-transfer-encoding",
    }  # fmt: skip
    assert len(set(names)) == len(names)
    assert headers.from_domains(headers.section(content)) == ["lib.example"]
    assert 2 <= len(read.parts) <= 3
    assert re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", read.fields["status"])
    return read


@given(
    recipient=NASTY | LOCAL,
    reason=NASTY,
    reply=st.none() | st.builds(Reply, st.integers(200, 599), st.sampled_from(["", "5.1.1", "5.1\r\nX: y"]), NASTY),
    remote_host=NASTY,
    envid=NASTY,
    orcpt=NASTY,
    content=NASTY_BYTES,
    ret=st.sampled_from(["FULL", "HDRS"]),
    language=st.sampled_from(LANGUAGES),
    state=st.sampled_from([State.FAILED, State.EXPIRED, State.DELIVERED]),
)
@example(
    recipient='"\r\nBcc: x@y.example"@a.example', reason="x\r\n\r\n--=_", reply=Reply(550, "5.1.1", "a\r\nX-Evil: yes"),
    remote_host="host\r\nAction: delivered", envid="a+0D+0AX: y", orcpt="rfc822;a+0D+0AX: y", content=b"\r\n\r\n",
    ret="FULL", language="en", state=State.FAILED,
)  # fmt: skip
@ENVIRONMENT
def test_nothing_from_outside_begins_a_line_a_field_or_a_part(
    make_config: Make,
    recipient: str,
    reason: str,
    reply: Reply | None,
    remote_host: str,
    envid: str,
    orcpt: str,
    content: bytes,
    ret: str,
    language: str,
    state: State,
) -> None:
    notifier = Notifier(make_config(institutions=institution(language=language)))
    late = delivery(content, recipient=recipient, envid=envid, orcpt=orcpt, ret=ret, notify="SUCCESS,FAILURE,DELAY")
    outcome = Outcome(state, reason, reply, remote_host=remote_host)
    ended = {State.FAILED: "failed", State.EXPIRED: "failed", State.DELIVERED: "relayed"}[state]
    for action, new in (
        (ended, notifier.about(late, outcome, content)),
        ("delayed", notifier.late(late, content)),
    ):
        read = check(some(new).content)
        assert read.fields["action"] == action
        assert set(read.fields) <= FIELDS
        assert read.text.count("\r\n") == read.text.count("\n")
        assert all(line.isprintable() for line in read.text.split("\r\n"))


@given(header=NASTY_BYTES.map(lambda text: b"From: a@lib.example\r\nX: " + text.replace(b"\r\n", b"\r\nX: ") + b"\r\n"))
@example(header=b"From: a@lib.example\r\nX: trailing \t\r\nY: soft=\r\nZ: .\r\n.\r\n")
@ENVIRONMENT
def test_header_fields_come_back_byte_for_byte(make_config: Make, header: bytes) -> None:
    content = header + b"\r\nbody\r\n"
    new = some(Notifier(make_config()).about(delivery(content), REFUSED, content))
    assert check(new.content).returned[1] == headers.section(content)


@given(content=NASTY_BYTES)
@ENVIRONMENT
def test_what_is_returned_whole_is_whole(make_config: Make, content: bytes) -> None:
    new = some(Notifier(make_config()).about(delivery(content, ret="FULL"), REFUSED, content))
    read = check(new.content)
    if len(read.parts) == 3:
        kind, returned = read.returned
        assert returned == (content if kind in ("message/rfc822", "message/global") else headers.section(content))
    else:
        assert not headers.section(content)


@given(recipient=LOCAL)
@ENVIRONMENT
def test_every_recipient_can_be_read_back(make_config: Make, recipient: str) -> None:
    read = Read(some(Notifier(make_config()).about(delivery(recipient=recipient), REFUSED, LETTER)).content)
    kind, _, address = read.fields["final-recipient"].partition("; ")
    plain = re.sub(r"\\x\{([0-9A-F]+)\}", lambda match: chr(int(match[1], 16)), address) if kind == "utf-8" else address
    assert plain == " ".join(recipient.split())


def test_hostile_words_stay_in_their_field() -> None:
    words = Words('Eve" <eve@evil.example>, "', "Hi\r\nBcc: x@y.example", "\r\n--=_\r\n.\r\nfrom me\n")
    content = compose(
        Report("failed", "5.0.0", "relay.lib.example", "0" * 13, "a@b.example", time.time()),
        words,
        LETTER,
        sender=parse_address("mail@lib.example"),
        to=parse_address(SENDER),
        message_id="<1@relay.lib.example>",
        now=time.time(),
        whole=False,
    )
    read = check(content)
    parsed = email.message_from_bytes(content, policy=email.policy.default)["From"].addresses
    assert [(each.display_name, each.addr_spec) for each in parsed] == [(words.sender_name, "mail@lib.example")]
    assert read.message["Subject"] == "Hi Bcc: x@y.example"


# --- the words


def test_each_language_has_a_template_and_each_template_a_language() -> None:
    assert {path.name for path in (templates_folder() / "dsn").iterdir()} == {f"{each}.txt" for each in LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_language_has_words_for_everything(language: str, kind: str) -> None:
    values = {
        "sender": SENDER,
        "recipient": "anna@patron.example",
        "arrived": "2026-11-24 18:27 +01:00",
        "queue_id": "SGH0DZ6YNVV13",
        "hostname": "relay.lib.example",
    }
    options: list[dict[str, str | bool]] = [
        {"remote_host": "", "reply": "", "reason": "", "until": "", "attached": False},
        {"remote_host": "mx.x.example", "reply": "550 no", "reason": "", "until": "2026-11-29", "attached": True},
        {"remote_host": "", "reply": "", "reason": "nowhere to go", "until": "2026-11-29", "attached": True},
    ]
    for option in options:
        words = Templates([language]).fill(language, kind, **values, **option)
        for value in values.values():
            assert value in words.text
        assert words.subject
        assert words.sender_name
        assert "\n\n\n" not in words.text
        assert not words.text.startswith("\n")
        assert words.text.endswith(".\n")
        assert all(len(line) <= WIDTH for line in words.text.splitlines())
        for name, shown in (("reply", "550 no"), ("reason", "nowhere to go")):
            assert (f"\n {shown}\n" in words.text) is bool(option[name])
        assert ("2026-11-29" in words.text) is (bool(option["until"]) and kind == "delayed")


def test_no_two_languages_and_no_two_kinds_say_the_same() -> None:
    templates = Templates(LANGUAGES)
    values = dict.fromkeys(
        ("sender", "recipient", "arrived", "until", "queue_id", "hostname", "remote_host", "reply", "reason"), "x"
    )
    texts = [templates.fill(language, kind, **values, attached=True) for language in LANGUAGES for kind in KINDS]
    assert len({words.text for words in texts}) == len(LANGUAGES) * len(KINDS)
    assert len({words.subject for words in texts}) == len(LANGUAGES) * len(KINDS)


def test_times_are_told_with_their_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        for zone, shown in (("UTC+5", "2026-11-24 12:27 -05:00"), ("UTC-1", "2026-11-24 18:27 +01:00")):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert local_time(1795541279.0) == shown
    finally:
        monkeypatch.undo()
        time.tzset()
