"""What becomes of the fields that a letter came with: a few are left out, and From is rewritten where that is wanted.

Left out are Return-Path, which belongs to whoever delivers at the end (RFC 5321 4.4), and Bcc, whose addresses nobody
is to see (RFC 5322 3.6.3). A Return-Path that a signature covers stays: it does no harm, and the signature is worth
more. All other fields keep their bytes and their places.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.config.institutions import Institution
from relay.errors import HeaderError
from relay.mail import headers
from relay.outgoing.brought import Change, brought, covered
from relay.outgoing.from_field import from_field

RETURN_PATH, BCC, HEADER_FROM = "return-path", "bcc", "header_from"
"""Rules, as the log calls them: the last is the setting."""


@dataclass(frozen=True, slots=True)
class Fields:
    """A header section, and what was changed of it."""

    header: bytes
    changes: tuple[Change, ...] = ()


def outgoing_fields(header: bytes, institution: Institution) -> Fields:
    """The header section as it leaves, without what is put on top of it."""
    lower = header.lower()
    may_drop = b"return-path" in lower or b"bcc" in lower
    is_foreign = institution.header_from == "rewrite" and _is_foreign(header, institution)
    if not may_drop and not is_foreign:
        return Fields(header)
    try:
        pieces = list(headers.pieces(header))
        signed = covered(brought(header))
    except HeaderError:  # it is never signed either: nobody can tell what its fields are
        return Fields(header)
    kept, changes = [], []
    for name, piece in pieces:
        if name == "return-path" and name not in signed:
            changes.append(Change(name, RETURN_PATH))
        elif name in ("bcc", "resent-bcc"):
            changes.append(Change(name, BCC))
        elif is_foreign and name == "sender" and not _is_own(piece, institution):
            changes.append(Change(name, HEADER_FROM))
        elif is_foreign and name == "from":
            names = {name for name, _ in pieces}
            kept.append(from_field(piece, institution))
            kept.append(_old_from(piece, names))
            changes += [
                Change("from", HEADER_FROM),
                *([] if "reply-to" in names else [Change("reply-to", HEADER_FROM)]),
            ]
        else:
            kept.append(piece)
    return Fields(b"".join(kept), tuple(changes))


def _old_from(piece: bytes, names: set[str]) -> bytes:
    """Where the old From goes: to whom answers go, or else where whoever looks for it finds it."""
    value = headers.value_of(piece)
    if "reply-to" not in names:
        return b"Reply-To:" + value
    return b"" if "x-original-from" in names else b"X-Original-From:" + value


def _is_foreign(header: bytes, institution: Institution) -> bool:
    try:
        return not all(institution.owns(domain) for domain in headers.from_domains(header))
    except HeaderError:
        return False


def _is_own(piece: bytes, institution: Institution) -> bool:
    try:
        domains = headers.mailbox_domains(headers.unfold(headers.value_of(piece)))
    except HeaderError:
        return False
    return all(institution.owns(domain) for domain in domains)
