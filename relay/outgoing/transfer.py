"""Bodies of 8-bit text or long lines in encodings without them (RFC 2045 6): quoted-printable, base64; block by block.

What a reader gets back is the same octets. Line ends are CRLF here; intake has seen to that.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import Literal

LONGEST_LINE = 998
"""Octets of a line without its CRLF (RFC 5322 2.1.1). Hosts break longer ones, and with them what signed them."""

_BLOCK = 64 * 1024
_LINE = 57
"""Octets of a line of base64, 76 characters."""
_HIGH = bytes(range(0x80, 0x100))
_TOO_LONG = re.compile(rb"^([^\r\n]{74})(=(?:20|09)\r)$", re.MULTILINE)
"""A line of 77 characters, which the library makes where a space at its end is encoded; 76 are allowed."""
_UNQUOTED = re.compile(rb"=?[\x80-\xff]")
_HIGH_OCTET = re.compile(rb"[\x80-\xff]")

Encoding = Literal["quoted-printable", "base64"]


def blocks(content: bytes, start: int, end: int) -> Iterator[bytes]:
    """A part of a content in small pieces, of which none but the last is shorter."""
    for position in range(start, end, _BLOCK):
        yield content[position : min(position + _BLOCK, end)]


def is_seven_bit(content: bytes, start: int, end: int) -> bool:
    """Whether a part of a content is ASCII."""
    return all(block.isascii() for block in blocks(content, start, end))


def has_long_line(content: bytes, start: int, end: int) -> bool:
    """Whether a line of a part of a content has more than `LONGEST_LINE` octets."""
    while end - start > LONGEST_LINE:
        line_end = content.rfind(b"\n", start, min(start + LONGEST_LINE + 2, end))
        if line_end < 0:
            return True
        start = line_end + 1
    return False


def fitting(content: bytes, start: int, end: int) -> Encoding:
    """The encoding that makes a text shorter: quoted-printable has three octets for one, base64 four for three."""
    high = sum(len(block) - len(block.translate(None, _HIGH)) for block in blocks(content, start, end))
    return "quoted-printable" if high * 6 <= end - start else "base64"


def quoted_printable(content: bytes, start: int, end: int) -> Iterator[bytes]:
    """A text in quoted-printable; it ends with a line end where the text does."""
    while start < end:
        stop = min(start + _BLOCK, end)
        if stop < end:
            stop = content.rfind(b"\r\n", start, stop) + 2
            stop = stop if stop > start + 1 else start + _BLOCK
        block = content[start:stop]
        text = binascii.b2a_qp(block)
        if b"=20\r" in text or b"=09\r" in text:
            text = _TOO_LONG.sub(rb"\1=\r\n\2", text)
        # Without a line end in what it is given it writes bare LF.
        yield text if b"\r\n" in block else text.replace(b"=\n", b"=\r\n")
        if stop < end and not block.endswith(b"\r\n"):
            yield b"=\r\n"  # a line longer than a block
        start = stop


def base64_lines(content: bytes, start: int, end: int) -> Iterator[bytes]:
    """Octets in base64, lines of 76 characters; the last one has no line end."""
    for position in range(start, end, _LINE):
        if position > start:
            yield b"\r\n"
        yield binascii.b2a_base64(content[position : min(position + _LINE, end)], newline=False)


def quoted_anew(content: bytes, start: int, end: int) -> Iterator[bytes]:
    """What is quoted-printable with long lines, with short ones."""
    text = binascii.a2b_qp(content[start:end])
    return quoted_printable(text, 0, len(text))


def lined_anew(content: bytes, start: int, end: int) -> Iterator[bytes]:
    """What is base64 with long lines, in lines of 76 characters; it ends with a line end where it did."""
    text = content[start:end].translate(None, b" \t\r\n" + _HIGH)
    for position in range(0, len(text), 76):
        if position:
            yield b"\r\n"
        yield text[position : position + 76]
    if content.endswith(b"\r\n", start, end):
        yield b"\r\n"


def escaped(block: bytes) -> bytes:
    """What should have been quoted-printable and was not: 8-bit octets are encoded, all else is as it was."""
    # An = before one stood for itself: it would take half of the code.
    return _UNQUOTED.sub(lambda match: b"=3D" * (len(match[0]) > 1) + b"=%02X" % match[0][-1], block)


def without_high(block: bytes) -> bytes:
    """A text without its 8-bit octets, which mean nothing in base64."""
    return block.translate(None, _HIGH)


def masked(block: bytes) -> bytes:
    """A text with question marks in the place of 8-bit octets."""
    return _HIGH_OCTET.sub(b"?", block)
