"""Header fields that are left out or rewritten; all others keep their bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from relay.config.institutions import Institution
from relay.config.settings import Config
from relay.mail import headers
from relay.mail.address import parse_address
from relay.maillog import MailLog
from relay.outgoing.assemble import Assembler
from relay.outgoing.fields import outgoing_fields
from relay.outgoing.keys import public_record
from relay.outgoing.private_key import pem
from relay.outgoing.sign import Signer
from relay.spool.records import Delivery, State
from tests.accepted import accepted

DEMO: dict[str, Any] = {"name": "demo", "domains": ["lib.example"], "envelope_from": "bounces@lib.example"}
REWRITE = {"header_from": "rewrite", "from_mailbox": "library@lib.example"}


def institution(**settings: Any) -> Institution:
    return Institution.model_validate(DEMO | settings)


def rewritten(header: bytes, **settings: Any) -> bytes:
    return outgoing_fields(header, institution(**REWRITE | settings)).header


@pytest.fixture(scope="module")
def private() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def make(make_config: Callable[..., Config], tmp_path: Path, private: rsa.RSAPrivateKey) -> Callable[..., Assembler]:
    """Makes an assembler for an institution with these settings, which signs."""

    def assembler(maillog: MailLog | None = None, **settings: Any) -> Assembler:
        (tmp_path / "key.pem").write_bytes(pem(private))
        key = {"domain": "lib.example", "selector": "s1", "key_file": tmp_path / "key.pem"}
        config = make_config(institutions=[DEMO | {"dkim": [key]} | settings])
        return Assembler(config, Signer(config.institutions), maillog or MailLog())

    return assembler


def to_deliver(content: bytes, **envelope: Any) -> Delivery:
    letter = replace(accepted(content), **envelope)
    return Delivery(letter, 0, "reader@patron.example", "default", "default", State.ACTIVE, 1, 0.0)


# --- what is left out


FIELD = b"From: circ@lib.example\r\nTO:\ta@b.example\r\nX-Odd :  x \r\n\tfolded \r\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Return-Path: <alma@exlibrisgroup.example>\r\n", b""),
        (b"RETURN-PATH\t:\r\n <alma@exlibrisgroup.example>\r\nReturn-Path: <>\r\n", b""),
        (b"Bcc: a@patron.example,\r\n b@patron.example\r\n", b""),
        (b"Resent-Bcc: a@patron.example\r\n", b""),
        (b"X-Return-Path: <a@b.example>\r\nSubject: bcc: Return-Path: x\r\n", None),
        (b"Subject: x\r\n Return-Path: a folded line\r\n", None),
        (b"DKIM-Signature: v=1; d=x.example; h=from:Return-Path; b=x\r\nReturn-Path: <a@b.example>\r\n", None),
    ],
)
@pytest.mark.parametrize("at_end", [True, False])
def test_nobody_sees_return_path_and_bcc_and_all_else_keeps_its_bytes(
    before: bytes, after: bytes | None, *, at_end: bool
) -> None:
    expected = before if after is None else after
    header, left = (FIELD + before, FIELD + expected) if at_end else (before + FIELD, expected + FIELD)
    assert outgoing_fields(header, institution()).header == left


def test_a_letter_without_such_fields_is_not_touched() -> None:
    fields = outgoing_fields(FIELD, institution())
    assert (fields.header, fields.changes) == (FIELD, ())


# --- From


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Alma <alma@vendor.example>", b"Alma via Library"),
        (b'"Doe, J." <alma@vendor.example>', b'"Doe, J." via Library'),
        (
            b"=?utf-8?q?J=C3=B6rg?=\r\n =?utf-8?q?_K?= <a@vendor.example>",
            b"=?utf-8?q?J=C3=B6rg?=\r\n =?utf-8?q?_K?= via Library",
        ),
        (b"alma.robot@vendor.example", b'"alma.robot" via Library'),
        (b"<alma@vendor.example>", b"alma via Library"),
        (b"alma@vendor.example (The Alma)", b"alma via Library"),
        (b"(a <b>) Alma (c) <alma@vendor.example>", b"alma via Library"),
        (b'"two words"@vendor.example', b"two words via Library"),
        (b"A <a@lib.example>, B <b@vendor.example>", b"A via Library"),
        ("Jörg <a@vendor.example>".encode(), "Jörg via Library".encode()),
    ],
)
def test_a_strange_from_becomes_the_institutions(old: bytes, new: bytes) -> None:
    header = b"Subject: x\r\nFrom:  " + old + b"\r\nTo: b@patron.example\r\n"
    made = rewritten(header)
    assert made == (
        b"Subject: x\r\nFrom: "
        + new
        + b"\r\n <library@lib.example>\r\nReply-To:  "
        + old
        + b"\r\nTo: b@patron.example\r\n"
    )
    assert headers.from_domains(made) == ["lib.example"]


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("{name} über Bibliothek", "Jörg K über Bibliothek"),
        ("Bücherei für {name}", "Bücherei für Jörg K"),
        ("University Library", "University Library"),
        ("Library (Main), {name}", "Library (Main), Jörg K"),
        ('"{name}" =?x?=', '" Jörg K " =?x?='),
    ],
)
def test_the_name_is_formed_as_configured(form: str, shown: str) -> None:
    made = rewritten(b"From: =?utf-8?q?J=C3=B6rg_K?= <a@vendor.example>\r\n", from_name=form)
    address = message_from_bytes(made + b"\r\n", policy=default)["From"].addresses[0]
    assert (" ".join(address.display_name.split()), address.addr_spec) == (shown, "library@lib.example")


def test_a_reply_to_stays_and_the_old_from_is_kept_beside_it() -> None:
    made = rewritten(b"Reply-To: desk@vendor.example\r\nFrom: A <a@vendor.example>\r\n")
    assert made == (
        b"Reply-To: desk@vendor.example\r\nFrom: A via Library\r\n <library@lib.example>\r\n"
        b"X-Original-From: A <a@vendor.example>\r\n"
    )


@pytest.mark.parametrize(
    ("sender", "is_kept"),
    [
        (b"Sender: circ@lib.example\r\n", True),
        (b"Sender: Desk <desk@branch.LIB.example>\r\n", True),
        (b"Sender: alma@vendor.example\r\n", False),
        (b"Sender: what is this\r\n", False),
    ],
)
def test_a_sender_is_kept_where_it_is_the_institutions(sender: bytes, *, is_kept: bool) -> None:
    made = rewritten(sender + b"From: a@vendor.example\r\n")
    assert made.startswith(sender) is is_kept
    assert (b"ender:" in made) is is_kept
    ours = sender + b"From: a@branch.lib.example\r\n"
    assert rewritten(ours) == ours, "From is not rewritten"


@pytest.mark.parametrize(
    "header",
    [
        b"From: a@lib.example\r\n",
        b"From: a@lib.example, b@branch.lib.example\r\n",
        b"From: a@vendor.example\r\nFrom: b@vendor.example\r\n",
        b"From: <a@vendor.example\r\n",
        b"Subject: no From\r\n",
        b"From: a@vendor.example\r\nno field\r\n",
    ],
)
def test_what_is_ours_or_nobody_can_read_is_not_rewritten(header: bytes) -> None:
    assert rewritten(header) == header


def test_a_hostile_from_takes_no_time() -> None:
    for name in (b"(" * 100_000 + b")" * 100_000, b'"' * 100_001, b" " * 200_000, b"a " * 100_000, b'"\\' * 100_000):
        made = rewritten(b"From: " + name + b" <a@vendor.example>\r\n")
        assert made.startswith(b"From:")


def test_a_rewritten_letter_is_signed_as_the_institutions(
    make: Callable[..., Assembler], private: rsa.RSAPrivateKey
) -> None:
    body = b".dot\r\n\xe4\xf6 trailing \t \r\n\r\n\r\nno line end"
    content = b"Bcc: x@patron.example\r\nFrom: A <a@vendor.example>\r\n.odd: field\r\nSubject: x\r\n\r\n" + body
    mail = make(**REWRITE).assemble(to_deliver(content), content)
    record = public_record(private).encode()
    assert dkim.verify(mail.content, dnsfunc=lambda name, timeout=5: record)
    header, sent = headers.split(mail.content)
    assert sent == body
    assert header.endswith(
        b"\r\nFrom: A via Library\r\n <library@lib.example>\r\nReply-To: A <a@vendor.example>\r\n"
        b".odd: field\r\nSubject: x\r\n"
    )
    assert mail.size == len(mail.content)
    assert mail.original is content, "the body is not copied"


@pytest.mark.parametrize(
    "content",
    [b"Bcc: x\r\nFrom: a@lib.example", b"Bcc: x\r\nFrom: a@lib.example\r\n", b"Bcc: x\r\nFrom: a@lib.example\r\n\r\n"],
)
def test_a_letter_without_a_body_stays_one(
    make: Callable[..., Assembler], private: rsa.RSAPrivateKey, content: bytes
) -> None:
    mail = make().assemble(to_deliver(content), content)
    assert dkim.verify(mail.content, dnsfunc=lambda name, timeout=5: public_record(private).encode())
    assert mail.size == len(mail.content)
    assert re.search(rb"\r\nFrom: a@lib.example(\r\n)*\Z", mail.content)
    assert b"Bcc" not in mail.content


# --- signatures that came along


BODY = b"body\r\n"
LETTER = (
    b"Return-Path: <alma@exlibrisgroup.example>\r\nBcc: x@patron.example\r\nSender: alma@exlibrisgroup.example\r\n"
    b"From: Circ <circ@lib.example>\r\nTo: reader@patron.example\r\nSubject: due\r\n"
)


def signed_by_ex_libris(private: rsa.RSAPrivateKey, header: bytes, names: list[bytes]) -> bytes:
    """The letter with a signature for the institution over these names, with dkimpy."""
    letter = header + b"\r\n" + BODY
    signer = dkim.DKIM(letter)
    signer.should_not_sign = set()  # dkimpy knows better than others do
    signature = signer.sign(
        b"alma", b"lib.example", pem(private), include_headers=names, canonicalize=(b"relaxed", b"simple")
    )
    return bytes(signature) + letter


def of_ex_libris(content: bytes) -> bytes:
    """A message as it leaves, with the lower signature alone."""
    header, body = headers.split(content)
    pieces = [piece for name, piece in headers.pieces(header)]
    own = next(i for i, piece in enumerate(pieces) if b"s=s1;" in piece)
    return b"".join(pieces[:own] + pieces[own + 1 :]) + b"\r\n" + body


@pytest.mark.parametrize(
    ("names", "settings", "left_out", "rules"),
    [
        ([b"from", b"to", b"subject"], {}, [b"Return-Path", b"Bcc"], ""),
        ([b"from", b"return-path"], {}, [b"Bcc"], ""),
        ([b"from", b"from", b"reply-to", b"sender"], REWRITE, [b"Return-Path", b"Bcc"], ""),
        ([b"from", b"message-id", b"auto-submitted"], {}, [b"Message-ID", b"Auto-Submitted"], ""),
        ([b"from", b"bcc"], {}, [b"Bcc"], "bcc"),
    ],
)
def test_a_signature_of_ex_libris_stays_good_or_the_log_says_why_not(
    make: Callable[..., Assembler],
    private: rsa.RSAPrivateKey,
    caplog: pytest.LogCaptureFixture,
    names: list[bytes],
    settings: dict[str, Any],
    left_out: list[bytes],
    rules: str,
) -> None:
    content = signed_by_ex_libris(private, LETTER, names)
    record = public_record(private).encode()
    assert dkim.verify(content, dnsfunc=lambda name, timeout=5: record), "it is good when it comes"
    maillog = MailLog()
    with caplog.at_level("INFO", "slip-relay"):
        mail = make(maillog, **settings).assemble(to_deliver(content), content)
    assert dkim.verify(mail.content, dnsfunc=lambda name, timeout=5: record), "ours"
    assert dkim.verify(of_ex_libris(mail.content), dnsfunc=lambda name, timeout=5: record) is not bool(rules)
    present = [name for name, _ in headers.fields(headers.section(mail.content))]
    assert not {name.decode().lower() for name in left_out} & set(present)
    lines = [line for line in caplog.messages if "signature-broken" in line]
    if not rules:
        assert lines == []
        return
    assert len(lines) == 1
    assert f"kind=dkim domain=lib.example selector=alma rules={rules}" in lines[0]
    assert f'signatures_broken_total{{institution="demo",rule="{rules}"}} 1.0' in maillog.metrics.text()


def test_a_from_that_is_rewritten_breaks_what_covers_it_and_the_log_says_so(
    make: Callable[..., Assembler], private: rsa.RSAPrivateKey, caplog: pytest.LogCaptureFixture
) -> None:
    content = signed_by_ex_libris(
        private, LETTER.replace(b"circ@lib.example", b"circ@vendor.example"), [b"from", b"bcc"]
    )
    with caplog.at_level("INFO", "slip-relay"):
        mail = make(**REWRITE).assemble(to_deliver(content), content)
    record = public_record(private).encode()
    assert dkim.verify(mail.content, dnsfunc=lambda name, timeout=5: record)
    assert not dkim.verify(of_ex_libris(mail.content), dnsfunc=lambda name, timeout=5: record)
    (line,) = [line for line in caplog.messages if "signature-broken" in line]
    assert line.endswith(" rules=bcc,header_from")
    assert b"Sender" not in mail.content


# --- the envelope


@pytest.mark.parametrize("sender", ["alma@exlibrisgroup.example", "größe@lib.example"])
def test_an_envelope_from_that_is_kept_is_the_senders(make: Callable[..., Assembler], sender: str) -> None:
    content = b"From: a@lib.example\r\n\r\n"
    kept = make(envelope_from="keep")
    mail = kept.assemble(to_deliver(content, reverse_path=sender), content)
    assert mail.reverse_path == parse_address(sender)
    assert mail.smtputf8 is not sender.isascii()
    assert kept.assemble(to_deliver(content, reverse_path=None), content).reverse_path is None


def test_a_next_hop_may_rewrite_otherwise_than_the_institution(make_config: Callable[..., Config]) -> None:
    rewriting = {"envelope_from": "desk@lib.example", "header_from": "rewrite", "convert": "always"}
    hops = [
        {"name": "default", "host": "smtp.lib.example"},
        {"name": "other", "host": "smtp.other.example", "rewriting": rewriting},
        {"name": "kept", "host": "smtp.kept.example", "rewriting": {"envelope_from": "keep"}},
    ]
    config = make_config(institutions=[DEMO | {"from_mailbox": "library@lib.example"}], next_hops=hops)
    assembler = Assembler(config, Signer(config.institutions), MailLog())
    content = "From: A <a@vendor.example>\r\n\r\nüber\r\n".encode()
    sender = "alma@exlibrisgroup.example"
    found = {}
    for route in ("default", "other", "kept"):
        delivery = replace(to_deliver(content, reverse_path=sender), route=route)
        mail = assembler.assemble(delivery, content)
        found[route] = (str(mail.reverse_path), headers.from_domains(headers.section(mail.content)), mail.is_converted)
    assert found == {
        "default": ("bounces@lib.example", ["vendor.example"], False),
        "other": ("desk@lib.example", ["lib.example"], True),
        "kept": (sender, ["vendor.example"], False),
    }
