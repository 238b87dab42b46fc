"""Header fields on the raw bytes (RFC 5322 2.2): found, read and prepended, never re-serialised.

A relayed message keeps every byte it came with. Line ends are CRLF here; intake has seen to that.
Known limit: names are compared without case, values are given as they stand (folded).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from relay.errors import AddressError, HeaderError
from relay.mail.address import parse_domain
from relay.mail.status import printable

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)(?:\r\n|\Z)")
_FOLD = re.compile(rb"\r\n(?=[ \t])")
_TOKEN = re.compile(
    r"""(?P<space>[ \t]+)|(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<literal>\[[^\[\]\\]*\])
    |(?P<special>[<>@,;:.])|(?P<atom>[^ \t()<>@,;:."\[\]\\]+)""",
    re.VERBOSE,
)
_COMMENT_PIECE = re.compile(r"[()]|\\.|[^()\\]+")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_SIMPLE_MAILBOX = re.compile(rf"""(?:(?:{_ATOM} )+|"[^"\\]*" )?<{_ATOM}(?:\.{_ATOM})*@([A-Za-z0-9.-]+)>""")
"""What nearly every From field is: a name of words or in quotes, and one address. The rest is read token by token."""

_MESSAGE_ID = re.compile(rb"^message-id[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", re.IGNORECASE | re.MULTILINE)
_TLS_REQUIRED = re.compile(rb"^tls-required[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", re.IGNORECASE | re.MULTILINE)

_NO_FIELD = "the header has a line that is not a field"
_UNCLEAR = "the From field is not a list of mailboxes"


def split(message: bytes) -> tuple[bytes, bytes]:
    """Header section (each line with its CRLF, without the empty line) and body of a message."""
    if message.startswith(b"\r\n"):
        return b"", message[2:]
    end = message.find(b"\r\n\r\n")
    if end < 0:
        return (message if message.endswith(b"\r\n") or not message else message + b"\r\n"), b""
    return message[: end + 2], message[end + 4 :]


def section(message: bytes) -> bytes:
    """The header section alone: what `split` gives first, without a copy of the body."""
    end = message.find(b"\r\n\r\n")
    if end < 0 or message.startswith(b"\r\n"):
        return split(message)[0]
    return message[: end + 2]


def fields(header: bytes) -> Iterator[tuple[str, bytes]]:
    """Name (lower case) and raw value of each field, from the top; HeaderError at a line that is none."""
    return ((match[1].decode("ascii").lower(), match[2]) for match in _matches(header))


def pieces(header: bytes) -> Iterator[tuple[str, bytes]]:
    """Name (lower case) and all bytes of each field, which together are the header; HeaderError as `fields`."""
    return ((match[1].decode("ascii").lower(), match[0]) for match in _matches(header))


def _matches(header: bytes) -> Iterator[re.Match[bytes]]:
    position = 0
    while position < len(header):
        match = _FIELD.match(header, position)
        if not match:
            raise HeaderError(_NO_FIELD)
        yield match
        position = match.end()


def value_of(piece: bytes) -> bytes:
    """The value of a field as `pieces` gives it, with its line end."""
    return piece[piece.index(b":") + 1 :] + b"\r\n" * (not piece.endswith(b"\r\n"))


def unfold(value: bytes) -> str:
    """A field's value on one line, as text; what is not UTF-8 is replaced."""
    return _FOLD.sub(b"", value).decode("utf-8", "replace").strip()


def message_id(header: bytes) -> str:
    """The Message-ID with its brackets, at most 250 characters; "" when there is none."""
    match = _MESSAGE_ID.search(header)
    return printable(unfold(match[1]), 250) if match else ""


def tls_is_unimportant(header: bytes) -> bool:
    """Whether the sender says that delivery matters more than TLS: `TLS-Required: No` (RFC 8689 4)."""
    match = _TLS_REQUIRED.search(header)
    return match is not None and unfold(match[1]).lower() == "no"


def count(header: bytes, wanted: str) -> int:
    """How many fields of that name (lower case) there are."""
    if wanted.encode("ascii") not in header.lower():
        return 0
    return sum(1 for name, _ in fields(header) if name == wanted)


def from_domains(header: bytes) -> list[str]:
    """Domains of the mailboxes in the From field, in their order.

    Raises HeaderError unless there is exactly one From field (RFC 5322 3.6) and all of it reads as mailboxes: what is
    not clear to us might be clear to a receiver in another way.
    """
    values = [value for name, value in fields(header) if name == "from"]
    if len(values) != 1:
        raise HeaderError(f"the message has {len(values) or 'no'} From fields; exactly one is needed")
    return mailbox_domains(unfold(values[0]))


def first_local_part(text: str) -> str:
    """What stands before the @ of the first mailbox of an unfolded field. Raises HeaderError where there is none."""
    mailbox = next(_split_at(list(_tokens(text)), ","), [])
    start = mailbox.index("<") + 1 if "<" in mailbox else 0
    if "@" not in mailbox[start:]:
        raise HeaderError(_UNCLEAR)
    return "".join(mailbox[start : mailbox.index("@", start)])


def mailbox_domains(text: str) -> list[str]:
    """Domains of the mailboxes in an unfolded field, in their order; HeaderError unless all of it reads as such."""
    if simple := _SIMPLE_MAILBOX.fullmatch(text):
        return [_domain(simple[1])]
    tokens = list(_tokens(text))
    domains = [_domain_of(mailbox) for mailbox in _split_at(tokens, ",")]
    if not domains:
        raise HeaderError("the From field is empty")
    return domains


def _domain_of(mailbox: list[str]) -> str:
    """The domain of one mailbox: words and an address in angle brackets, or an address by itself."""
    if "<" in mailbox:
        start = mailbox.index("<")
        if mailbox[-1] != ">" or any(special in mailbox[:start] for special in ("@", ">", "[")):
            raise HeaderError(_UNCLEAR)
        mailbox = mailbox[start + 1 : -1]
    if mailbox.count("@") != 1 or any(special in mailbox for special in ("<", ">", ":", ";")):
        raise HeaderError(_UNCLEAR)
    at = mailbox.index("@")
    local, domain = mailbox[:at], mailbox[at + 1 :]
    if not _is_dotted(local) or not _is_dotted(domain):
        raise HeaderError(_UNCLEAR)
    return _domain("".join(domain))


def _domain(text: str) -> str:
    try:
        return parse_domain(text)
    except AddressError:
        raise HeaderError("the From field names no valid domain") from None


def _is_dotted(tokens: list[str]) -> bool:
    """Whether tokens are one word, or words with a dot between each two."""
    return len(tokens) % 2 == 1 and all(dot == "." for dot in tokens[1::2]) and "." not in tokens[::2]


def _tokens(text: str) -> Iterator[str]:
    """The tokens of a field without its comments, in which quotes and brackets mean nothing (RFC 5322 3.2.2)."""
    position = 0
    while position < len(text):
        if text[position] == "(":
            position = _after_comment(text, position)
            continue
        match = _TOKEN.match(text, position)
        if not match or match.lastgroup == "literal":  # no library writes from an address literal
            raise HeaderError("the From field can't be read")
        position = match.end()
        if match.lastgroup != "space":
            yield match[0]


def _after_comment(text: str, start: int) -> int:
    depth, position = 0, start
    while match := _COMMENT_PIECE.match(text, position):
        position = match.end()
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth == 0:
            return position
    raise HeaderError("the From field has a comment that does not end")


def _split_at(tokens: list[str], separator: str) -> Iterator[list[str]]:
    part: list[str] = []
    for token in [*tokens, separator]:
        if token != separator:
            part.append(token)
        elif part:
            yield part
            part = []
