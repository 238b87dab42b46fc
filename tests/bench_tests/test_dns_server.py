"""The DNS server answers what was published, and nothing else."""

import asyncio
from pathlib import Path

import dkim
import dns.asyncresolver
import dns.resolver
import pytest

from tests.harness import samples
from tests.harness.dns_server import DnsServer, verify_dkim
from tests.harness.institution import DOMAIN, HOSTNAME, SELECTOR, Institution, Ports
from tests.harness.waiting import LOCALHOST, free_ports


def _resolver(port: int) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.lifetime = [LOCALHOST], port, 3.0
    return resolver


@pytest.mark.asyncio
async def test_published_records_are_answered() -> None:
    async with DnsServer(free_ports(1)) as server:
        server.add("lib.example", "MX", "20 second.example.", "10 first.example.")
        server.add("lib.example", "TXT", 'with "quotes" and \\')
        server.add("first.example", "A", "127.0.0.1")
        server.add("first.example", "AAAA", "::1")
        server.add("alias.example", "CNAME", "first.example.")
        resolver = _resolver(server.port)
        mx = await resolver.resolve("lib.example", "MX")
        assert sorted(record.to_text() for record in mx) == ["10 first.example.", "20 second.example."]
        txt = await resolver.resolve("lib.example", "TXT")
        assert txt[0].strings == (b'with "quotes" and \\',)
        assert (await resolver.resolve("alias.example", "A"))[0].to_text() == "127.0.0.1"
        assert (await resolver.resolve("FIRST.example", "AAAA"))[0].to_text() == "::1"
        assert ("lib.example", "MX") in server.questions


@pytest.mark.asyncio
async def test_what_was_not_published_does_not_exist() -> None:
    async with DnsServer(free_ports(1)) as server:
        server.add("mx.lib.example", "A", "127.0.0.1")
        resolver = _resolver(server.port)
        with pytest.raises(dns.resolver.NXDOMAIN):
            await resolver.resolve("elsewhere.example", "MX")
        with pytest.raises(dns.resolver.NoAnswer):
            await resolver.resolve("mx.lib.example", "MX")
        with pytest.raises(dns.resolver.NoAnswer):
            await resolver.resolve("lib.example", "A")
        server.fail("mx.lib.example")
        with pytest.raises(dns.resolver.NoNameservers):
            await resolver.resolve("mx.lib.example", "A")
        server.fail("mx.lib.example", failing=False)
        server.remove("mx.lib.example")
        with pytest.raises(dns.resolver.NXDOMAIN):
            await resolver.resolve("mx.lib.example", "A")


@pytest.mark.asyncio
async def test_an_answer_too_big_for_udp_comes_over_tcp() -> None:
    async with DnsServer(free_ports(1)) as server:
        server.add("big.example", "TXT", "x" * 4000)
        answer = await _resolver(server.port).resolve("big.example", "TXT")
        assert b"".join(answer[0].strings) == b"x" * 4000


@pytest.mark.asyncio
async def test_the_verifier_accepts_a_good_signature_and_no_other(tmp_path: Path) -> None:
    library = Institution(tmp_path, Ports(20000))
    message = samples.patron_letter("someone@patron.example")
    signature = dkim.sign(message, SELECTOR.encode(), DOMAIN.encode(), library.dkim_key.read_bytes())
    async with DnsServer(free_ports(1)) as server:
        library.publish(server)
        good = await asyncio.to_thread(verify_dkim, signature + message, server.port)
        assert (good.valid, good.domain, good.selector) == (True, DOMAIN, SELECTOR)
        spoiled = (signature + message).replace(b"hold shelf", b"bold shelf")
        assert not (await asyncio.to_thread(verify_dkim, spoiled, server.port)).valid
        assert not (await asyncio.to_thread(verify_dkim, message, server.port)).valid
        server.remove(f"{SELECTOR}._domainkey.{DOMAIN}")
        assert not (await asyncio.to_thread(verify_dkim, signature + message, server.port)).valid


@pytest.mark.asyncio
async def test_the_demo_library_is_in_the_dns(tmp_path: Path) -> None:
    async with DnsServer(free_ports(1)) as server:
        Institution(tmp_path, Ports(20000)).publish(server)
        resolver = _resolver(server.port)
        assert (await resolver.resolve(DOMAIN, "MX"))[0].to_text() == f"10 {HOSTNAME}."
        assert (await resolver.resolve("patron.example", "MX"))[0].to_text() == "10 mx.patron.example."
        assert b"v=spf1" in (await resolver.resolve(DOMAIN, "TXT"))[0].strings[0]
