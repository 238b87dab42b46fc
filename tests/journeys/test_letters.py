"""Letters: through the policy, into the spool, out to the next hop, signed."""

from __future__ import annotations

import asyncio
import json
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.mail.address import parse_address
from relay.mail.verp import read_verp
from tests.harness import samples
from tests.harness.appliance import Refused, command
from tests.harness.institution import USER
from tests.harness.playground import Playground
from tests.harness.waiting import until
from tests.journeys.story import Story, body, queue_id

pytestmark = pytest.mark.asyncio(loop_scope="session")

SENDER = "alma@exlibrisgroup.example"


def dialogue(port: int, *commands: str, source: str = "127.0.0.1") -> list[str]:
    """Speaks SMTP word for word and gives the reply to each command."""

    def line_of(file: Any) -> str:
        while (line := file.readline().decode().rstrip())[3:4] == "-":
            pass
        return str(line)

    with socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0)) as connection:
        file = connection.makefile("rwb")
        line_of(file)
        replies = []
        for command in commands:
            file.write(command.encode() + b"\r\n")
            file.flush()
            replies.append(line_of(file))
        return replies


async def said(story: Story, *commands: str, source: str = "127.0.0.1", port: int | None = None) -> list[str]:
    return await asyncio.to_thread(dialogue, port or story.appliance.port, *commands, source=source)


async def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(Refused) as refusal:
        await call()
    return str(refusal.value)


async def test_a_letter_leaves_signed_under_the_institutions_envelope(story: Story) -> None:
    letter = samples.patron_letter(recipient="anna@patron.example")
    number = await story.submit(letter, "anna@patron.example")
    line = (await story.settled(number))[0]
    taken = story.taken_for("anna@patron.example")[-1]
    key = story.playground.institution.secret.read_text().strip().encode()
    assert read_verp(key, parse_address(taken.mail_from)) == (number, 0)
    assert taken.mail_from.endswith("@bounces.lib.example")
    assert taken.tls
    assert taken.helo == "relay.lib.example"
    assert body(taken.content) == body(letter)
    assert taken.content.endswith(letter), "a field of ours stands on top, and nothing below it changed"
    assert taken.content.startswith(b"Received: from app02.eu07.example ([127.0.0.1])\r\n\tby relay.lib.example")
    assert f"with ESMTP id {number};".encode() in taken.content
    assert await story.verdict(taken)
    assert (line.state, line.attempts, line.route) == ("delivered", 1, "default")


async def test_a_fixed_mailbox_as_envelope(story: Story) -> None:
    letter = samples.patron_letter(recipient="lex@patron.example", sender="law@law.example")
    await story.settled(await story.submit(letter, "lex@patron.example"))
    taken = story.taken_for("lex@patron.example")[-1]
    assert taken.mail_from == "alma-bounces@law.example"
    assert b"DKIM-Signature" not in taken.content, "this institution has no key"


async def test_the_null_reverse_path_stays_null(story: Story) -> None:
    letter = samples.patron_letter(recipient="desk@lib.example")
    await story.settled(await story.submit(letter, "desk@lib.example", sender=""))
    assert story.taken_for("desk@lib.example")[-1].mail_from == ""


async def test_each_recipient_is_a_delivery_with_an_envelope_of_its_own(story: Story) -> None:
    recipients = ["one@patron.example", "two@patron.example", "permfail-three@patron.example"]
    number = await story.submit(samples.patron_letter(recipient=recipients[0]), *recipients)
    await until(
        lambda: sorted(line.state for line in story.deliveries(number)) == ["delivered", "delivered", "failed"],
        "three deliveries",
    )
    envelopes = {taken.mail_from for each in recipients for taken in story.taken_for(each)}
    assert len(envelopes) == 2


async def test_connections_to_the_next_hop_are_used_again(story: Story) -> None:
    await story.settled(await story.submit(samples.patron_letter(recipient="r0@patron.example"), "r0@patron.example"))
    before = story.next_hop.connections
    for i in range(1, 4):
        mailbox = f"r{i}@patron.example"
        await story.settled(await story.submit(samples.patron_letter(recipient=mailbox), mailbox))
    assert story.next_hop.connections == before


async def test_a_session_that_the_next_hop_ended_costs_no_attempt(story: Story) -> None:
    await story.settled(await story.submit(samples.patron_letter(recipient="s0@patron.example"), "s0@patron.example"))
    story.next_hop.drop_connections()
    lines = await story.settled(
        await story.submit(samples.patron_letter(recipient="s1@patron.example"), "s1@patron.example")
    )
    assert lines[0].attempts == 1


