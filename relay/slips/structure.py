"""The message as a tree of parts, with everything unpacked that may hold a letter.

Does: reads the MIME structure of an untrusted message; undoes transfer encodings; finds the boundary of a multipart
that names none, or a wrong one; unpacks winmail.dat, S/MIME that is signed, and uuencoded files in text.
Promises: a tree of `Part`; in each what its header says of it, unbelieved. Its bounds hold whatever the bytes are.
Refuses: more than MAX_PARTS parts, nesting deeper than MAX_DEPTH, more than MAX_DECODED bytes (RenderError).

`policy=default` of the email package raises on real headers, so everything here uses compat32. Other errors than
RenderError may still come from the email package: `parts.read_letter` sees to them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.utils import collapse_rfc2231_value

from relay.errors import RenderError
from relay.slips import rtf, sniff
from relay.slips.headers import BoundedMessage
from relay.slips.smime import Encrypted, signed_content
from relay.slips.tnef import read_tnef
from relay.slips.transfer import decoded, uuencoded

MAX_PARTS = 500
MAX_DEPTH = 20
MAX_DECODED = 64 * 1024 * 1024

ENCRYPTED = "application/x-encrypted"
"""Kind of a part that nobody here can read."""
FORWARDED = "message/rfc822"

_BOUNDARY = re.compile(rb"^--([^\r\n\"\\]{1,200}?)[ \t]*\r?\n(?=[A-Za-z][A-Za-z-]{1,40}:)", re.MULTILINE)
_STARTS_LATE = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?=[A-Za-z][A-Za-z0-9-]{0,60}:[ \t]|From )")
_FIRST_TOKEN = re.compile(r"[a-z0-9-]+")
_CMS = ("application/pkcs7-mime", "application/x-pkcs7-mime")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A part of a message. One with children is a multipart, or a forwarded message, and has no content."""

    kind: str
    children: tuple[Part, ...] = ()
    content: bytes = b""
    charset: str = ""
    name: str = ""
    content_id: str = ""
    location: str = ""
    start: str = ""
    is_attached: bool = False
    is_flowed: bool = False
    is_delsp: bool = False

    @property
    def is_container(self) -> bool:
        """Whether it only holds others."""
        return self.kind.startswith("multipart/") or self.kind == FORWARDED


def read_structure(message: bytes, notes: list[str]) -> Part:
    """The tree of a message. Raises RenderError; the email package may raise nearly anything else."""
    return _Reader(notes).read(message, 1)


