"""Header fields in UTF-8 (RFC 6532) as fields in ASCII, for a next hop without SMTPUTF8.

Names and free text become encoded words (RFC 2047), file names parameters in UTF-8 (RFC 2231), domains A-labels. What
has no such form is refused: a local part beyond ASCII is another mailbox without it, and fields such as Message-ID
have nothing to encode (RFC 6857 would hide them under other names, and nobody reads those). What is ASCII in a field
keeps its bytes, as far as it has no text beside it that changes.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from relay.errors import AddressError, Unconvertible
from relay.mail.address import ascii_domain
from relay.outgoing.encoded_words import LONGEST, encoded_words
from relay.outgoing.transfer import LONGEST_LINE

_OF_ADDRESSES = frozenset(
    f"{resent}{name}" for resent in ("", "resent-") for name in ("from", "sender", "reply-to", "to", "cc", "bcc")
)
_WITH_PARAMETERS = frozenset({"content-type", "content-disposition"})
_WITHOUT_TEXT = frozenset(
    {
        *("return-path", "received", "date", "resent-date", "message-id", "resent-message-id", "in-reply-to"),
        *("references", "mime-version", "content-id", "content-transfer-encoding", "auto-submitted"),
        *("dkim-signature", "authentication-results", "arc-seal", "arc-message-signature"),
        *("arc-authentication-results", "list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post"),
        *("list-subscribe", "list-post", "list-owner", "list-archive"),
    }
)

_SPACE = re.compile(r"([ \t\r\n]+)")
_ADDRESS_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)|(?P<quoted>"(?:[^"\\]|\\.)*+")|(?P<comment>\([^()\\]*+\))|(?P<angle><[^<>"]*+>)
    |(?P<separator>[,:;])|(?P<at>@)|(?P<word>[^ \t\r\n()<>@,:;"]+)""",
    re.VERBOSE | re.DOTALL,
)
_PARAMETER = re.compile(r"([ \t\r\n]*)([!-'+-<>-~]+)[ \t]*=[ \t\r\n]*([^ \t\r\n].*)", re.DOTALL)
_PIECE = re.compile(r"""(?:"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[^";]++)++|;""", re.DOTALL)
"""What stands between semicolons, or one. A quoted string that does not end goes on to the end of all."""

_Token = tuple[str, str]


def ascii_field(name: str, piece: bytes) -> bytes:
    """A field, all of it with its line end, in ASCII. Raises Unconvertible where there is no such form."""
    try:
        label, colon, value = piece.decode("utf-8").partition(":")
    except UnicodeDecodeError:
        raise Unconvertible(f"its field {name} is neither ASCII nor UTF-8") from None
    value = value.removesuffix("\r\n")
    if name in _WITHOUT_TEXT:
        raise Unconvertible(f"its field {name} is not ASCII, and has no other form")
    if name in _OF_ADDRESSES:
        text = _addresses(name, value)
    elif name in _WITH_PARAMETERS:
        text = _parameters(name, value)
    else:
        text = _words(_words_of(value), len(label) + 2)
    return f"{label}{colon}{text}\r\n".encode("ascii")


def folded(piece: bytes) -> bytes:
    """A field with its lines folded where they are too long for hosts, as far as it has white space there (RFC 5322
    2.2.3). Relaxed canonicalisation takes no notice of it (RFC 6376 3.4.2).
    """
    label, colon, value = piece.partition(b":")
    first, *lines = value.split(b"\r\n")
    whole = [_folded_line(first, LONGEST_LINE - len(label) - 1), *(_folded_line(line, LONGEST_LINE) for line in lines)]
    return label + colon + b"\r\n".join(whole)


def _folded_line(line: bytes, room: int) -> bytes:
    """A line with no more than `room` octets before its first fold; one word, or white space, stays as it is."""
    done = b""
    while len(line) > room > 0:
        cut = max(line.rfind(b" ", 1, room), line.rfind(b"\t", 1, room))
        if cut < 0 or not line[:cut].strip() or not line[cut:].strip():
            break
        done += line[:cut] + b"\r\n"
        line, room = line[cut:], LONGEST_LINE
    return done + line