async def test_submission_with_auth(story: Story) -> None:
    port, password = story.playground.ports.submission, story.playground.institution.password
    letter = samples.patron_letter(recipient="sub@patron.example")
    reply = await story.appliance.submit(letter, SENDER, ["sub@patron.example"], port=port, login=(USER, password))
    await story.settled(queue_id(reply))
    assert b"with ESMTPSA id " in story.taken_for("sub@patron.example")[-1].content


async def test_submission_refuses_whoever_does_not_log_in(story: Story) -> None:
    port = story.playground.ports.submission
    replies = await said(story, "EHLO x.example", f"MAIL FROM:<{SENDER}>", "AUTH PLAIN AGEAYg==", port=port)
    assert replies[1].startswith("530 5.7.0 ")
    assert replies[2].startswith("538 5.7.11 ")
    with pytest.raises(smtplib.SMTPAuthenticationError) as error:
        await story.appliance.submit(b"", SENDER, ["a@b.example"], port=port, login=(USER, "wrong"))
    assert error.value.smtp_code == 535


async def test_a_stranger_relays_nothing_and_prints_nothing(story: Story) -> None:
    for recipient in ("a@patron.example", story.mailbox("laser"), "circ@lib.example"):
        replies = await said(
            story, "EHLO x.example", f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{recipient}>", "DATA", source="127.0.0.2"
        )
        assert replies[2].startswith("550 5.7.1 ")
        assert replies[3].startswith("503 5.5.1 ")


async def test_a_recipient_that_is_neither_a_printer_nor_allowed(story: Story) -> None:
    replies = await said(
        story,
        "EHLO x.example",
        f"MAIL FROM:<{SENDER}>",
        "RCPT TO:<a@patron.example>",
        f"RCPT TO:<{story.mailbox('laser')}>",
        source="127.0.0.3",
    )
    assert replies[2] == "550 5.7.1 not a printer here, and relaying to this recipient is not allowed"
    assert replies[3].startswith("250 2.1.5 ")


async def test_a_from_domain_of_somebody_else_is_refused(story: Story) -> None:
    letter = samples.patron_letter(recipient="a@patron.example", sender="ceo@bank.example")
    reply = await refused(lambda: story.submit(letter, "a@patron.example"))
    assert reply == "550 5.7.1 the From domain bank.example may not be used from here"


async def test_a_message_over_the_size_limit(story: Story) -> None:
    replies = await said(story, "EHLO x.example", f"MAIL FROM:<{SENDER}> SIZE=1000001")
    assert replies[1].startswith("552 5.3.4 ")
    letter = samples.patron_letter(recipient="a@patron.example") + b"x" * 70 + b"\r\n"
    letter += (b"y" * 70 + b"\r\n") * 15_000
    assert (await refused(lambda: story.submit(letter, "a@patron.example"))).startswith("552 5.3.4 ")


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("MAIL FROM:<a b@x.example>", "501 5.1.7"),
        ("MAIL FROM:<>", "250 2.1.0"),
        ("MAIL FROM:<a@x.example> SIZE=nine", "501 5.5.4"),
        ("MAIL FROM:<a@x.example> FOO=bar", "555 5.5.4"),
        ("MAIL FROM:<größe@x.example>", "553 5.6.7"),
        ("MAIL FROM:<größe@x.example> SMTPUTF8", "250 2.1.0"),
        ("RCPT TO:<a@x.example>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("FROB", "500 5.5.2"),
        ("EXPN list", "502 5.5.1"),
        ("VRFY a@x.example", "252"),
        ("NOOP", "250 2.0.0"),
        ("RSET", "250 2.0.0"),
        ("HELP", "214 2.0.0"),
        ("X" * 3000, "500 5.5.2"),
        ("QUIT", "221 2.0.0"),
    ],
)
async def test_replies_carry_their_enhanced_status(story: Story, command: str, reply: str) -> None:
    assert (await said(story, "EHLO x.example", command))[1].startswith(reply)


