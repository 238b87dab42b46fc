"""The MIME of mail that we write ourselves: header fields, addresses, and parts of text.

Promises: CRLF line ends; text stays in its field or part; all is ASCII, but for addresses that need SMTPUTF8.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from email.header import Header
from email.utils import formatdate

from relay.errors import AddressError
from relay.mail.address import Address, ascii_domain
from relay.mail.status import printable


@dataclass(frozen=True, slots=True)
class Words:
    """What people read."""

    sender_name: str
    subject: str
    text: str
    "Lines with a line feed at the end of each."


def fields(words: Words, sender: Address, to: Address, message_id: str, now: float) -> list[str]:
    """The fields that begin a header, without line ends."""
    return [
        f"From: {_phrase(words.sender_name)} <{wire_address(sender)}>",
        f"To: <{wire_address(to)}>",
        f"Subject: {_encoded(words.subject)}",
        f"Date: {formatdate(now, localtime=True)}",
        f"Message-ID: {message_id}",
    ]


def wire_address(address: Address) -> str:
    """An address as it stands in a field, its domain in A-labels, so that SMTPUTF8 is needed for local parts only."""
    try:
        return str(Address(address.local, ascii_domain(address.domain)))
    except AddressError:
        return str(address)


def text_part(text: str) -> bytes:
    """Words for people, with the fields of their part."""
    lines = text.replace("\r\n", "\n").encode("utf-8", "replace")
    return part("text/plain; charset=utf-8", quoted_printable(lines.replace(b"\n", b"\r\n")), "quoted-printable")


def part(kind: str, content: bytes, encoding: str = "7bit") -> bytes:
    """Content with the fields that say what it is."""
    return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode("ascii") + content


def quoted_printable(content: bytes) -> bytes:
    """Quoted-printable in which CRLF stays a line end, and every other byte comes back as it was (RFC 2045 6.7)."""
    lines = (binascii.b2a_qp(line, istext=False).replace(b"\n", b"\r\n") for line in content.split(b"\r\n"))
    return b"\r\n".join(lines)


def _encoded(text: str) -> str:
    """Text in a field: encoded words where it is not ASCII (RFC 2047)."""
    line = printable(text)
    return line if line.isascii() else Header(line, "utf-8", maxlinelen=66).encode(linesep="\r\n")


def _phrase(text: str) -> str:
    """A display name (RFC 5322 3.2.5)."""
    encoded = _encoded(text)
    if not text.isascii() or re.fullmatch(r"[A-Za-z0-9 -]+", encoded):
        return encoded
    escaped = re.sub(r'([\\"])', r"\\\1", encoded)
    return f'"{escaped}"'