def _words_of(text: str) -> list[_Token]:
    """Free text as words and the spaces between them."""
    return [("space" if part.isspace() else "word", part) for part in _SPACE.split(text) if part]


def _words(tokens: list[_Token], begun: int = LONGEST) -> str:
    """Words, of which runs that are not ASCII are encoded, with the spaces within. `begun` characters stand on the line
    before them.
    """
    made: list[str] = []  # each piece with the space before it
    run, gap = "", ""
    for kind, token in [*tokens, ("end", "")]:
        if kind == "space":
            gap += token
        elif token.isascii() or kind == "end":
            if run:
                made[-1] += _encoded(run, 76 - begun if len(made) == 1 else 0)
                run, gap = "", gap or " " * (kind != "end")
            made.append(gap + token)
            gap = ""
        else:
            shown = _shown(kind, token)
            if run:
                run += _unfolded(gap) + shown
            elif made and made[-1].endswith("?="):  # the space between two encoded words is not shown
                made.append(" ")
                run = _unfolded(gap) + shown
            else:
                made.append("\r\n" + (_unfolded(gap) or " ") if made else gap)
                run = shown
            gap = ""
    return "".join(made)


def _shown(kind: str, token: str) -> str:
    """What a reader sees of a word."""
    return re.sub(r"\\(.)", r"\1", token[1:-1]) if kind == "quoted" else token


def _encoded(text: str, room: int) -> str:
    return b"\r\n ".join(encoded_words(text, room if room >= 40 else LONGEST)).decode("ascii")


def _unfolded(space: str) -> str:
    return space.replace("\r\n", "")


def _addresses(name: str, text: str) -> str:
    """A list of mailboxes and groups."""
    made, part, position = list[str](), list[_Token](), 0
    begun = len(name) + 2
    while position < len(text):
        match = _ADDRESS_TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise Unconvertible(f"its field {name} is not ASCII, and can't be read")
        if match.lastgroup == "separator":
            made += [_mailbox(name, part, begun), match[0]]
            part, begun = [], LONGEST
        else:
            part.append((match.lastgroup, match[0]))
        position = match.end()
    return "".join(made) + _mailbox(name, part, begun)


def _mailbox(name: str, tokens: list[_Token], begun: int) -> str:
    if all(token.isascii() for _, token in tokens):
        return "".join(token for _, token in tokens)
    address = next((i for i, (kind, _) in enumerate(tokens) if kind in ("angle", "at")), len(tokens))
    if address < len(tokens) and tokens[address][0] == "at":
        local = (
            (f"{kind} of local part", token) if kind == "word" else (kind, token) for kind, token in tokens[:address]
        )
        return "".join(_part_of_address(name, kind, token) for kind, token in [*local, *tokens[address:]])
    named = [("word", token) if kind == "comment" and token.isascii() else (kind, token) for kind, token in tokens]
    text = _words(named[:address], begun)
    rest = "".join(_part_of_address(name, kind, token) for kind, token in tokens[address:])
    return text + (" " if text.endswith("?=") and rest.startswith("<") else "") + rest


def _part_of_address(name: str, kind: str, token: str) -> str:
    """A token in or behind an address: an address in angle brackets, the domain of one without, or a comment."""
    if token.isascii():
        return token
    if kind == "comment":
        return f"({_words(_words_of(token[1:-1]))})"
    try:
        if kind == "angle":
            local, at, domain = token[1:-1].rpartition("@")
            if at and local.isascii():
                return f"<{local}{at}{ascii_domain(domain.strip())}>"
        elif kind == "word":
            return ascii_domain(token)
    except AddressError:
        pass
    raise Unconvertible(f"its field {name} has an address that is not ASCII")


def _parameters(name: str, text: str) -> str:
    """The value of a MIME field, with parameters."""
    made = "".join(part if part.isascii() else _parameter(part) for part in _PIECE.findall(text))
    if not made.isascii():
        raise Unconvertible(f"its field {name} is not ASCII outside of a parameter")
    return made


def _parameter(text: str) -> str:
    match = _PARAMETER.fullmatch(text.rstrip())
    if match is None or not match[2].isascii():
        return text
    value = _shown("quoted", match[3]) if match[3].startswith('"') else match[3]
    return f"{match[1]}{match[2]}*=utf-8''{quote(value, safe='')}"
