"""The reader of a session: lines of commands with a bound, and what the client has said ahead of its turn.

Promises: a line ends with CRLF and has no control character in it, or it is refused; a line that does not end costs no
more memory than a long one. Nothing that arrives after the session was ended is kept.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from relay.errors import Goodbye, Refusal
from relay.mail import status

LONGEST_LINE = 12288
"""Octets of any line: the most that an answer in AUTH may have (RFC 4954 4)."""

COMMAND_LIMIT = 2048
"""Octets of a command line: room for the longest path with its parameters (RFC 5321 4.5.3.1.4, RFC 3461 5.4)."""

_ORDINARY = re.compile(rb"[ -~]*\r\n")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Wire(asyncio.StreamReader):
    """aiosmtpd's reader, for a dialogue in which each side waits for its turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=LONGEST_LINE, loop=loop)

    @property
    def pending(self) -> int:
        """Octets that the client has sent and nobody has read."""
        return len(self._private._buffer)

    async def line(self, longest: int = COMMAND_LIMIT) -> str:
        """The next line without its CRLF (RFC 5321 2.3.8). Raises Refusal when it is none that can be read, Goodbye
        when it has no end, and asyncio.IncompleteReadError when the client is gone.
        """
        try:
            line = await self.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            raise Goodbye(status.LINE_WITHOUT_END) from None
        if len(line) > longest:
            raise Refusal(status.LINE_TOO_LONG)
        if _ORDINARY.fullmatch(line):
            return line[:-2].decode("ascii")
        if not line.endswith(b"\r\n"):
            raise Refusal(status.unreadable("a line ends with CR and LF"))
        try:
            text = line[:-2].decode("utf-8")
        except UnicodeDecodeError:
            raise Refusal(status.unreadable("a line is ASCII, or UTF-8 where SMTPUTF8 allows it")) from None
        if _CONTROL.search(text):
            raise Refusal(status.unreadable("a line has no control characters"))
        return text

    def discard(self) -> None:
        """Forgets what the client has said ahead."""
        self._private._buffer.clear()
        self._private._maybe_resume_transport()

    @property
    def _private(self) -> Any:
        # asyncio has no word for what lies in the buffer; aiosmtpd takes it from there as well.
        return self
