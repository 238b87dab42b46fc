"""Who is at the other end: by a load balancer's word, by TLS, by certificate, by password, by an SPF name."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import json
import os
import smtplib
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from argon2 import PasswordHasher
from cryptography import x509

from relay.config.load import load
from relay.control.client import metrics_of
from relay.intake.proxy_protocol import SIGNATURE
from tests.harness import certificates, samples
from tests.harness.appliance import command
from tests.harness.certificates import Made
from tests.harness.playground import Playground
from tests.harness.raw_smtp import RawSmtp, trusting
from tests.harness.waiting import LOCALHOST, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

BALANCER = "127.0.0.5"
OUTSIDE = "127.0.0.9"
PATRON = "<reader@patron.example>"
LIMIT = 2.0
"""Seconds for a handshake."""


class Place:
    """The playground, with a listener of each kind."""

    def __init__(self, playground: Playground, folder: Path) -> None:
        self.playground = playground
        first = playground.ports.first
        self.proxied, self.smtps, self.proxied_tls, self.certs, self.strict = (first + n for n in (6, 7, 8, 9, 13))
        self.server = certificates.make(folder, "relay.lib.example", days=30)
        self.ca = certificates.make(folder, "ca.example", is_authority=True)
        self.mta = certificates.make(folder, "mta.lib.example", signed_by=self.ca)
        self.other = certificates.make(folder, "mta.elsewhere.example")

    def configure(self) -> None:
        hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
        tls = {
            "address": LOCALHOST,
            "tls_certificate": str(self.server.certificate),
            "tls_key": str(self.server.key),
        }
        proxy, ca = [f"{BALANCER}/32"], str(self.ca.certificate)
        self.playground.institution.write_config(
            {
                "listeners": [
                    {"name": "proxied", "port": self.proxied, "proxy_protocol_from": proxy, **tls},
                    {"name": "smtps", "port": self.smtps, "kind": "submission", "tls": "implicit", **tls},
                    {"name": "both", "port": self.proxied_tls, "tls": "implicit", "proxy_protocol_from": proxy, **tls},
                    {"name": "certs", "port": self.certs, "client_ca": ca, **tls},
                    {
                        "name": "strict",
                        "port": self.strict,
                        "client_ca": ca,
                        "client_certificates": "required",
                        **tls,
                    },
                ],
                "sources": [
                    {"name": "cloud", "institutions": ["demo"], "spf": ["_spf.cloud.example"]},
                    {
                        "name": "costly",
                        "institutions": ["demo"],
                        "username": "costly",
                        "password_hash": PasswordHasher().hash("as made by hash-password"),
                    },
                    {"name": "mta", "institutions": ["demo"], "certificates": ["dns:mta.lib.example"]},
                    {
                        "name": "sandbox",
                        "institutions": ["demo"],
                        "username": "sandbox",
                        "password_hash": hasher.hash("sand"),
                        "sandbox": True,
                        "recipients": ["*@test.example"],
                        "divert_to": "tests@lib.example",
                    },
                ],
                "rendering": {"children": 1},
                "tls": {"handshake_timeout": LIMIT},
                "auth": {"max_failures": 3, "delay": 0.01, "lock_for": 2},
                "dns": {"spf_shortest": 0.2, "spf_longest": 0.3, "timeout": 1},
            }
        )

    def log(self) -> str:
        return self.playground.appliance.log.read_text(encoding="utf-8")

    async def may_send(self, client: RawSmtp, *, greets: bool = True) -> bytes:
        """The answer to a RCPT that every source of the demo may give."""
        if greets:
            assert (await client.say("EHLO mta.example")).startswith(b"250")
        reply = await client.say("MAIL FROM:<circ@lib.example>")
        return await client.say(f"RCPT TO:{PATRON}") if reply.startswith(b"250") else reply


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("who")
    async with Playground(folder / "all", start_appliance=False) as playground:
        found = Place(playground, folder)
        found.configure()
        playground.dns.add("_spf.cloud.example", "TXT", "v=spf1 include:_in.cloud.example exists:%{i}.x.example -all")
        playground.dns.add("_in.cloud.example", "TXT", "v=spf1 ip4:127.0.0.3 ip6:2001:db8::/32 -all")
        await playground.appliance.start()
        yield found


# --- load balancers


def header(address: str, *, command: int = 0x21, more: bytes = b"") -> bytes:
    """What a load balancer says of its client."""
    client, server = (
        ipaddress.ip_address(address),
        ipaddress.ip_address("10.0.0.1" if "." in address else "2001:db8::1"),
    )
    if ":" in address:
        server = ipaddress.ip_address("2001:db8::1")
    rest = client.packed + server.packed + b"\x12\x34\0\x19" + more
    family = 0x21 if ":" in address else 0x11
    return SIGNATURE + bytes([command, family]) + len(rest).to_bytes(2, "big") + rest


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "::1"])
async def test_a_client_behind_a_balancer_is_who_the_balancer_says(place: Place, address: str) -> None:
    async with RawSmtp(place.proxied, source=BALANCER, first=header(address, more=b"\x04\0\x03abc")) as client:
        assert (await place.may_send(client)).startswith(b"250")


async def test_a_stranger_behind_a_balancer_is_a_stranger(place: Place) -> None:
    async with RawSmtp(place.proxied, source=BALANCER, first=header("203.0.113.9")) as client:
        assert (await place.may_send(client)).startswith(b"550 5.7.1")
    assert "event=refused client=203.0.113.9 stage=RCPT" in place.log()


async def test_a_balancer_speaks_for_itself_and_is_nobody(place: Place) -> None:
    async with RawSmtp(place.proxied, source=BALANCER, first=header("127.0.0.1", command=0x20)) as client:
        assert client.greeting.startswith(b"220")
        assert (await place.may_send(client)).startswith(b"550 5.7.1")


async def test_others_on_that_port_are_themselves(place: Place) -> None:
    async with RawSmtp(place.proxied, source=LOCALHOST) as client:
        assert (await place.may_send(client)).startswith(b"250")


@pytest.mark.parametrize(
    "first",
    [
        b"EHLO x.example\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 4711 25\r\n",
        header("127.0.0.1", command=0x22),
        SIGNATURE + b"\x21\x00\0\0",
        SIGNATURE + b"\x21\x11\xff\xff",
        b"",
        SIGNATURE,
        header("127.0.0.1")[:-1],
    ],
)
async def test_a_balancer_without_a_header_is_closed_without_a_word(place: Place, first: bytes) -> None:
    begun = time.monotonic()
    async with RawSmtp(place.proxied, source=BALANCER, first=first) as client:
        assert client.greeting == b""
    assert time.monotonic() - begun < LIMIT + 2


async def test_a_header_may_come_in_pieces(place: Place) -> None:
    reader, writer = await asyncio.open_connection(LOCALHOST, place.proxied, local_addr=(BALANCER, 0))
    for byte in header("127.0.0.1"):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"220")
    writer.close()


async def test_the_header_comes_before_tls(place: Place) -> None:
    async with RawSmtp(place.proxied_tls, source=BALANCER, first=header("127.0.0.1"), tls=trusting()) as client:
        assert b"AUTH" in await client.say("EHLO mta.example")
        assert (await place.may_send(client, greets=False)).startswith(b"250")
    async with RawSmtp(place.proxied_tls, source=BALANCER, first=header("203.0.113.9"), tls=trusting()) as client:
        assert (await place.may_send(client)).startswith(b"550 5.7.1")
    async with RawSmtp(place.proxied, source=BALANCER, first=header("127.0.0.1")) as client:
        await client.say("EHLO mta.example")
        await client.start_tls(trusting())
        assert (await place.may_send(client)).startswith(b"250")


# --- TLS


async def test_mail_is_submitted_over_implicit_tls(place: Place) -> None:
    def submit() -> None:
        with smtplib.SMTP_SSL(LOCALHOST, place.smtps, context=trusting(), timeout=20) as client:
            client.login("alma", place.playground.institution.password)
            client.sendmail(
                "circ@lib.example", ["reader@patron.example"], samples.patron_letter(recipient="reader@patron.example")
            )

    before = len(place.playground.next_hop.taken)
    await asyncio.to_thread(submit)
    taken = await place.playground.next_hop.wait_for(before + 1)
    assert b"with ESMTPSA id" in taken[-1].content


async def test_no_old_tls_is_spoken(place: Place) -> None:
    old = trusting()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await RawSmtp(place.smtps, tls=old).__aenter__()


async def test_handshakes_that_stall_are_closed_and_delay_nobody(place: Place) -> None:
    begun = time.monotonic()
    stalled = [await asyncio.open_connection(LOCALHOST, place.smtps, local_addr=(OUTSIDE, 0)) for _ in range(50)]
    for _, writer in stalled[:25]:
        writer.write(b"\x16\x03\x01")
    async with RawSmtp(place.playground.ports.smtp, source=OUTSIDE) as client:
        await client.say("EHLO x.example")
        assert (await client.say("STARTTLS")).startswith(b"220")
        asked = time.monotonic()
        async with RawSmtp(place.smtps, tls=trusting()) as other:
            assert other.greeting.startswith(b"220")
        assert time.monotonic() - asked < 2
        assert await client.rest() == b""
    for reader, writer in stalled:
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), LIMIT + 3) == b""
        writer.close()
    assert time.monotonic() - begun < LIMIT + 3
    assert 'why="the TLS handshake failed' in place.log()


async def test_idle_connections_over_tls_cost_little_memory(place: Place) -> None:
    async with AsyncExitStack() as stack:
        sources = [f"127.0.2.{number % 4 + 1}" for number in range(100)]
        context = trusting()
        first = [RawSmtp(place.smtps, source=source, tls=context) for source in sources]
        await stack.enter_async_context(first.pop())
        before = resident(place.playground.appliance.pid)
        for client in first:
            await stack.enter_async_context(client)
        grown = resident(place.playground.appliance.pid) - before
    assert grown < 100 * 0.12, f"{grown} MiB for 100 connections"


async def served(port: int) -> int:
    """Serial number of the certificate that a port shows."""
    _, writer = await asyncio.open_connection(LOCALHOST, port, ssl=trusting())
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(der).serial_number


async def test_a_certificate_is_renewed_without_a_restart(place: Place) -> None:
    folder = place.server.certificate.parent
    assert await served(place.smtps) == place.server.read.serial_number
    async with RawSmtp(place.smtps, tls=trusting()) as old:
        renewed = certificates.make(folder, "relay.lib.example", days=60)
        place.playground.appliance.hang_up()
        await until(
            lambda: place.log().count("event=certificate listener=smtps what=taken") == 1, "the new certificate"
        )
        assert await served(place.smtps) == renewed.read.serial_number
        assert (await old.say("EHLO x.example")).startswith(b"250")
    renewed.certificate.write_text("nothing\n")
    place.playground.appliance.hang_up()
    await until(lambda: "event=certificate listener=smtps what=kept" in place.log(), "the fault to be told")
    assert await served(place.smtps) == renewed.read.serial_number
    certificates.make(folder, "relay.lib.example", days=60)


# --- certificates of clients


def showing(made: Made | None) -> ssl.SSLContext:
    context = trusting()
    if made is not None:
        context.load_cert_chain(made.certificate, made.key)
    return context


async def test_a_client_is_known_by_its_certificate(place: Place) -> None:
    for port in (place.certs, place.strict):
        async with RawSmtp(port, source=OUTSIDE) as client:
            await client.say("EHLO mta.example")
            await client.start_tls(showing(place.mta))
            assert (await place.may_send(client)).startswith(b"250"), port


async def test_without_one_it_is_a_stranger(place: Place) -> None:
    async with RawSmtp(place.certs, source=OUTSIDE) as client:
        await client.say("EHLO mta.example")
        await client.start_tls(showing(None))
        assert (await place.may_send(client)).startswith(b"550 5.7.1")
    async with RawSmtp(place.strict) as client:
        assert (await place.may_send(client)).startswith(b"530 5.7.0"), "not even a known address"


@pytest.mark.parametrize("who", ["other", "nobody"])
async def test_a_certificate_from_elsewhere_opens_nothing(place: Place, who: str) -> None:
    made = place.other if who == "other" else None
    port = place.strict if made is None else place.certs
    greeted = b""
    async with RawSmtp(port, source=OUTSIDE) as client:
        await client.say("EHLO mta.example")
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            await client.start_tls(showing(made))
            greeted = await client.say("EHLO mta.example")  # with TLS 1.3 the client hears of it only now
    assert greeted == b""

    async def are_over() -> bool:
        return await connections(place) == 0

    await until(are_over, "the place of a failed handshake to be free again")


async def connections(place: Place) -> int:
    """Connections that have a place, by the service's own count."""
    text = await asyncio.to_thread(metrics_of, load(place.playground.institution.config))
    (line,) = (line for line in text.splitlines() if line.startswith("slip_relay_connections "))
    return int(float(line.split()[1]))


