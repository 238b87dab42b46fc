"""The bytes of DATA: read to the end, dots taken off, line ends made CRLF, once and for all.

End of data is CRLF.CRLF and nothing else; bare CR and bare LF become CRLF after that, so what looks like an end of data
to others (RFC 5321 4.1.1.4, "SMTP smuggling") becomes a stuffed dot on the way out.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

_END = b"\r\n.\r\n"
LARGE = 256 * 1024
"""Bytes from which on a message is finished off the event loop."""

_ANY_LINE_END = re.compile(rb"\r\n|\r|\n")


async def read_data(reader: asyncio.StreamReader, limit: int, alive: Callable[[], None]) -> bytes | None:
    """The message after 354, without its end mark and stuffed dots; None when it is larger than `limit` bytes.

    A message that is too large is read to its end all the same, but not kept. `alive` is called as bytes come in.
    Raises asyncio.IncompleteReadError when the client goes away.
    """
    # The CRLF of the command line before counts as the first of the mark: an empty message is the mark's second half.
    content = bytearray(b"\r\n")
    content += await reader.readexactly(3)
    if content == _END:
        return b""
    size, at_end = len(content), False
    while not at_end:
        block, at_end = await _block(reader, bytes(content[-4:]))
        alive()
        size += len(block)
        if size <= limit + len(_END) + 2:
            content += block
        else:
            content[:] = block[-4:] if len(block) >= 4 else (content + block)[-4:]
    if size > limit + len(_END) + 2:
        return None
    del content[:2], content[-3:]
    if size < LARGE:
        return _finished(content)
    return await asyncio.to_thread(_finished, content)


def _finished(content: bytearray) -> bytes:
    return normalised(unstuffed(bytes(content)))


async def _block(reader: asyncio.StreamReader, before: bytes) -> tuple[bytes, bool]:
    """The next bytes of a message and whether they end it. `before` are the four bytes before them."""
    for length in (4, 3, 2, 1):  # a mark may have begun in what was read already
        if before.endswith(_END[:length]):
            rest = _END[length:]
            start = b""
            while len(start) < len(rest) and rest.startswith(start):
                start += await reader.readexactly(1)
            return start, start == rest
    try:
        return await reader.readuntil(_END), True
    except asyncio.LimitOverrunError as error:
        await asyncio.sleep(0)  # a client that sends without a pause must not keep the others waiting
        return await reader.readexactly(error.consumed), False


def unstuffed(data: bytes) -> bytes:
    """Takes off the dot that the client put before each line that begins with one (RFC 5321 4.5.2)."""
    if data.startswith(b"."):
        data = data[1:]
    return data.replace(b"\r\n.", b"\r\n")


def normalised(data: bytes) -> bytes:
    """Every line end made CRLF. A message that has only those is returned as it is."""
    if data.count(b"\r") == data.count(b"\n") == data.count(b"\r\n"):
        return data
    return _ANY_LINE_END.sub(b"\r\n", data)
