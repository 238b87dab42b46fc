"""Whether SPF passes our mail: every address that we send from, by the record of the domain that is judged (RFC 7208).

Judged is the domain of the Envelope-From; of DSNs, which have none, the name in HELO (RFC 7208 2.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from relay.dns.answers import Answers
from relay.dns.findings import Finding, Record, Topic, Verdict
from relay.dns.spf import MAX_LOOKUPS, MAX_VOID, addresses_of
from relay.dns.spf_record import parse
from relay.dns.spf_verdict import IpAddress, Judgement, judge, records_of, whole_cost
from relay.errors import NoSuchDomain, SpfError
from relay.mail.status import printable

TRIED = 40
"""Addresses of an SPF name that are tried: the ends of its networks."""

_PRIVATE = tuple(
    ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
    )
)


@dataclass(frozen=True, slots=True)
class Senders:
    """From where mail leaves: addresses, and for each what a record says to allow it."""

    addresses: tuple[IpAddress, ...]
    terms: tuple[str, ...]

    @property
    def is_private(self) -> bool:
        """Whether the world can't see any of the addresses: those of a loopback or a site (RFC 1918, RFC 4193)."""
        return all(any(address in network for network in _PRIVATE) for address in self.addresses)

    @property
    def single(self) -> tuple[IpAddress, ...]:
        """The addresses that are known one by one, not as the ends of networks."""
        return tuple(ip_address(term.partition(":")[2]) for term in self.terms if not term.startswith("include:"))

    def with_those_of(self, other: Senders) -> Senders:
        """Both, each address and term once."""
        addresses, terms = self.addresses + other.addresses, self.terms + other.terms
        return Senders(tuple(dict.fromkeys(addresses)), tuple(dict.fromkeys(terms)))


async def senders_of(answers: Answers, sends_from: Sequence[str], host: str) -> Senders:
    """The addresses behind `sends_from` (addresses and SPF names), or those of a host where it is empty.

    Raises SpfError or NoSuchDomain when there are none, and DnsError when nobody answers.
    """
    addresses: list[IpAddress] = []
    terms: list[str] = []
    for text in sends_from or await _addresses(answers, host):
        try:
            address = ip_address(text)
        except ValueError:
            for network in (await addresses_of(answers.resolver, text)).networks:
                addresses += [network[0], network[-1]]
            terms.append(f"include:{text}")
        else:
            addresses.append(address)
            terms.append(f"ip{address.version}:{address}")
    if not addresses:
        raise NoSuchDomain(f"{', '.join(sends_from)}: the SPF record names no address that can be used")
    return Senders(tuple(dict.fromkeys(addresses))[:TRIED], tuple(terms))


async def check_spf(
    answers: Answers, domain: str, senders: Senders, *, topic: Topic = "spf", is_ours: bool = True
) -> Finding:
    """The verdict on mail from all our addresses. `is_ours` tells that nobody else sends in the name of the domain."""
    must = f"pass for {_listed(senders.addresses)}"
    sender = f"postmaster@{domain}"
    judged = [await judge(answers, domain, address, sender) for address in senders.addresses]
    worst = max(judged, key=_badness)
    cost = await whole_cost(answers, domain)
    count = f"{cost.lookups} of {MAX_LOOKUPS} look-ups, {cost.voids} of {MAX_VOID} void"
    if worst.result == "temperror":
        return Finding(topic, domain, must, printable(worst.reason, 300), "unknown")
    if worst.result == "pass":
        verdict, advice = _on_the_whole(cost)
        return Finding(topic, domain, must, f"pass ({_reasons(judged)}); {count}", verdict, advice)
    if worst.result == "none":
        record = Record(domain, "TXT", _fresh(senders))
        if topic == "helo-spf":  # without one a DSN is nobody's, not a forgery
            return Finding(topic, domain, must, "no SPF record", "warn", "publish it: DSNs have nothing else", record)
        return Finding(topic, domain, must, "no SPF record", "wrong", "publish it", record)
    at = senders.addresses[judged.index(worst)]
    says = f"{worst.result} for {at} ({printable(worst.reason, 300)}); {count}"
    record_text = await _mended(answers, domain, senders, judged, is_ours=is_ours)
    advice = (
        "publish this instead of what is there" if record_text else "mend the record; it needs a person who knows it"
    )
    return Finding(
        topic, domain, must, says, "wrong", advice, Record(domain, "TXT", record_text) if record_text else None
    )


async def check_from_spf(answers: Answers, domain: str, senders: Senders) -> Finding:
    """The verdict on mail whose From domain is judged, though DMARC does not ask for it: filters do, and whoever keeps
    the Envelope-From. Only a record that fails us is worth a change.
    """
    found = await check_spf(answers, domain, senders, topic="from-spf", is_ours=False)
    if found.verdict != "wrong":
        return found
    if found.says == "no SPF record":
        return replace(found, verdict="ok", advice="", record=None)
    return replace(found, verdict="warn")


def _on_the_whole(cost: Judgement) -> tuple[Verdict, str]:
    """What is wrong with a record that passes us."""
    if cost.result == "pass":
        return "warn", "it passes everybody (+all): end it with -all, else it proves nothing"
    if cost.result == "temperror":
        return "warn", f"what stands behind our part could not be asked: {printable(cost.reason, 200)}"
    if cost.result == "permerror":
        return "warn", f"mend what stands behind our part: {printable(cost.reason, 200)}"
    if cost.lookups > MAX_LOOKUPS or cost.voids > MAX_VOID:
        return "warn", "too many look-ups for senders that stand behind us in the record: they get permerror"
    return "ok", ""


async def _mended(
    answers: Answers, domain: str, senders: Senders, judged: Sequence[Judgement], *, is_ours: bool
) -> str | None:
    """The record with what it lacks; a new one where ours is past mending; None where somebody has to think."""
    found = await records_of(answers, domain)
    is_broken = any(each.result == "permerror" for each in judged)
    if len(found) != 1 or is_broken:
        return _fresh(senders) if is_ours else None
    try:
        parse(found[0])
    except SpfError:
        return None
    version, *words = [word for word in found[0].split(" ") if word]
    # In front: what excludes us further on must not come first.
    return " ".join([version, *(term for term in senders.terms if term not in words), *words])


def _fresh(senders: Senders) -> str:
    return " ".join(["v=spf1", *senders.terms, "-all"])


def _badness(judgement: Judgement) -> int:
    order = ("pass", "neutral", "softfail", "fail", "none", "permerror", "temperror")
    return order.index(judgement.result)


def _reasons(judged: Sequence[Judgement]) -> str:
    return printable("; ".join(dict.fromkeys(each.reason for each in judged)), 300)


def _listed(addresses: Sequence[IpAddress]) -> str:
    shown = ", ".join(str(address) for address in addresses[:3])
    return shown if len(addresses) <= 3 else f"{shown} and {len(addresses) - 3} more"


async def _addresses(answers: Answers, host: str) -> tuple[str, ...]:
    try:
        return (str(ip_address(host)),)
    except ValueError:
        found = await answers.addresses(host)
    if not found:
        raise NoSuchDomain(f"{host} has no address")
    return found
