"""SPF records become networks: no address that SPF would not pass, and what can't be told is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network
from pathlib import Path

import pytest
import pytest_asyncio

from relay.config.dns import Dns
from relay.config.settings import Config
from relay.dns.resolver import Resolver
from relay.dns.spf import Addresses, addresses_of
from relay.errors import DnsError, Refusal, SpfError
from relay.intake.caller import Caller
from relay.intake.policy import Policy
from relay.intake.spf_sources import SpfSources
from relay.maillog import MailLog
from tests.harness.dns_server import DnsServer
from tests.harness.waiting import free_ports, until

pytestmark = pytest.mark.asyncio

Make = Callable[..., Config]


@pytest_asyncio.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer(free_ports(1)) as server:
        yield server


def resolver(dns: DnsServer) -> Resolver:
    return Resolver(Dns(nameservers=(dns.address,), timeout=2))


async def found(dns: DnsServer, name: str = "cloud.example") -> Addresses:
    return await addresses_of(resolver(dns), name)


async def networks(dns: DnsServer, record: str) -> list[str]:
    dns.add("cloud.example", "TXT", record)
    return [str(network) for network in (await found(dns)).networks]


async def test_addresses_that_stand_in_the_record(dns: DnsServer) -> None:
    dns.add("cloud.example", "TXT", "some other text")
    record = "v=spf1 ip4:192.0.2.1 ip4:198.51.100.0/24 +ip6:2001:db8::/32 IP4:203.0.113.77/28 -all"
    expected = ["192.0.2.1/32", "198.51.100.0/24", "203.0.113.64/28", "2001:db8::/32"]
    assert await networks(dns, record) == expected


async def test_includes_and_redirects_are_followed(dns: DnsServer) -> None:
    dns.add("_a.example", "TXT", "v=spf1 ip4:192.0.2.0/25 ~all")
    dns.add("_b.example", "TXT", "v=spf1 include:_c.example -all")
    dns.add("_c.example", "TXT", "v=spf1 ip4:192.0.2.128/25")
    assert await networks(dns, "v=spf1 include:_a.example redirect=_b.example") == ["192.0.2.0/24"]


async def test_redirect_behind_all_means_nothing(dns: DnsServer) -> None:
    assert await networks(dns, "v=spf1 redirect=nowhere.example ip4:192.0.2.1 ?all") == ["192.0.2.1/32"]


async def test_hosts_by_a_and_mx_with_their_prefixes(dns: DnsServer) -> None:
    dns.add("cloud.example", "A", "192.0.2.10")
    dns.add("cloud.example", "AAAA", "2001:db8::10")
    dns.add("cloud.example", "MX", "10 mx1.example.", "20 mx2.example.")
    dns.add("mx1.example", "A", "198.51.100.1")
    dns.add("mx2.example", "A", "203.0.113.1")
    expected = ["192.0.2.0/24", "198.51.100.1/32", "203.0.113.1/32", "2001:db8::/64"]
    assert await networks(dns, "v=spf1 a/24//64 mx -all") == expected
    dns.remove("cloud.example", "TXT")
    dns.add("www.example", "A", "192.0.2.200")
    assert await networks(dns, "v=spf1 a:www.example/25 -all") == ["192.0.2.128/25"]


async def test_what_is_excluded_before_is_taken_off(dns: DnsServer) -> None:
    dns.add("bad.example", "TXT", "v=spf1 ip4:192.0.2.64/26 -all")
    record = "v=spf1 -ip4:192.0.2.0/26 ~include:bad.example ip4:192.0.2.0/24 -all"
    assert await networks(dns, record) == ["192.0.2.128/25"]
    dns.remove("cloud.example", "TXT")
    dns.add("rest.example", "TXT", "v=spf1 ip4:192.0.2.4/31 -all")
    dns.remove("cloud.example", "TXT")
    assert await networks(dns, "v=spf1 ?ip4:192.0.2.5 redirect=rest.example") == ["192.0.2.4/32"]


async def test_a_long_record_comes_in_several_strings_and_over_tcp(dns: DnsServer) -> None:
    wanted = [f"10.{n}.0.0/16" for n in range(0, 250, 2)]
    assert await networks(dns, "v=spf1 " + " ".join(f"ip4:{each}" for each in wanted) + " -all") == wanted


@pytest.mark.parametrize(
    ("term", "why"),
    [
        ("exists:%{i}.list.example", "cloud.example: exists:%{i}.list.example: it depends on the message"),
        ("exists:list.example", "cloud.example: exists:list.example: it is no list of addresses"),
        ("ptr", "cloud.example: ptr: it is no list of addresses"),
        ("ptr:lib.example", "cloud.example: ptr:lib.example: it is no list of addresses"),
        ("include:%{d}._spf.example", "cloud.example: include:%{d}._spf.example: it depends on the message"),
        ("a:%{h}", "cloud.example: a:%{h}: it depends on the message"),
        ("ip4:0.0.0.0/0", "cloud.example: ip4:0.0.0.0/0: it is too wide"),
        ("ip4:128.0.0.0/1", "cloud.example: ip4:128.0.0.0/1: it is too wide"),
        ("ip6:2000::/3", "cloud.example: ip6:2000::/3: it is too wide"),
    ],
)
async def test_what_is_no_list_of_addresses_is_told_and_left_out(dns: DnsServer, term: str, why: str) -> None:
    dns.add("cloud.example", "TXT", f"v=spf1 {term} ip4:192.0.2.1 -all")
    answer = await found(dns)
    assert answer.networks == (ip_network("192.0.2.1/32"),)
    assert answer.unusable == (why,)


async def test_who_allows_everybody_allows_nobody(dns: DnsServer) -> None:
    dns.add("cloud.example", "TXT", "v=spf1 ip4:192.0.2.1 +all")
    answer = await found(dns)
    assert answer.networks == (ip_network("192.0.2.1/32"),)
    assert answer.unusable == ("cloud.example: +all: it allows everybody",)


async def test_nothing_counts_behind_an_exclusion_that_cant_be_told(dns: DnsServer) -> None:
    dns.add("macros.example", "TXT", "v=spf1 exists:%{i}.x.example ip4:192.0.2.9 -all")
    for excluded in ("-exists:%{i}.bad.example", "~ptr", "?include:macros.example"):
        dns.add("cloud.example", "TXT", f"v=spf1 ip4:192.0.2.1 {excluded} ip4:198.51.100.0/24 -all")
        answer = await found(dns)
        assert answer.networks == (ip_network("192.0.2.1/32"),), excluded
        assert "nothing behind it counts" in answer.unusable[-1]
        dns.remove("cloud.example", "TXT")


async def test_the_time_for_which_it_is_good_is_the_shortest(dns: DnsServer) -> None:
    dns.add("cloud.example", "TXT", "v=spf1 include:_a.example a:host.example -all", ttl=500)
    dns.add("_a.example", "TXT", "v=spf1 ip4:192.0.2.1 -all", ttl=20)
    dns.add("host.example", "A", "192.0.2.2", ttl=300)
    assert (await found(dns)).ttl == 20


WRONG = {
    "two": "cloud.example has 2 SPF records",
    "none": "cloud.example has no SPF records",
    "v=spf1 include:nothing.example": "nothing.example has no SPF records",
    "v=spf1 include:": "can't be read: 'include:'",
    "v=spf1 ip4:192.0.2.256": "an address that can't be read",
    "v=spf1 ip4:192.0.2.0/33": "an address that can't be read",
    "v=spf1 ip4:2001:db8::1": "an address of the other kind",
    "v=spf1 ip4": "can't be read: 'ip4'",
    "v=spf1 a/33": "a prefix that is too long",
    "v=spf1 mx//129": "a prefix that is too long",
    "v=spf1 all:x": "can't be read: 'all:x'",
    "v=spf1 redirect=a.example redirect=b.example": "redirect twice",
    "v=spf1 word": "can't be read: 'word'",
    "v=spf1 a:bad..name": "a domain that can't be read",
    "v=spf1 " + " ".join(["ip4:192.0.2.1"] * 501): "501 terms",
}


@pytest.mark.parametrize("record", WRONG)
async def test_what_is_wrong_is_an_error(dns: DnsServer, record: str) -> None:
    if record == "two":
        dns.add("cloud.example", "TXT", "v=spf1 -all", "v=spf1 ip4:192.0.2.1 -all")
    elif record != "none":
        dns.add("cloud.example", "TXT", record)
    with pytest.raises(SpfError, match=WRONG[record]):
        await found(dns)


async def test_more_than_ten_lookups_are_too_many(dns: DnsServer) -> None:
    for n in range(12):
        dns.add(f"s{n}.example", "TXT", f"v=spf1 ip4:192.0.2.{n} include:s{n + 1}.example -all")
    dns.add("s12.example", "TXT", "v=spf1 ip4:192.0.2.12 -all")
    assert len((await found(dns, "s2.example")).networks) > 0
    with pytest.raises(SpfError, match="more than 10 look-ups"):
        await found(dns, "s1.example")


async def test_a_record_that_includes_itself_ends(dns: DnsServer) -> None:
    dns.add("cloud.example", "TXT", "v=spf1 include:cloud.example -all")
    with pytest.raises(SpfError, match="more than 10 look-ups"):
        await found(dns)
    assert len(dns.questions) <= 11


async def test_more_than_two_void_lookups_are_too_many(dns: DnsServer) -> None:
    dns.add("cloud.example", "TXT", "v=spf1 a:x.example a:y.example a:z.example ip4:192.0.2.1 -all")
    with pytest.raises(SpfError, match="more than 2 look-ups without an answer"):
        await found(dns)


async def test_more_than_ten_mx_hosts_are_too_many(dns: DnsServer) -> None:
    dns.add("cloud.example", "MX", *(f"10 mx{n}.example." for n in range(11)))
    dns.add("cloud.example", "TXT", "v=spf1 mx -all")
    with pytest.raises(SpfError, match="11 MX hosts"):
        await found(dns)


async def test_a_dns_that_fails_is_no_permanent_error(dns: DnsServer) -> None:
    dns.add("cloud.example", "TXT", "v=spf1 include:part.example -all")
    dns.fail("part.example")
    with pytest.raises(DnsError) as error:
        await found(dns)
    assert not isinstance(error.value, SpfError)


# --- in force


class Service:
    """The SPF names of one source, as the running service has them."""

    def __init__(self, make_config: Make, dns: DnsServer, folder: Path) -> None:
        self.config = make_config(
            sources=[{"name": "alma", "institutions": ["demo"], "spf": ["cloud.example"]}],
            dns={
                "nameservers": [dns.address],
                "timeout": 1,
                "spf_shortest": "0.2s",
                "spf_longest": "0.3s",
                "spf_file": str(folder / "spf.json"),
            },
        )
        self.source = self.config.sources[0]
        self.maillog = MailLog()
        self.spf = SpfSources(self.config, Resolver(self.config.dns), self.maillog)
        self.policy = Policy(self.config, self.spf)

    def knows(self, address: str) -> bool:
        return bool(self.policy.sources_of(self.config.listeners[0], Caller(address)))

    def metric(self, line: str) -> bool:
        return any(each.startswith(line) for each in self.maillog.metrics.text().splitlines())


async def test_addresses_change_while_it_runs_and_stay_while_the_dns_fails(
    make_config: Make, dns: DnsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "slip-relay")
    dns.add("cloud.example", "TXT", "v=spf1 ip4:192.0.2.0/24 -all")
    service = Service(make_config, dns, tmp_path)
    await service.spf.open()
    assert service.knows("192.0.2.77")
    assert not service.knows("198.51.100.7")
    running = asyncio.create_task(service.spf.run())
    dns.remove("cloud.example")
    dns.add("cloud.example", "TXT", "v=spf1 ip4:198.51.100.0/24 -all")
    await until(lambda: service.knows("198.51.100.7"), "the new addresses", seconds=5)
    assert not service.knows("192.0.2.77")
    assert "result=changed networks=1 more=198.51.100.0/24 less=192.0.2.0/24" in caplog.text
    dns.fail("cloud.example")
    await until(lambda: service.spf.all_known()[0].fault, "a look-up that fails", seconds=5)
    assert service.knows("198.51.100.7")
    assert service.metric('slip_relay_spf_networks{name="cloud.example"} 1.0')
    assert service.metric('slip_relay_spf_lookups_total{name="cloud.example",result="failed"}')
    running.cancel()

    again = Service(make_config, dns, tmp_path)
    await again.spf.open()
    assert again.knows("198.51.100.7"), "the last good answer outlives a restart without DNS"
    dns.fail("cloud.example", failing=False)
    dns.remove("cloud.example")
    running = asyncio.create_task(again.spf.run())
    await until(lambda: "no SPF records" in again.spf.all_known()[0].fault, "the record to be missed", seconds=5)
    assert again.knows("198.51.100.7"), "a record that is gone takes no address away"
    running.cancel()


@pytest.mark.parametrize(("ttl", "pause"), [(5, 10), (60, 60), (9000, 3600)])
async def test_it_is_asked_again_when_the_records_say_so_within_limits(
    make_config: Make, dns: DnsServer, tmp_path: Path, ttl: int, pause: int
) -> None:
    dns.add("cloud.example", "TXT", "v=spf1 ip4:192.0.2.0/24 -all", ttl=ttl)
    service = Service(make_config, dns, tmp_path)
    limits = service.config.dns.model_copy(update={"spf_shortest": 10.0, "spf_longest": 3600.0})
    spf = SpfSources(service.config.model_copy(update={"dns": limits}), resolver(dns), MailLog(), lambda: 1000.0)
    await spf.open()
    assert spf.all_known()[0].due_at == 1000 + pause
    dns.fail("cloud.example")
    spf.look_now()
    running = asyncio.create_task(spf.run())
    await until(lambda: spf.all_known()[0].fault, "a look-up that fails", seconds=5)
    running.cancel()
    assert spf.all_known()[0].due_at == 1000 + 10


async def test_while_nothing_is_known_nobody_is_refused_for_good(
    make_config: Make, dns: DnsServer, tmp_path: Path
) -> None:
    dns.fail("cloud.example")
    service = Service(make_config, dns, tmp_path)
    await service.spf.open()
    with pytest.raises(Refusal) as refusal:
        service.knows("192.0.2.77")
    assert str(refusal.value.reply).startswith("451 4.4.3 ")


async def test_a_clock_that_is_set_back_delays_nothing(make_config: Make, dns: DnsServer, tmp_path: Path) -> None:
    dns.add("cloud.example", "TXT", "v=spf1 ip4:192.0.2.0/24 -all")
    config, now = Service(make_config, dns, tmp_path).config, 1_000_000.0
    spf = SpfSources(config, resolver(dns), MailLog(), lambda: now)
    await spf.open()
    asked, now = len(dns.questions), 1000.0
    running = asyncio.create_task(spf.run())
    await until(lambda: len(dns.questions) > asked, "a look-up", seconds=5)
    running.cancel()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"names": {"cloud.example": {"networks": ["x"]}}}', "\0"])
async def test_a_spoilt_file_is_as_none(make_config: Make, dns: DnsServer, tmp_path: Path, content: str) -> None:
    (tmp_path / "spf.json").write_text(content)
    dns.add("cloud.example", "TXT", "v=spf1 ip4:192.0.2.0/24 -all")
    service = Service(make_config, dns, tmp_path)
    await service.spf.open()
    assert service.knows("192.0.2.77")
    assert json.loads((tmp_path / "spf.json").read_text())["names"]["cloud.example"]["networks"] == ["192.0.2.0/24"]


async def test_it_is_asked_at_once_when_somebody_says_so(make_config: Make, dns: DnsServer, tmp_path: Path) -> None:
    dns.add("cloud.example", "TXT", "v=spf1 ip4:192.0.2.0/24 -all")
    service = Service(make_config, dns, tmp_path)
    slow = service.config.dns.model_copy(update={"spf_shortest": 3600.0, "spf_longest": 3600.0})
    service.spf = SpfSources(service.config.model_copy(update={"dns": slow}), resolver(dns), MailLog())
    await service.spf.open()
    asked = len(dns.questions)
    running = asyncio.create_task(service.spf.run())
    await asyncio.sleep(0)
    service.spf.look_now()
    await until(lambda: len(dns.questions) > asked, "a look-up", seconds=5)
    running.cancel()
