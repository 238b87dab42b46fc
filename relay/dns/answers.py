"""One look at the DNS: every question is asked once, so that all checks of a run judge the same answers."""

from __future__ import annotations

from relay.dns.resolver import RecordKind, Records, Resolver
from relay.errors import DnsError


class Answers:
    """Answers so far, refusals too."""

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self._known: dict[tuple[str, RecordKind], Records | DnsError] = {}

    async def texts(self, name: str, kind: RecordKind) -> tuple[str, ...]:
        """The records of a type at a name, as text; none when there are none. Raises DnsError when nobody answers."""
        key = (name.lower(), kind)
        if key not in self._known:
            try:
                self._known[key] = await self.resolver.records(*key)
            except DnsError as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, DnsError):
            raise known
        return known.texts

    async def addresses(self, name: str) -> tuple[str, ...]:
        """The addresses of a host, IPv4 first. Raises DnsError when nobody answers."""
        return (*await self.texts(name, "A"), *await self.texts(name, "AAAA"))
