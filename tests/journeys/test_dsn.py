"""DSNs end to end: what a sender asks for is honoured or passed on, and who is told what of how it ended."""

from __future__ import annotations

import asyncio
import smtplib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing

import pytest
import pytest_asyncio

from relay.mail import headers
from tests.harness import samples
from tests.harness.next_hop import NextHop, Taken
from tests.harness.playground import Playground
from tests.harness.waiting import LOCALHOST, free_ports, until
from tests.journeys.story import Story, queue_id
from tests.journeys.test_letters import said
from tests.report import Read

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Scene(Story):
    """A playground with a second next hop, which takes DSN; one way to it gives up early."""

    def __init__(self, playground: Playground, modern: NextHop) -> None:
        super().__init__(playground)
        self.modern = modern

    async def send(
        self, message: bytes, recipient: str, *, sender: str, mail: Sequence[str] = (), rcpt: Sequence[str] = ()
    ) -> str:
        """Hands a message in, with parameters of MAIL and RCPT, and gives its queue id."""

        def talk() -> str:
            with smtplib.SMTP(LOCALHOST, self.appliance.port, local_hostname="app02.eu07.example") as client:
                client.ehlo()
                assert client.has_extn("dsn")
                assert client.mail(sender, mail)[0] == 250
                assert client.rcpt(recipient, rcpt)[0] == 250
                return client.data(message)[1].decode()

        return queue_id(await asyncio.to_thread(talk))

    def dsns_about(self, number: str) -> list[str]:
        """Queue ids of the DSNs about a message, in their order, as the spool has them: they come with its state."""
        spool = f"file:{self.playground.institution.spool}?mode=ro"
        with closing(sqlite3.connect(spool, uri=True)) as connection:
            query = "SELECT queue_id FROM messages WHERE about LIKE ? ORDER BY queue_id"
            return [row[0] for row in connection.execute(query, (f"{number}/%",))]

    async def dsn_to(self, mailbox: str, count: int = 1) -> Taken:
        """The last of the DSNs that came to a mailbox, once there are so many; there are no more."""
        await until(lambda: len(self.taken_for(mailbox)) >= count, f"{count} DSNs to {mailbox}", seconds=40)
        taken = self.taken_for(mailbox)
        assert len(taken) == count
        assert taken[-1].mail_from == ""
        return taken[-1]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    port = free_ports(1)
    hop = {"host": LOCALHOST, "port": port, "tls": "none"}
    soon = {"first": "0.5s", "longest": "2s", "warn_after": "1s", "expire_after": "20s"}
    extra = {
        "institutions": [{
            "name": "law",
            "domains": ["law.example"],
            "envelope_from": "alma-bounces@law.example",
            "dsn_to": "it@law.example",
            "dsn_from": "post@law.example",
            "language": "de",
        }],
        "sources": [{"name": "law", "institutions": ["law"], "networks": [f"{LOCALHOST}/32"]}],
        "next_hops": [{"name": "modern", **hop}, {"name": "late", **hop, "retry": soon}],
        "rules": [
            {"name": "modern", "recipient": "*@modern.example", "next_hop": "modern"},
            {"name": "late", "recipient": "*@late.example", "next_hop": "late"},
        ],
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("dsn")
    async with (
        NextHop(port, folder / "modern", dsn=True) as modern,
        Playground(folder / "all", extra=extra) as playground,
    ):
        yield Scene(playground, modern)


async def test_a_refused_recipient_is_told_to_the_sender_signed(scene: Scene) -> None:
    letter = samples.patron_letter(recipient="permfail@patron.example")
    number = await scene.send(
        letter,
        "permfail@patron.example",
        sender="refused@exlibrisgroup.example",
        mail=["ENVID=QQ+2B314"],
        rcpt=["ORCPT=rfc822;Anna+2BHold@patron.example"],
    )
    taken = await scene.dsn_to("refused@exlibrisgroup.example")
    read = Read(taken.content)
    fields = read.fields
    assert {name: fields[name] for name in fields if not name.endswith("-date")} == {
        "original-envelope-id": "QQ+314",
        "reporting-mta": "dns; relay.lib.example",
        "original-recipient": "rfc822; Anna+Hold@patron.example",
        "final-recipient": "rfc822; permfail@patron.example",
        "action": "failed",
        "status": "5.1.1",
        "remote-mta": f"dns; {LOCALHOST}",
        "diagnostic-code": "smtp; 550 5.1.1 no such mailbox",
        "final-log-id": number,
    }
    assert read.message["From"] == "Mail delivery <MAILER-DAEMON@lib.example>"
    assert read.returned == ("text/rfc822-headers", headers.section(letter))
    assert await scene.verdict(taken)
    (dsn,) = scene.dsns_about(number)
    assert f"id {dsn};".encode() in taken.content.partition(b"\r\nFrom:")[0], "it is a message of the spool"
    assert scene.deliveries(number)[0].state == "failed"


async def test_ret_full_brings_the_letter_back(scene: Scene) -> None:
    letter = samples.patron_letter(recipient="permfail@patron.example")
    await scene.send(letter, "permfail@patron.example", sender="full@exlibrisgroup.example", mail=["RET=FULL"])
    assert Read((await scene.dsn_to("full@exlibrisgroup.example")).content).returned == ("message/rfc822", letter)


@pytest.mark.parametrize(
    ("sender", "notify"),
    [("never@exlibrisgroup.example", ["NOTIFY=NEVER"]), ("", []), ("s@exlibrisgroup.example", ["NOTIFY=SUCCESS"])],
    ids=["NEVER", "null reverse-path", "SUCCESS only"],
)
async def test_nobody_is_told_who_did_not_want_it_or_may_not_be(scene: Scene, sender: str, notify: list[str]) -> None:
    letter = samples.patron_letter(recipient="permfail@patron.example")
    number = await scene.send(letter, "permfail@patron.example", sender=sender, rcpt=notify)
    await scene.settled(number, state="failed")
    assert scene.dsns_about(number) == []


async def test_a_dsn_that_is_refused_causes_no_other(scene: Scene) -> None:
    letter = samples.patron_letter(recipient="permfail@patron.example")
    number = await scene.send(letter, "permfail@patron.example", sender="permfail-back@exlibrisgroup.example")
    await scene.settled(number, state="failed")
    (dsn,) = scene.dsns_about(number)
    await scene.settled(dsn, state="failed")
    assert scene.dsns_about(dsn) == []


async def test_what_was_asked_is_passed_on_byte_for_byte(scene: Scene) -> None:
    mail = ["RET=HDRS", "ENVID=a+2Bb+3Dc"]
    rcpt = ["NOTIFY=SUCCESS,DELAY", "ORCPT=Rfc822;Anna+2BHold@modern.example"]
    letter = samples.patron_letter(recipient="anna@modern.example")
    number = await scene.send(letter, "anna@modern.example", sender="asks@exlibrisgroup.example", mail=mail, rcpt=rcpt)
    await scene.settled(number)
    (taken,) = [each for each in scene.modern.taken if "anna@modern.example" in each.rcpt_to]
    assert taken.mail_parameters.split()[-2:] == mail
    assert taken.rcpt_parameters == (" ".join(rcpt),)
    assert scene.dsns_about(number) == [], "the next hop took over the promise"


async def test_nothing_is_asked_that_the_sender_did_not_ask(scene: Scene) -> None:
    letter = samples.patron_letter(recipient="bert@modern.example")
    await scene.settled(await scene.submit(letter, "bert@modern.example"))
    (taken,) = [each for each in scene.modern.taken if "bert@modern.example" in each.rcpt_to]
    assert "RET" not in taken.mail_parameters
    assert "ENVID" not in taken.mail_parameters
    assert taken.rcpt_parameters == ("",)


async def test_a_dsn_asks_for_none(scene: Scene) -> None:
    letter = samples.patron_letter(recipient="permfail@patron.example")
    number = await scene.send(letter, "permfail@patron.example", sender="back@modern.example", mail=["RET=FULL"])
    await scene.settled(number, state="failed")
    await scene.settled(*scene.dsns_about(number))
    (taken,) = [each for each in scene.modern.taken if "back@modern.example" in each.rcpt_to]
    assert (taken.mail_from, taken.rcpt_parameters) == ("", ("NOTIFY=NEVER",))
    assert "RET" not in taken.mail_parameters


async def test_success_is_told_as_relayed_where_the_next_hop_tells_nothing(scene: Scene) -> None:
    letter = samples.patron_letter(recipient="carl@patron.example")
    rcpt = ["NOTIFY=SUCCESS"]
    number = await scene.send(letter, "carl@patron.example", sender="relayed@exlibrisgroup.example", rcpt=rcpt)
    fields = Read((await scene.dsn_to("relayed@exlibrisgroup.example")).content).fields
    assert (fields["action"], fields["status"], fields["remote-mta"]) == ("relayed", "2.0.0", f"dns; {LOCALHOST}")
    assert scene.deliveries(number)[0].state == "delivered"
    assert scene.taken_for("carl@patron.example")[0].rcpt_parameters == ("",)


async def test_success_is_told_as_delivered_when_a_slip_is_printed(scene: Scene) -> None:
    mailbox = scene.mailbox("laser")
    number = await scene.send(
        samples.request_slip(recipient=mailbox), mailbox, sender="slip@exlibrisgroup.example", rcpt=["NOTIFY=SUCCESS"]
    )
    fields = Read((await scene.dsn_to("slip@exlibrisgroup.example")).content).fields
    assert (fields["action"], fields["final-recipient"]) == ("delivered", f"rfc822; {mailbox}")
    assert scene.deliveries(number)[0].state == "delivered"


async def test_a_delay_is_told_once_and_then_the_end_to_the_institution_in_its_language(scene: Scene) -> None:
    letter = samples.patron_letter(recipient="tempfail@late.example", sender="circ@law.example")
    number = await scene.submit(letter, "tempfail@late.example", sender="late@exlibrisgroup.example")
    warning = Read((await scene.dsn_to("it@law.example")).content)
    assert (warning.fields["action"], warning.fields["status"]) == ("delayed", "4.0.0")
    assert "will-retry-until" in warning.fields
    assert warning.fields["diagnostic-code"].startswith("x-slip-relay; ")
    assert "450 4.2.0 mailbox busy" in " ".join(warning.text.split())
    assert warning.message["From"] == "Mailzustellung <post@law.example>"
    assert "konnte noch nicht zugestellt werden" in " ".join(warning.text.split())
    assert scene.deliveries(number)[0].state in ("deferred", "active", "queued")
    await scene.settled(number, state="expired")
    end = Read((await scene.dsn_to("it@law.example", 2)).content)
    assert (end.fields["action"], end.fields["status"]) == ("failed", "4.4.7")
    assert "will-retry-until" not in end.fields
    assert "450 4.2.0 mailbox busy" in " ".join(end.text.split())
    assert "Es wird nicht weiter versucht" in " ".join(end.text.split())
    assert end.returned[1] == headers.section(letter)
    assert len(scene.dsns_about(number)) == 2
    assert scene.taken_for("late@exlibrisgroup.example") == []


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("MAIL FROM:<a@x.example> RET=ALL", "501 5.5.4 RET is FULL or HDRS"),
        ("MAIL FROM:<a@x.example> RET", "501 5.5.4 RET is FULL or HDRS"),
        ("MAIL FROM:<a@x.example> RET=FULL RET=FULL", "501 5.5.4"),
        ("MAIL FROM:<a@x.example> ENVID=a+0D+0Ab", "501 5.5.4 ENVID is not xtext"),
        ("MAIL FROM:<a@x.example> ENVID=" + "x" * 101, "501 5.5.4 ENVID has 1 to 100 characters"),
        ("MAIL FROM:<a@x.example> ret=full envid=1", "250 2.1.0"),
        ("RCPT TO:<a@patron.example> NOTIFY=NEVER,SUCCESS", "501 5.5.4 NOTIFY is NEVER, or a list"),
        ("RCPT TO:<a@patron.example> NOTIFY=", "501 5.5.4"),
        ("RCPT TO:<a@patron.example> ORCPT=a@patron.example", "501 5.5.4 ORCPT is the type of an address"),
        ("RCPT TO:<a@patron.example> ORCPT=rfc822;a+zz@patron.example", "501 5.5.4 the address in ORCPT"),
        ("RCPT TO:<a@patron.example> RET=FULL", "555 5.5.4 RET is not known here"),
        ("RCPT TO:<a@patron.example> notify=never orcpt=RFC822;a@b.example", "250 2.1.5"),
    ],
)
async def test_values_that_can_t_be_read_are_refused(scene: Scene, command: str, reply: str) -> None:
    before = ["MAIL FROM:<alma@exlibrisgroup.example>"] if command.startswith("RCPT") else []
    assert (await said(scene, "EHLO x.example", *before, command))[-1].startswith(reply)