# --- passwords


async def log_in(client: RawSmtp, name: str, password: str) -> bytes:
    await client.say("EHLO x.example")
    return await client.say("AUTH PLAIN " + base64.b64encode(f"\0{name}\0{password}".encode()).decode())


async def test_who_tries_passwords_is_locked_out_for_a_while(place: Place) -> None:
    password = place.playground.institution.password
    for _ in range(3):
        async with RawSmtp(place.smtps, source=OUTSIDE, tls=trusting()) as client:
            assert (await log_in(client, "alma", "wrong")).startswith(b"535 5.7.8")
    async with RawSmtp(place.smtps, source=OUTSIDE, tls=trusting()) as client:
        assert (await log_in(client, "alma", password)).startswith(b"421 4.7.0")
        assert await client.rest() == b""
    async with RawSmtp(place.smtps, source="127.0.0.10", tls=trusting()) as client:
        assert (await log_in(client, "alma", password)).startswith(b"235")
    assert f"event=locked-out client={OUTSIDE}" in place.log()

    async def is_open() -> bool:
        async with RawSmtp(place.smtps, source=OUTSIDE, tls=trusting()) as client:
            return (await log_in(client, "alma", password)).startswith(b"235")

    await until(is_open, "the address to be let in again", seconds=10, every=0.3)


