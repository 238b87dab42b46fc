"""What the DNS says about us: every verdict, judged on the answers of a real server."""

from __future__ import annotations

import base64
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.config.dns import Dns
from relay.dns.answers import Answers
from relay.dns.dkim_record import check_key, key_record, key_text
from relay.dns.dmarc import walk
from relay.dns.dmarc_check import Sent, check_dmarc
from relay.dns.ex_libris import check_ex_libris
from relay.dns.findings import Finding, Record
from relay.dns.hosts_check import check_bounce_mx, check_name
from relay.dns.resolver import Resolver
from relay.dns.spf_check import Senders, check_spf, senders_of
from relay.dns.spf_verdict import Judgement, judge, whole_cost
from relay.errors import NoSuchDomain, SpfError
from tests.harness.dns_server import DnsServer
from tests.harness.waiting import free_ports

KEY = rsa.generate_private_key(65537, 2048).public_key()
OTHER = rsa.generate_private_key(65537, 2048).public_key()
SMALL = rsa.generate_private_key(65537, 1024).public_key()
CURVE = ed25519.Ed25519PrivateKey.generate().public_key()
NAME = "s1._domainkey.lib.example"
US = ip_address("192.0.2.25")
SENDERS = Senders((US,), ("ip4:192.0.2.25",))
SENT = Sent("bounces.lib.example", ("lib.example",))


@pytest_asyncio.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer(free_ports(1)) as server:
        yield server


def answers(dns: DnsServer) -> Answers:
    return Answers(Resolver(Dns(nameservers=(dns.address,), timeout=2)))


# --- DKIM


async def key_finding(dns: DnsServer, *texts: str, key: rsa.RSAPublicKey = KEY) -> Finding:
    if texts:
        dns.add(NAME, "TXT", *texts)
    return await check_key(answers(dns), "lib.example", "s1", key)


P = key_text(KEY).partition("p=")[2]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("text", "verdict", "says"),
    [
        (key_text(KEY), "ok", "our key"),
        (f"p={P}", "ok", "our key"),
        (f"v=DKIM1; h=sha1:sha256; s=email; t=s; n=a note; p={P[:90]} {P[90:]};", "ok", "our key"),
        (f"v=DKIM1; t=y; p={P}", "warn", "our key, with t=y"),
        (key_text(OTHER), "wrong", "another key"),
        ("v=DKIM1; k=rsa; p=", "wrong", "an empty p=: the key is revoked"),
        ("v=DKIM1; k=rsa", "wrong", "no p="),
        (key_text(CURVE), "wrong", "k=ed25519"),
        (f"v=DKIM2; p={P}", "wrong", "v=DKIM2"),
        (f"p={P}; v=DKIM1", "wrong", "v=DKIM1"),
        (f"v=DKIM1; h=sha1; p={P}", "wrong", "h=sha1"),
        (f"v=DKIM1; s=tls; p={P}", "wrong", "s=tls"),
        ("v=DKIM1; p=AAAA", "wrong", "p= can't be read as a key"),
        ("v=DKIM1; p=%%%", "wrong", "p= can't be read as a key"),
        (f"v=DKIM1; p={P}; p={P}", "wrong", "the tag p stands there twice"),
        ("some wildcard", "wrong", "'some wildcard' is no tag"),
    ],
    ids=lambda value: "record" if "p=" in value else value,  # keys are new each time
)
async def test_the_record_of_a_key(dns: DnsServer, text: str, verdict: str, says: str) -> None:
    found = await key_finding(dns, text)
    assert (found.verdict, found.says) == (verdict, says)
    assert found.record == (key_record("lib.example", "s1", KEY) if verdict == "wrong" else None)
    assert bool(found.advice) == (verdict != "ok")


@pytest.mark.asyncio
async def test_a_key_without_record_with_two_or_behind_a_cname(dns: DnsServer) -> None:
    missing = await key_finding(dns)
    assert (missing.verdict, missing.says) == ("wrong", "no record")
    assert missing.record is not None
    assert missing.record.zone_line.startswith(f'{NAME}. IN TXT ( "v=DKIM1; k=rsa; p=')
    assert "".join(missing.record.zone_line.split('"')[1::2]) == key_text(KEY)
    dns.add(NAME, "CNAME", "keys.hoster.example.")
    dns.add("keys.hoster.example", "TXT", key_text(KEY))
    assert (await key_finding(dns)).verdict == "ok"
    dns.remove(NAME)
    assert (await key_finding(dns, key_text(KEY), "v=DKIM1; p=")).says == "2 TXT records"


