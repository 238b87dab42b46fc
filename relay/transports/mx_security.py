"""What is asked of sessions with the mail hosts of a domain: by their TLSA records, or by the domain's MTA-STS policy.

DANE comes first, host by host (RFC 8461 2): where a host has TLSA records that were validated, they decide, and a
host whose records can't be had is left out (RFC 7672 2.1). For the others it is the MTA-STS policy: in `enforce` only
hosts that it names, with a certificate for their name; in `testing` that is tried first, and then what else is asked.
What the sender of a mail wishes comes before both (RFC 8689): verified TLS to hosts that are known for sure to be the
domain's, or no policies at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum

from relay.config.next_hops import NextHop
from relay.dns.resolver import MailHost, Resolver
from relay.dns.sts_policies import StsPolicies
from relay.dns.sts_policy import StsPolicy
from relay.dns.tlsa import TlsaRecords, tlsa_records
from relay.errors import AddressError, DnsError, NoSecureWay, StsError
from relay.mail.address import ascii_domain
from relay.transports.dane import DaneCheck
from relay.transports.tls_policy import Authorities, Start, TlsPolicy

ENFORCED = "MTA-STS"
DANE = "DANE"
DANE_UNUSABLE = "DANE without usable records"

NOT_SO, NOT_NAMED = "MTA-STS in testing, not met", "MTA-STS in testing, not named"
IN_TESTING = {
    NOT_SO: "TLS there was not as the policy asks a while ago",
    NOT_NAMED: "the policy does not name the host",
}
"""What sessions are called that the policy would not allow were it enforced, and why."""


class Wish(Enum):
    """What the sender of a mail says about TLS on its way (RFC 8689)."""

    NONE = "nothing"
    REQUIRED = "REQUIRETLS"
    UNIMPORTANT = "TLS-Required: No"


Way = tuple[MailHost, TlsPolicy]
"""An address of a host, and what is asked of the session."""


class MxSecurity:
    """For one next hop that goes by MX."""

    def __init__(self, hop: NextHop, resolver: Resolver, policies: StsPolicies | None) -> None:
        """Without `policies` there is no MTA-STS."""
        self._resolver = resolver
        self._policies = policies
        self._port = hop.port
        self._otherwise = TlsPolicy.of(hop)
        self._verified = TlsPolicy(Start.ALWAYS, ENFORCED, Authorities(policies.ca_file if policies else None))

    async def ways(self, domain: str, wish: Wish = Wish.NONE) -> list[Way]:
        """The hosts of a domain, the preferred first, some of them twice.

        Raises NullMx, NoSuchDomain, NoSecureWay when the wish can't be met, StsError when the domain's policy forbids
        every host, and DnsError when there is no answer.
        """
        if wish is Wish.UNIMPORTANT:
            return [(host, self._otherwise) for host in await self._resolver.mail_hosts(domain)]
        hosts, policy = await asyncio.gather(self._resolver.mail_hosts(domain), self._policy_of(domain))
        by_dane, faults = await self._by_dane(domain, hosts)
        ways: list[Way] = []
        for host in hosts:
            if host.name in faults:
                continue
            dane = by_dane.get(host.name)
            if wish is Wish.REQUIRED:
                ways += [(host, tls) for tls in self._by_wish(host, dane, policy)]
            elif dane is not None and (dane.checks or policy is None or policy.mode != "enforce"):
                ways.append((host, dane))
            else:
                ways += [(host, tls) for tls in self._by_policy(host, policy)]
        if ways:
            return ways
        if faults:
            raise DnsError("; ".join(faults.values()))
        named = ", ".join(dict.fromkeys(host.name for host in hosts))
        if wish is Wish.REQUIRED:
            raise NoSecureWay(
                f"the mail may go over verified TLS only, and neither DNSSEC nor MTA-STS says that the mail hosts of "
                f"{domain} are its own: {named}"
            )
        raise StsError(f"the MTA-STS policy of {domain} is enforced, and does not name its mail hosts: {named}")

    async def _policy_of(self, domain: str) -> StsPolicy | None:
        if self._policies is None or domain.startswith("["):
            return None
        try:
            return await self._policies.policy_of(ascii_domain(domain))
        except AddressError:
            return None

    def _by_wish(self, host: MailHost, dane: TlsPolicy | None, policy: StsPolicy | None) -> tuple[TlsPolicy, ...]:
        """What REQUIRETLS asks of a host; nothing where an answer from the DNS alone names it (RFC 8689 4.2.1)."""
        if dane is not None and dane.checks:
            return (dane,)
        is_named = policy is not None and policy.mode != "none" and policy.names(host.name)
        return (self._verified,) if is_named or host.is_secure else ()

    def _by_policy(self, host: MailHost, policy: StsPolicy | None) -> tuple[TlsPolicy, ...]:
        if policy is None or policy.mode == "none":
            return (self._otherwise,)
        if policy.mode == "enforce":
            return (self._verified,) if policy.names(host.name) else ()
        if policy.names(host.name):
            return (self._verified, replace(self._otherwise, name=NOT_SO))
        return (replace(self._otherwise, name=NOT_NAMED),)

    async def _by_dane(self, domain: str, hosts: list[MailHost]) -> tuple[Mapping[str, TlsPolicy], Mapping[str, str]]:
        """The policies of hosts that have TLSA records, and why others have to be left out, both by name."""
        names = list(dict.fromkeys(host.name for host in hosts if host.is_secure))
        answers = await asyncio.gather(
            *(tlsa_records(self._resolver, name, self._port) for name in names), return_exceptions=True
        )
        found: dict[str, TlsPolicy] = {}
        faults: dict[str, str] = {}
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, TlsaRecords):
                found[name] = _dane(answer, name, domain)
            elif isinstance(answer, DnsError):
                faults[name] = f"the TLSA records of {name} can't be had: {answer}"
            elif answer is not None:
                raise answer
        return found, faults


def _dane(records: TlsaRecords, host: str, domain: str) -> TlsPolicy:
    if not records.usable:
        return TlsPolicy(Start.ALWAYS, DANE_UNUSABLE)
    names = tuple(dict.fromkeys((host.lower(), ascii_domain(domain))))
    return TlsPolicy(Start.ALWAYS, DANE, checks=(DaneCheck(records.usable, names),))
