"""Names of our own hosts: where bounces go (MX), and whether an address and its name know each other (PTR).

Receivers turn away clients without a confirmed name: RFC 5321 leaves it to them, RFC 1912 2.1 asks for it.
"""

from __future__ import annotations

from relay.dns.answers import Answers
from relay.dns.findings import Finding, Record
from relay.dns.resolver import RecordKind
from relay.dns.spf_verdict import IpAddress
from relay.errors import DnsError
from relay.mail.status import printable


async def check_bounce_mx(answers: Answers, domain: str) -> Finding:
    """Whether bounces to a domain find a host."""
    must = "a host that takes bounces"
    try:
        hosts = await answers.texts(domain, "MX")
        if hosts in (("",), (".",)):
            advice = "put in an MX that leads to where bounces are read"
            return Finding("mx", domain, must, "a null MX: it takes no mail", "wrong", advice)
        if not hosts:
            return await _without_mx(answers, domain, must)
        lost = [host for host in hosts if not await answers.addresses(host)]
    except DnsError as error:
        return Finding("mx", domain, must, str(error), "unknown")
    says = printable(" ".join(hosts), 200)
    if len(lost) == len(hosts):
        return Finding("mx", domain, must, f"{says}, without an address", "wrong", "give the host an address")
    if lost:
        return Finding("mx", domain, must, says, "warn", f"no address: {printable(' '.join(lost), 200)}")
    return Finding("mx", domain, must, says, "ok")


async def check_name(answers: Answers, hostname: str, address: IpAddress) -> Finding:
    """Whether the PTR of an address names our HELO name, and that name the address (forward-confirmed reverse DNS)."""
    pointer, must = address.reverse_pointer, f"{hostname}, which has the address {address}"
    record = Record(pointer, "PTR", f"{hostname}.")
    try:
        names = await answers.texts(pointer, "PTR")
        known = {name.lower(): await answers.addresses(name) for name in names[:10]}
        forward = await answers.addresses(hostname)
    except DnsError as error:
        return Finding("ptr", pointer, must, str(error), "unknown")
    says = printable(" ".join(names), 200)
    if not names:
        advice = "ask whom the address belongs to, mostly the provider, for the record"
        return Finding("ptr", pointer, must, "no name", "wrong", advice, record)
    if hostname in known and str(address) in forward:
        return Finding("ptr", pointer, must, says, "ok")
    if str(address) not in forward:
        kind: RecordKind = "A" if address.version == 4 else "AAAA"
        found = " ".join(forward) or "no address"
        advice = f"give {hostname} this address"
        return Finding(
            "ptr",
            pointer,
            must,
            f"{says}; {hostname} has {found}",
            "wrong",
            advice,
            Record(hostname, kind, str(address)),
        )
    if any(str(address) in addresses for addresses in known.values()):
        advice = "it is confirmed, but another name than we say in EHLO: let them be the same (server.hostname)"
        return Finding("ptr", pointer, must, says, "warn", advice)
    return Finding("ptr", pointer, must, f"{says}, which does not have this address", "wrong", "mend the PTR", record)


async def _without_mx(answers: Answers, domain: str, must: str) -> Finding:
    addresses = await answers.addresses(domain)
    if addresses:
        says = f"no MX, but an address: {' '.join(addresses)}"
        return Finding("mx", domain, must, says, "warn", "say it by an MX, so that nobody has to guess")
    return Finding("mx", domain, must, "no MX, and no address", "wrong", "publish an MX to where bounces are read")
