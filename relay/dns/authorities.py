"""What each name server of a zone says itself, past the caches: a record that was just published is not on all of them
at once, and a verifier asks any of them.

Follows aliases into the zones that they lead to. Does not look at DNSSEC.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Literal

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from relay.dns.resolver import Resolver
from relay.errors import DnsError

PORT = 53
TIMEOUT = 5.0
"""Seconds for the answer of one server."""

_KINDS: tuple[Literal["A", "AAAA"], ...] = ("A", "AAAA")

MAX_ALIASES = 4
MAX_SERVERS = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """What one name server says."""

    server: str
    "Its name, and its address."
    texts: tuple[str, ...] = ()
    fault: str = ""
    "Why it said nothing that counts."


async def texts_everywhere(resolver: Resolver, name: str) -> list[Answer]:
    """The TXT records at a name by each server that is authoritative for it; none where the zone's servers can't be
    found.
    """
    found: dict[str, Answer] = {}
    names = [name]
    for current in names:
        servers = await _servers(resolver, current)
        said = await asyncio.gather(*(_ask(server, address, current) for server, address in servers))
        for answer, alias in said:
            if alias:
                if alias not in names and len(names) <= MAX_ALIASES:
                    names.append(alias)
            else:
                found[answer.server] = answer
    return list(found.values())


async def _servers(resolver: Resolver, name: str) -> list[tuple[str, str]]:
    """Name and address of each server of the zone that a name is in."""
    labels = name.split(".")
    for start in range(len(labels) - 1):
        try:
            hosts = (await resolver.records(".".join(labels[start:]), "NS")).texts
        except DnsError:
            return []
        if hosts:
            addresses = await asyncio.gather(*(_addresses(resolver, host) for host in hosts))
            pairs = [(host, address) for host, found in zip(hosts, addresses, strict=True) for address in found]
            return pairs[:MAX_SERVERS]
    return []


async def _addresses(resolver: Resolver, host: str) -> list[str]:
    found: list[str] = []
    for kind in _KINDS:
        with contextlib.suppress(DnsError):
            found += (await resolver.records(host, kind)).texts
    return found


async def _ask(server: str, address: str, name: str) -> tuple[Answer, str]:
    """What a server says, or the name that it refers to by a CNAME without having more."""
    called = f"{server} ({address})"
    query = dns.message.make_query(f"{name}.", dns.rdatatype.TXT)
    assert isinstance(query, dns.message.QueryMessage)
    try:
        response, _ = await dns.asyncquery.udp_with_fallback(query, address, TIMEOUT, PORT)
        assert isinstance(response, dns.message.QueryMessage)
        if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return Answer(called, fault=dns.rcode.to_text(response.rcode())), ""
        if not response.flags & dns.flags.AA:
            return Answer(called, fault="it is not a server of the zone"), ""
        chain = response.resolve_chaining()
    except (dns.exception.DNSException, OSError) as error:
        return Answer(called, fault=type(error).__name__), ""
    if chain.answer is None:
        target = chain.canonical_name.to_text(omit_final_dot=True)
        return Answer(called), target if target.lower() != name.lower() else ""
    texts = tuple(b"".join(record.strings).decode("latin-1") for record in chain.answer)
    return Answer(called, texts), ""
