"""One SPF record, read (RFC 7208 4.5, 4.6 and 12).

Does: text into terms. Refuses, with SpfError, what does not follow the grammar; what is no SPF record at all is None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Literal, cast

from relay.config.kinds import Network
from relay.errors import SpfError

Kind = Literal["all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"]

MAX_TERMS = 500
"""Terms of a record; real ones have some dozen."""

_DIRECTIVE = re.compile(r"([+?~-]?)(all|include|a|mx|ptr|exists)([:/].*)?")
_HOSTS = re.compile(r"(?::(.*?))?(?:/(0|[1-9]\d?))?(?://(0|[1-9]\d{0,2}))?")
_IP = re.compile(r"([+?~-]?)(ip4|ip6):([0-9a-f:.]+)(?:/(\d{1,3}))?")
_MODIFIER = re.compile(r"([a-z][a-z0-9_.-]*)=(.*)")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9])?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Term:
    """A mechanism: what matches, and whether that is a pass (`+`) or not (`-`, `~`, `?`)."""

    kind: Kind
    passes: bool
    text: str
    "As it stands in the record."
    domain: str = ""
    "Its domain; empty for that of the record. It may hold macros."
    network: Network | None = None
    prefix4: int = 32
    prefix6: int = 128

    @property
    def has_macro(self) -> bool:
        """Whether what it asks depends on the message."""
        return "%" in self.domain


@dataclass(frozen=True, slots=True)
class Record:
    """A record: its terms in their order, and where it is continued if none of them is `all`."""

    terms: tuple[Term, ...]
    redirect: str = ""


def parse(text: str) -> Record | None:
    """A TXT record as an SPF record; None when it is another one. Raises SpfError."""
    version, _, rest = text.partition(" ")
    if version.lower() != "v=spf1":
        return None
    words = [word for word in rest.split(" ") if word]
    if len(words) > MAX_TERMS:
        raise SpfError(f"an SPF record has {len(words)} terms; {MAX_TERMS} are taken")
    terms: list[Term] = []
    once: dict[str, str] = {}
    for word in words:
        if (modifier := _MODIFIER.fullmatch(word.lower())) is not None:
            name = modifier[1]
            if name in ("redirect", "exp"):
                if name in once:
                    raise SpfError(f"an SPF record has {name} twice")
                once[name] = _domain(word[len(name) + 1 :], word)
        else:
            terms.append(_term(word))
    return Record(tuple(terms), once.get("redirect", ""))


def _term(word: str) -> Term:
    low = word.lower()
    if (address := _IP.fullmatch(low)) is not None:
        return _ip(word, address)
    match = _DIRECTIVE.fullmatch(low)
    if match is None:
        raise SpfError(f"an SPF record has a term that can't be read: {word!r}")
    kind, passes, rest = cast(Kind, match[2]), match[1] in ("", "+"), match[3] or ""
    if kind in ("a", "mx"):
        return _hosts(word, kind, passes, rest)
    needs_domain, may_have_domain = kind in ("include", "exists"), kind != "all"
    if (rest and not (may_have_domain and rest.startswith(":"))) or (needs_domain and not rest):
        raise SpfError(f"an SPF record has a term that can't be read: {word!r}")
    return Term(kind, passes, word, _domain(rest[1:], word) if rest else "")


def _hosts(word: str, kind: Kind, passes: bool, rest: str) -> Term:
    match = _HOSTS.fullmatch(rest)
    if match is None:
        raise SpfError(f"an SPF record has a term that can't be read: {word!r}")
    prefix4, prefix6 = int(match[2] or 32), int(match[3] or 128)
    if prefix4 > 32 or prefix6 > 128:
        raise SpfError(f"an SPF record has a prefix that is too long: {word!r}")
    domain = _domain(match[1], word) if match[1] is not None else ""
    return Term(kind, passes, word, domain, None, prefix4, prefix6)


def _ip(word: str, match: re.Match[str]) -> Term:
    kind = cast(Kind, match[2])
    try:
        network = ip_network(match[3] + (f"/{match[4]}" if match[4] is not None else ""), strict=False)
    except ValueError:
        raise SpfError(f"an SPF record has an address that can't be read: {word!r}") from None
    if network.version != int(kind[2]):
        raise SpfError(f"an SPF record has an address of the other kind: {word!r}")
    return Term(kind, match[1] in ("", "+"), word, network=network)


def _domain(text: str, word: str) -> str:
    name = text.removesuffix(".")
    if "%" in name:
        return name
    if not _NAME.fullmatch(name) or ".." in name or any(len(label) > 63 for label in name.split(".")):
        raise SpfError(f"an SPF record has a domain that can't be read: {word!r}")
    return name.lower()
