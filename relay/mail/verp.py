"""VERP tokens: a reverse-path that names the delivery, so that returned mail finds its way home.

`b-<queue id>-<recipient number>-<signature>@<bounce domain>`. The signature is the first 80 bits of an HMAC-SHA-256
over the rest and the domain; without the key nobody makes an address that we would believe. All is in small letters,
for some systems fold the case of local parts.
"""

from __future__ import annotations

import base64
import hmac
import re

from relay.mail.address import Address

_TOKEN = re.compile(r"b-([0-9a-z]{13})-(\d{1,5})-([a-z2-7]{16})")


def verp_address(key: bytes, queue_id: str, recipient_number: int, bounce_domain: str) -> Address:
    """The reverse-path of one delivery: the `recipient_number`-th recipient of the message `queue_id`."""
    named = f"{queue_id.lower()}-{recipient_number}"
    return Address(f"b-{named}-{_signature(key, named, bounce_domain)}", bounce_domain)


def read_verp(key: bytes, address: Address) -> tuple[str, int] | None:
    """Queue id and recipient number that a VERP address names; None when it is not one that we signed."""
    match = _TOKEN.fullmatch(address.local.lower())
    if not match:
        return None
    named = f"{match[1]}-{match[2]}"
    if not hmac.compare_digest(match[3], _signature(key, named, address.domain)):
        return None
    return match[1].upper(), int(match[2])


def _signature(key: bytes, named: str, domain: str) -> str:
    digest = hmac.digest(key, f"{named}@{domain}".encode(), "sha256")
    return base64.b32encode(digest[:10]).decode("ascii").lower()
