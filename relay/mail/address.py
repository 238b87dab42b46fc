"""Addresses and paths by the strict grammar of RFC 5321 4.1.2, with the UTF-8 of RFC 6531 3.3.

Does: turns text into an `Address`, or raises AddressError with a sentence that says why not.
Promises: what comes out holds no control character, no space outside quotes and no RFC 2047 trick; printing it and
reading it again gives the same address.
Refuses: source routes, comments, folding, addresses without a domain, lengths over RFC 5321 4.5.3.1.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

import idna

from relay.errors import AddressError

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]"
_DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e\u00a0-\U0010ffff]|\\[\x20-\x7e])*)"')
_LABEL = re.compile(r"[A-Za-z0-9\u0080-\U0010ffff](?:[A-Za-z0-9\u0080-\U0010ffff-]*[A-Za-z0-9\u0080-\U0010ffff])?")
_LITERAL = re.compile(r"\[([0-9A-Za-z:.]+)\]")
_DOMAIN_RUN = re.compile(r"\[[^\]\s]*\]|[^\s<>,;:@\"()\\\[\]]+")

MAX_LOCAL, MAX_DOMAIN, MAX_PATH = 64, 255, 254


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox: `local` without its quotes, `domain` in lower case (or an address literal in brackets)."""

    local: str
    domain: str

    def __str__(self) -> str:
        if _DOT_STRING.fullmatch(self.local):
            return f"{self.local}@{self.domain}"
        escaped = re.sub(r'([\\"])', r"\\\1", self.local)
        return f'"{escaped}"@{self.domain}'

    @property
    def key(self) -> str:
        """What to compare by: local parts of mailboxes we know ourselves don't differ by case."""
        return f"{self.local.casefold()}@{self.domain}"

    @property
    def has_route(self) -> bool:
        """Whether some hosts would read a way into the local part: a percent hack, a bang path, another address."""
        return any(character in self.local for character in "%!@")

    @property
    def is_ascii(self) -> bool:
        """Whether it travels without SMTPUTF8."""
        return str(self).isascii()


@lru_cache(1024)  # the domains of a library's mail are few
def parse_domain(text: str) -> str:
    """A domain name in lower case without trailing dot, or AddressError (RFC 5321 2.3.5; U-labels by RFC 6531)."""
    name = text.removesuffix(".").lower()
    if not name or len(name.encode()) > MAX_DOMAIN:
        raise AddressError(f"{text!r} is not a domain name")
    for label in name.split("."):
        if len(label.encode()) > 63 or not _LABEL.fullmatch(label) or _has_odd_character(label):
            raise AddressError(f"{text!r} is not a domain name: its part {label!r} is not allowed")
    ascii_domain(name)
    return name


def ascii_domain(domain: str) -> str:
    """The A-label form of a domain (IDNA 2008, RFC 5891), for the DNS and DKIM; AddressError when there is none."""
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain).decode("ascii")
    except idna.IDNAError:
        raise AddressError(f"{domain!r} has no ASCII form") from None


def parse_address(text: str) -> Address:
    """An `Address` from `local@domain`, or AddressError."""
    address, rest = _read_mailbox(text)
    if rest:
        raise AddressError(f"{text!r} goes on after the address")
    return address


def parse_path(text: str, *, null_allowed: bool = False) -> tuple[Address | None, str]:
    """A path in angle brackets as in MAIL and RCPT, and what follows it (the parameters, stripped).

    The null reverse-path `<>` gives None where it is allowed. Raises AddressError for everything else that is not a
    path.
    """
    if not text.startswith("<"):
        raise AddressError("an address stands in angle brackets, as in <name@example.org>")
    if text.startswith("<>"):
        if not null_allowed:
            raise AddressError("the null path <> is for MAIL only")
        return None, _parameters(text[2:])
    if text.startswith("<@"):
        raise AddressError("source routes are not taken")
    address, rest = _read_mailbox(text[1:])
    if not rest.startswith(">"):
        raise AddressError("the path does not end after the address")
    return address, _parameters(rest[1:])


def _parameters(text: str) -> str:
    if text and not text.startswith(" "):
        raise AddressError("a space stands between the path and its parameters")
    return text.strip(" ")


def _read_mailbox(text: str) -> tuple[Address, str]:
    quoted = _QUOTED.match(text)
    plain = _DOT_STRING.match(text)
    if quoted:
        local, end = re.sub(r"\\(.)", r"\1", quoted[1]), quoted.end()
    elif plain:
        local, end = plain[0], plain.end()
    else:
        raise AddressError("the part before @ is missing or has a character that is not allowed")
    if text[end : end + 1] != "@":
        raise AddressError("the address has no @ after its local part")
    run = _DOMAIN_RUN.match(text, end + 1)
    if not run:
        raise AddressError("the part after @ is missing")
    if run[0].endswith("."):
        raise AddressError("a dot ends the part after @")
    domain = _literal(run[0]) if run[0].startswith("[") else parse_domain(run[0])
    if _has_odd_character(local) or not local:
        raise AddressError("the part before @ has a character that is not allowed")
    if len(local.encode()) > MAX_LOCAL or len(local.encode()) + 1 + len(domain.encode()) > MAX_PATH:
        raise AddressError("the address is too long")
    return Address(local, domain), text[run.end() :]


def _literal(text: str) -> str:
    match = _LITERAL.fullmatch(text)
    try:
        if match and match[1].lower().startswith("ipv6:"):
            return f"[IPv6:{ipaddress.IPv6Address(match[1][5:])}]"
        if match:
            return f"[{ipaddress.IPv4Address(match[1])}]"
    except ValueError:
        pass
    raise AddressError(f"{text!r} is not an address literal")


def _has_odd_character(text: str) -> bool:
    """Whether text has a character that is not printable, such as a control, a surrogate or a bidi override."""
    return not text.isascii() and not text.isprintable()
