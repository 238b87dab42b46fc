"""What `slip-relay dns` looks at: everything that the configuration says about domains, keys and ways out."""

from __future__ import annotations

from dataclasses import dataclass

from relay.config.institutions import Institution
from relay.config.next_hops import NextHop
from relay.config.settings import Config
from relay.dns.answers import Answers
from relay.dns.dkim_record import check_key
from relay.dns.dmarc_check import Sent, check_dmarc
from relay.dns.findings import Finding, Verdict
from relay.dns.hosts_check import check_bounce_mx, check_name
from relay.dns.resolver import Resolver
from relay.dns.spf_check import Senders, check_ex_libris, check_spf, senders_of
from relay.dns.sts_check import check_mta_sts, check_tls_rpt
from relay.dns.sts_fetch import PolicyFetcher
from relay.errors import DnsError, NoSuchDomain, SpfError
from relay.mail.address import ascii_domain, parse_address
from relay.outgoing.keys import load_key

_KEPT: tuple[str, str, Verdict, str] = (
    "an Envelope-From of its own",
    "the senders' own is kept, and SPF is judged by their domains",
    "warn",
    'envelope_from = "verp", or a fixed mailbox, makes it the institution\'s, so that SPF aligns',
)
"""What is found where nobody knows the domain beforehand."""


@dataclass(frozen=True, slots=True)
class Part:
    """The findings about an institution, or about the appliance itself, which has no name."""

    institution: str | None
    findings: list[Finding]


async def look(config: Config) -> list[Part]:
    """The findings for every institution, and for the appliance where it sends mail to the world itself."""
    answers = Answers(Resolver(config.dns))
    parts = [Part(each.name, await _of_institution(config, each, answers)) for each in config.institutions]
    own = await _of_appliance(config, answers)
    return [*parts, Part(None, own)] if own else parts


async def _of_institution(config: Config, institution: Institution, answers: Answers) -> list[Finding]:
    findings: list[Finding] = []
    for key in (load_key(each) for each in institution.dkim):
        findings.append(await check_key(answers, key.domain, key.selector, key.private.public_key()))
    if not institution.dkim:
        advice = "slip-relay dkim keygen makes a key; name it in [[institutions.dkim]]"
        findings.append(Finding("dkim", institution.domains[0], "a key", "no key: letters go unsigned", "warn", advice))
    domain, is_ours = _envelope_domain(institution), institution.envelope_from == "verp"
    findings += await _spf(config, institution, answers)
    sent = Sent(domain, tuple(ascii_domain(key.domain) for key in institution.dkim))
    for each in map(ascii_domain, institution.domains):
        findings += await check_dmarc(answers, each, sent)
        if each != domain and (advised := await check_ex_libris(answers, each)) is not None:
            findings.append(advised)
    if is_ours and domain is not None:
        findings.append(await check_bounce_mx(answers, domain))
    return findings + await _of_transport(config, institution, domain if is_ours else None, answers)


async def _of_transport(
    config: Config, institution: Institution, bounce_domain: str | None, answers: Answers
) -> list[Finding]:
    """How mail to an institution is safe on its way: where it takes bounces, and where it has a policy itself."""
    own = [ascii_domain(each) for each in institution.domains]
    fetch = PolicyFetcher(config.mta_sts, answers.resolver).fetch
    findings: list[Finding] = []
    for domain in dict.fromkeys([bounce_domain, *own] if bounce_domain is not None else own):
        findings += await check_mta_sts(answers, fetch, domain, is_ours=domain == bounce_domain)
    if bounce_domain is not None:
        findings.append(await check_tls_rpt(answers, bounce_domain, f"tls-reports@{own[0]}"))
    return findings


async def _spf(config: Config, institution: Institution, answers: Answers) -> list[Finding]:
    """SPF of each domain that stands in an Envelope-From of an institution's mail, for the hosts that it leaves by."""
    by_domain: dict[str | None, list[NextHop]] = {}
    for hop in config.hops_of(institution):
        by_domain.setdefault(_envelope_domain(institution.sending(hop.rewriting)), []).append(hop)
    findings = []
    for domain, hops in by_domain.items():
        if domain is None:
            findings.append(Finding("spf", institution.domains[0], *_KEPT))
            continue
        senders = await _senders(config, hops, answers, domain)
        if isinstance(senders, Finding):
            findings.append(senders)
        else:
            is_ours = institution.envelope_from == "verp" and domain == _envelope_domain(institution)
            findings.append(await check_spf(answers, domain, senders, is_ours=is_ours))
    return findings


async def _of_appliance(config: Config, answers: Answers) -> list[Finding]:
    """What is asked of the name and the addresses of the appliance, where it sends mail to the world itself."""
    used = [hop for institution in config.institutions for hop in config.hops_of(institution)]
    direct = [hop for hop in dict.fromkeys(each.name for each in used) if config.next_hop(hop).goes_by_mx]
    if not direct:
        return []
    hostname = ascii_domain(config.server.hostname)
    senders = await _senders(config, [config.next_hop(name) for name in direct], answers, hostname)
    if isinstance(senders, Finding):
        return [senders]
    helo = await check_spf(answers, hostname, senders, topic="helo-spf")
    return [helo, *[await check_name(answers, hostname, address) for address in senders.single]]


async def _senders(config: Config, hops: list[NextHop], answers: Answers, domain: str) -> Senders | Finding:
    """From where mail by these next hops reaches the world; or why that can't be told."""
    all_of_them = Senders((), ())
    for hop in hops:
        must, advice = "pass for the addresses that send", f"name the addresses in next_hops.sends_from of {hop.name!r}"
        try:
            found = Senders((), ())
            for host in _sending_hosts(config, hop):
                found = found.with_those_of(await senders_of(answers, _sends_from(hop), host))
        except (NoSuchDomain, SpfError) as error:
            return Finding("spf", domain, must, str(error), "wrong", advice)
        except DnsError as error:
            return Finding("spf", domain, must, str(error), "unknown")
        if found.is_private and not hop.sends_from:
            says = f"not asked: {', '.join(map(str, found.addresses))} is no address that the world sees"
            return Finding("spf", domain, must, says, "unknown", advice)
        all_of_them = all_of_them.with_those_of(found)
    return all_of_them


def _sends_from(hop: NextHop) -> tuple[str, ...]:
    return hop.sends_from or (hop.source_address if hop.goes_by_mx else ())


def _sending_hosts(config: Config, hop: NextHop) -> list[str]:
    """Whose addresses count where nothing else is said."""
    return list(dict.fromkeys(host for host, _ in hop.smarthosts)) or [ascii_domain(config.server.hostname)]


def _envelope_domain(institution: Institution) -> str | None:
    """The domain that SPF is judged by; None where that is the sender's."""
    if institution.envelope_from == "keep":
        return None
    if institution.envelope_from != "verp":
        return ascii_domain(parse_address(institution.envelope_from).domain)
    assert institution.bounce_domain is not None, "the configuration was checked"
    return ascii_domain(institution.bounce_domain)
