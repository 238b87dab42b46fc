"""The form in which a host takes a letter: as it is, or converted where it takes less (RFC 6152 3, RFC 6531 3.7.4).

What an institution has said about signatures that conversion breaks is kept to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from relay.config.institutions import Institution
from relay.errors import Unconvertible
from relay.mail import headers
from relay.mail.address import Address, parse_address
from relay.outgoing.brought import Change, brought
from relay.outgoing.fields import Fields
from relay.outgoing.seven_bit import converted
from relay.outgoing.transfer import has_long_line
from relay.spool.records import Delivery

EVERYTHING = frozenset({"8bitmime", "smtputf8"})
"""The extensions of a host, in small letters, on which a form depends."""


@dataclass(frozen=True, slots=True)
class Form:
    """A letter as it is, or as it was converted: `content`, or `header` and what of `content` follows it."""

    header: bytes
    content: bytes
    start: int
    "Where in `content` begins what is sent besides `header`; 0 where the header is in it."
    smtputf8: bool
    "Whether it takes SMTPUTF8."
    eight_bit: bool
    "Whether it takes 8BITMIME."
    changes: tuple[Change, ...]
    is_converted: bool = False
    has_signed_part: bool = False
    "Whether something was converted that S/MIME or PGP had signed."


def form_for(
    offers: frozenset[str],
    delivery: Delivery,
    sender: Address | None,
    institution: Institution,
    content: bytes,
    fields: Fields,
) -> Form:
    """The form for a host with these extensions. Raises Unconvertible when it takes the letter in none."""
    section = headers.section(content)
    start = min(len(section), len(content)) if fields.changes else 0
    smtputf8 = _is_international(delivery, sender, fields.header)
    eight_bit = not content.isascii()
    as_it_is = Form(fields.header, content, start, smtputf8, eight_bit, fields.changes)
    is_taken = suits(offers, smtputf8=smtputf8, eight_bit=eight_bit)
    is_better_converted = (eight_bit and institution.convert == "always") or has_long_line(content, 0, len(content))
    if is_taken and not is_better_converted:
        return as_it_is
    try:
        return _converted(offers, delivery, sender, institution, as_it_is, len(section) + 2)
    except Unconvertible:
        if is_taken:
            return as_it_is
        raise


def suits(offers: frozenset[str], *, smtputf8: bool, eight_bit: bool) -> bool:
    """Whether a host takes what needs these extensions."""
    return (not smtputf8 or "smtputf8" in offers) and (not eight_bit or takes_eight_bit(offers))


def takes_eight_bit(offers: frozenset[str]) -> bool:
    """Whether a host takes 8-bit text; one with SMTPUTF8 does (RFC 6531 3.1)."""
    return "8bitmime" in offers or "smtputf8" in offers


def _is_international(delivery: Delivery, sender: Address | None, header: bytes) -> bool:
    """Whether it takes SMTPUTF8 to send it as it is. Asked for only where it is needed: many hosts do not have it."""
    if not _is_ascii(delivery.recipient, sender):
        return True
    return delivery.message.smtputf8 and not (delivery.recipient.isascii() and header.isascii())


def _is_ascii(recipient: str, sender: Address | None) -> bool:
    """Whether the envelope is, with domains as A-labels."""
    return (sender is None or sender.local.isascii()) and (
        recipient.isascii() or parse_address(recipient).local.isascii()
    )


def _converted(
    offers: frozenset[str],
    delivery: Delivery,
    sender: Address | None,
    institution: Institution,
    form: Form,
    body: int,
) -> Form:
    if not _is_ascii(delivery.recipient, sender):
        raise Unconvertible("an address of its envelope is not ASCII, and the next hop has no SMTPUTF8", "5.6.7")
    if not form.eight_bit and not has_long_line(form.content, 0, len(form.content)):
        return replace(form, smtputf8=False)
    wanted = "the next hop takes it only when it is converted"
    may_break = institution.convert in ("as-needed", "always") or not delivery.message.protocol  # a DSN has to arrive
    if institution.convert == "never" and not may_break:
        raise Unconvertible(f'{wanted}, and {institution.name} has convert = "never"', "5.6.3")
    bodies = institution.convert == "always" or not takes_eight_bit(offers)
    made = converted(form.content, form.header, body, bodies=bodies)
    is_broken = made.has_signed_part or any(each.broken_by(made.changes) for each in brought(form.header))
    if is_broken and not may_break:
        raise Unconvertible(f"{wanted}, which breaks a signature that it brought", "5.6.3")
    if not made.changes:
        return replace(form, smtputf8=False)
    return Form(
        headers.section(made.message),
        made.message,
        0,
        smtputf8=False,
        eight_bit=not made.message.isascii(),
        changes=form.changes + made.changes,
        is_converted=True,
        has_signed_part=made.has_signed_part,
    )