@pytest.mark.asyncio
async def test_a_short_key_and_one_in_its_bare_form(dns: DnsServer) -> None:
    assert (await key_finding(dns, key_text(SMALL), key=SMALL)).verdict == "warn"
    dns.remove(NAME)
    bare = base64.b64encode(KEY.public_bytes(Encoding.DER, PublicFormat.PKCS1)).decode()
    assert (await key_finding(dns, f"v=DKIM1; p={bare}")).verdict == "ok"


@pytest.mark.asyncio
async def test_an_ed25519_key(dns: DnsServer) -> None:
    dns.add(NAME, "TXT", key_text(CURVE))
    assert (await check_key(answers(dns), "lib.example", "s1", CURVE)).verdict == "ok"
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    assert (await check_key(answers(dns), "lib.example", "s1", other)).says == "another key"


@pytest.mark.asyncio
async def test_a_dns_that_fails_is_asked_once_and_proves_nothing(dns: DnsServer) -> None:
    for name in (NAME, "lib.example", "_dmarc.lib.example", US.reverse_pointer):
        dns.fail(name)
    asked = answers(dns)
    assert (await check_key(asked, "lib.example", "s1", KEY)).verdict == "unknown"
    count = len(dns.questions)
    again = await check_key(asked, "lib.example", "s1", KEY)
    assert (again.verdict, again.record, len(dns.questions)) == ("unknown", None, count)
    assert (await check_spf(asked, "lib.example", SENDERS)).verdict == "unknown"
    assert [each.verdict for each in await check_dmarc(asked, "lib.example", SENT)] == ["unknown"]
    assert (await check_bounce_mx(asked, "lib.example")).verdict == "unknown"
    assert (await check_name(asked, "relay.lib.example", US)).verdict == "unknown"


@pytest.mark.asyncio
async def test_a_dns_that_does_not_answer_proves_nothing() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        asked = Answers(Resolver(Dns(nameservers=(f"127.0.0.1:{silent.getsockname()[1]}",), timeout=0.3)))
        found = await check_key(asked, "lib.example", "s1", KEY)
    assert (found.verdict, found.says) == ("unknown", f"no answer from the DNS for {NAME}: LifetimeTimeout")


# --- SPF