async def test_passwords_of_many_addresses_cost_the_memory_of_two(place: Place) -> None:
    async def guess(number: int) -> bytes:
        async with RawSmtp(place.smtps, source=f"127.0.1.{number}", tls=trusting()) as client:
            return await log_in(client, "costly", "wrong")

    pid, most = place.playground.appliance.pid, 0
    before = resident(pid)
    guesses = asyncio.gather(*(guess(number) for number in range(1, 9)))
    asked = time.monotonic()
    async with RawSmtp(place.playground.ports.smtp) as client:
        assert (await place.may_send(client)).startswith(b"250")
    assert time.monotonic() - asked < 2
    while not guesses.done():
        most = max(most, resident(pid))
        await asyncio.sleep(0.005)
    assert all(reply.startswith(b"535") for reply in await guesses)
    assert 64 <= most - before < 2 * 64 + 40, f"{most - before} MiB"


def resident(pid: int) -> int:
    """Memory of a process, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


async def test_mail_of_a_sandbox_is_diverted(place: Place) -> None:
    before = len(place.playground.next_hop.taken)
    async with RawSmtp(place.smtps, tls=trusting()) as client:
        assert (await log_in(client, "sandbox", "sand")).startswith(b"235")
        await client.say("MAIL FROM:<circ@lib.example>")
        for recipient in ("reader@patron.example", "other@patron.example", "laser@print.lib.example"):
            assert (await client.say(f"RCPT TO:<{recipient}>")).startswith(b"250")
        assert (await client.say("DATA")).startswith(b"354")
        assert (await client.say("From: circ@lib.example\r\nTo: reader@patron.example\r\n\r\nhello\r\n.")).startswith(
            b"250"
        )
    taken = await place.playground.next_hop.wait_for(before + 1)
    assert [each.rcpt_to for each in taken[before:]] == [["tests@lib.example"]]
    assert not place.playground.printers["laser"].papers()
    assert "event=diverted source=sandbox recipient=*@patron.example to=tests@lib.example" in place.log()


# --- SPF names


async def sources(place: Place, *options: str) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        *command(), "sources", "-c", str(place.playground.institution.config), *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await child.communicate()
    return child.returncode or 0, output.decode()


async def answer_from(place: Place, address: str) -> bytes:
    async with RawSmtp(place.playground.ports.smtp, source=address) as client:
        return await place.may_send(client)


async def test_a_source_by_spf_follows_the_dns_and_outlives_it(place: Place) -> None:
    dns, appliance = place.playground.dns, place.playground.appliance
    assert (await answer_from(place, "127.0.0.3")).startswith(b"250")
    assert (await answer_from(place, "127.0.0.4")).startswith(b"550")
    code, shown = await sources(place)
    assert code == 0, shown
    assert "SPF of _spf.cloud.example" in shown
    assert "127.0.0.3/32 2001:db8::/32" in shown
    assert "cloud: not used: _spf.cloud.example: exists:%{i}.x.example: it depends on the message" in shown
    assert "sandbox (sandbox)" in shown

    dns.remove("_in.cloud.example")
    dns.add("_in.cloud.example", "TXT", "v=spf1 ip4:127.0.0.4 -all")

    async def is_new() -> bool:
        return (await answer_from(place, "127.0.0.4")).startswith(b"250")

    await until(is_new, "the new address", seconds=10)
    assert (await answer_from(place, "127.0.0.3")).startswith(b"550")
    assert "event=spf name=_spf.cloud.example result=changed networks=1 more=127.0.0.4/32" in place.log()

    for name in ("_spf.cloud.example", "_in.cloud.example"):
        dns.fail(name)
    await until(lambda: "result=failed" in place.log(), "a look-up that fails", seconds=10)
    assert (await answer_from(place, "127.0.0.4")).startswith(b"250")
    code, shown = await sources(place, "--json")
    assert code == 1
    (cloud,) = (each for each in json.loads(shown) if each["name"] == "cloud")
    assert cloud["spf"][0]["networks"] == ["127.0.0.4/32"]
    assert "no answer from the DNS" in cloud["spf"][0]["fault"]

    await appliance.stop()
    code, shown = await sources(place)
    assert code == 1
    assert "no service answers at" in shown
    assert "it looks SPF names up while it runs" in shown
    await appliance.start()
    assert (await answer_from(place, "127.0.0.4")).startswith(b"250"), "after a restart without DNS"
