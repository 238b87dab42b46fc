"""The addresses that an SPF name allows to send, as networks (RFC 7208).

Does: follows include and redirect, looks up a and mx, and takes off what `-`, `~` and `?` exclude before. The limits
of RFC 7208 4.6.4 hold: ten terms that need the DNS, two look-ups without an answer.
Promises: no address is in the result that SPF would not pass. What depends on the message (`exists`, `ptr`, macros) is
told and left out; where it would exclude, nothing behind it counts. `+all` and networks that are too wide are left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from relay.config.kinds import Network
from relay.dns.resolver import RecordKind, Records, Resolver
from relay.dns.spf_record import Record, Term, parse
from relay.errors import DnsError, SpfError
from relay.mail.status import printable

MAX_LOOKUPS, MAX_VOID, MAX_EXCHANGES = 10, 2, 10
MAX_NETWORKS = 1000
"""Networks of one name, before they are joined."""

MAX_SECONDS = 60.0
WIDEST = {4: 8, 6: 16}
"""Shortest prefixes that are taken: no sender has more addresses than that."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """What a name allows."""

    networks: tuple[Network, ...]
    unusable: tuple[str, ...]
    "What of its records could not be made networks, each with the reason."
    ttl: float
    "Seconds for which all of it is good."


async def addresses_of(resolver: Resolver, name: str) -> Addresses:
    """The addresses that the SPF record of a name passes.

    Raises SpfError when there is no record or it is wrong, and DnsError when the DNS does not answer.
    """
    walk = _Walk(resolver)
    try:
        async with asyncio.timeout(MAX_SECONDS):
            found = await walk.passing(name)
    except TimeoutError:
        raise DnsError(f"the SPF records of {name} took longer than {MAX_SECONDS:g} s") from None
    return Addresses(joined(found.networks), tuple(dict.fromkeys(walk.unusable)), walk.ttl)


def joined(networks: Iterable[Network]) -> tuple[Network, ...]:
    """The same addresses in as few networks as there can be, IPv4 first."""
    four = [each for each in networks if isinstance(each, IPv4Network)]
    six = [each for each in networks if isinstance(each, IPv6Network)]
    return (*collapse_addresses(four), *collapse_addresses(six))


def minus(networks: Iterable[Network], excluded: Iterable[Network]) -> list[Network]:
    """The addresses of `networks` that are in none of `excluded`. Raises SpfError when that makes too many pieces."""
    left: list[Network] = list(networks)
    for out in excluded:
        pieces: list[Network] = []
        for each in left:
            pieces += _without(each, out) if each.version == out.version else [each]
        left = _bounded(pieces)
    return left


@dataclass(frozen=True, slots=True)
class _Found:
    """What a record passes, and whether that is all of it."""

    networks: list[Network]
    is_complete: bool


@dataclass(slots=True)
class _Walk:
    """One evaluation, with what it has used up."""

    resolver: Resolver
    lookups: int = 0
    voids: int = 0
    ttl: float = float("inf")
    unusable: list[str] = field(default_factory=list)

    async def passing(self, name: str) -> _Found:
        record = await self._record(name)
        passed: list[Network] = []
        excluded: list[Network] = []
        is_complete = True
        for term in record.terms:
            if term.kind == "all":
                if term.passes:
                    self._leave_out(name, term, "it allows everybody")
                return _Found(passed, is_complete and not term.passes)
            found = await self._matching(name, term)
            is_complete = is_complete and found.is_complete
            if term.passes:
                passed = _bounded([*passed, *minus(found.networks, excluded)])
            elif not found.is_complete:
                self._leave_out(name, term, "whom it excludes can't be told: nothing behind it counts")
                return _Found(passed, False)
            else:
                excluded = _bounded([*excluded, *found.networks])
        if not record.redirect:
            return _Found(passed, is_complete)
        self._count()
        if "%" in record.redirect:
            self.unusable.append(f"{name}: redirect={printable(record.redirect, 100)}: it depends on the message")
            return _Found(passed, False)
        rest = await self.passing(record.redirect)
        return _Found(_bounded([*passed, *minus(rest.networks, excluded)]), is_complete and rest.is_complete)

    async def _record(self, name: str) -> Record:
        answer = await self._ask(name, "TXT")
        records = [text for text in answer.texts if text.lower().startswith("v=spf1") and text[6:7] in ("", " ")]
        if len(records) != 1:
            raise SpfError(f"{name} has {len(records) or 'no'} SPF records; one is needed")
        try:
            found = parse(records[0])
        except SpfError as error:
            raise SpfError(f"{name}: {printable(str(error), 200)}") from None
        assert found is not None, "it begins like one"
        return found

    async def _matching(self, name: str, term: Term) -> _Found:
        """The addresses that a term matches, whatever follows from it."""
        if term.network is not None:
            return self._narrow(name, term, [term.network])
        self._count()
        if term.kind in ("ptr", "exists") or term.has_macro:
            self._leave_out(name, term, "it depends on the message" if term.has_macro else "it is no list of addresses")
            return _Found([], False)
        domain = term.domain or name
        if term.kind == "include":
            return await self.passing(domain)
        hosts = [domain]
        if term.kind == "mx":
            hosts = [host for host in (await self._ask(domain, "MX")).texts if host not in ("", ".")]
            if len(hosts) > MAX_EXCHANGES:
                raise SpfError(f"{domain} has {len(hosts)} MX hosts; {MAX_EXCHANGES} are looked up")
        networks: list[Network] = []
        for host in hosts:
            networks += await self._addresses(host, term)
        return self._narrow(name, term, networks)

    async def _addresses(self, host: str, term: Term) -> list[Network]:
        four = await self._ask(host, "A", counts_void=False)
        six = await self._ask(host, "AAAA", counts_void=False)
        if not four.texts and not six.texts:
            self._void()
        return [
            *(ip_network(f"{text}/{term.prefix4}", strict=False) for text in four.texts),
            *(ip_network(f"{text}/{term.prefix6}", strict=False) for text in six.texts),
        ]

    def _narrow(self, name: str, term: Term, networks: list[Network]) -> _Found:
        """Without what is too wide to be somebody's; it still excludes."""
        if not term.passes:
            return _Found(networks, True)
        good = [each for each in networks if each.prefixlen >= WIDEST[each.version]]
        if len(good) < len(networks):
            self._leave_out(name, term, "it is too wide")
        return _Found(good, len(good) == len(networks))

    async def _ask(self, name: str, kind: RecordKind, *, counts_void: bool = True) -> Records:
        answer = await self.resolver.records(name, kind)
        if answer.ttl is not None:
            self.ttl = min(self.ttl, answer.ttl)
        if not answer.texts and counts_void:
            self._void()
        return answer

    def _count(self) -> None:
        self.lookups += 1
        if self.lookups > MAX_LOOKUPS:
            raise SpfError(f"the SPF records need more than {MAX_LOOKUPS} look-ups")

    def _void(self) -> None:
        self.voids += 1
        if self.voids > MAX_VOID:
            raise SpfError(f"the SPF records have more than {MAX_VOID} look-ups without an answer")

    def _leave_out(self, name: str, term: Term, why: str) -> None:
        self.unusable.append(f"{name}: {printable(term.text, 100)}: {why}")


def _without(network: Network, out: Network) -> list[Network]:
    if not network.overlaps(out):
        return [network]
    if out.prefixlen <= network.prefixlen:
        return []
    return list(network.address_exclude(out))  # type: ignore[arg-type]


def _bounded(networks: list[Network]) -> list[Network]:
    if len(networks) > MAX_NETWORKS:
        raise SpfError(f"the SPF records have more than {MAX_NETWORKS} networks")
    return networks