async def judged(dns: DnsServer, record: str, address: str = "192.0.2.25") -> Judgement:
    dns.add("lib.example", "TXT", record)
    return await judge(answers(dns), "lib.example", ip_address(address), "postmaster@lib.example")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("record", "result", "reason"),
    [
        ("v=spf1 ip4:192.0.2.0/24 -all", "pass", "lib.example: ip4:192.0.2.0/24"),
        ("v=spf1 ip6:2001:db8::/32 -all", "fail", "lib.example: -all"),
        ("v=spf1 ~all", "softfail", "lib.example: ~all"),
        ("v=spf1 ?ip4:192.0.2.25 -all", "neutral", "lib.example: ?ip4:192.0.2.25"),
        ("v=spf1", "neutral", "lib.example: no term matches"),
        ("v=spf1 a -all", "pass", "lib.example: a"),
        ("v=spf1 a:none.example a/24 -all", "pass", "lib.example: a/24"),
        ("v=spf1 mx -all", "pass", "lib.example: mx"),
        ("v=spf1 -ptr:isp.example +ptr:lib.example -all", "pass", "lib.example: +ptr:lib.example"),
        ("v=spf1 exists:%{ir}.%{v}.list.example -all", "pass", "lib.example: exists:%{ir}.%{v}.list.example"),
        (
            "v=spf1 exists:%{l}.%{d2}.%{o1}.list.example -all",
            "pass",
            "lib.example: exists:%{l}.%{d2}.%{o1}.list.example",
        ),
        (
            "v=spf1 include:_spf.example -all",
            "pass",
            "lib.example: include:_spf.example > _spf.example: ip4:192.0.2.25",
        ),
        ("v=spf1 include:_fail.example ip4:192.0.2.25", "pass", "lib.example: ip4:192.0.2.25"),
        ("v=spf1 redirect=_spf.example", "pass", "_spf.example: ip4:192.0.2.25"),
        (
            "v=spf1 include:none.example -all",
            "permerror",
            "lib.example: include:none.example: none.example has no SPF record",
        ),
        ("v=spf1 redirect=none.example", "permerror", "lib.example: redirect=none.example has no SPF record"),
        ("v=spf1 include:lib.example -all", "permerror", "more than 10 look-ups"),
        (
            "v=spf1 exists:%{z}.example -all",
            "permerror",
            "lib.example: %{z}.example has a macro that is not allowed there",
        ),
        (
            "v=spf1 exists:%{c}.example -all",
            "permerror",
            "lib.example: %{c}.example has a macro that is not allowed there",
        ),
        ("v=spf1 a:%{p}.example ip4:192.0.2.25 -all", "pass", "lib.example: ip4:192.0.2.25"),
        ("v=spf1 exists:%{L}%%%_%-.%{d1-}.example -all", "fail", "lib.example: -all"),
        ("v=spf1 exists:%x.example -all", "permerror", "lib.example: %x.example has a macro that can't be read"),
        ("v=spf1 ipv4:192.0.2.25 -all", "permerror", "lib.example: an SPF record has a term that can't be read"),
        ("v=spf1 a:n1.example a:n2.example a:n3.example -all", "permerror", "more than 2 look-ups without an answer"),
        ("v=spf1 mx:many.example -all", "permerror", "lib.example: many.example has 11 MX hosts; 10 are looked up"),
        ("v=spf1 include:broken.example -all", "temperror", "no answer from the DNS for broken.example"),
        ("another text", "none", ""),
    ],
)
async def test_spf_for_an_address(dns: DnsServer, record: str, result: str, reason: str) -> None:
    dns.add("lib.example", "A", "192.0.2.25")
    dns.add("lib.example", "MX", "10 mx.example.")
    dns.add("mx.example", "A", "192.0.2.25")
    dns.add(US.reverse_pointer, "PTR", "relay.lib.example.")
    dns.add("relay.lib.example", "A", "192.0.2.25")
    dns.add("25.2.0.192.in-addr.list.example", "A", "127.0.0.2")
    dns.add("postmaster.lib.example.example.list.example", "A", "127.0.0.2")
    dns.add("_spf.example", "TXT", "v=spf1 ip4:192.0.2.25 -all")
    dns.add("_fail.example", "TXT", "v=spf1 -all")
    dns.add("many.example", "MX", *(f"{i} mx{i}.example." for i in range(11)))
    dns.fail("broken.example")
    found = await judged(dns, record)
    assert found.result == result
    assert found.reason.startswith(reason)


@pytest.mark.asyncio
async def test_spf_for_an_ipv6_address(dns: DnsServer) -> None:
    dns.add("lib.example", "AAAA", "2001:db8::1")
    nibbles = ip_address("2001:db8::25").reverse_pointer.removesuffix(".ip6.arpa")
    dns.add(f"{nibbles}.ip6.list.example", "A", "127.0.0.2")
    assert (await judged(dns, "v=spf1 a//64 -all", "2001:db8::25")).result == "pass"
    dns.remove("lib.example", "TXT")
    assert (await judged(dns, "v=spf1 exists:%{ir}.%{v}.list.example -all", "2001:db8::25")).result == "pass"


@pytest.mark.asyncio
async def test_ten_lookups_are_allowed_and_counted(dns: DnsServer) -> None:
    for i in range(11):
        dns.add(f"s{i}.example", "TXT", "v=spf1 -all")
    found = await judged(dns, f"v=spf1 {' '.join(f'include:s{i}.example' for i in range(10))} ip4:192.0.2.25")
    assert (found.result, found.lookups, found.voids) == ("pass", 10, 0)
    assert found.chain == ("lib.example", *(f"s{i}.example" for i in range(10)))
    dns.remove("lib.example", "TXT")
    found = await judged(dns, f"v=spf1 {' '.join(f'include:s{i}.example' for i in range(11))} ip4:192.0.2.25")
    assert found.result == "permerror"
    assert (await whole_cost(answers(dns), "lib.example")).lookups == 11