async def give_up(story: Story, number: str) -> None:
    """Ends what is tried again and again: it would meet what a later test has in store for a letter of its own."""

    async def has_ended() -> bool:
        process = await asyncio.create_subprocess_exec(
            *(*command(), "queue", "cancel", "-c", str(story.playground.institution.config), number),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await process.wait()  # while an attempt runs it is refused
        return all(line.state in ("cancelled", "failed") for line in story.deliveries(number))

    await until(has_ended, f"{number} to be cancelled", seconds=90)


async def test_a_refused_recipient_fails_and_a_busy_one_is_tried_again(story: Story) -> None:
    letter = samples.patron_letter(recipient="permfail1@patron.example")
    number = await story.submit(letter, "permfail1@patron.example", "tempfail1@patron.example")

    def state_of(recipient: str) -> tuple[str, int, str]:
        line = next(line for line in story.deliveries(number) if line.recipient == recipient)
        return line.state, line.attempts, line.reason

    await until(lambda: state_of("permfail1@patron.example")[0] == "failed", "the refusal to be final")

    def tried_twice() -> bool:
        state, attempts, _ = state_of("tempfail1@patron.example")
        return state == "deferred" and attempts >= 2  # while an attempt runs there is no reason to read

    await until(tried_twice, "a second attempt")
    assert state_of("permfail1@patron.example")[1:] == (1, "127.0.0.1 refused it: 550 5.1.1 no such mailbox")
    await until(lambda: "450 4.2.0" in state_of("tempfail1@patron.example")[2], "the reply of the next hop", seconds=5)
    await give_up(story, number)


async def test_waits_between_attempts_grow(story: Story) -> None:
    number = await story.submit(samples.patron_letter(recipient="tempfail2@patron.example"), "tempfail2@patron.example")
    waits: dict[int, float] = {}

    def third_wait() -> bool:
        line = story.deliveries(number)[0]
        if line.state == "deferred":
            waits.setdefault(line.attempts, line.next_attempt_at)
        return len(waits) >= 3

    await until(third_wait, "three attempts", seconds=20)
    times = [waits[attempt] for attempt in sorted(waits)]
    assert times[2] - times[1] > (times[1] - times[0]) * 1.2
    await give_up(story, number)


@pytest.mark.parametrize("stage", ["connect", "ehlo", "mail", "rcpt", "data", "body"])
async def test_a_connection_lost_at_any_stage_is_tried_again(story: Story, stage: Any) -> None:
    mailbox = f"lost-{stage}@patron.example"
    story.next_hop.drop_connections()  # so that this is a new session: the end of a kept one costs no attempt
    story.next_hop.drop_next(at=stage)
    line = (await story.settled(await story.submit(samples.patron_letter(recipient=mailbox), mailbox)))[0]
    assert line.attempts == 2
    assert len(story.taken_for(mailbox)) == 1


async def test_a_destination_that_hangs_delays_only_itself(story: Story) -> None:
    stuck = await story.submit(samples.patron_letter(recipient="hang@patron.example"), "hang@patron.example")
    number = await story.submit(samples.patron_letter(recipient="quick@patron.example"), "quick@patron.example")
    await story.settled(number, seconds=5)
    assert story.deliveries(stuck)[0].state == "active"
    await give_up(story, stuck)


async def test_rules_hold_and_drop(story: Story) -> None:
    letter = samples.patron_letter(recipient="held@patron.example")
    number = await story.submit(letter, "held@patron.example", "dropped@patron.example")
    await until(
        lambda: (
            {line.recipient: (line.state, line.reason) for line in story.deliveries(number)}
            == {
                "held@patron.example": ("held", "a person decides"),
                "dropped@patron.example": ("delivered", "discarded by a rule"),
            }
        ),
        "both rules",
    )


async def test_line_ends_are_mended_before_the_signature(story: Story) -> None:
    letter = samples.patron_letter(recipient="lf@patron.example").replace(b"</body>", b"bare\nline\n.\n</body>")

    def send() -> str:
        with smtplib.SMTP("127.0.0.1", story.appliance.port, local_hostname="x.example") as client:
            client.ehlo()
            client.mail(SENDER)
            client.rcpt("lf@patron.example")
            client.docmd("DATA")
            client.send(letter + b".\r\n")
            return client.getreply()[1].decode()

    await story.settled(queue_id(await asyncio.to_thread(send)))
    taken = story.taken_for("lf@patron.example")[-1]
    assert b"bare\r\nline\r\n.\r\n</body>" in taken.content
    assert await story.verdict(taken)


async def test_the_queue_shows_where_a_message_is(story: Story) -> None:
    letter = samples.patron_letter(recipient="permfail9@patron.example")
    number = await story.submit(letter, "permfail9@patron.example", story.mailbox("a5"))
    await until(
        lambda: sorted(line.state for line in story.deliveries(number)) == ["delivered", "failed"], "both deliveries"
    )

    async def show(*options: str) -> tuple[int, str]:
        config = str(story.playground.institution.config)
        process = await asyncio.create_subprocess_exec(
            *command(), "queue", "show", "-c", config, *options, stdout=asyncio.subprocess.PIPE, stderr=-2
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    code, text = await show(number.lower())
    assert code == 0
    assert "source alma, institution demo" in text
    assert "to <permfail9@patron.example> by default: failed" in text
    assert "failed  550 5.1.1 no such mailbox" in text
    assert f"slip-{number}-1-1" in text
    code, text = await show(number, "--json")
    shown = json.loads(text)
    assert [each["state"] for each in shown["deliveries"]] == ["failed", "delivered"]
    assert shown["deliveries"][0]["history"][0]["reply"] == "550 5.1.1 no such mailbox"
    code, text = await show("0000000000000")
    assert code == 1
    assert "there is no message 0000000000000 in the spool" in text


async def test_auth_and_starttls_have_their_place(story: Story) -> None:
    def talk() -> list[int]:
        with smtplib.SMTP("127.0.0.1", story.appliance.port, local_hostname="x.example") as client:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            client.starttls(context=context)
            client.ehlo()
            client.mail(SENDER)
            codes = [client.docmd("AUTH PLAIN AGEAYg==")[0], client.rset()[0], client.docmd("STARTTLS")[0]]
            return [*codes, client.docmd("AUTH LOGIN YWxtYQ==")[0], client.docmd("*")[0]]

    assert await asyncio.to_thread(talk) == [503, 250, 503, 334, 501]


async def test_internationalised_mail_needs_it_at_the_next_hop_only_where_it_is_used(story: Story) -> None:
    def send() -> str:
        with smtplib.SMTP("127.0.0.1", story.appliance.port, local_hostname="x.example") as client:
            client.ehlo()
            client.mail(SENDER, ["SMTPUTF8"])
            client.rcpt("ascii@patron.example")
            return client.data(samples.patron_letter(recipient="ascii@patron.example"))[1].decode()

    await story.settled(queue_id(await asyncio.to_thread(send)))
    assert b"with UTF8SMTP id" in story.taken_for("ascii@patron.example")[-1].content


class Hop:
    """A next hop of a few lines, for what a well-behaved server does not do."""

    def __init__(self, *, starttls: bool = False, wait: float = 0.0, rcpt: bytes = b"250 ok") -> None:
        self.starttls, self.wait, self.rcpt, self.taken = starttls, wait, rcpt, 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Gives its port."""
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            yield int(server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hop.example\r\n")
        while line := (await reader.readline()).upper():
            if line.startswith(b"EHLO"):
                writer.write(b"250-hop.example\r\n250 STARTTLS\r\n" if self.starttls else b"250 hop.example\r\n")
            elif line.startswith(b"STARTTLS"):
                writer.write(b"220 go ahead\r\nthis is no TLS\r\n")
            elif line.startswith(b"RCPT"):
                writer.write(self.rcpt + b"\r\n")
            elif line.startswith(b"DATA"):
                writer.write(b"354 go\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                self.taken += 1
                await asyncio.sleep(self.wait)
                writer.write(b"250 taken\r\n")
            else:
                writer.write(b"250 ok\r\n")
        writer.close()
        await writer.wait_closed()


def playground_to(folder: Path, port: int, **settings: Any) -> Playground:
    """A playground whose appliance has a next hop on that port."""
    return Playground(folder / "odd", extra={"next_hops": [{"name": "default", "port": port, **settings}]})


@pytest.mark.parametrize(
    ("hop", "settings"),
    [(Hop(starttls=True), {}), (Hop(wait=2.0), {"timeout": "1s"})],
    ids=["broken STARTTLS", "slow after the final dot"],
)
async def test_a_next_hop_with_manners_of_its_own_gets_a_letter_once(
    tmp_path: Path, hop: Hop, settings: dict[str, Any]
) -> None:
    async with hop.listening() as port, playground_to(tmp_path, port, **settings) as playground:
        own = Story(playground)
        letter = samples.patron_letter(recipient="a@patron.example")
        line = (await own.settled(await own.submit(letter, "a@patron.example")))[0]
    assert (line.attempts, hop.taken) == (1, 1)


async def test_a_reply_that_is_not_utf_8_ends_the_delivery_all_the_same(tmp_path: Path) -> None:
    hop = Hop(rcpt=b"550 Empf\xe4nger unbekannt")
    async with hop.listening() as port, playground_to(tmp_path, port) as playground:
        own = Story(playground)
        letter = samples.patron_letter(recipient="a@patron.example")
        line = (await own.settled(await own.submit(letter, "a@patron.example"), state="failed"))[0]
    assert line.reason == "127.0.0.1 refused it: 550 Empf?nger unbekannt"


async def test_a_disk_that_is_nearly_full_refuses_before_there_is_no_room(tmp_path: Path) -> None:
    async with Playground(tmp_path / "full", extra={"spool": {"min_free": "1EiB"}}) as playground:
        replies = await said(Story(playground), "EHLO x.example", f"MAIL FROM:<{SENDER}>")
    assert replies[1] == "452 4.3.1 the spool can't take the message now; try again later"
