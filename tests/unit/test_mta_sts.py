"""MTA-STS (RFC 8461): records and policies as they are read, fetched from a real HTTPS server, kept and refreshed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import pytest
import pytest_asyncio

from relay.config.dns import Dns
from relay.config.mta_sts import MtaSts
from relay.dns import sts_fetch
from relay.dns.resolver import Resolver
from relay.dns.sts_fetch import PolicyFetcher, is_public
from relay.dns.sts_policies import StsPolicies
from relay.dns.sts_policy import StsPolicy, read_policy, read_record
from relay.errors import StartError, StsError
from relay.maillog import MailLog
from tests.harness import certificates
from tests.harness.certificates import Made
from tests.harness.dns_server import DnsServer
from tests.harness.policy_server import PolicyServer
from tests.harness.waiting import free_ports, until

ENFORCE = StsPolicy("enforce", 86400, ("mx.patron.example",))
DAY = 86400.0


# --- the record


@pytest.mark.parametrize(
    ("texts", "announced"),
    [
        ([], None),
        (["v=spf1 -all", "some text", "v=STSv2; id=1"], None),
        (["v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        (["v=STSv1;id=1"], "1"),
        (["v=STSv1 ;\tid=1 ; note=x-y "], None),
        (["v=STSv1; note=x; id=1; id=2"], "1"),
        (["other", "v=STSv1; id=1"], "1"),
    ],
)
def test_a_record(texts: list[str], announced: str | None) -> None:
    if texts == ["v=STSv1 ;\tid=1 ; note=x-y "]:  # white space at the end is not in the grammar
        with pytest.raises(StsError):
            read_record(texts)
    else:
        assert read_record(texts) == announced


@pytest.mark.parametrize(
    "texts",
    [
        ["v=STSv1; id=1", "v=STSv1; id=1"],
        ["v=STSv1;"],
        ["v=STSv1; id="],
        ["v=STSv1; id=with-dash"],
        ["v=STSv1; id=" + 33 * "a"],
        ["v=STSv1; ID=1"],
        ["v=STSv1; note=1"],
        ["v=STSv1; id=1; no tag"],
    ],
)
def test_a_record_that_announces_nothing(texts: list[str]) -> None:
    with pytest.raises(StsError):
        read_record(texts)


# --- the policy


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        (
            "version: STSv1\r\nmode: enforce\r\nmx: mx.patron.example\r\nmax_age: 86400\r\n",
            ENFORCE,
        ),
        (
            "version:STSv1\nmode:enforce\nmx: MX.Patron.example.\nmx: mx.patron.example\nmax_age:86400",
            ENFORCE,
        ),
        (
            "mx: *.patron.example\nmax_age: 9999999999\nmode: testing  \nx_own: some thing\nversion: STSv1\n",
            StsPolicy("testing", 31557600, ("*.patron.example",)),
        ),
        ("version: STSv1\nmode: none\nmax_age: 0\n", StsPolicy("none", 0, ())),
        ("version: STSv1\nmode: none\nmode: enforce\nmax_age: 1\n", StsPolicy("none", 1, ())),
    ],
    ids=["as written", "bare", "extension", "none", "twice"],
)
def test_a_policy(text: str, policy: StsPolicy) -> None:
    assert read_policy(text.encode()) == policy
    assert read_policy(policy.text.encode()) == policy


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "version"),
        (b"<html>nothing here</html>", "no field"),
        (b"version: STSv2\nmode: none\nmax_age: 1\n", "version"),
        (b"version: STSv1\nmode: Enforce\nmx: a.example\nmax_age: 1\n", "mode"),
        (b"version: STSv1\nmx: a.example\nmax_age: 1\n", "mode"),
        (b"version: STSv1\nmode: enforce\nmx: a.example\n", "max_age"),
        (b"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: -1\n", "max_age"),
        (b"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 12345678901\n", "max_age"),
        (b"version: STSv1\nmode: enforce\nmax_age: 1\n", "no mail host"),
        (b"version: STSv1\nmode: enforce\nmx: a.*.example\nmax_age: 1\n", "no mail host"),
        (b"version: STSv1\nmode: enforce\nmx: a b\nmax_age: 1\n", "no mail host"),
        (b"version: STSv1\n\nmode: none\nmax_age: 1\n", "no field"),
        (b"version: STSv1\rmode: none\rmax_age: 1\r", "no field"),
        (b"version: STSv1\nmode: none\nmax_age: 1\nx: \xff\n", "UTF-8"),
    ],
)
def test_what_is_no_policy(text: bytes, why: str) -> None:
    with pytest.raises(StsError, match=why):
        read_policy(text)


@pytest.mark.parametrize(
    ("host", "is_named"),
    [
        ("mx.patron.example", True),
        ("MX.patron.example.", True),
        ("a.mail.example", True),
        ("a.b.mail.example", False),
        ("mail.example", False),
        ("mx.patron.example.evil.example", False),
        ("xmail.example", False),
    ],
)
def test_which_hosts_a_policy_names(host: str, is_named: bool) -> None:
    assert StsPolicy("enforce", 1, ("mx.patron.example", "*.mail.example")).names(host) is is_named


@pytest.mark.parametrize(
    ("address", "is_good"),
    [
        ("198.51.100.1", False),  # for documentation
        ("8.8.8.8", True),
        ("2620:fe::fe", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.1.2.3", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::10.1.2.3", False),
        ("64:ff9b::8.8.8.8", True),
        ("2002:a01:203::1", False),
        ("2001:0:a01:203::1", False),
    ],
)
def test_which_addresses_are_public(address: str, is_good: bool) -> None:
    assert is_public(ip_address(address)) is is_good


# --- fetching


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return certificates.make(tmp_path_factory.mktemp("authority"), "authority", is_authority=True)


@pytest_asyncio.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer(free_ports(1)) as server:
        server.add("mta-sts.patron.example", "A", "127.0.0.1")
        yield server


@pytest_asyncio.fixture
async def server(tmp_path: Path, authority: Made) -> AsyncIterator[PolicyServer]:
    made = certificates.make(tmp_path, "mta-sts.patron.example", signed_by=authority)
    async with PolicyServer(free_ports(1), made) as policies:
        policies.show("enforce", "mx.patron.example")
        yield policies


def fetcher(dns: DnsServer, server: PolicyServer, authority: Made, **settings: object) -> PolicyFetcher:
    sts = {"ca_file": authority.certificate, "port": server.port, "private_hosts": True, **settings}
    return PolicyFetcher(MtaSts.model_validate(sts), resolver(dns))


def resolver(dns: DnsServer) -> Resolver:
    return Resolver(Dns(nameservers=(dns.address,), timeout=2))


@pytest.mark.asyncio
async def test_a_policy_is_fetched_from_its_host(dns: DnsServer, server: PolicyServer, authority: Made) -> None:
    assert await fetcher(dns, server, authority).fetch("patron.example") == ENFORCE
    assert server.asked == ["mta-sts.patron.example"]
    server.headers = {"Content-Type": "text/plain; charset=utf-8"}
    assert await fetcher(dns, server, authority).fetch("patron.example") == ENFORCE


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "headers", "body", "why"),
    [
        (404, {}, None, "the answer is 404"),
        (204, {}, b"", "the answer is 204"),
        (301, {"Location": "https://mta-sts.patron.example/elsewhere"}, None, "the answer is 301"),
        (200, {"Content-Type": "text/html"}, None, "text/html"),
        (200, {"Content-Encoding": "gzip"}, None, "compressed"),
        (200, {}, b"version: STSv1\n" + 65536 * b"x", "more than 64 KiB"),
        (200, {}, b"hello", "no field"),
    ],
    ids=["404", "204", "redirect", "html", "gzip", "large", "nonsense"],
)
async def test_an_answer_that_is_no_policy(
    dns: DnsServer,
    server: PolicyServer,
    authority: Made,
    status: int,
    headers: dict[str, str],
    body: bytes | None,
    why: str,
) -> None:
    server.status, server.body = status, server.body if body is None else body
    server.headers = {"Content-Type": "text/plain", **headers}
    with pytest.raises(StsError, match=why):
        await fetcher(dns, server, authority).fetch("patron.example")
    assert len(server.asked) == 1


@pytest.mark.asyncio
async def test_a_host_that_is_silent_or_away(
    dns: DnsServer, server: PolicyServer, authority: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sts_fetch, "TIMEOUT", 0.3)
    server.hangs = True
    with pytest.raises(StsError, match=r"did not answer within 0.3 s"):
        await fetcher(dns, server, authority).fetch("patron.example")
    await server.stop()
    with pytest.raises(StsError, match=r"mta-sts.patron.example: .*(refused|failed)"):
        await fetcher(dns, server, authority).fetch("patron.example")


@pytest.mark.asyncio
async def test_only_a_certificate_for_the_policy_host_is_believed(
    dns: DnsServer, authority: Made, tmp_path: Path
) -> None:
    bad = {
        "patron.example": authority,
        "mta-sts.patron.example": None,
    }
    for name, signer in bad.items():
        made = certificates.make(tmp_path, name, signed_by=signer)
        async with PolicyServer(free_ports(1), made) as server:
            server.show("enforce", "mx.patron.example")
            with pytest.raises(StsError, match="its certificate is not good"):
                await fetcher(dns, server, authority).fetch("patron.example")
            assert server.asked == []
    made = certificates.make(tmp_path, "mta-sts.patron.example", signed_by=authority, days=-1)
    async with PolicyServer(free_ports(1), made) as server:
        with pytest.raises(StsError, match="expired"):
            await fetcher(dns, server, authority).fetch("patron.example")


@pytest.mark.asyncio
async def test_a_private_host_is_not_connected_to(dns: DnsServer, server: PolicyServer, authority: Made) -> None:
    with pytest.raises(StsError, match="its addresses are not public ones"):
        await fetcher(dns, server, authority, private_hosts=False).fetch("patron.example")
    with pytest.raises(StsError, match="it has no address"):
        await fetcher(dns, server, authority).fetch("other.example")
    dns.fail("mta-sts.third.example")
    with pytest.raises(StsError, match="no answer from the DNS"):
        await fetcher(dns, server, authority).fetch("third.example")
    assert server.asked == []


@pytest.mark.asyncio
async def test_authorities_that_cannot_be_used_are_told(dns: DnsServer, server: PolicyServer, authority: Made) -> None:
    with pytest.raises(StartError, match="can't be used"):
        fetcher(dns, server, authority, ca_file=authority.key)


# --- kept


class Kept:
    """Policies with a clock that the test moves."""

    def __init__(self, dns: DnsServer, server: PolicyServer, authority: Made, file: Path | None) -> None:
        self.now = 1_000_000.0
        self.policies = StsPolicies(
            file, resolver(dns), fetcher(dns, server, authority), MailLog(), clock=lambda: self.now
        )

    async def mode(self, domain: str = "patron.example") -> str | None:
        policy = await self.policies.policy_of(domain)
        return policy.mode if policy else None


@pytest.fixture
def kept(dns: DnsServer, server: PolicyServer, authority: Made, tmp_path: Path) -> Kept:
    return Kept(dns, server, authority, tmp_path / "mta-sts.json")


def announce(dns: DnsServer, number: int) -> None:
    dns.remove("_mta-sts.patron.example")
    dns.add("_mta-sts.patron.example", "TXT", f"v=STSv1; id={number};")


@pytest.mark.asyncio
async def test_a_domain_without_a_record_is_asked_rarely_and_nothing_is_fetched(
    dns: DnsServer, server: PolicyServer, kept: Kept
) -> None:
    assert [await kept.mode() for _ in range(3)] == [None] * 3
    assert (len(dns.questions), server.asked) == (1, [])
    kept.now += 301
    announce(dns, 1)
    assert await kept.mode() == "enforce"


@pytest.mark.asyncio
async def test_many_mails_at_once_fetch_a_policy_once(dns: DnsServer, server: PolicyServer, kept: Kept) -> None:
    announce(dns, 1)
    assert await asyncio.gather(*(kept.mode() for _ in range(20))) == ["enforce"] * 20
    assert len(server.asked) == 1


@pytest.mark.asyncio
async def test_a_new_id_has_it_fetched_again_and_the_same_one_not(
    dns: DnsServer, server: PolicyServer, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "slip-relay")
    announce(dns, 1)
    assert await kept.mode() == "enforce"
    kept.now += 61
    server.show("testing", "mx.patron.example")
    assert await kept.mode() == "enforce"
    kept.now += 61
    announce(dns, 2)
    assert await kept.mode() == "testing"
    assert len(server.asked) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "event=mta-sts domain=patron.example result=changed mode=enforce mx=mx.patron.example",
        "event=mta-sts domain=patron.example result=changed mode=testing mx=mx.patron.example",
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize("trouble", ["policy host", "no record", "DNS", "record"])
async def test_a_policy_holds_while_its_host_or_its_record_is_away_and_until_it_ends(
    dns: DnsServer, server: PolicyServer, kept: Kept, trouble: str
) -> None:
    announce(dns, 1)
    assert await kept.mode() == "enforce"
    announce(dns, 2)
    match trouble:
        case "policy host":
            server.status = 503
        case "no record":
            dns.remove("_mta-sts.patron.example")
        case "DNS":
            dns.fail("_mta-sts.patron.example")
        case "record":
            dns.add("_mta-sts.patron.example", "TXT", "v=STSv1; id=3")
    for later in (400, DAY - 500):
        kept.now += later
        assert await kept.mode() == "enforce"
    kept.now += 200
    assert await kept.mode() is None


@pytest.mark.asyncio
async def test_a_policy_that_ends_soon_is_fetched_anew_when_it_has_ended(
    dns: DnsServer, server: PolicyServer, kept: Kept
) -> None:
    server.show("enforce", "mx.patron.example", max_age=10)
    announce(dns, 1)
    for _ in range(3):
        assert await kept.mode() == "enforce"
        kept.now += 59
        assert await kept.mode() == "enforce"
        kept.now += 2
    assert len(server.asked) == 3


@pytest.mark.asyncio
async def test_a_host_that_fails_is_not_asked_for_each_mail(dns: DnsServer, server: PolicyServer, kept: Kept) -> None:
    server.status = 500
    announce(dns, 1)
    assert [await kept.mode() for _ in range(3)] == [None] * 3
    assert len(server.asked) == 1
    server.status = 200
    kept.now += 301
    assert await kept.mode() == "enforce"


@pytest.mark.asyncio
async def test_policies_outlive_a_restart(
    dns: DnsServer, server: PolicyServer, authority: Made, kept: Kept, tmp_path: Path
) -> None:
    announce(dns, 1)
    assert await kept.mode() == "enforce"
    await kept.policies.save()
    await server.stop()
    dns.fail("_mta-sts.patron.example")
    again = Kept(dns, server, authority, tmp_path / "mta-sts.json")
    await again.policies.open()
    assert await again.policies.policy_of("patron.example") == ENFORCE
    late = Kept(dns, server, authority, tmp_path / "mta-sts.json")
    late.now += DAY + 1
    await late.policies.open()
    assert await late.mode() is None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"policies": 1}',
        '{"policies": {"a.example": {}}}',
        '{"policies": {"a.example": {"id": "1", "policy": "version: x", "fetched_at": 1, "used_at": 1}}}',
    ],
)
async def test_a_file_that_cannot_be_read_is_a_fault_and_no_obstacle(
    dns: DnsServer, kept: Kept, tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mta-sts.json").write_text(content)
    await kept.policies.open()
    assert "where=mta-sts" in caplog.records[-1].getMessage()
    announce(dns, 1)
    assert await kept.mode() == "enforce"
    await kept.policies.save()
    assert list(json.loads((tmp_path / "mta-sts.json").read_text())["policies"]) == ["patron.example"]


@pytest.mark.asyncio
async def test_what_is_used_is_refreshed_before_it_ends_whatever_the_dns_says(
    dns: DnsServer, server: PolicyServer, kept: Kept, tmp_path: Path
) -> None:
    announce(dns, 1)
    assert await kept.mode() == "enforce"
    dns.fail("_mta-sts.patron.example")
    running = asyncio.create_task(kept.policies.run())
    file = tmp_path / "mta-sts.json"
    try:
        await until(file.exists, "the file")
        assert len(server.asked) == 1
        server.show("enforce", "mx2.patron.example")
        kept.now += DAY / 2 + 1
        kept.policies._is_new.set()  # the loop's own clock is not the one that was moved
        await until(lambda: "mx2" in file.read_text(), "the new policy")
        kept.now += DAY - 10
        policy = await kept.policies.policy_of("patron.example")
        assert policy is not None
        assert policy.mx == ("mx2.patron.example",)
        assert len(server.asked) == 2
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.asyncio
async def test_what_nobody_uses_is_not_refreshed_and_goes(
    dns: DnsServer, server: PolicyServer, kept: Kept, tmp_path: Path
) -> None:
    server.show("enforce", "mx.patron.example", max_age=31557600)
    announce(dns, 1)
    assert await kept.mode() == "enforce"
    kept.now += 31 * DAY
    await kept.policies.save()
    running = asyncio.create_task(kept.policies.run())
    try:
        kept.policies._is_new.set()
        await until(lambda: not kept.policies._is_new.is_set(), "a look")
        assert len(server.asked) == 1
        kept.now += 400 * DAY
        kept.policies._is_new.set()
        await until(lambda: '"patron.example"' not in (tmp_path / "mta-sts.json").read_text(), "its end")
        assert len(server.asked) == 1
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