class _Reader:
    def __init__(self, notes: list[str]) -> None:
        self._notes = notes
        self._parts = 0
        self._bytes = 0

    def read(self, message: bytes, depth: int) -> Part:
        if match := _STARTS_LATE.match(message[:200]):
            message = message[match.end() :]
        return self._part(message_from_bytes(message, BoundedMessage, policy=policy.compat32), depth)

    def _part(self, message: Message, depth: int) -> Part:
        self._count(depth)
        kind, payload = message.get_content_type(), message.get_payload()
        if kind == "multipart/encrypted":
            return Part(ENCRYPTED)
        if isinstance(payload, list):
            children = tuple(self._part(child, depth + 1) for child in payload if isinstance(child, Message))
            if kind.startswith("multipart/"):
                return Part(kind, children, start=_parameter(message, "start").strip("<> "))
            if kind != FORWARDED:  # message/delivery-status and the like: not for people
                return Part(kind, name=_file_name(message), is_attached=_is_attached(message))
            inner = payload[0] if payload else None
            if _encoding(message) == "base64" and isinstance(inner, Message) and not inner.keys():
                # RFC 2046 5.2.1 forbids it, and yet there are forwarded messages in base64.
                children = (self.read(self._weigh(decoded(_raw(inner), "base64")[0]), depth + 1),)
            return Part(FORWARDED, children, name=_file_name(message), is_attached=_is_attached(message))
        content = self._content(message)
        if kind.startswith("multipart/"):
            return self._without_boundary(kind, content, depth)
        return self._unpacked(_leaf(message, kind, content), depth)

    def _count(self, depth: int) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise RenderError(f"the message has more than {MAX_PARTS} parts")
        if depth > MAX_DEPTH:
            raise RenderError(f"the parts of the message are nested deeper than {MAX_DEPTH}")

    def _weigh(self, content: bytes) -> bytes:
        self._bytes += len(content)
        if self._bytes > MAX_DECODED:
            raise RenderError(f"the parts of the message have more than {MAX_DECODED // 2**20} MB")
        return content

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    def _content(self, message: Message) -> bytes:
        encoding = _encoding(message)
        content, is_broken = decoded(_raw(message), encoding)
        if is_broken:
            self._note("A part of the message is damaged; it was read as far as possible.")
        return self._weigh(content)

    def _without_boundary(self, kind: str, content: bytes, depth: int) -> Part:
        """A multipart whose boundary is missing or wrong: the first line that looks like one is it."""
        match = _BOUNDARY.search(content[:65536])
        if match is None:
            return self._unpacked(Part("text/plain", content=content), depth)
        self._note("The message does not say where its parts begin; that was guessed.")
        head = b'Content-Type: %s; boundary="%s"\r\n\r\n' % (kind.encode("ascii", "replace"), match[1])
        found = message_from_bytes(head + content, BoundedMessage, policy=policy.compat32)
        if not isinstance(found.get_payload(), list):
            return Part("text/plain", content=content)
        return self._part(found, depth + 1)

    def _unpacked(self, part: Part, depth: int) -> Part:
        seen = sniff.kind_of(part.content, part.kind)
        if seen == sniff.TNEF:
            return self._winmail(part, depth)
        if part.kind in _CMS or part.name.lower().endswith((".p7m", ".p7z")):
            return self._signed(part, depth)
        if part.kind == "text/plain" and b"begin" in part.content:
            return self._with_uuencoded(part, depth)
        return part

    def _signed(self, part: Part, depth: int) -> Part:
        try:
            return self.read(self._weigh(signed_content(part.content)), depth + 1)
        except Encrypted:
            return Part(ENCRYPTED)
        except (ValueError, IndexError, StopIteration):
            return part

    def _winmail(self, part: Part, depth: int) -> Part:
        try:
            found = read_tnef(part.content)
        except ValueError:
            return part
        bodies = [Part("text/plain", content=found.text.encode(), charset="utf-8")] if found.text.strip() else []
        if found.html.strip(b"\0 \r\n"):
            bodies.append(Part("text/html", content=found.html, charset=found.html_charset))
        elif found.rtf:
            text, is_html = rtf.text_of_rtf(found.rtf)
            if is_html or not bodies:
                kind = "text/html" if is_html else "text/plain"
                bodies.append(Part(kind, content=text.encode("utf-8", "replace"), charset="utf-8"))
        files = []
        for enclosed in found.attachments:
            self._count(depth + 1)
            self._weigh(enclosed.content)
            kind = enclosed.kind or "application/octet-stream"
            # Whether it is shown in the text is known by its Content-ID alone.
            file = Part(kind, (), enclosed.content, "", enclosed.name, enclosed.content_id, is_attached=True)
            files.append(file)
        return Part("multipart/mixed", (Part("multipart/alternative", tuple(bodies)), *files))

    def _with_uuencoded(self, part: Part, depth: int) -> Part:
        blocks, rest = uuencoded(part.content)
        if not blocks:
            return part
        text = Part("text/plain", (), rest, part.charset, part.name, is_attached=part.is_attached)
        files = []
        for name, content in blocks:
            self._count(depth + 1)
            self._weigh(content)
            files.append(
                Part("application/octet-stream", (), content, "", name.decode("utf-8", "replace"), is_attached=True)
            )
        return Part("multipart/mixed", (text, *files))


def _leaf(message: Message, kind: str, content: bytes) -> Part:
    return Part(
        kind,
        (),
        content,
        charset=_parameter(message, "charset"),
        name=_file_name(message),
        content_id=str(message.get("Content-ID") or "").strip().strip("<>").strip(),
        location=str(message.get("Content-Location") or "").strip(),
        is_attached=_is_attached(message),
        is_flowed=_parameter(message, "format").lower() == "flowed",
        is_delsp=_parameter(message, "delsp").lower() == "yes",
    )


def _encoding(message: Message) -> str:
    match = _FIRST_TOKEN.match(str(message.get("Content-Transfer-Encoding") or "").strip().lower())
    return match[0] if match else ""


def _raw(message: Message) -> bytes:
    """The body as it came."""
    del message["Content-Transfer-Encoding"]  # else the email package would decode it
    raw = message.get_payload(decode=True)
    return raw if isinstance(raw, bytes) else b""


def _is_attached(message: Message) -> bool:
    return str(message.get("Content-Disposition") or "").strip().lower().startswith("attachment")


def _parameter(message: Message, name: str) -> str:
    try:
        return collapse_rfc2231_value(message.get_param(name) or "").strip()
    except (TypeError, ValueError, IndexError, LookupError):
        return ""  # continuations (RFC 2231 3) that the email package can't sort or decode


def _file_name(message: Message) -> str:
    try:
        name = message.get_filename() or ""  # Content-Disposition filename, else Content-Type name (RFC 2231 decoded)
    except (TypeError, ValueError, IndexError, LookupError):
        return ""
    if "=?" in name:
        try:  # RFC 2047 words have no place in a parameter, and yet they are there
            name = str(make_header(decode_header(name)))
        except (ValueError, LookupError, MessageError):
            return _printable(name)
    return _printable(name)


def _printable(name: str) -> str:
    # Lone surrogates are bytes that no header may have.
    return re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", "", name).strip()
