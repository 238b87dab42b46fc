"""The bytes of a DSN: multipart/report with words for people, fields for programs, and the mail it is about (RFC 3464).

Does: puts together what `notify` found worth telling, for one recipient.
Promises: valid MIME with CRLF line ends whatever the mail, the remote host or the spool's text held; nothing that was
stored begins a line, a field or a part of its own; all of it ASCII, except addresses that need SMTPUTF8 and the 8-bit
body of a mail that is returned whole; header fields of the mail come back byte for byte.
Known limits: one DSN for each recipient, also where several of one message fail; replies in other scripts than Latin
come as question marks in the part for programs.
"""

from __future__ import annotations

import base64
import contextlib
import re
import secrets
from dataclasses import dataclass
from email.utils import formatdate
from typing import Literal

from relay.bounces.mime import Words, fields, part, quoted_printable, text_part, wire_address
from relay.errors import AddressError
from relay.mail import headers
from relay.mail.address import Address, parse_address
from relay.mail.dsn_parameters import decode_xtext, encode_utf8_address
from relay.mail.status import Reply, printable

Action = Literal["failed", "delayed", "delivered", "relayed"]

MAX_RETURNED = 256 * 1024
"""Largest message in bytes that is returned whole (RFC 3461 6.2 leaves that to us)."""

MAX_HEADER = 64 * 1024
"""Most bytes of a header section that are returned."""

_LONGEST_LINE = 998
_LONGEST_WORD = 900
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_MESSAGE_ID = re.compile(rb"<[!-;=?A-~-]+@[!-;=?A-~-]+>")


@dataclass(frozen=True, slots=True)
class Report:
    """What is told of one recipient of a message."""

    action: Action
    status: str
    "Enhanced status (RFC 3463)."
    reporting_host: str
    queue_id: str
    "Of the message that it is about."
    recipient: str
    arrived_at: float
    reply: Reply | None = None
    reason: str = ""
    remote_host: str = ""
    "Who gave the reply; empty where it is our own judgement."
    attempted_at: float | None = None
    retried_until: float | None = None
    envid: str = ""
    orcpt: str = ""


def compose(
    report: Report,
    words: Words,
    original: bytes,
    *,
    sender: Address,
    to: Address,
    message_id: str,
    now: float,
    whole: bool,
) -> bytes:
    """A DSN; `whole` returns all of the original where that is possible, else its header section comes back."""
    boundary = f"=_{secrets.token_hex(16)}"
    returned = _original(original, whole=whole)
    parts = [text_part(words.text), _delivery_status(report), *([returned] if returned else [])]
    encoding = "7bit" if all(each.isascii() for each in parts) else "8bit"
    head = [
        *fields(words, sender, to, message_id, now),
        *_threading(original),
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"',
        f"Content-Transfer-Encoding: {encoding}",
    ]
    delimiter = f"\r\n--{boundary}".encode("ascii")
    body = b"".join(delimiter + b"\r\n" + each for each in parts)
    return "\r\n".join(head).encode("utf-8") + b"\r\n" + body + delimiter + b"--\r\n"


# --- the part for programs (RFC 3464 2)


def _delivery_status(report: Report) -> bytes:
    message = [
        ("Original-Envelope-Id", _original_envelope_id(report.envid)),
        ("Reporting-MTA", f"dns; {_ascii(report.reporting_host)}"),
        ("Arrival-Date", formatdate(report.arrived_at, localtime=True)),
    ]
    recipient = [
        ("Original-Recipient", _original_recipient(report.orcpt)),
        ("Final-Recipient", _typed(report.recipient)),
        ("Action", report.action),
        ("Status", report.status if _STATUS.fullmatch(report.status) else "5.0.0"),
        ("Remote-MTA", f"dns; {_ascii(report.remote_host)}" if report.remote_host else ""),
        ("Diagnostic-Code", _diagnostic(report)),
        ("Last-Attempt-Date", _date(report.attempted_at)),
        ("Will-Retry-Until", _date(report.retried_until) if report.action == "delayed" else ""),
        ("Final-Log-ID", _ascii(report.queue_id)),
    ]
    return part("message/delivery-status", _fields(message) + b"\r\n" + _fields(recipient))


