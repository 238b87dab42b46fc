"""Where a mail goes: the hosts of a next hop, each address of each for itself."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from relay.config.next_hops import NextHop
from relay.dns.resolver import Resolver
from relay.errors import DnsError
from relay.mail.address import Address
from relay.transports.tls_policy import TlsPolicy


@dataclass(frozen=True, slots=True)
class Target:
    """One address of a host, and what is asked of the session there. Sessions of equal targets are interchangeable."""

    name: str
    "The host's name, or its address where it is known by that; the certificate is for it."
    address: str
    port: int
    tls: TlsPolicy


class Targets:
    """The targets of one next hop."""

    def __init__(self, hop: NextHop, resolver: Resolver) -> None:
        self._hop = hop
        self._resolver = resolver
        self._tls = TlsPolicy.of(hop)

    async def of(self, recipient: Address) -> list[Target]:
        """Where mail for a recipient may go, the preferred first.

        Raises NullMx, NoSuchDomain, and DnsError when there is no answer.
        """
        if self._hop.host is not None:
            return [self._target(self._hop.host, address) for address in await addresses(self._hop.host)]
        return [self._target(host.name, host.address) for host in await self._resolver.mail_hosts(recipient.domain)]

    def _target(self, name: str, address: str) -> Target:
        return Target(name, address, self._hop.port, self._tls)


async def addresses(host: str) -> list[str]:
    """The addresses of a smarthost as the system knows them, from /etc/hosts too, IPv6 first. Raises DnsError."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise DnsError(f"{host} can't be reached: {error.strerror}") from None
    ordered = sorted(found, key=lambda each: each[0] is not socket.AF_INET6)
    return list(dict.fromkeys(str(each[4][0]) for each in ordered))
