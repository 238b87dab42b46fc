"""TLSA records of mail hosts (RFC 6698, RFC 7672): asked for, and which of them can be used."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from relay.dns.resolver import Resolver


class Usage(IntEnum):
    """What of the host a record is about; the two with public authorities are not for mail (RFC 7672 3.1.3)."""

    TRUST_ANCHOR = 2
    END_ENTITY = 3


class Selector(IntEnum):
    """What of a certificate is compared."""

    CERTIFICATE = 0
    KEY = 1


class Matching(IntEnum):
    """How it is compared."""

    FULL = 0
    SHA256 = 1
    SHA512 = 2


@dataclass(frozen=True, slots=True)
class Tlsa:
    """A record that can be used."""

    usage: Usage
    selector: Selector
    matching: Matching
    content: bytes


@dataclass(frozen=True, slots=True)
class TlsaRecords:
    """What a host publishes; without usable records TLS is asked for all the same (RFC 7672 2.2)."""

    usable: tuple[Tlsa, ...]


async def tlsa_records(resolver: Resolver, host: str, port: int) -> TlsaRecords | None:
    """The records of a host; None where it has none, or none that was validated.

    Raises DnsError when there is no answer, or a bogus one: who takes the records away shall gain nothing by it.
    """
    found = await resolver.records(f"_{port}._tcp.{host}", "TLSA")
    if not found.texts or not found.is_secure:
        return None
    return TlsaRecords(tuple(record for record in map(_read, found.texts) if record is not None))


def _read(text: str) -> Tlsa | None:
    usage, selector, matching, content = text.split(maxsplit=3)
    try:
        return Tlsa(Usage(int(usage)), Selector(int(selector)), Matching(int(matching)), bytes.fromhex(content))
    except ValueError:
        return None
