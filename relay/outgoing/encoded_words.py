"""Text beyond ASCII in header fields as encoded words (RFC 2047), UTF-8, by Q or B, whichever is shorter."""

from __future__ import annotations

import base64
import re

LONGEST = 75
"""Characters of one encoded word (RFC 2047 2)."""

_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_AS_THEY_ARE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
"""Octets that stand for themselves by Q also in a phrase (RFC 2047 5 (3))."""

_START, _END = b"=?utf-8?", b"?="


def encoded_words(text: str, first: int = LONGEST) -> list[bytes]:
    """A text as encoded words, in which no character is cut in two; white space belongs between them, and is not shown.

    `first` is the room for the first one.
    """
    octets = text.encode("utf-8")
    by_q = sum(1 if octet in _AS_THEY_ARE or octet == 0x20 else 3 for octet in octets) <= -(-len(octets) // 3) * 4
    words, room = [], max(first, 30) - len(_START) - len(_END) - 2
    piece, length = b"", 0
    for character in text:
        one = character.encode("utf-8")
        more = len(_q(one)) if by_q else len(one)
        if piece and (length + more > room if by_q else -(-(length + more) // 3) * 4 > room):
            words.append(_word(piece, by_q=by_q))
            piece, length, room = b"", 0, LONGEST - len(_START) - len(_END) - 2
        piece += one
        length += more
    return [*words, _word(piece, by_q=by_q)]


def phrase(text: str) -> bytes:
    """A text as it stands before an address (RFC 5322 3.2.5): bare words, in quotes, or encoded."""
    if _ATOMS.fullmatch(text) and "=?" not in text:
        return text.encode("ascii")
    if text.isascii() and "=?" not in text:
        return b'"' + re.sub(r'(["\\])', r"\\\1", text).encode("ascii") + b'"'
    return b"\r\n ".join(encoded_words(text))


def _word(octets: bytes, *, by_q: bool) -> bytes:
    text = b"q?" + _q(octets) if by_q else b"b?" + base64.b64encode(octets)
    return _START + text + _END


def _q(octets: bytes) -> bytes:
    return b"".join(
        b"_" if octet == 0x20 else bytes([octet]) if octet in _AS_THEY_ARE else b"=%02X" % octet for octet in octets
    )
