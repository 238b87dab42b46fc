"""A message in a form that every host takes (RFC 6152 3): no 8-bit body, no UTF-8 in a header, no long line.

Each leaf part whose body is not so becomes quoted-printable or base64; each header field, of the message and of its
parts, that is not ASCII gets its form in ASCII, and lines over 998 octets are folded. Boundaries, the order of parts
and all that was fine keep their bytes. Preambles and epilogues, which nobody reads, get question marks.
Raises Unconvertible for what has no such form. Takes time in proportion to the message, and memory for what it makes
of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import compat32
from io import BytesIO

from relay.errors import HeaderError, Unconvertible
from relay.mail import headers
from relay.outgoing import transfer
from relay.outgoing.ascii_fields import ascii_field, folded
from relay.outgoing.brought import BODY, Change

MAX_DEPTH = 50
"""Parts within parts; what is deeper is nobody's letter."""
MAX_PARTS = 10_000

CONVERT = "convert"
"""The rule, as the log calls it: the setting."""

_CTE = "content-transfer-encoding"
_MIME = (_CTE, "content-type")
_AS_IT_IS = ("", "7bit", "8bit", "binary")
_MECHANISM = re.compile(r"\s*([A-Za-z0-9-]*)")


@dataclass(frozen=True, slots=True)
class Converted:
    """The message as it leaves, and what was changed of it."""

    message: bytes
    changes: tuple[Change, ...]
    has_signed_part: bool
    "Whether something within multipart/signed (RFC 1847) was changed: that signature is broken."


def converted(content: bytes, header: bytes, start: int, *, bodies: bool) -> Converted:
    """The message that has this header section, and for a body what begins at `start` of the content.

    Converted are headers, what has long lines, and if `bodies` is said all that is not ASCII.
    """
    return _Conversion(content, bodies=bodies).run(header, min(start, len(content)))


