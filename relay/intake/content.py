"""The bytes of a message on the wire: where they end, what is stuffing, and what becomes of those that have no place.

End of data is CRLF.CRLF and nothing else (RFC 5321 4.1.1.4). Only then, and only here, irregular bytes are seen to, so
that what looks like an end of data to others ("SMTP smuggling") is a line of the message, and gets its dot on the way
out. All of it works on blocks as they arrive, and gives the same however they were cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from relay.errors import Goodbye
from relay.intake.staging import ContentSink
from relay.mail import status

BLOCK = 64 * 1024
"""Bytes that are taken from the connection at a time."""

_END = b"\r\n.\r\n"


class DotStuffing:
    """What DATA says, block by block: content without the dots that the client put before its own (RFC 5321 4.5.2)."""

    def __init__(self) -> None:
        # The end of the command line before counts: an empty message is the mark's second half.
        self._held = b"\r\n"
        self._at_start = True
        self.rest: bytes | None = None
        "What came after the end mark, commands that is; None until it was there."

    def feed(self, block: bytes) -> bytes:
        """The content that is certain now. What may be the beginning of the end mark is held back."""
        stream = self._held + block if self._held else block
        end = stream.find(_END)
        if end >= 0:
            self._held, self.rest = b"", stream[end + len(_END) :]
            stream = stream[: end + 2]
        else:
            self._held = next((_END[:length] for length in (4, 3, 2, 1) if stream.endswith(_END[:length])), b"")
            stream = stream[: -len(self._held)] if self._held else stream
        if self._at_start and stream:
            self._at_start = False
            return stream.replace(b"\r\n.", b"\r\n")[2:]
        return stream.replace(b"\r\n.", b"\r\n")


class Pace:
    """How fast a client has to be within a message: slower ones hold up a place for nothing."""

    def __init__(self, slowest: float, clock: Callable[[], float], window: float = 30.0) -> None:
        """`slowest` is in bytes per second, over any `window` of seconds; 0 for none."""
        self._slowest = slowest
        self._clock = clock
        self._window = window
        self._since, self._came = clock(), 0

    def came(self, octets: int) -> None:
        """So many bytes came in. Raises Goodbye when they were too few for the time they took."""
        self._came += octets
        now = self._clock()
        if now - self._since < self._window:
            return
        if self._came < self._slowest * (now - self._since):
            raise Goodbye(status.TOO_SLOW)
        self._since, self._came = now, 0


async def read_data(reader: asyncio.StreamReader, sink: ContentSink, pace: Pace, alive: Callable[[], None]) -> None:
    """Reads what follows 354, to its end mark, into the sink; what comes after it stays in the reader.

    `alive` is called as bytes come in. A message that the sink refuses is read to its end all the same. Raises Goodbye
    when the session has to end (too slow, or far more than is allowed), asyncio.IncompleteReadError when the client
    went away.
    """
    data = DotStuffing()
    while data.rest is None:
        block = await _some(reader, BLOCK)
        alive()
        pace.came(len(block))
        content = data.feed(block)
        if data.rest:
            _put_back(reader, data.rest)
        await sink.take(content)


async def read_chunk(
    reader: asyncio.StreamReader, octets: int, sink: ContentSink, pace: Pace, alive: Callable[[], None]
) -> None:
    """Reads the octets of one BDAT command (RFC 3030) into the sink; otherwise as `read_data`."""
    while octets:
        block = await _some(reader, min(octets, BLOCK))
        alive()
        pace.came(len(block))
        octets -= len(block)
        await sink.take(block)


async def _some(reader: asyncio.StreamReader, most: int) -> bytes:
    block = await reader.read(most)
    if not block:
        raise asyncio.IncompleteReadError(b"", None)
    return block


def _put_back(reader: Any, rest: bytes) -> None:
    """What was read too far is next to be read. asyncio's reader has no word for it; its buffer is a bytearray."""
    reader._buffer[:0] = rest
