"""Whether senders find our MTA-STS policy (RFC 8461), whether it is true, and where they report to (RFC 8460).

Both are a domain's to have or not: what is missing is advice, what is there and wrong is a fault, for a policy that
names other hosts than the MX keeps mail away.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable

from relay.dns.answers import Answers
from relay.dns.findings import Finding, PublishedFile, Record, Verdict
from relay.dns.sts_policy import StsPolicy, policy_host, policy_url, read_record, record_name
from relay.errors import DnsError, StsError, StsHostAway
from relay.mail.status import printable

SHORT_AGE = 86400
GOOD_AGE = 604800

_RECORD = "v=STSv1 with an id"
_POLICY = "a policy that names the hosts of the MX"
_REPORTS = "where reports of failed TLS go"
_URI = r"(?:mailto:[^\s,;!@]+@[^\s,;!@]+|https://[^\s,;!]+)"
_TLS_RPT = re.compile(rf"v=TLSRPTv1[ \t]*;[ \t]*rua={_URI}(?:[ \t]*,[ \t]*{_URI})*[ \t]*;?[ \t]*")

Fetch = Callable[[str], Awaitable[StsPolicy]]
"""Fetches the policy of a domain. Raises StsError."""


async def check_mta_sts(answers: Answers, fetch: Fetch, domain: str, *, is_ours: bool) -> list[Finding]:
    """The record and the policy of a domain; nothing where it takes no mail, or, unless it is ours, has no policy."""
    name = record_name(domain)
    try:
        hosts = await answers.texts(domain, "MX") or ((domain,) if await answers.addresses(domain) else ())
        texts = await answers.texts(name, "TXT")
    except DnsError as error:
        return [Finding("mta-sts", name, _RECORD, str(error), "unknown")]
    if hosts in ((), ("",), (".",)):
        return []
    fresh = StsPolicy("testing", GOOD_AGE, tuple(dict.fromkeys(host.lower() for host in hosts)))
    try:
        announced = read_record(texts)
    except StsError as error:
        return [Finding("mta-sts", name, _RECORD, str(error), "wrong", "leave one, with an id", _record(domain, fresh))]
    if announced is None:
        if not is_ours:
            return []
        advice = "publish the policy first, then this; without it senders encrypt if they like, and verify nothing"
        return [
            Finding("mta-sts", name, _RECORD, "no record", "warn", advice, _record(domain, fresh), _file(domain, fresh))
        ]
    found = Finding("mta-sts", name, _RECORD, f"id={announced}", "ok")
    return [found, await _policy(fetch, domain, hosts, fresh)]


async def check_tls_rpt(answers: Answers, domain: str, reports_to: str) -> Finding:
    """Whether senders know where to report failed TLS with a domain; `reports_to` is a mailbox to advise."""
    name = f"_smtp._tls.{domain}"
    record = Record(name, "TXT", f"v=TLSRPTv1; rua=mailto:{reports_to}")
    try:
        texts = [text for text in await answers.texts(name, "TXT") if text.startswith("v=TLSRPTv1")]
    except DnsError as error:
        return Finding("tls-rpt", name, _REPORTS, str(error), "unknown")
    if not texts:
        advice = "publish it with a mailbox of yours: else nobody tells when mail does not come for want of TLS"
        return Finding("tls-rpt", name, _REPORTS, "no record", "warn", advice, record)
    if len(texts) > 1:
        return Finding("tls-rpt", name, _REPORTS, f"{len(texts)} records: none counts", "wrong", "leave one", record)
    says = printable(texts[0], 200)
    if not _TLS_RPT.fullmatch(texts[0]):
        return Finding("tls-rpt", name, _REPORTS, says, "wrong", "rua= has to be mailto: or https:", record)
    return Finding("tls-rpt", name, _REPORTS, says, "ok")


async def _policy(fetch: Fetch, domain: str, hosts: tuple[str, ...], fresh: StsPolicy) -> Finding:
    where = policy_host(domain)
    try:
        policy = await fetch(domain)
    except StsHostAway as error:
        return Finding("mta-sts", where, _POLICY, str(error), "unknown", "look whether it answers from elsewhere")
    except StsError as error:
        advice = "senders are told of a policy and find none: mend it, or take the record away"
        return Finding("mta-sts", where, _POLICY, str(error), "wrong", advice, file=_file(domain, fresh))
    says = printable(f"{policy.mode}: {' '.join(policy.mx) or 'no host'}, max_age {policy.max_age}", 300)
    lost = [host for host in hosts if not policy.names(host)]
    if policy.mode != "none" and lost:
        named = StsPolicy(policy.mode, policy.max_age, tuple(dict.fromkeys([*policy.mx, *fresh.mx])))
        advice = f"senders keep away from {printable(' '.join(lost), 200)}: name them, and give the record another id"
        return Finding("mta-sts", where, _POLICY, says, "wrong", advice, _record(domain, named), _file(domain, named))
    advised = _advice(policy)
    verdict: Verdict = "warn" if advised else "ok"
    return Finding("mta-sts", where, _POLICY, says, verdict, "; ".join(advised))


def _advice(policy: StsPolicy) -> list[str]:
    if policy.mode == "none":
        return ["none asks for nothing: it is for taking a policy back"]
    advice = []
    if policy.mode == "testing":
        advice.append("testing keeps no mail away: say enforce when the reports (TLS-RPT) show no failures")
    if policy.max_age < SHORT_AGE:
        advice.append(f"max_age is short: senders forget it soon, so say some weeks, as in {GOOD_AGE}")
    return advice


def _record(domain: str, policy: StsPolicy) -> Record:
    """The record for a policy: its id is another one when the policy is."""
    identity = hashlib.sha256(policy.text.encode()).hexdigest()[:16]
    return Record(record_name(domain), "TXT", f"v=STSv1; id={identity}")


def _file(domain: str, policy: StsPolicy) -> PublishedFile:
    return PublishedFile(policy_url(domain), policy.text)
