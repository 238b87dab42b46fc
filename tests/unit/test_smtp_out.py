"""Mail transactions with a next hop, word for word: several commands at once (RFC 2920), and hosts with odd manners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from relay.config.settings import Config
from relay.maillog import MailLog
from relay.outgoing import sign
from relay.outgoing.assemble import Assembler, OutgoingMail
from relay.outgoing.private_key import pem
from relay.outgoing.sign import Signer
from relay.spool.records import State
from relay.transports.letter import LARGE, Letter
from relay.transports.smtp import stuffed
from tests.harness.waiting import free_ports, until
from tests.harness.way_out import LETTER, Letters, delivery_of

pytestmark = pytest.mark.asyncio

AT_ONCE = b"250-hop.example\r\n250 PIPELINING\r\n"
ONE_BY_ONE = b"250 hop.example\r\n"


class Host:
    """Says what it is told to: `replies` by the first four letters of the command; the rest is answered with 250.

    A DATA that is answered with 354 is followed by a message. With `waits_for` it answers nothing until it has seen
    that command.
    """

    def __init__(
        self, ehlo: bytes, replies: Mapping[str, bytes] | None = None, *, waits_for: bytes = b"", piece: int = 10_000
    ) -> None:
        self.replies = {"EHLO": ehlo, "DATA": b"354 go on\r\n", **(replies or {})}
        self.waits_for, self.piece = waits_for, piece
        self.connections = self.open = 0
        self.taken: list[bytes] = []
        self.said: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Gives its port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for writer in self.writers:
                writer.transport.abort()
            await until(lambda: not self.open, "the end of the sessions")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.writers.append(writer)
        try:
            await self._converse(reader, writer)
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._say(writer, b"220 hop.example\r\n")
        kept_back = b""
        while line := await reader.readline():
            self.said.append(line)
            reply = self.replies.get(line[:4].decode(), b"250 ok\r\n")
            if reply == b"close":
                return
            kept_back += reply
            if line.startswith((b"EHLO", self.waits_for)):
                kept_back = await self._say(writer, kept_back)
            if line.startswith(b"DATA") and reply.startswith(b"354"):
                lines = [await reader.readline()]
                while lines[-1] not in (b".\r\n", b""):
                    lines.append(await reader.readline())
                if not lines[-1]:
                    return
                self.taken.append(b"".join(lines))
                await self._say(writer, self.replies.get("dot", b"250 2.0.0 taken\r\n"))

    async def _say(self, writer: asyncio.StreamWriter, text: bytes) -> bytes:
        for start in range(0, len(text), self.piece):
            writer.write(text[start : start + self.piece])
            await writer.drain()
            if self.piece < len(text):
                await asyncio.sleep(0)
        return b""


def at(port: int, make_config: Callable[..., Config], *, institutions: Any = None, **settings: object) -> Letters:
    hop = {"name": "default", "host": "127.0.0.1", "port": port, "timeout": "5s", **settings}
    return Letters(make_config(next_hops=[hop], **({"institutions": institutions} if institutions else {})))


async def test_what_is_wrongly_signed_is_held_and_the_next_letter_goes_out(
    make_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, key = Host(AT_ONCE), tmp_path / "key.pem"
    key.write_bytes(pem(rsa.generate_private_key(65537, 2048)))
    demo: dict[str, Any] = {"name": "demo", "domains": ["lib.example"], "envelope_from": "bounces@lib.example"}
    demo["dkim"] = [{"domain": "lib.example", "selector": "s1", "key_file": key}]
    async with host.listening() as port:
        hop = {"name": "default", "host": "127.0.0.1", "port": port, "timeout": "5s"}
        letters = Letters(make_config(next_hops=[hop], institutions=[demo]))
        unchecked = Letters(make_config(next_hops=[hop], institutions=[demo | {"dkim_self_check": 0}]))
        with monkeypatch.context() as patch:
            patch.setattr(sign, "body_hash", lambda body: b"of something else")
            for content in (LETTER, LETTER + b"large\r\n" * LARGE):
                outcome = await letters.send(content)
                assert (outcome.state, outcome.reason) == (
                    State.HELD,
                    "not sent: the DKIM signature of selector s1 has the hash of another body",
                )
            assert host.taken == []
            assert (await unchecked.send()).state is State.DELIVERED
        assert (await letters.send()).state is State.DELIVERED
    assert [message.count(b"DKIM-Signature:") for message in host.taken] == [1, 1]


async def test_commands_go_out_together_where_the_host_allows_it(make_config: Callable[..., Config]) -> None:
    host = Host(AT_ONCE, waits_for=b"DATA")
    async with host.listening() as port:
        letters = at(port, make_config)
        assert [(await letters.send()).state for _ in range(2)] == [State.DELIVERED] * 2
    assert host.connections == 1
    assert host.taken[0].endswith(b"\r\n\r\n..dot\r\nbody\r\n.\r\n")


async def test_commands_go_out_one_by_one_where_it_does_not(make_config: Callable[..., Config]) -> None:
    host = Host(ONE_BY_ONE, {"RCPT": b"550 5.1.1 unknown\r\n", "DATA": b"500 never to be said\r\n"})
    async with host.listening() as port:
        outcome = await at(port, make_config).send()
    assert (outcome.state, str(outcome.reply)) == (State.FAILED, "550 5.1.1 unknown")


@pytest.mark.parametrize("ehlo", [AT_ONCE, ONE_BY_ONE], ids=["at once", "one by one"])
@pytest.mark.parametrize("piece", [1, 7])
async def test_replies_may_come_in_pieces(make_config: Callable[..., Config], ehlo: bytes, piece: int) -> None:
    replies = {"RCPT": b"250-first\r\n250-second\r\n250 third\r\n", "dot": b"250-2.0.0 all\r\n250 well\r\n"}
    host = Host(ehlo, replies, piece=piece)
    async with host.listening() as port:
        outcome = await at(port, make_config).send()
    assert (outcome.state, str(outcome.reply)) == (State.DELIVERED, "250 2.0.0 all well")


@pytest.mark.parametrize(
    ("replies", "state", "reply", "taken"),
    [
        ({"RCPT": b"550 5.1.1 no\r\n", "DATA": b"554 5.5.1 nobody\r\n"}, State.FAILED, "550 5.1.1 no", []),
        ({"RCPT": b"450 4.2.1 wait\r\n", "DATA": b"503 5.5.1 no\r\n"}, State.DEFERRED, "450 4.2.1 wait", []),
        ({"RCPT": b"550 5.1.1 no\r\n"}, State.FAILED, "550 5.1.1 no", [b".\r\n"]),
        ({"RCPT": b"550 5.1.1 no\r\n", "dot": b"554 5.5.1 nobody\r\n"}, State.FAILED, "550 5.1.1 no", [b".\r\n"]),
        (
            {"MAIL": b"451 4.3.0 not now\r\n", "RCPT": b"503 5.5.1 no\r\n", "DATA": b"503 5.5.1 no\r\n"},
            State.DEFERRED,
            "451 4.3.0 not now",
            [],
        ),
        ({"DATA": b"452 4.3.1 full\r\n"}, State.DEFERRED, "452 4.3.1 full", []),
    ],
    ids=["recipient", "recipient for now", "DATA all the same", "then not", "sender", "DATA"],
)
async def test_a_refusal_among_commands_said_together_is_the_answer(
    make_config: Callable[..., Config], replies: dict[str, bytes], state: State, reply: str, taken: list[bytes]
) -> None:
    host = Host(AT_ONCE, replies)
    async with host.listening() as port:
        letters = at(port, make_config)
        outcome = await letters.send()
        assert (outcome.state, str(outcome.reply), host.taken) == (state, reply, taken)
        for command in replies:
            host.replies.pop(command)
        host.replies["DATA"] = b"354 go on\r\n"
        assert (await letters.send()).state is State.DELIVERED
    assert host.connections == 1, "the session is still good"


async def test_a_host_that_wants_a_message_without_a_sender_gets_none(make_config: Callable[..., Config]) -> None:
    host = Host(AT_ONCE, {"MAIL": b"550 5.7.1 not you\r\n"})
    async with host.listening() as port:
        outcome = await at(port, make_config).send()
        assert (outcome.state, str(outcome.reply)) == (State.FAILED, "550 5.7.1 not you")
    assert host.taken == []


@pytest.mark.parametrize("ehlo", [AT_ONCE, ONE_BY_ONE], ids=["at once", "one by one"])
@pytest.mark.parametrize("farewell", [b"421 4.4.2 you said nothing\r\n", b"250 what nobody asked for\r\n"])
async def test_a_kept_session_that_speaks_unasked_is_not_used_again(
    make_config: Callable[..., Config], ehlo: bytes, farewell: bytes
) -> None:
    host = Host(ehlo)
    async with host.listening() as port:
        letters = at(port, make_config)
        await letters.send()
        host.writers[0].write(farewell)
        await until(lambda: not host.open, "the end of the session")
        outcome = await letters.send()
    assert (outcome.state, len(host.taken)) == (State.DELIVERED, 2)


@pytest.mark.parametrize("ehlo", [AT_ONCE, ONE_BY_ONE], ids=["at once", "one by one"])
@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("reply", [b"close", b"no reply at all\r\n", b"250-" + 40_000 * b"x" + b"\r\n", b"25"])
async def test_a_session_that_breaks_before_the_message_defers_it(
    make_config: Callable[..., Config], ehlo: bytes, command: str, reply: bytes
) -> None:
    host = Host(ehlo, {command: reply})
    async with host.listening() as port:
        outcome = await at(port, make_config, timeout="0.3s").send()
    assert (outcome.state, outcome.reply, outcome.trouble) == (State.DEFERRED, None, "lost")
    assert outcome.reason.startswith("the connection to 127.0.0.1 was lost: ")
    assert host.taken == []


async def test_a_host_that_stops_reading_a_large_message_is_given_up(make_config: Callable[..., Config]) -> None:
    over, ended = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hop.example\r\n")
        while line := await reader.readline():
            writer.write({b"EHLO": ONE_BY_ONE, b"DATA": b"354 go on\r\n"}.get(line[:4], b"250 ok\r\n"))
            if line.startswith(b"DATA"):
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                await over.wait()
                break
        writer.transport.abort()
        ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        letters = at(port, make_config, data_timeout="0.5s")
        outcome = await letters.send(LETTER + b"x" * 20_000_000 + b"\r\n")
        assert (outcome.state, outcome.trouble) == (State.DEFERRED, "lost")
        assert "was not taken within 0.5 s" in outcome.reason
        over.set()
        await ended.wait()
        await asyncio.sleep(0)  # the loop's turn in which an aborted transport closes


# --- hosts that take less than others

EIGHT_BIT = "From: Gr\xf6\xdfe <circ@lib.example>\r\nSubject: due\r\n\r\n\xfcber\r\n".encode()
"""A letter with UTF-8 in header and body."""
BODY_ONLY = LETTER + "\xfcber\r\n".encode()
SEVEN_BIT, WITH_8BITMIME = b"250 hop.example\r\n", b"250-hop.example\r\n250 8BITMIME\r\n"
WITH_SMTPUTF8 = b"250-hop.example\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"


@pytest.mark.parametrize(
    ("ehlo", "content", "smtputf8", "is_converted"),
    [
        (SEVEN_BIT, LETTER, False, False),
        (SEVEN_BIT, LETTER, True, False),
        (SEVEN_BIT, BODY_ONLY, False, True),
        (SEVEN_BIT, EIGHT_BIT, False, True),
        (SEVEN_BIT, EIGHT_BIT, True, True),
        (WITH_8BITMIME, BODY_ONLY, False, False),
        (WITH_8BITMIME, BODY_ONLY, True, False),
        (WITH_8BITMIME, EIGHT_BIT, False, False),
        (WITH_8BITMIME, EIGHT_BIT, True, True),
        (WITH_SMTPUTF8, EIGHT_BIT, True, False),
    ],
)
async def test_a_host_gets_what_it_takes(
    make_config: Callable[..., Config], ehlo: bytes, content: bytes, *, smtputf8: bool, is_converted: bool
) -> None:
    host = Host(ehlo)
    async with host.listening() as port:
        outcome = await at(port, make_config).send(content, smtputf8=smtputf8)
    assert outcome.state is State.DELIVERED
    assert outcome.reason.endswith(", converted") is is_converted
    (taken,) = host.taken
    assert taken.endswith(stuffed(content)) is not is_converted
    if ehlo == SEVEN_BIT:
        assert taken.isascii()
    body = message_from_bytes(taken.removesuffix(b".\r\n")).get_payload(decode=True)
    assert isinstance(body, bytes)
    assert body.replace(b"\r\n..", b"\r\n.").lstrip(b".") == content.partition(b"\r\n\r\n")[2].lstrip(b".")


@pytest.mark.parametrize(
    ("ehlo", "content", "recipient", "settings", "reply"),
    [
        (
            WITH_8BITMIME, LETTER, "gr\xf6\xdfe@patron.example", {},
            "554 5.6.7 an address of its envelope is not ASCII, and the next hop has no SMTPUTF8",
        ),
        (
            SEVEN_BIT, b"Subject: \xe9\r\n" + LETTER, "", {}, "554 5.6.9 its field subject is neither ASCII nor UTF-8",
        ),
        (
            SEVEN_BIT, BODY_ONLY, "", {"convert": "never"},
            '554 5.6.3 the next hop takes it only when it is converted, and demo has convert = "never"',
        ),
        (
            SEVEN_BIT, b"DKIM-Signature: v=1; d=lib.example; h=from; b=x\r\n" + BODY_ONLY, "", {"convert": "unsigned"},
            "554 5.6.3 the next hop takes it only when it is converted, which breaks a signature that it brought",
        ),
    ],
)  # fmt: skip
async def test_what_a_host_does_not_take_in_any_form_fails(
    make_config: Callable[..., Config],
    ehlo: bytes,
    content: bytes,
    recipient: str,
    settings: dict[str, str],
    reply: str,
) -> None:
    host = Host(ehlo)
    demo = {"name": "demo", "domains": ["lib.example"], "envelope_from": "bounces@lib.example", **settings}
    async with host.listening() as port:
        letters = at(port, make_config, institutions=[demo])
        outcome = await letters.send(content, recipient=recipient or "reader@patron.example", smtputf8=True)
        assert (outcome.state, str(outcome.reply)) == (State.FAILED, reply)
        assert host.taken == []
        assert (await letters.send()).state is State.DELIVERED
    assert host.connections == 1, "the session is still good"


async def test_a_dsn_of_ours_is_converted_whatever_letters_are(make_config: Callable[..., Config]) -> None:
    demo = {"name": "demo", "domains": ["lib.example"], "envelope_from": "bounces@lib.example", "convert": "never"}
    config = make_config(institutions=[demo])
    delivery = delivery_of(BODY_ONLY)
    dsn = replace(delivery, message=replace(delivery.message, protocol="", reverse_path=None))
    mail = Assembler(config, Signer(config.institutions), MailLog()).assemble(dsn, BODY_ONLY, frozenset())
    assert mail.content.isascii()


@pytest.mark.parametrize(
    ("convert", "content", "is_converted"),
    [
        ("as-needed", BODY_ONLY, False),
        ("always", BODY_ONLY, True),
        ("always", LETTER, False),
        ("always", b"Subject: gr\xf6\xdfe\r\n" + LETTER, False),
        ("as-needed", LETTER + b"x" * 999 + b"\r\n", True),
        ("as-needed", LETTER + b"x" * 998 + b"\r\n", False),
        ("never", LETTER + b"x" * 999 + b"\r\n", False),
        ("unsigned", b"DKIM-Signature: v=1; h=from; b=x\r\n" + LETTER + b"x" * 999 + b"\r\n", False),
    ],
)
async def test_what_a_host_would_take_is_converted_where_that_is_better(
    make_config: Callable[..., Config], convert: str, content: bytes, *, is_converted: bool
) -> None:
    host = Host(WITH_SMTPUTF8)
    demo = {"name": "demo", "domains": ["lib.example"], "envelope_from": "bounces@lib.example", "convert": convert}
    async with host.listening() as port:
        outcome = await at(port, make_config, institutions=[demo]).send(content)
    assert outcome.reason.endswith(", converted") is is_converted
    assert host.taken[0].endswith(stuffed(content)) is not is_converted


@pytest.mark.parametrize(
    ("second", "state", "reason"),
    [
        (WITH_SMTPUTF8, State.DELIVERED, "taken by 127.0.0.1"),
        (SEVEN_BIT, State.FAILED, "127.0.0.1 can't be sent it: its field message-id is not ASCII"),
        (None, State.DEFERRED, "127.0.0.1 can't be sent it: its field message-id is not ASCII"),
    ],
    ids=["takes more", "takes no more", "away"],
)
async def test_where_one_host_can_not_have_it_another_may(
    make_config: Callable[..., Config], second: bytes | None, state: State, reason: str
) -> None:
    content = "Message-ID: <\xf6@lib.example>\r\n".encode() + LETTER
    hosts = Host(SEVEN_BIT), Host(second or b"")
    async with hosts[0].listening() as first, hosts[1].listening() as port:
        named = [f"127.0.0.1:{first}", f"127.0.0.1:{port if second else free_ports(1)}"]
        outcome = await at(first, make_config, host=None, hosts=named).send(content, smtputf8=True)
    assert outcome.state is state
    assert outcome.reason.startswith(reason)
    assert [len(host.taken) for host in hosts] == [0, int(second == WITH_SMTPUTF8)]


async def test_an_address_in_a_domain_beyond_ascii_needs_no_smtputf8(make_config: Callable[..., Config]) -> None:
    host = Host(SEVEN_BIT)
    async with host.listening() as port:
        outcome = await at(port, make_config).send(recipient="reader@b\xfccherei.example", smtputf8=True)
    assert outcome.state is State.DELIVERED
    assert b"RCPT TO:<reader@xn--bcherei-n2a.example>\r\n" in host.said


async def test_a_letter_is_made_ready_once_for_all_hosts_that_take_it(make_config: Callable[..., Config]) -> None:
    class Counting(Assembler):
        made = 0

        def assemble(self, *args: Any) -> OutgoingMail:
            self.made += 1
            return super().assemble(*args)

    config = make_config()
    assembler = Counting(config, Signer(config.institutions), MailLog())
    letter = Letter(assembler, delivery_of(BODY_ONLY), BODY_ONLY)
    everything, less = frozenset({"8bitmime", "smtputf8"}), frozenset({"size"})
    as_it_is = await letter.ready_for(everything)
    assert await letter.ready_for(frozenset({"8bitmime"})) is as_it_is
    converted = await letter.ready_for(less)
    assert (as_it_is.is_converted, converted.is_converted) == (False, True)
    assert await letter.ready_for(everything) is converted
    assert assembler.made == 2
