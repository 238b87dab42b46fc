"""winmail.dat: what Outlook packs when it believes that the reader is Outlook (MS-OXTNEF).

Does: finds the body (HTML, RTF, text) and the attachments.
Promises: each byte is looked at once; what is broken or cut off is read up to there.
Refuses: what is no TNEF (ValueError). More than MAX_ATTACHMENTS are left out.
Known limits: appointments, tasks and contacts have only their text; an embedded message stays a file.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from relay.slips import rtf

SIGNATURE = 0x223E9F78
MAX_ATTACHMENTS = 200

_BODY, _MESSAGE_PROPERTIES, _CODE_PAGE = 0x0002800C, 0x00069003, 0x00069007
_RENDERING, _TITLE, _CONTENT, _ATTACHMENT_PROPERTIES = 0x00069002, 0x00018010, 0x0006800F, 0x00069005

# MAPI properties, by their number.
_P_BODY, _P_RTF, _P_HTML, _P_CODE_PAGE = 0x1000, 0x1009, 0x1013, 0x3FDE
_P_NAME, _P_LONG_NAME, _P_MEDIA_TYPE, _P_CONTENT_ID, _P_OBJECT = 0x3704, 0x3707, 0x370E, 0x3712, 0x3701
# ... and their types: how many bytes a value takes, padded to four; the others say their length.
_FIXED = {1: 4, 2: 4, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 10: 4, 11: 4, 0x14: 8, 0x40: 8, 0x48: 16}
_STRING8, _UNICODE, _OBJECT = 0x1E, 0x1F, 0x0D
_VARIABLE = (_OBJECT, _STRING8, _UNICODE, 0x0102)
_MULTIPLE = 0x1000


@dataclass(slots=True)
class Enclosed:
    """An attachment, as it says it is."""

    name: str = ""
    kind: str = ""
    content_id: str = ""
    content: bytes = b""


@dataclass(slots=True)
class Winmail:
    """What was found. `html_charset` is that of `html`, or nothing."""

    text: str = ""
    html: bytes = b""
    html_charset: str = ""
    rtf: bytes = b""
    attachments: list[Enclosed] = field(default_factory=list)


def read_tnef(content: bytes) -> Winmail:
    """The letter and files of a winmail.dat. Raises ValueError when it is none."""
    if len(content) < 6 or int.from_bytes(content[:4], "little") != SIGNATURE:
        raise ValueError("not a winmail.dat")
    found, code_page = Winmail(), "cp1252"
    for attribute, value in _attributes(content):
        with contextlib.suppress(ValueError, LookupError, struct.error):
            if attribute == _CODE_PAGE:
                code_page = f"cp{int.from_bytes(value[:4], 'little')}"
            elif attribute == _BODY:
                found.text = found.text or _string(value, code_page)
            elif attribute == _MESSAGE_PROPERTIES:
                _message(found, value, code_page)
            elif attribute == _RENDERING and len(found.attachments) < MAX_ATTACHMENTS:
                found.attachments.append(Enclosed())
            elif found.attachments:
                _attachment(found.attachments[-1], attribute, value, code_page)
    return found


def _attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    position = 6
    while position + 9 <= len(content):
        attribute, length = struct.unpack_from("<II", content, position + 1)
        position += 9
        yield attribute, content[position : position + length]
        position += length + 2  # and a checksum


def _message(found: Winmail, value: bytes, code_page: str) -> None:
    for number, kind, content in _properties(value):
        if number == _P_BODY:
            found.text = _string(content, code_page if kind == _STRING8 else "utf-16-le")
        elif number == _P_HTML:
            found.html = content
            found.html_charset = "utf-16-le" if kind == _UNICODE else found.html_charset
        elif number == _P_CODE_PAGE:
            page = int.from_bytes(content[:4], "little")
            found.html_charset = found.html_charset or _CHARSETS.get(page, f"windows-{page}")
        elif number == _P_RTF:
            found.rtf = rtf.decompress(content)


def _attachment(enclosed: Enclosed, attribute: int, value: bytes, code_page: str) -> None:
    if attribute == _TITLE:
        enclosed.name = enclosed.name or _string(value, code_page)
    elif attribute == _CONTENT:
        enclosed.content = value
    elif attribute == _ATTACHMENT_PROPERTIES:
        for number, kind, content in _properties(value):
            codec = code_page if kind == _STRING8 else "utf-16-le"
            if number == _P_LONG_NAME or (number == _P_NAME and not enclosed.name):
                enclosed.name = _string(content, codec)
            elif number == _P_MEDIA_TYPE:
                enclosed.kind = _string(content, codec).lower()
            elif number == _P_CONTENT_ID:
                enclosed.content_id = _string(content, codec).strip("<> ")
            elif number == _P_OBJECT and kind == _OBJECT and not enclosed.content:
                enclosed.content = content[16:]  # behind the identifier of its interface


def _properties(value: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number, type and first value of each MAPI property (MS-OXTNEF 2.1.3.4), as far as they can be read."""
    position = 4
    for _ in range(min(int.from_bytes(value[:4], "little"), len(value) // 8)):
        if position + 4 > len(value):
            return
        kind, number = struct.unpack_from("<HH", value, position)
        position += 4
        if number >= 0x8000:  # a property with a name: whose, and which
            position += 20
            is_string = value[position - 4 : position] == b"\x01\0\0\0"
            position += 4 + (_padded(int.from_bytes(value[position : position + 4], "little")) if is_string else 0)
        count, is_multiple = 1, bool(kind & _MULTIPLE)
        kind &= ~_MULTIPLE
        if is_multiple or kind in _VARIABLE:
            count = int.from_bytes(value[position : position + 4], "little")
            position += 4
        first = b""
        for index in range(count):
            if position >= len(value):
                break
            length = _FIXED.get(kind, -1)
            if kind in _VARIABLE:
                length = int.from_bytes(value[position : position + 4], "little")
                position += 4
            if length < 0:
                return
            first = value[position : position + length] if index == 0 else first
            position += _padded(length)
        yield number, kind, first


def _padded(length: int) -> int:
    return (length + 3) // 4 * 4


def _string(value: bytes, codec: str) -> str:
    try:
        return value.decode(codec, "replace").rstrip("\0")
    except LookupError:
        return value.decode("cp1252", "replace").rstrip("\0")


_CHARSETS = {
    65001: "utf-8",
    20127: "us-ascii",
    28591: "iso-8859-1",
    28592: "iso-8859-2",
    28595: "iso-8859-5",
    28597: "iso-8859-7",
    28605: "iso-8859-15",
    20866: "koi8-r",
    50220: "iso-2022-jp",
    932: "shift_jis",
    936: "gbk",
    54936: "gb18030",
    949: "euc-kr",
    950: "big5",
    51932: "euc-jp",
}
