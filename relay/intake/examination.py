"""What is looked at in each message as its bytes come by, once: line ends, size, header section, digest."""

from __future__ import annotations

import hashlib

from relay.config.settings import Intake
from relay.intake.line_ends import LineEnds
from relay.mail import headers, status
from relay.mail.status import Reply

MAX_HEADER = 256 * 1024
"""Octets of a header section; nobody's letter has more, and reading one costs time."""

MAX_FIELDS = 1000
"""Fields of a header section."""


class Examination:
    """Makes of what came in what is kept, block by block, and finds out whether it may be."""

    def __init__(self, settings: Intake) -> None:
        self._limit = int(settings.max_message_size)
        self._line_ends = LineEnds(refuse=settings.malformed == "refuse")
        self._digest = hashlib.sha256()
        self._beginning = b""  # the header section, while it has not ended
        self._header: bytes | None = None
        self.size = 0
        "Bytes of the message so far."
        self.fault: Reply | None = None
        "Why it is not taken."

    @property
    def header(self) -> bytes:
        """The header section, each line with its CRLF; known at the end at the latest."""
        return self._header or b""

    @property
    def sha256(self) -> str:
        """The digest so far, as 64 hexadecimal digits."""
        return self._digest.hexdigest()

    def look(self, block: bytes, *, last: bool) -> bytes:
        """The bytes to keep of a block, which is the last one or not; nothing once there is a fault."""
        if self.fault is not None:
            return b""
        content = self._line_ends.feed(block)
        if last:
            content += self._line_ends.end()
        self._digest.update(content)
        self.size += len(content)
        if self._line_ends.fault:
            self.fault = status.bad_content(f"the message {self._line_ends.fault}")
        elif self.size > self._limit:
            self.fault = status.too_big(self._limit)
        elif self._header is None:
            self._find_header(content, last=last)
        return content if self.fault is None else b""

    def _find_header(self, content: bytes, *, last: bool) -> None:
        beginning = self._beginning + content if self._beginning else content
        if last or beginning.startswith(b"\r\n") or b"\r\n\r\n" in beginning:
            self._header, self._beginning = headers.section(beginning), b""
            lines = self._header.count(b"\r\n")
            if lines > MAX_FIELDS and lines - self._header.count(b"\r\n ") - self._header.count(b"\r\n\t") > MAX_FIELDS:
                self.fault = status.bad_content(f"the header has more than {MAX_FIELDS} fields")
        else:
            self._beginning = beginning
        if max(len(self._header or b""), len(self._beginning)) > MAX_HEADER:
            self.fault = status.bad_content(f"the header is larger than {MAX_HEADER} bytes")