async def spf(dns: DnsServer, *records: str, is_ours: bool = True) -> Finding:
    dns.remove("lib.example", "TXT")
    if records:
        dns.add("lib.example", "TXT", *records)
    return await check_spf(answers(dns), "lib.example", SENDERS, is_ours=is_ours)


FRESH = Record("lib.example", "TXT", "v=spf1 ip4:192.0.2.25 -all")


@pytest.mark.asyncio
async def test_the_spf_record_of_a_domain(dns: DnsServer) -> None:
    good = await spf(dns, "v=spf1 ip4:192.0.2.25 -all")
    assert good.says == "pass (lib.example: ip4:192.0.2.25); 0 of 10 look-ups, 0 of 2 void"
    assert (good.verdict, good.record, good.advice) == ("ok", None, "")
    missing = await spf(dns)
    assert (missing.verdict, missing.says, missing.record) == ("wrong", "no SPF record", FRESH)
    lacking = await spf(dns, "v=spf1 include:_spf.example ~all")
    assert (lacking.verdict, lacking.says.partition(" for ")[0]) == ("wrong", "permerror")
    dns.add("_spf.example", "TXT", "v=spf1 ip4:198.51.100.0/24 -all")
    lacking = await spf(dns, "v=spf1 include:_spf.example ~all")
    assert lacking.says == "softfail for 192.0.2.25 (lib.example: ~all); 1 of 10 look-ups, 0 of 2 void"
    assert lacking.record == Record("lib.example", "TXT", "v=spf1 ip4:192.0.2.25 include:_spf.example ~all")
    excluded = await spf(dns, "v=spf1 -ip4:192.0.2.0/24 +all")
    assert excluded.record == Record("lib.example", "TXT", "v=spf1 ip4:192.0.2.25 -ip4:192.0.2.0/24 +all")


@pytest.mark.asyncio
async def test_what_others_published_is_escaped_in_a_zone_line(dns: DnsServer) -> None:
    found = await spf(dns, 'v=spf1 note=a"b\\c\x1b[2J -all')
    assert found.record is not None
    assert "\x1b[2J" in found.record.text
    assert found.record.zone_line.endswith(r'"v=spf1 ip4:192.0.2.25 note=a\"b\\c\027[2J -all" )')


@pytest.mark.asyncio
async def test_an_spf_record_past_mending_is_replaced_only_where_nobody_else_sends(dns: DnsServer) -> None:
    two = ("v=spf1 ip4:192.0.2.25 -all", "v=spf1 mx -all")
    found = await spf(dns, *two)
    assert found.says.startswith("permerror for 192.0.2.25 (lib.example has 2 SPF records; one is allowed)")
    assert (found.verdict, found.record) == ("wrong", FRESH)
    found = await spf(dns, *two, is_ours=False)
    assert (found.verdict, found.record) == ("wrong", None)


@pytest.mark.asyncio
async def test_an_spf_record_that_passes_us_may_be_bad_all_the_same(dns: DnsServer) -> None:
    found = await spf(dns, "v=spf1 ip4:192.0.2.25 +all")
    assert (found.verdict, found.advice.partition(":")[0]) == ("warn", "it passes everybody (+all)")
    found = await spf(dns, f"v=spf1 ip4:192.0.2.25 {' '.join(f'a:n{i}.example' for i in range(11))} -all")
    assert (found.verdict, found.advice.partition(" for ")[0]) == ("warn", "too many look-ups")
    assert "11 of 10 look-ups, 11 of 2 void" in found.says
    found = await spf(dns, "v=spf1 ip4:192.0.2.25 include:nobody.example -all")
    assert (found.verdict, found.advice.partition(":")[0]) == ("warn", "mend what stands behind our part")
    dns.fail("away.example")
    found = await spf(dns, "v=spf1 ip4:192.0.2.25 include:away.example -all")
    assert (found.verdict, found.advice.partition(":")[0]) == ("warn", "what stands behind our part could not be asked")


