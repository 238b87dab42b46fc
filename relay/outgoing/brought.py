"""DKIM signatures that a message brought along, as Ex Libris makes them for an institution, and what would break them.

Whether they are good is not asked: that takes the DNS, and a receiver may find another answer later. What looks like a
signature counts as one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from relay.mail import headers

BODY = "body"
"""In the place of a field's name: the body, which every signature covers. No field has a name like it in `h=`."""


@dataclass(frozen=True, slots=True)
class Change:
    """What of a message was changed, a field by its name (lower case) or BODY, and the setting that wanted it."""

    what: str
    rule: str
    is_folding: bool = False
    "Whether it is only folded in another way, of which relaxed canonicalisation takes no notice (RFC 6376 3.4.2)."


@dataclass(frozen=True, slots=True)
class Brought:
    """A DKIM-Signature field of a message."""

    domain: str
    selector: str
    covers: frozenset[str]
    "Names (lower case) in `h=`, those of fields that it says are absent among them (oversigned, RFC 6376 8.15)."
    is_relaxed: bool = False
    "Whether `c=` says so of the header."

    def broken_by(self, changes: Iterable[Change]) -> list[str]:
        """The rules of the changes after which it is not good any more, each once."""
        return list(dict.fromkeys(each.rule for each in changes if self._is_broken_by(each)))

    def _is_broken_by(self, change: Change) -> bool:
        if change.is_folding and self.is_relaxed:
            return False
        return change.what == BODY or change.what in self.covers


def brought(header: bytes) -> list[Brought]:
    """The signatures in a header section; HeaderError when it has a line that is no field."""
    if b"dkim-signature" not in header.lower():
        return []
    return [_read(value) for name, value in headers.fields(header) if name == "dkim-signature"]


def covered(signatures: Iterable[Brought]) -> set[str]:
    """All names of fields that they cover."""
    return {name for signature in signatures for name in signature.covers}


def _read(value: bytes) -> Brought:
    parts = (part.partition(b"=") for part in value.split(b";"))
    tags = {name.strip(): b"".join(text.split()).decode("ascii", "replace") for name, _, text in parts}
    names = tags.get(b"h", "").lower().split(":")
    is_relaxed = tags.get(b"c", "").lower().startswith("relaxed")
    return Brought(tags.get(b"d", ""), tags.get(b"s", ""), frozenset(filter(None, names)), is_relaxed)
