"""Mail transactions with a next hop, word for word: several commands at once (RFC 2920), and hosts with odd manners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from relay.cli.dkim import pem
from relay.config.settings import Config
from relay.outgoing import sign
from relay.spool.records import State
from relay.transports.letter import LARGE
from tests.harness.waiting import until
from tests.harness.way_out import LETTER, Letters

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


def at(port: int, make_config: Callable[..., Config], **settings: object) -> Letters:
    hop = {"name": "default", "host": "127.0.0.1", "port": port, "timeout": "5s", **settings}
    return Letters(make_config(next_hops=[hop]))


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