@pytest.mark.asyncio
async def test_from_where_mail_is_sent(dns: DnsServer) -> None:
    dns.add("smtp.campus.example", "A", "192.0.2.25")
    dns.add("smtp.campus.example", "AAAA", "2001:db8::25")
    dns.add("spf.cloud.example", "TXT", "v=spf1 ip4:198.51.100.0/24 -all")
    asked = answers(dns)
    assert (await senders_of(asked, (), "192.0.2.25")) == SENDERS
    assert (await senders_of(asked, (), "smtp.campus.example")).terms == ("ip4:192.0.2.25", "ip6:2001:db8::25")
    cloud = await senders_of(asked, ("spf.cloud.example",), "smtp.campus.example")
    assert cloud.terms == ("include:spf.cloud.example",)
    assert [str(each) for each in cloud.addresses] == ["198.51.100.0", "198.51.100.255"]
    dns.add("lib.example", "TXT", "v=spf1 ip4:198.51.100.0/25 -all")
    found = await check_spf(asked, "lib.example", cloud)
    assert found.says.startswith("fail for 198.51.100.255")
    assert found.record is not None
    assert found.record.text == "v=spf1 include:spf.cloud.example ip4:198.51.100.0/25 -all"


@pytest.mark.asyncio
async def test_nobody_to_send_is_said(dns: DnsServer) -> None:
    dns.add("all.example", "TXT", "v=spf1 +all")
    with pytest.raises(NoSuchDomain, match="names no address"):
        await senders_of(answers(dns), ("all.example",), "")
    with pytest.raises(NoSuchDomain, match="has no address"):
        await senders_of(answers(dns), (), "smtp.nowhere.example")
    with pytest.raises(SpfError, match="no SPF records"):
        await senders_of(answers(dns), ("nowhere.example",), "")


@pytest.mark.asyncio
async def test_the_include_of_ex_libris_may_be_dropped(dns: DnsServer) -> None:
    dns.add("spf-eu.exlibrisgroup.com", "TXT", "v=spf1 include:_a.exlibrisgroup.com -all")
    dns.add("_a.exlibrisgroup.com", "TXT", "v=spf1 ip4:203.0.113.0/24 -all")
    dns.add("lib.example", "TXT", "v=spf1 mx include:spf-eu.exlibrisgroup.com -all")
    dns.add("lib.example", "MX", "10 lib.example.")
    found = await check_ex_libris(answers(dns), "lib.example")
    assert found is not None
    assert (found.says, found.verdict) == ("include:spf-eu.exlibrisgroup.com", "ok")
    assert found.advice == "it can be dropped then: look-ups fall from 3 to 1"
    dns.remove("lib.example", "TXT")
    dns.add("lib.example", "TXT", "v=spf1 mx include:notexlibrisgroup.com -all")
    assert await check_ex_libris(answers(dns), "lib.example") is None


# --- DMARC


async def dmarc(dns: DnsServer, record: str = "", domain: str = "lib.example", sent: Sent = SENT) -> list[Finding]:
    if record:
        dns.add("_dmarc.lib.example", "TXT", record)
    return await check_dmarc(answers(dns), domain, sent)


RUA = "rua=mailto:dmarc@lib.example"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("record", "verdict", "says", "advice"),
    [
        (f"v=DMARC1; p=reject; {RUA}", "ok", "p=reject", ""),
        (f"v=DMARC1 ; p=Quarantine; {RUA};", "ok", "p=quarantine", ""),
        (f"v=DMARC1; p=none; {RUA}", "warn", "p=none", "p=none asks nothing"),
        (f"v=DMARC1; p=reject; t=y; {RUA}", "warn", "p=reject, t=y", "t=y asks for"),
        (f"v=DMARC1; p=reject; pct=50; ri=3600; {RUA}", "warn", "p=reject", "pct, ri mean nothing any more"),
        ("v=DMARC1; p=reject", "warn", "p=reject", "no rua=: "),
        (f"v=DMARC1; p=nothing; {RUA}", "wrong", "v=DMARC1; p=nothing; rua=mailto:dmarc@lib.example", "p= has to be"),
        (f"v=DMARC1; {RUA}", "warn", "p=none", "write p=none, "),
        (f"v=DMARC1; p=reject; nonsense; {RUA}", "warn", "p=reject", "_dmarc.lib.example: 'nonsense' is no tag"),
        ("v=dmarc1; p=reject", "wrong", "no record, nor at a parent", "publish it"),
        ("", "wrong", "no record, nor at a parent", "publish it"),
    ],
)
async def test_the_dmarc_record(dns: DnsServer, record: str, verdict: str, says: str, advice: str) -> None:
    found = (await dmarc(dns, record))[0]
    assert (found.verdict, found.says) == (verdict, says)
    assert found.advice.startswith(advice)
    assert bool(found.advice) == (verdict != "ok")
    fresh = Record("_dmarc.lib.example", "TXT", "v=DMARC1; p=none; rua=mailto:dmarc-reports@lib.example")
    assert found.record == (fresh if verdict == "wrong" else None)


