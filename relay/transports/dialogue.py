"""Our side of the mail transactions of one session with a next hop: commands out, replies in (RFC 5321 4.2, RFC 2920).

aiosmtplib opens the session, with its greeting, TLS and AUTH; then its transport is taken over here, for it says one
command at a time and waits a turn of the event loop for each part of a reply.
Promises: replies come in the order of the commands. One that nobody waits for, or that is no reply, ends the session:
so none is ever taken for the answer to something else.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Iterable

from relay.mail.status import Reply

LONGEST = 32 * 1024
"""Octets of one reply; RFC 5321 4.5.3.1.5 allows 512 a line."""

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)


class Lost(Exception):
    """The session ended, or fell silent, before the reply."""


class Dialogue(asyncio.Protocol):
    """A session in which EHLO was answered. `offers` are the extensions of the host, in small letters."""

    def __init__(self, transport: asyncio.Transport, offers: frozenset[str]) -> None:
        self.offers = offers
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._lines: list[bytes] = []
        self._expected = 0
        self._replies: deque[Reply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._lost = "the connection was closed" if transport.is_closing() else ""
        transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """Whether the next command can be said."""
        return not self._lost and not self._transport.is_closing()

    def say(self, *commands: bytes) -> None:
        """Sends commands, each with its CRLF, or a message with its end mark: each has a reply. Raises Lost."""
        if not self.is_open:
            raise Lost(self._lost or "the connection was closed")
        self._expected += len(commands)
        self._transport.write(b"".join(commands))

    async def send(self, blocks: Iterable[bytes]) -> None:
        """Sends a message with its end mark in blocks, no faster than the host takes them. Raises Lost."""
        self._expected += 1
        for block in blocks:
            await self._room.wait()
            if not self.is_open:
                raise Lost(self._lost or "the connection was closed")
            self._transport.write(block)

    async def reply(self, timeout: float) -> Reply:
        """The next reply. Raises Lost when the session ends before it, or nothing came for `timeout` seconds."""
        if not self._replies:
            if self._lost:
                raise Lost(self._lost)
            self._waiter = self._loop.create_future()
            timer = self._loop.call_later(timeout, self.close, f"no answer for {timeout:g} s")
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
            if not self._replies:
                raise Lost(self._lost)
        return self._replies.popleft()

    def close(self, why: str = "the session was ended") -> None:
        """Ends the session without another word."""
        self._end(why)
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # a host that takes nothing any more would keep the connection open for good
        else:
            self._transport.close()

    # --- what the transport says

    def data_received(self, data: bytes) -> None:
        """Takes replies apart; whoever waits is woken once, for all of them."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not self._take(line.rstrip()):
                return
        if len(self._rest) + sum(map(len, self._lines)) > LONGEST:
            self.close("a reply did not end")
        elif self._replies:
            self._wake()

    def eof_received(self) -> bool:
        """The host says no more; the transport closes itself."""
        self._end("the host closed the connection")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._end(str(error) if error else "the host closed the connection")

    def pause_writing(self) -> None:
        """The host takes its time."""
        self._room.clear()

    def resume_writing(self) -> None:
        """The host took what was sent."""
        self._room.set()

    def _take(self, line: bytes) -> bool:
        """One line of a reply; False when the session is over because of it."""
        match = _LINE.fullmatch(line)
        if match is None:
            self.close(f"no reply: {line[:80].decode('ascii', 'replace')}")
            return False
        self._lines.append(match[3] or b"")
        if match[2] == b"-":
            return True
        reply = Reply.parse(int(match[1]), b"\n".join(self._lines).decode("utf-8", "surrogateescape"))
        self._lines.clear()
        if not self._expected:
            self.close(f"the host ended the session: {reply}")
            return False
        self._expected -= 1
        self._replies.append(reply)
        return True

    def _end(self, why: str) -> None:
        self._lost = self._lost or why
        self._room.set()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
