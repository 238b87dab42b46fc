"""What the DNS and the web say about TLS with hosts of our bounce domain: MTA-STS (RFC 8461), TLS-RPT (RFC 8460)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from relay.config.dns import Dns
from relay.config.mta_sts import MtaSts
from relay.dns.answers import Answers
from relay.dns.findings import Finding
from relay.dns.resolver import Resolver
from relay.dns.sts_check import check_mta_sts, check_tls_rpt
from relay.dns.sts_fetch import PolicyFetcher
from relay.dns.sts_policy import read_policy, read_record
from tests.harness import certificates
from tests.harness.certificates import Made
from tests.harness.dns_server import DnsServer
from tests.harness.policy_server import PolicyServer
from tests.harness.waiting import LOCALHOST, free_ports

pytestmark = pytest.mark.asyncio

DOMAIN = "bounces.lib.example"
RECORD = f"_mta-sts.{DOMAIN}"


class Zone:
    """A bounce domain with its policy host."""

    def __init__(self, dns: DnsServer, policies: PolicyServer, authority: Made) -> None:
        self.dns, self.policies = dns, policies
        self._sts = MtaSts(ca_file=authority.certificate, port=policies.port, private_hosts=True)

    async def find(self, *, is_ours: bool = True) -> list[Finding]:
        """The findings about the policy."""
        resolver = Resolver(Dns(nameservers=(self.dns.address,), timeout=2))
        fetch = PolicyFetcher(self._sts, resolver).fetch
        return await check_mta_sts(Answers(resolver), fetch, DOMAIN, is_ours=is_ours)

    async def reports(self) -> Finding:
        """The finding about reports."""
        answers = Answers(Resolver(Dns(nameservers=(self.dns.address,), timeout=2)))
        return await check_tls_rpt(answers, DOMAIN, "tls@lib.example")


@pytest_asyncio.fixture
async def zone(tmp_path: Path) -> AsyncIterator[Zone]:
    authority = certificates.make(tmp_path, "authority", is_authority=True)
    made = certificates.make(tmp_path, f"mta-sts.{DOMAIN}", signed_by=authority)
    async with DnsServer(free_ports(1)) as dns, PolicyServer(free_ports(1), made) as policies:
        dns.add(DOMAIN, "MX", "10 mx1.lib.example.", "20 MX2.lib.example.")
        dns.add(f"mta-sts.{DOMAIN}", "A", LOCALHOST)
        dns.add(RECORD, "TXT", "v=STSv1; id=7")
        policies.show("enforce", "*.lib.example", max_age=604800)
        yield Zone(dns, policies, authority)


def both(findings: list[Finding]) -> tuple[Finding, Finding]:
    record, policy = findings
    return record, policy


async def test_a_policy_that_is_true_and_enforced(zone: Zone) -> None:
    record, policy = both(await zone.find())
    assert (record.name, record.verdict, record.says) == (RECORD, "ok", "id=7")
    assert (policy.name, policy.verdict) == (f"mta-sts.{DOMAIN}", "ok")
    assert policy.says == "enforce: *.lib.example, max_age 604800"


async def test_what_is_missing_is_advice_with_record_and_file_to_publish(zone: Zone) -> None:
    zone.dns.remove(RECORD)
    (finding,) = await zone.find()
    assert (finding.verdict, finding.says) == ("warn", "no record")
    assert finding.record is not None
    assert finding.file is not None
    assert finding.file.url == f"https://mta-sts.{DOMAIN}/.well-known/mta-sts.txt"
    assert finding.file.text == (
        "version: STSv1\nmode: testing\nmx: mx1.lib.example\nmx: mx2.lib.example\nmax_age: 604800"
    )
    assert await zone.find(is_ours=False) == []
    assert zone.policies.asked == []
    zone.dns.add(RECORD, "TXT", finding.record.text)
    zone.policies.body = finding.file.text.encode()
    record, policy = both(await zone.find(is_ours=False))
    assert (record.verdict, policy.verdict) == ("ok", "warn")
    assert policy.advice == "testing keeps no mail away: say enforce when the reports (TLS-RPT) show no failures"


async def test_a_policy_that_does_not_name_the_hosts_keeps_mail_away(zone: Zone) -> None:
    zone.policies.show("enforce", "mx1.lib.example", max_age=604800)
    _, policy = both(await zone.find())
    assert policy.verdict == "wrong"
    assert policy.advice == "senders keep away from MX2.lib.example: name them, and give the record another id"
    assert policy.file is not None
    assert policy.record is not None
    assert read_policy(policy.file.text.encode()).mx == ("mx1.lib.example", "mx2.lib.example")
    assert read_record([policy.record.text]) not in (None, "7")


async def test_without_an_mx_the_domain_itself_is_the_host_and_a_domain_without_mail_needs_nothing(zone: Zone) -> None:
    zone.dns.remove(DOMAIN, "MX")
    assert await zone.find() == []
    zone.dns.add(DOMAIN, "A", LOCALHOST)
    zone.policies.show("enforce", DOMAIN, max_age=604800)
    assert both(await zone.find())[1].verdict == "ok"
    zone.dns.add(DOMAIN, "MX", "0 .")
    assert await zone.find() == []


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["v=STSv1; id=1", "v=STSv1; id=2"], "2 records that begin with v=STSv1"),
        (["v=STSv1; id=not-so"], "a record with an id of 1 to 32 letters and digits"),
    ],
)
async def test_a_record_that_announces_nothing_is_wrong(zone: Zone, texts: list[str], says: str) -> None:
    zone.dns.remove(RECORD)
    zone.dns.add(RECORD, "TXT", *texts)
    (finding,) = await zone.find()
    assert finding.verdict == "wrong"
    assert finding.says.startswith(says)
    assert finding.record is not None


async def test_a_policy_that_cannot_be_read_is_wrong_and_a_host_that_is_away_proves_nothing(zone: Zone) -> None:
    zone.policies.status = 404
    _, policy = both(await zone.find())
    assert (policy.verdict, policy.says) == ("wrong", f"mta-sts.{DOMAIN}: the answer is 404, and has to be 200")
    assert policy.file is not None
    await zone.policies.stop()
    _, policy = both(await zone.find())
    assert (policy.verdict, policy.file) == ("unknown", None)
    zone.dns.fail(RECORD)
    (finding,) = await zone.find()
    assert finding.verdict == "unknown"


@pytest.mark.parametrize(
    ("mode", "max_age", "advice"),
    [
        ("none", 604800, "none asks for nothing: it is for taking a policy back"),
        ("enforce", 3600, "max_age is short: senders forget it soon, so say some weeks, as in 604800"),
    ],
)
async def test_advice_about_a_policy(zone: Zone, mode: str, max_age: int, advice: str) -> None:
    zone.policies.show(mode, *(["*.lib.example"] if mode != "none" else []), max_age=max_age)
    _, policy = both(await zone.find())
    assert (policy.verdict, policy.advice) == ("warn", advice)


@pytest.mark.parametrize(
    ("texts", "verdict"),
    [
        (["v=TLSRPTv1; rua=mailto:tls@lib.example"], "ok"),
        (["v=TLSRPTv1;rua=mailto:a@lib.example,https://reports.example/v1;"], "ok"),
        (["other", "v=TLSRPTv1; rua=https://reports.example/v1"], "ok"),
        ([], "warn"),
        (["other"], "warn"),
        (["v=TLSRPTv1; rua=tls@lib.example"], "wrong"),
        (["v=TLSRPTv1"], "wrong"),
        (["v=TLSRPTv1; rua=mailto:a@lib.example", "v=TLSRPTv1; rua=mailto:b@lib.example"], "wrong"),
    ],
)
async def test_where_reports_go(zone: Zone, texts: list[str], verdict: str) -> None:
    if texts:
        zone.dns.add(f"_smtp._tls.{DOMAIN}", "TXT", *texts)
    finding = await zone.reports()
    assert (finding.name, finding.verdict) == (f"_smtp._tls.{DOMAIN}", verdict)
    zone_line = f'_smtp._tls.{DOMAIN}. IN TXT ( "v=TLSRPTv1; rua=mailto:tls@lib.example" )'
    assert (finding.record.zone_line if finding.record else None) == (None if verdict == "ok" else zone_line)


async def test_reports_that_cannot_be_asked_for_are_unknown(zone: Zone) -> None:
    zone.dns.fail(f"_smtp._tls.{DOMAIN}")
    assert (await zone.reports()).verdict == "unknown"