@pytest.mark.asyncio
async def test_reports_to_another_organisation_need_its_consent(dns: DnsServer) -> None:
    record = "v=DMARC1; p=reject; rua=mailto:us@reports.lib.example!10m, mailto:them@collector.test"
    found = (await dmarc(dns, record))[0]
    assert (found.verdict, found.says) == ("warn", "p=reject")
    assert found.advice == (
        "collector.test does not take reports for lib.example: it has to publish "
        "lib.example._report._dmarc.collector.test TXT v=DMARC1"
    )
    dns.add("lib.example._report._dmarc.collector.test", "TXT", "v=DMARC1")
    assert (await dmarc(dns))[0].verdict == "ok"
    dns.fail("lib.example._report._dmarc.collector.test")
    assert (await dmarc(dns))[0].verdict == "unknown"


@pytest.mark.asyncio
async def test_two_dmarc_records_do_not_count(dns: DnsServer) -> None:
    dns.add("_dmarc.lib.example", "TXT", "v=DMARC1; p=reject", "v=DMARC1; p=none", "another text")
    found = (await dmarc(dns))[0]
    assert found.says == "_dmarc.lib.example has 2 DMARC records: none of them counts"
    assert (found.verdict, found.record) == ("wrong", None)
    dns.add("_dmarc.example", "TXT", "v=DMARC1; p=reject; rua=mailto:x@example")
    assert (await dmarc(dns))[0].verdict == "warn"


@pytest.mark.asyncio
async def test_the_record_of_a_parent_holds_by_sp_or_np(dns: DnsServer) -> None:
    record = f"v=DMARC1; p=reject; sp=quarantine; np=none; {RUA}"
    assert (await dmarc(dns, record, "desk.lib.example"))[0].says == "p=none (of _dmarc.lib.example, by np=)"
    dns.add("desk.lib.example", "A", "192.0.2.1")
    assert (await dmarc(dns, domain="desk.lib.example"))[0].says == "p=quarantine (of _dmarc.lib.example, by sp=)"


