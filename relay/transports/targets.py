"""Where a mail goes: the hosts of a next hop, each address of each for itself."""

from __future__ import annotations

from dataclasses import dataclass

from relay.config.next_hops import NextHop
from relay.dns.resolver import Resolver
from relay.dns.sts_policies import StsPolicies
from relay.errors import DnsError, NoSecureWay
from relay.mail.address import Address
from relay.transports.addresses import Addresses
from relay.transports.mx_security import MxSecurity, Wish
from relay.transports.tls_policy import TlsPolicy


@dataclass(frozen=True, slots=True)
class Target:
    """One address of a host, and what is asked of the session there. Sessions of equal targets are interchangeable."""

    name: str
    "The host's name, or its address where it is known by that; the certificate is for it."
    address: str
    port: int
    tls: TlsPolicy

    def __str__(self) -> str:
        return self.name if self.name == self.address else f"{self.name}[{self.address}]"

    @property
    def is_ipv6(self) -> bool:
        """Whether its address is one of IPv6."""
        return ":" in self.address


class Targets:
    """The targets of one next hop."""

    def __init__(self, hop: NextHop, resolver: Resolver, policies: StsPolicies | None = None) -> None:
        """Without `policies` there is no MTA-STS."""
        self._hop = hop
        self._security = MxSecurity(hop, resolver, policies)
        self._hosts = hop.smarthosts
        self._names = tuple(dict.fromkeys(name for name, _ in self._hosts))
        self._addresses = Addresses()
        self._tls = TlsPolicy.of(hop)
        self._source_is_ipv6 = {":" in address for address in hop.source_address}

    async def of(self, recipient: Address, wish: Wish = Wish.NONE) -> list[Target]:
        """Where mail for a recipient may go, the preferred first; one that `source_address` does not reach is left out.

        Raises NoSecureWay, NullMx, NoSuchDomain, and DnsError when there is no answer, or nothing is left.
        """
        found = await (self._smarthosts(wish) if self._hosts else self._exchanges(recipient, wish))
        if not self._source_is_ipv6:
            return found
        reached = [target for target in found if target.is_ipv6 in self._source_is_ipv6]
        if not reached:
            names = ", ".join(dict.fromkeys(target.name for target in found))
            raise DnsError(f"{names} can't be reached from source_address: it has no address of that kind")
        return reached

    def close(self) -> None:
        """Ends look-ups that are under way."""
        self._addresses.close()

    async def _exchanges(self, recipient: Address, wish: Wish) -> list[Target]:
        ways = await self._security.ways(recipient.domain, wish)
        return [Target(host.name, host.address, self._hop.port, tls) for host, tls in ways]

    async def _smarthosts(self, wish: Wish) -> list[Target]:
        if wish is Wish.REQUIRED and not self._tls.is_verified:
            raise NoSecureWay(
                f'the mail may go over verified TLS only, and the next hop {self._hop.name} has not tls = "required"'
            )
        known = await self._addresses.of(self._names)
        return [Target(name, address, port, self._tls) for name, port in self._hosts for address in known.get(name, ())]