class _Conversion:
    """One message on its way to less."""

    def __init__(self, content: bytes, *, bodies: bool) -> None:
        self._content = content
        self._bodies = bodies
        self._parts = 0
        self._changed: set[str] = set()
        self._folded: set[str] = set()
        self._has_signed_part = False
        self._out = BytesIO()

    def run(self, header: bytes, start: int) -> Converted:
        self._entity(header, start, len(self._content), depth=0, is_message=True)
        changes = [Change(what, CONVERT) for what in sorted(self._changed)]
        changes += [Change(what, CONVERT, is_folding=True) for what in sorted(self._folded - self._changed)]
        return Converted(self._out.getvalue(), tuple(changes), self._has_signed_part)

    def _entity(
        self, header: bytes, start: int, end: int, *, depth: int, is_message: bool, of_digest: bool = False
    ) -> None:
        """Writes a message or a part: header section, empty line, body."""
        self._parts += 1
        if depth > MAX_DEPTH or self._parts > MAX_PARTS:
            raise Unconvertible("it has too many parts to be converted", "5.6.3")
        if self._is_fine(start, end):
            self._write_header(header, depth)
            self._copy(start, end)
            return
        facts = _facts(header)
        facts.set_default_type("message/rfc822" if of_digest else "text/plain")  # RFC 2046 5.1.5
        kind, encoding = facts.get_content_type(), _mechanism(facts)
        is_label_to_change = self._bodies and encoding in ("8bit", "binary")  # RFC 2045 6.4
        if kind.startswith("multipart/"):
            self._write_header(header, depth, "7bit" if is_label_to_change else "")
            around, self._changed = self._changed, set()
            self._multipart(_boundary(facts), start, end, depth, is_digest=kind == "multipart/digest")
            self._has_signed_part |= kind == "multipart/signed" and bool(self._changed)
            self._changed |= around
        elif kind in ("message/rfc822", "message/global") and encoding in _AS_IT_IS:
            self._write_header(header, depth, "7bit" if is_label_to_change else "")
            self._part(start, end, depth + 1, is_message=True)
        elif self._bodies or transfer.has_long_line(self._content, start, end):
            self._leaf(header, kind, encoding, start, end, depth=depth, is_message=is_message)
        else:
            self._write_header(header, depth)
            self._copy(start, end)

    def _part(self, start: int, end: int, depth: int, *, is_message: bool = False, of_digest: bool = False) -> None:
        """Writes what stands between two delimiters, or a message within the message."""
        if self._is_fine(start, end):
            self._copy(start, end)
        elif self._content.startswith(b"\r\n", start, end):
            self._entity(b"", start + 2, end, depth=depth, is_message=is_message, of_digest=of_digest)
        elif (empty := self._content.find(b"\r\n\r\n", start, end)) >= 0:
            header = self._content[start : empty + 2]
            self._entity(header, empty + 4, end, depth=depth, is_message=is_message, of_digest=of_digest)
        else:
            self._write_header(self._content[start:end], depth, has_body=False)

    def _leaf(
        self, header: bytes, kind: str, encoding: str, start: int, end: int, *, depth: int, is_message: bool
    ) -> None:
        self._changed.add(BODY)
        parts = transfer.blocks(self._content, start, end)
        is_long = transfer.has_long_line(self._content, start, end)
        if encoding == "quoted-printable":
            self._write_header(header, depth)
            self._out.writelines(
                transfer.quoted_anew(self._content, start, end) if is_long else map(transfer.escaped, parts)
            )
        elif encoding == "base64":
            self._write_header(header, depth)
            self._out.writelines(
                transfer.lined_anew(self._content, start, end) if is_long else map(transfer.without_high, parts)
            )
        elif encoding not in _AS_IT_IS or kind == "message/partial":
            raise Unconvertible(f"it has 8-bit text or long lines in {encoding or kind}", "5.6.3")
        elif (
            kind.startswith(("text/", "message/")) and transfer.fitting(self._content, start, end) == "quoted-printable"
        ):
            self._write_header(header, depth, "quoted-printable", is_message=is_message)
            self._out.writelines(transfer.quoted_printable(self._content, start, end))
        else:
            self._write_header(header, depth, "base64", is_message=is_message)
            self._out.writelines(transfer.base64_lines(self._content, start, end))
            if end == len(self._content):
                self._out.write(b"\r\n")

    def _multipart(self, boundary: bytes, start: int, end: int, depth: int, *, is_digest: bool) -> None:
        for delimiter, is_part, begin, stop in self._between(boundary, start, end):
            self._out.write(delimiter)
            if is_part:
                self._part(begin, stop, depth + 1, of_digest=is_digest)
            elif self._bodies and not transfer.is_seven_bit(self._content, begin, stop):
                self._changed.add(BODY)
                self._out.writelines(map(transfer.masked, transfer.blocks(self._content, begin, stop)))
            else:
                self._copy(begin, stop)

    def _between(self, boundary: bytes, start: int, end: int) -> Iterator[tuple[bytes, bool, int, int]]:
        """Each delimiter line, whether a part follows, and where what follows begins and ends; first what stands before
        all of them. An end mark that is missing is where the whole ends (RFC 2046 5.1.1).
        """
        line = rb"--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\r\n|\Z)"
        following = re.compile(rb"\r\n" + line)
        match = re.compile(line).match(self._content, start, end) or following.search(self._content, start, end)
        if match is None or match[1] is not None:
            raise Unconvertible("it is multipart, and has no part", "5.6.3")
        yield b"", False, start, match.start()
        while match is not None:
            is_last = match[1] is not None
            following_match = None if is_last else following.search(self._content, match.end(), end)
            stop = end if following_match is None else following_match.start()
            begin = min(match.end() + 2, stop)  # one line end may serve two delimiters
            yield self._content[match.start() : begin], not is_last, begin, stop
            match = following_match

    def _write_header(
        self, header: bytes, depth: int, encoding: str = "", *, is_message: bool = False, has_body: bool = True
    ) -> None:
        """Writes a header section in ASCII, with its Content-Transfer-Encoding where there is another one."""
        if encoding or not header.isascii() or transfer.has_long_line(header, 0, len(header)):
            header = self._changed_header(header, depth, encoding, is_message=is_message)
        self._out.write(header)
        if has_body:
            self._out.write(b"\r\n")

    def _changed_header(self, header: bytes, depth: int, encoding: str, *, is_message: bool) -> bytes:
        pieces = _pieces(header)
        label = f"Content-Transfer-Encoding: {encoding}\r\n".encode("ascii")
        made, changed = [], set()
        for name, piece in pieces:
            if encoding and name == _CTE:
                changed.add(name)
                made.append(label)
                label = b""
            elif not piece.isascii():
                changed.add(name)
                made.append(folded(ascii_field(name, piece)))
            else:
                made.append(folded(piece))
                if made[-1] != piece:
                    (self._folded if depth == 0 else changed).add(name)
        if encoding:
            names = {name for name, _ in pieces}
            if is_message and "mime-version" not in names:
                changed.add("mime-version")
                made.append(b"MIME-Version: 1.0\r\n")
            if label:
                changed.add(_CTE)
                made.append(label)
        self._changed |= changed if depth == 0 else {BODY} if changed else set()
        return b"".join(made)

    def _is_fine(self, start: int, end: int) -> bool:
        return transfer.is_seven_bit(self._content, start, end) and not transfer.has_long_line(
            self._content, start, end
        )

    def _copy(self, start: int, end: int) -> None:
        self._out.writelines(transfer.blocks(self._content, start, end))


def _pieces(header: bytes) -> list[tuple[str, bytes]]:
    try:
        return list(headers.pieces(header))
    except HeaderError as error:
        raise Unconvertible(f"it can't be converted: {error}", "5.6.3") from None


def _facts(header: bytes) -> Message:
    """The fields that say what a body is, as we read fields; the library stops at the first that it finds odd."""
    found = (name.encode("ascii") + b":" + headers.value_of(piece) for name, piece in _pieces(header) if name in _MIME)
    return BytesHeaderParser(policy=compat32).parsebytes(b"".join(found))


def _mechanism(facts: Message) -> str:
    """The Content-Transfer-Encoding, in small letters; "" when there is none."""
    match = _MECHANISM.match(str(facts.get(_CTE, "")))
    return match[1].lower() if match else ""


def _boundary(facts: Message) -> bytes:
    boundary = facts.get_boundary()
    if not boundary:
        raise Unconvertible("it is multipart, and has no boundary", "5.6.3")
    return boundary.encode("utf-8", "surrogateescape")