def _fields(named: list[tuple[str, str]]) -> bytes:
    return b"".join(_folded(f"{name}: {value}") for name, value in named if value)


def _folded(field: str) -> bytes:
    """A field in lines of about 76 characters, broken at spaces; a longer word has a line of its own, up to a limit."""
    lines = [""]
    for word in (each[:_LONGEST_WORD] for each in field.split(" ")):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > 76:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] or len(lines) > 1 else word
    return "\r\n".join(lines).encode("ascii") + b"\r\n"


def _original_envelope_id(envid: str) -> str:
    try:
        return _ascii(decode_xtext(envid))
    except ValueError:
        return ""


def _original_recipient(orcpt: str) -> str:
    """The field's value is the address itself, not xtext (RFC 3464 2.3.1)."""
    kind, _, address = orcpt.partition(";")
    if kind.lower() == "utf-8":  # stays as it is: RFC 6533 3
        return f"utf-8; {_ascii(address)}" if address else ""
    try:
        plain = decode_xtext(address)
    except ValueError:
        return ""
    return f"{_ascii(kind)}; {_ascii(plain)}" if plain.strip() else ""


def _typed(recipient: str) -> str:
    """An address with its type; one that is not ASCII in the form of RFC 6533 3."""
    line = printable(recipient)
    with contextlib.suppress(AddressError):
        line = wire_address(parse_address(line))
    return f"rfc822; {line}" if line.isascii() else f"utf-8; {encode_utf8_address(line)}"


def _diagnostic(report: Report) -> str:
    if report.reply is not None and report.remote_host:
        return f"smtp; {_ascii(str(report.reply))}"
    text = str(report.reply) if report.reply is not None else report.reason
    return f"x-slip-relay; {_ascii(text)}" if text and report.action in ("failed", "delayed") else ""


def _date(time: float | None) -> str:
    return formatdate(time, localtime=True) if time is not None else ""


def _ascii(text: str) -> str:
    """Text from outside on one line of ASCII."""
    return printable(text).encode("ascii", "replace").decode("ascii")


# --- the mail it is about (RFC 6522 3, RFC 6533 4 and 5)


def _original(original: bytes, *, whole: bool) -> bytes:
    """The third part: the whole mail, or its header section; b"" when there is nothing to return."""
    header = headers.section(original)
    if whole and original and len(original) <= MAX_RETURNED and _has_good_lines(original):
        if header.isascii():
            return part("message/rfc822", original, "7bit" if original.isascii() else "8bit")
        if _is_utf8(header):
            return part("message/global", base64.encodebytes(original).replace(b"\n", b"\r\n"), "base64")
    header = _bounded(header)
    if not header:
        return b""
    if header.isascii() and _has_good_lines(header):
        return part("text/rfc822-headers", header)
    kind = "message/global-headers" if _is_utf8(header) and not header.isascii() else "text/rfc822-headers"
    return part(kind, quoted_printable(header), "quoted-printable")


def _bounded(header: bytes) -> bytes:
    """The header section, or as many of its lines as there is room for."""
    if len(header) <= MAX_HEADER:
        return header
    return header[: header.rfind(b"\n", 0, MAX_HEADER) + 1] or header[:MAX_HEADER]


def _has_good_lines(content: bytes) -> bool:
    """Whether a part may hold it as it is: no bare CR or LF, no NUL, no line over 998 bytes (RFC 2045 2.7, 2.8)."""
    if b"\0" in content or not content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n"):
        return False
    return all(len(line) <= _LONGEST_LINE for line in content.split(b"\r\n"))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


# --- the header of the DSN itself


def _threading(original: bytes) -> list[str]:
    """In-Reply-To and References, where the mail has one Message-ID that is one (RFC 5322 3.6.4)."""
    found = headers.message_id(headers.section(original)).encode("utf-8", "replace")
    if not _MESSAGE_ID.fullmatch(found):
        return []
    return [f"{name}: {found.decode('ascii')}" for name in ("In-Reply-To", "References")]
