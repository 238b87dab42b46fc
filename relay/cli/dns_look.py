"""What `slip-relay dns` looks at: everything that the configuration says about domains, keys and ways out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from relay.cli.dns_relays import relay_findings
from relay.config.institutions import DkimKey, Institution
from relay.config.next_hops import NextHop
from relay.config.settings import Config
from relay.dns.answers import Answers
from relay.dns.dkim_record import check_key
from relay.dns.dmarc_check import Sent, check_dmarc
from relay.dns.ex_libris import check_ex_libris
from relay.dns.findings import Finding, Verdict
from relay.dns.hosts_check import check_bounce_mx, check_name
from relay.dns.resolver import Resolver
from relay.dns.spf_check import Senders, check_from_spf, check_spf, senders_of
from relay.dns.sts_check import check_mta_sts, check_tls_rpt
from relay.dns.sts_fetch import PolicyFetcher
from relay.errors import DnsError, NoSuchDomain, SpfError
from relay.mail.address import ascii_domain, parse_address
from relay.outgoing.key_folder import read_folder
from relay.outgoing.keys import load_keys

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
    for table in institution.dkim:
        for key in load_keys(table):
            findings.append(await check_key(answers, key.domain, key.selector, key.private.public_key()))
        findings += await _next_keys(table, answers)
    if not institution.dkim:
        advice = "slip-relay dkim keygen makes a key; name it in [[institutions.dkim]]"
        findings.append(Finding("dkim", institution.domains[0], "a key", "no key: letters go unsigned", "warn", advice))
    domains = [ascii_domain(each) for each in institution.domains]
    envelopes = _envelopes(config, institution)
    findings += await _spf(config, institution, envelopes, answers)
    domain, is_ours = _envelope_domain(institution), institution.envelope_from == "verp"
    sent = Sent(domain, tuple(ascii_domain(key.domain) for key in institution.dkim))
    for each in domains:
        findings += await check_dmarc(answers, each, sent)
    for each in _and_parents([*(each for each in envelopes if each is not None), *domains]):
        if (advised := await check_ex_libris(answers, each)) is not None:
            findings.append(advised)
    for used, hops in envelopes.items():
        if used is not None:
            for hop in hops:
                findings += await relay_findings(config, institution.sending(hop.rewriting), hop, used, answers)
    if domain is not None and is_ours:
        findings.append(await check_bounce_mx(answers, domain))
    return findings + await _of_transport(config, institution, domain if is_ours else None, answers)


def _envelopes(config: Config, institution: Institution) -> dict[str | None, list[NextHop]]:
    """The next hops that an institution's letters may go by, by the domain of the Envelope-From there."""
    found: dict[str | None, list[NextHop]] = {}
    for hop in config.hops_of(institution):
        found.setdefault(_envelope_domain(institution.sending(hop.rewriting)), []).append(hop)
    return found


async def _spf(
    config: Config, institution: Institution, envelopes: dict[str | None, list[NextHop]], answers: Answers
) -> list[Finding]:
    """SPF of each domain that stands in an Envelope-From of an institution's mail, for the hosts that it leaves by,
    and of its From domains for all of them.
    """
    domains = [ascii_domain(each) for each in institution.domains]
    findings = []
    for domain, hops in envelopes.items():
        if domain is None:
            findings.append(Finding("spf", domains[0], *_KEPT))
            continue
        senders = await _senders(config, hops, answers, domain)
        if isinstance(senders, Finding):
            findings.append(senders)
        else:
            is_ours = institution.envelope_from == "verp" and domain == _envelope_domain(institution)
            findings.append(await check_spf(answers, domain, senders, is_ours=is_ours))
    senders = await _senders(config, config.hops_of(institution), answers, domains[0])
    if not isinstance(senders, Finding):
        findings += [await check_from_spf(answers, each, senders) for each in domains if each not in envelopes]
    elif None in envelopes:
        findings.append(senders)
    return findings


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


async def _next_keys(table: DkimKey, answers: Answers) -> list[Finding]:
    """Keys that are to sign as soon as the DNS has their records: nothing is wrong while it has not."""
    if table.key_folder is None:
        return []
    folder, findings = read_folder(table.key_folder), []
    for selector in folder.coming:
        found = await check_key(answers, ascii_domain(table.domain), selector, folder.key(selector).public_key())
        if found.verdict != "unknown":
            advice = "the next key: publish its record, and call slip-relay dkim rotate, which changes to it"
            found = replace(found, verdict="warn", advice=advice)
        findings.append(found)
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


def _and_parents(domains: list[str]) -> list[str]:
    """Domains, and those above them: letters may have been sent in the name of the university before."""
    parents = (each.split(".", depth)[depth] for each in domains for depth in range(1, each.count(".")))
    return list(dict.fromkeys([*domains, *parents]))


def _envelope_domain(institution: Institution) -> str | None:
    """The domain that SPF is judged by; None where that is the sender's."""
    if institution.envelope_from == "keep":
        return None
    if institution.envelope_from != "verp":
        return ascii_domain(parse_address(institution.envelope_from).domain)
    assert institution.bounce_domain is not None, "the configuration was checked"
    return ascii_domain(institution.bounce_domain)
