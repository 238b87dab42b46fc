"""The text of RTF, as Outlook sends it in winmail.dat.

Does: decompresses what MAPI compresses (MS-OXRTFCP); gives back the HTML that Outlook wrapped into RTF (MS-OXRTFEX), or
else the plain text of a document.
Promises: linear in time, at most MAX_RTF bytes; what is broken is read as far as it goes.
Known limits: of RTF proper only the text is kept: no tables, pictures or styles. Bytes over 127 are read in the
code page of the document, not of their font.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

MAX_RTF = 4 * 1024 * 1024

_COMPRESSED, _STORED = b"LZFu", b"MELA"
# MS-OXRTFCP 2.1.2.1: both sides begin with the words that every document has.
_DICTIONARY = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor MS Sans "
    rb"SerifSymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0" + b"\r\n" + rb"\par \pard\plain\f0\fs20"
    rb"\b\i\u\tab\tx"
)
_WINDOW = 4096

_TOKEN = re.compile(
    rb"\\'([0-9a-fA-F]{2})|\\([a-zA-Z]{1,32})(-?\d{1,10})? ?|\\([^a-zA-Z])|([{}])|[\r\n]+|([^\\{}\r\n]+)", re.DOTALL
)
_WORDS = {
    b"par": "\n",
    b"line": "\n",
    b"sect": "\n",
    b"page": "\n",
    b"row": "\n",
    b"cell": "\t",
    b"tab": "\t",
    b"emdash": "\u2014",
    b"endash": "\u2013",
    b"bullet": "\u2022",
    b"lquote": "\u2018",
    b"rquote": "\u2019",
    b"ldblquote": "\u201c",
    b"rdblquote": "\u201d",
}
_SIGNS = {b"~": "\u00a0", b"_": "\u2011", b"\\": "\\", b"{": "{", b"}": "}", b"\n": "\n", b"\r": "\n"}
_SILENT = frozenset(
    b"""fonttbl colortbl stylesheet info pict object header footer headerl headerr headerf footerl footerr footerf
    footnote fldinst themedata datastore listtable listoverridetable revtbl xmlnstbl generator nonshppict""".split()
)


def decompress(content: bytes) -> bytes:
    """The RTF in a value of PidTagRtfCompressed. Raises ValueError when it is none."""
    if len(content) < 16:
        raise ValueError("compressed RTF has a head of 16 bytes")
    size = min(int.from_bytes(content[4:8], "little"), MAX_RTF)
    if content[8:12] == _STORED:
        return content[16 : 16 + size]
    if content[8:12] != _COMPRESSED:
        raise ValueError("unknown compression of RTF")
    window = bytearray(_DICTIONARY.ljust(_WINDOW, b"\0"))
    write, found, position = len(_DICTIONARY), bytearray(), 16
    while position < len(content) and len(found) < size:
        control = content[position]
        position += 1
        for bit in range(8):
            if position >= len(content) or len(found) >= size:
                break
            if not control >> bit & 1:
                pieces = content[position : position + 1]
                position += 1
            else:
                reference = int.from_bytes(content[position : position + 2], "big")
                position += 2
                offset, length = reference >> 4, (reference & 15) + 2
                if offset == write:  # the end is marked by a reference to what is not yet written
                    return bytes(found)
                pieces = b""
                for index in range(length):  # byte by byte: it may refer to what it is writing
                    byte = window[(offset + index) % _WINDOW]
                    window[write] = byte
                    write = (write + 1) % _WINDOW
                    found.append(byte)
            for byte in pieces:
                window[write] = byte
                write = (write + 1) % _WINDOW
                found.append(byte)
    return bytes(found)


@dataclass(frozen=True, slots=True)
class _Group:
    """What holds inside of a pair of braces."""

    is_silent: bool = False
    is_tag: bool = False
    is_rtf_only: bool = False
    skips: int = 1


def text_of_rtf(document: bytes) -> tuple[str, bool]:
    """The text of an RTF document, and whether it is HTML."""
    document = document[:MAX_RTF]
    is_html = rb"\fromhtml" in document[:2000]
    reader = _Reader(is_html)
    for match in _TOKEN.finditer(document):
        reader.take(match)
    return reader.text(), is_html


class _Reader:
    __slots__ = ("_bytes", "_codec", "_found", "_group", "_groups", "_is_html", "_is_starred", "_skip")

    def __init__(self, is_html: bool) -> None:
        self._is_html = is_html
        self._group, self._groups = _Group(), list[_Group]()
        self._found: list[str] = []
        self._bytes = bytearray()
        self._codec = "cp1252"
        self._skip = 0
        self._is_starred = False

    def text(self) -> str:
        self._flush()
        return "".join(self._found)

    def take(self, match: re.Match[bytes]) -> None:
        code, word, number, sign, brace, run = match.groups()
        if brace:
            self._brace(brace)
        elif code:
            self._raw(bytes((int(code, 16),)))
        elif word:
            self._word(word, int(number) if number else None)
        elif sign == b"*":
            self._is_starred = True
        elif sign:
            self._say(_SIGNS.get(sign, ""))
        elif run:
            self._raw(run)

    def _brace(self, brace: bytes) -> None:
        self._skip = 0
        self._is_starred = False
        if brace == b"{":
            self._groups.append(self._group)
        elif self._groups:
            self._group = self._groups.pop()

    def _word(self, word: bytes, number: int | None) -> None:
        group = self._group
        if word == b"htmltag" and self._is_html:
            self._group = replace(group, is_tag=True, is_silent=False)
        elif self._is_starred or word in _SILENT:
            self._group = replace(group, is_silent=True)
        elif word == b"htmlrtf":
            self._group = replace(group, is_rtf_only=number != 0)
        elif word == b"ansicpg" and number:
            self._codec = f"cp{number}"
        elif word == b"uc":
            self._group = replace(group, skips=max(0, min(number or 0, 8)))
        elif word == b"u" and number is not None:
            self._say(chr(number % 65536))
            self._skip = group.skips
        elif word in _WORDS:
            self._say(_WORDS[word])
        self._is_starred = False

    @property
    def _is_heard(self) -> bool:
        return not self._group.is_silent and (self._group.is_tag or not self._group.is_rtf_only)

    def _raw(self, run: bytes) -> None:
        if self._skip:  # what stands behind \\u for readers that do not know it
            run, self._skip = run[self._skip :], max(0, self._skip - len(run))
        if self._is_heard:
            self._bytes += run

    def _say(self, text: str) -> None:
        if self._is_heard:
            self._flush()
            self._found.append(text)

    def _flush(self) -> None:
        if self._bytes:
            try:
                self._found.append(self._bytes.decode(self._codec, "replace"))
            except LookupError:
                self._found.append(self._bytes.decode("cp1252", "replace"))
            self._bytes.clear()
