"""What has no place in a message and comes all the same: bare CR, bare LF, NUL, lines that are too long.

One treatment, here and nowhere else, of the content that is past its end mark and its dots. Either (`normalise`) each
line end becomes CRLF, NUL is left out (RFC 5322 4: obsolete, to be understood and not to be sent) and a long line stays
as it is; or (`refuse`) the first of them is named, for the client to be told. What a message lacks at its end, as one
of BDAT may, is added in both: it ends with CRLF.
"""

from __future__ import annotations

import re

LONGEST = 998
"""Octets of a line without its CRLF (RFC 5322 2.1.1)."""

_ANY = re.compile(rb"\r\n|\r|\n")


class LineEnds:
    """The treatment of one message, block by block; it gives the same however the message is cut into blocks."""

    def __init__(self, *, refuse: bool) -> None:
        self._refuse = refuse
        self._held = b""  # a CR at the end of a block: the LF may be in the next one
        self._line = 0  # octets of the line that has not ended
        self.fault = ""
        "What is wrong with the message, where such are refused."

    def feed(self, block: bytes) -> bytes:
        """The content of a block."""
        data = self._held + block if self._held else block
        if b"\0" in data:
            data = data.replace(b"\0", b"")
            self._find("has a NUL")
        self._held = data[-1:] if data.endswith(b"\r") else b""
        if self._held:
            data = data[:-1]
        if not data.count(b"\r") == data.count(b"\n") == data.count(b"\r\n"):
            data = _ANY.sub(b"\r\n", data)
            self._find("has a CR or LF that is not part of a CRLF")
        if self._refuse:
            self._measure(data)
        elif data:
            self._line = not data.endswith(b"\n")
        return data

    def end(self) -> bytes:
        """What comes after the last block."""
        if self._held:
            self._find("has a CR or LF that is not part of a CRLF")
        return b"\r\n" if self._held or self._line else b""

    def _measure(self, data: bytes) -> None:
        lengths = [len(line) for line in data.split(b"\r\n")]
        lengths[0] += self._line
        self._line = lengths[-1]
        if max(lengths) > LONGEST:
            self._find(f"has a line of more than {LONGEST} octets")

    def _find(self, fault: str) -> None:
        if self._refuse and not self.fault:
            self.fault = fault
