"""Content transfer encodings, read as far as they can be.

Does: decodes base64, quoted-printable and uuencode (RFC 2045 6, POSIX uuencode), strictly first, then around what is
broken: missing padding, foreign characters, blocks that were cut off or put together, and bodies that were never
encoded though their header says so.
Promises: never fails; answers whether something was broken. Time and memory grow with the input, no faster.
"""

from __future__ import annotations

import binascii
import re

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_FOREIGN = bytes(set(range(256)) - set(_ALPHABET) - set(b"="))
_BLANKS = b" \t\r\n\x0b\x0c\xa0"
_PADDING = re.compile(rb"(?<![=\s])=[=\s]*")
_REST_OF_LINE = re.compile(rb"[^\n]*")
_BASE64_LINE = re.compile(rb"[A-Za-z0-9+/=]*\s*\Z")
_QP_CODE = re.compile(rb"=(?:[0-9A-Fa-f]{2}|[ \t]*\r?\n|[ \t]*\Z)")
_UU_BEGIN = re.compile(rb"^begin(?:-base64)? [0-7]{3,4} (.{1,255}?)[ \t]*\r?$", re.MULTILINE)
SAMPLE = 256 * 1024
NOT_ENCODED = 0.15
"""Share of characters that base64 does not have, from which on a body is taken as one that was never encoded."""


def decoded(content: bytes, encoding: str) -> tuple[bytes, bool]:
    """The bytes behind a transfer encoding, and whether it was broken."""
    if encoding == "base64":
        return _base64(content)
    if encoding == "quoted-printable":
        return _quoted_printable(content)
    if encoding in ("x-uuencode", "uuencode", "uue", "x-uue"):
        blocks, _ = uuencoded(content)
        return (blocks[0][1], False) if blocks else (content, True)
    return content, False


def uuencoded(text: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Names and bytes of the uuencoded blocks in a text, and the text without them."""
    blocks: list[tuple[bytes, bytes]] = []
    rest: list[bytes] = []
    position = 0
    while match := _UU_BEGIN.search(text, position):
        content, end = _uu_block(text, match.end() + 1)
        if content is None:
            rest.append(text[position : match.end()])
            position = match.end()
            continue
        rest.append(text[position : match.start()])
        blocks.append((match[1], content))
        position = end
    rest.append(text[position:])
    return blocks, b"".join(rest)


def _uu_block(text: bytes, position: int) -> tuple[bytes | None, int]:
    """The block that begins here, and where it ends; None when the first line is none of uuencode."""
    lines: list[bytes] = []
    while position < len(text):
        newline = text.find(b"\n", position)
        end = len(text) if newline < 0 else newline + 1
        line = text[position:end].rstrip(b"\r\n")
        position = end
        if line.strip() == b"end":
            break
        try:
            # Spaces at the end of lines get lost on the way; they are zeros.
            length = ((line[0] - 32) & 63) if line else 0
            lines.append(binascii.a2b_uu(line[: 1 + 4 * ((length + 2) // 3)].ljust(1 + 4 * ((length + 2) // 3))))
        except binascii.Error:
            if not lines:
                return None, position
            break
    return (b"".join(lines) if any(lines) else None), position


def _base64(content: bytes) -> tuple[bytes, bool]:
    try:
        return binascii.a2b_base64(content.translate(None, _BLANKS), strict_mode=True), False
    except binascii.Error:
        pass
    content, was_cut = _without_what_follows(content)
    letters = content.translate(None, _FOREIGN)
    visible = len(content.translate(None, _BLANKS))
    # A blank inside of a line is none of base64's either.
    words = sum(max(0, len(line.split()) - 1) for line in content.split(b"\n")) if not was_cut else 0
    if visible and visible - len(letters) + words > NOT_ENCODED * visible:
        return content, True
    blocks = [_one_block(block) for block in letters.split(b"=") if block]
    return b"".join(blocks), True


def _without_what_follows(content: bytes) -> tuple[bytes, bool]:
    """The body up to its padding, when lines follow that are not base64: gateways write their footers there."""
    for match in _PADDING.finditer(content):
        if b"\n" not in match[0]:  # a long line full of paddings is not gone through from each of them
            continue
        line = _REST_OF_LINE.match(content, match.end())
        if line and not _BASE64_LINE.match(line[0]):
            return content[: match.end()], True
    return content, False


def _one_block(block: bytes) -> bytes:
    if len(block) % 4 == 1:  # six bits are no byte
        block = block[:-1]
    return binascii.a2b_base64(block + b"=" * (-len(block) % 4))


def _quoted_printable(content: bytes) -> tuple[bytes, bool]:
    begin = content[:SAMPLE]
    codes = len(_QP_CODE.findall(begin))
    broken = begin.count(b"=") - codes
    if broken > codes:  # `width="1"` of HTML that was never encoded
        return content, True
    return binascii.a2b_qp(content), broken > 0