@pytest.mark.asyncio
async def test_the_walk_to_the_organizational_domain(dns: DnsServer) -> None:
    async def organization(domain: str) -> str:
        return (await walk(answers(dns), domain)).organizational_domain

    assert await organization("a.lib.example") == "a.lib.example"
    dns.add("_dmarc.lib.example", "TXT", "v=DMARC1; p=none")
    dns.add("_dmarc.b.a.lib.example", "TXT", "v=DMARC1; p=none")
    assert await organization("c.b.a.lib.example") == "lib.example"
    dns.add("_dmarc.a.lib.example", "TXT", "v=DMARC1; p=none; psd=n")
    assert await organization("c.b.a.lib.example") == "a.lib.example"
    dns.add("_dmarc.ac.example", "TXT", "v=DMARC1; p=none; psd=y")
    assert await organization("mail.uni.ac.example") == "uni.ac.example"
    assert await organization("ac.example") == "ac.example"
    dns.questions.clear()
    await walk(answers(dns), "a.b.c.d.e.f.g.h.i.j.other.test")
    asked = [name for name, _ in dns.questions]
    assert len(asked) == 8
    assert asked[:2] == ["_dmarc.a.b.c.d.e.f.g.h.i.j.other.test", "_dmarc.f.g.h.i.j.other.test"]
    assert asked[-1] == "_dmarc.test"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("tags", "sent", "verdict", "says"),
    [
        ("", SENT, "ok", "SPF by bounces.lib.example; DKIM by lib.example"),
        ("aspf=s;", SENT, "warn", "SPF by bounces.lib.example, not aligned; DKIM by lib.example"),
        (
            "adkim=s;",
            Sent("bounces.lib.example", ("sub.lib.example",)),
            "warn",
            "SPF by bounces.lib.example; DKIM by sub.lib.example, not aligned",
        ),
        (
            "",
            Sent("mail.other.test", ("other.test",)),
            "wrong",
            "SPF by mail.other.test, not aligned; DKIM by other.test, not aligned",
        ),
        ("", Sent("mail.other.test", ()), "wrong", "SPF by mail.other.test, not aligned; no DKIM key"),
        ("", Sent("lib.example", ("x.other.test", "lib.example")), "ok", "SPF by lib.example; DKIM by lib.example"),
    ],
)
async def test_alignment(dns: DnsServer, tags: str, sent: Sent, verdict: str, says: str) -> None:
    found = (await dmarc(dns, f"v=DMARC1; p=reject; {tags} {RUA}", sent=sent))[1]
    assert (found.topic, found.verdict, found.says) == ("alignment", verdict, says)
    assert bool(found.advice) == (verdict != "ok")


@pytest.mark.asyncio
async def test_alignment_as_it_will_be_with_the_record_to_publish(dns: DnsServer) -> None:
    assert [each.verdict for each in await dmarc(dns)] == ["wrong", "ok"]
    assert [each.verdict for each in await dmarc(dns, sent=Sent("notlib.example", ("lib.example",)))] == [
        "wrong",
        "warn",
    ]


# --- hosts


@pytest.mark.asyncio
async def test_where_bounces_go(dns: DnsServer) -> None:
    async def mx() -> tuple[str, str]:
        found = await check_bounce_mx(answers(dns), "bounces.lib.example")
        return found.verdict, found.says

    assert await mx() == ("wrong", "no MX, and no address")
    dns.add("bounces.lib.example", "A", "192.0.2.9")
    assert await mx() == ("warn", "no MX, but an address: 192.0.2.9")
    dns.add("bounces.lib.example", "MX", "0 .")
    assert await mx() == ("wrong", "a null MX: it takes no mail")
    dns.remove("bounces.lib.example", "MX")
    dns.add("bounces.lib.example", "MX", "20 mx2.example.", "10 mx1.example.")
    assert await mx() == ("wrong", "mx1.example mx2.example, without an address")
    dns.add("mx2.example", "AAAA", "2001:db8::9")
    assert await mx() == ("warn", "mx1.example mx2.example")
    dns.add("mx1.example", "A", "192.0.2.9")
    assert await mx() == ("ok", "mx1.example mx2.example")


@pytest.mark.asyncio
async def test_an_address_and_its_name(dns: DnsServer) -> None:
    pointer = "25.2.0.192.in-addr.arpa"

    async def ptr() -> Finding:
        return await check_name(answers(dns), "relay.lib.example", US)

    found = await ptr()
    assert (found.verdict, found.says) == ("wrong", "no name")
    assert found.record is not None
    assert found.record.zone_line == f"{pointer}. IN PTR relay.lib.example."
    dns.add(pointer, "PTR", "relay.lib.example.")
    found = await ptr()
    assert (found.verdict, found.says) == ("wrong", "relay.lib.example; relay.lib.example has no address")
    assert found.record is not None
    assert found.record.zone_line == "relay.lib.example. IN A 192.0.2.25"
    dns.add("relay.lib.example", "A", "192.0.2.25")
    assert (await ptr()).verdict == "ok"
    dns.remove(pointer)
    dns.add(pointer, "PTR", "host25.isp.example.")
    found = await ptr()
    assert (found.verdict, found.says) == ("wrong", "host25.isp.example, which does not have this address")
    dns.add("host25.isp.example", "A", "192.0.2.25")
    assert (await ptr()).verdict == "warn"
