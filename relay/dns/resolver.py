"""Look-ups without blocking: the hosts that take mail for a domain (RFC 5321 5.1, RFC 7505)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.nameserver
import dns.resolver

from relay.config.dns import Dns
from relay.config.kinds import nameserver
from relay.errors import AddressError, DnsError, NoSuchDomain, NullMx
from relay.mail.address import ascii_domain

MAX_HOSTS = 8
"""Addresses of a domain that are tried in one attempt."""


RecordKind = Literal["A", "AAAA", "MX", "NS", "PTR", "TLSA", "TXT"]


@dataclass(frozen=True, slots=True)
class MailHost:
    """A host that takes mail: its name, and one of its addresses."""

    name: str
    address: str
    is_secure: bool = False
    "Whether the way from the domain to this address was validated (DNSSEC), so that TLSA records count (RFC 7672 2.2)."


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one type at a name, as text; none when there are none, or no such name."""

    texts: tuple[str, ...]
    ttl: float | None = None
    "Seconds for which they are good; None when nothing says so."
    is_secure: bool = False
    "Whether a name server that we trust validated them (DNSSEC)."


class Resolver:
    """Asks the configured name servers, or those of the system."""

    def __init__(self, settings: Dns) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=not settings.nameservers)
        if settings.nameservers:
            self._resolver.nameservers = [
                dns.nameserver.Do53Nameserver(*nameserver(text)) for text in settings.nameservers
            ]
        self._resolver.lifetime = settings.timeout
        self._trusts_ad = settings.dnssec != "off"
        if self._trusts_ad:
            self._resolver.flags = dns.flags.RD | dns.flags.AD  # tell us what you validated (RFC 6840 5.7)

    async def mail_hosts(self, domain: str) -> list[MailHost]:
        """Hosts that take mail for a domain, the preferred first; the domain itself where it has no MX.

        An address literal names its host. Raises NoSuchDomain when the domain does not exist or takes no mail, and
        DnsError when there is no answer.
        """
        if domain.startswith("["):
            address = domain.strip("[]").removeprefix("IPv6:")
            return [MailHost(address, address)]
        try:
            name = ascii_domain(domain)
        except AddressError as error:
            raise NoSuchDomain(str(error)) from None
        hosts: list[MailHost] = []
        exchanges = await self._exchanges(name)
        for exchange in exchanges.texts:
            found = await self._addresses(exchange)
            hosts += [MailHost(exchange, each, exchanges.is_secure and found.is_secure) for each in found.texts]
        if not hosts:
            raise DnsError(f"no host that takes mail for {name} has an address")
        return hosts[:MAX_HOSTS]

    async def records(self, name: str, kind: RecordKind) -> Records:
        """The records of a type: addresses, hosts with the preferred first, names, or texts in one piece each.

        Raises DnsError when there is no answer.
        """
        try:
            answer = await self._resolver.resolve(f"{name}.", kind)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return Records(())
        except dns.exception.DNSException as error:
            raise DnsError(f"no answer from the DNS for {name}: {type(error).__name__}") from None
        if kind == "TXT":
            texts = [b"".join(record.strings).decode("latin-1") for record in answer]
        elif kind == "MX":
            found = sorted((record.preference, record.exchange.to_text(omit_final_dot=True)) for record in answer)
            texts = [host for _, host in found]
        elif kind in ("NS", "PTR"):
            texts = [record.target.to_text(omit_final_dot=True) for record in answer]
        else:
            texts = [record.to_text() for record in answer]
        return Records(tuple(texts), float(answer.chaining_result.minimum_ttl), self._is_secure(answer))

    async def _exchanges(self, name: str) -> Records:
        """Names of the hosts, the preferred first; the domain itself where there is no MX (RFC 5321 5.1)."""
        try:
            answer = await self._resolver.resolve(name, "MX", raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            raise NoSuchDomain(f"the domain {name} does not exist") from None
        except dns.exception.DNSException as error:
            raise DnsError(f"no answer from the DNS for {name}: {type(error).__name__}") from None
        is_secure = self._is_secure(answer)
        if answer.rrset is None:
            return Records((name,), is_secure=is_secure)
        found = sorted((record.preference, record.exchange.to_text(omit_final_dot=True)) for record in answer)
        if [host for _, host in found] in ([""], ["."]):
            raise NullMx(f"the domain {name} takes no mail")
        return Records(tuple(host for _, host in found), is_secure=is_secure)

    async def _addresses(self, host: str) -> Records:
        """The addresses of a host, IPv6 first; none when it has none or the DNS does not say."""
        answers = await asyncio.gather(
            *(self._resolver.resolve(host, kind) for kind in ("AAAA", "A")), return_exceptions=True
        )
        good = [answer for answer in answers if not isinstance(answer, BaseException)]
        texts = [record.to_text() for answer in good for record in answer]
        return Records(tuple(texts), is_secure=all(map(self._is_secure, good)))

    def _is_secure(self, answer: dns.resolver.Answer) -> bool:
        return self._trusts_ad and bool(answer.response.flags & dns.flags.AD)
