"""Letters by MX, through the real process: MTA-STS policies (RFC 8461) from a real HTTPS server, and DANE (RFC 7672).

All domains run at the same time through one appliance. `good` are hosts with a certificate of an authority that is
believed, `bad` are hosts whose certificate nobody signed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import smtplib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.config.load import load
from relay.control.client import metrics_of
from relay.spool.engine import Place
from relay.spool.histories import DeliveryHistory, message_history
from tests.harness import certificates, toml
from tests.harness.appliance import Appliance
from tests.harness.certificates import Made
from tests.harness.clock import Clock
from tests.harness.dns_server import DnsServer
from tests.harness.institution import Institution, Ports
from tests.harness.letters_only import letter
from tests.harness.next_hop import NextHop
from tests.harness.policy_server import PolicyServer
from tests.harness.waiting import LOCALHOST, free_ports, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

GOOD, BAD = "127.0.0.2", "127.0.0.3"
POLICIES: dict[str, tuple[str, str, str]] = {
    "met": ("enforce", "mx.met.example", GOOD),
    "unmet": ("enforce", "mx.unmet.example", BAD),
    "elsewhere": ("enforce", "mx.of-somebody-else.example", GOOD),
    "testing": ("testing", "mx.testing.example", BAD),
    "none": ("none", "mx.none.example", BAD),
    "down": ("enforce", "mx.down.example", BAD),
    "ends": ("enforce", "mx.ends.example", GOOD),
}
"""By domain: mode of the policy, the host that it names, and where the domain's own host is."""


class World:
    """The appliance, the mail hosts, the policy host and the DNS."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        ports = Ports(free_ports(Ports.COUNT))
        self.institution = Institution(folder, ports)
        self.authority = certificates.make(folder, "authority", is_authority=True)
        hosts = [f"mta-sts.{name}.example" for name in POLICIES]
        policy_host = certificates.make(folder, "policies", names=hosts, signed_by=self.authority)
        exchanges = [f"mx.{name}.example" for name in (*POLICIES, "dane", "dane-other")]
        self.good = certificates.make(folder, "good", names=exchanges, signed_by=self.authority)
        self.bad = certificates.make(folder, "bad", names=exchanges)
        self.dns = DnsServer(ports.dns)
        self.policies = PolicyServer(free_ports(1), policy_host)
        self.port = ports.next_hop
        self.hosts = {
            GOOD: NextHop(self.port, folder / "good", certificate=_files(self.good), address=GOOD, requiretls=True),
            BAD: NextHop(self.port, folder / "bad", certificate=_files(self.bad), address=BAD),
        }
        self.appliance = Appliance(self.institution.config, ports.smtp, folder, environment=clock.environment)
        self.file = self.institution.spool.with_name("mta-sts.json")

    def prepare(self) -> None:
        """Write the configuration, and publish what the domains have."""
        tables = self.institution.tables()
        del tables["printers"], tables["cups"]
        tables["dns"]["dnssec"] = "local"
        tables["next_hops"] = [{"name": "default", "port": self.port, "timeout": "5s"}]
        tables["mta_sts"] = {
            "ca_file": str(self.authority.certificate),
            "port": self.policies.port,
            "private_hosts": True,
        }
        tables["delivery"] = {"retry_first": "0.5s", "retry_longest": "1s"}
        self.institution.config.write_text(toml.dumps(tables), encoding="utf-8")
        self.institution.publish(self.dns)
        for name, (mode, named, address) in POLICIES.items():
            self._publish(name, address)
            self.dns.add(f"_mta-sts.{name}.example", "TXT", "v=STSv1; id=1")
            self.dns.add(f"mta-sts.{name}.example", "A", LOCALHOST if name != "down" else "127.0.0.9")
            self.policies.show(mode, *([named] if mode != "none" else []), max_age=7200, host=f"mta-sts.{name}.example")
        for name in ("dane", "dane-other"):
            self._publish(name, BAD)
            self.dns.secure(f"{name}.example")
        self._tlsa("dane", self.bad)
        self._tlsa("dane-other", self.good)

    def _publish(self, name: str, address: str) -> None:
        self.dns.add(f"{name}.example", "MX", f"10 mx.{name}.example.")
        self.dns.add(f"mx.{name}.example", "A", address)

    def _tlsa(self, name: str, made: Made) -> None:
        key = made.read.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = hashlib.sha256(key).hexdigest()
        self.dns.add(f"_{self.port}._tcp.mx.{name}.example", "TLSA", f"3 1 1 {digest}")

    async def sent_to(self, name: str) -> Callable[[], DeliveryHistory]:
        """Hands in a letter to somebody at a domain; gives a look at its delivery."""
        recipient = f"reader@{name}.example"
        mark = f"{name}-{datetime.now(UTC).timestamp()}"
        said = await self.appliance.submit(letter(mark, recipient), "alma@exlibrisgroup.example", [recipient])
        number = said.split()[-1]

        def look() -> DeliveryHistory:
            message = message_history(Place.file(self.institution.spool), number)
            assert message is not None
            return message.deliveries[0]

        return look

    async def tried(self, name: str) -> DeliveryHistory:
        """A letter to somebody at a domain, once it was tried."""
        look = await self.sent_to(name)
        await until(lambda: any(each.outcome for each in look().attempts), f"an attempt for {name}")
        return look()

    def taken(self, address: str, name: str) -> int:
        """Letters to a domain that a host took."""
        return sum(f"reader@{name}.example" in each.rcpt_to for each in self.hosts[address].taken)


def _files(made: Made) -> tuple[Path, Path]:
    return made.certificate, made.key


def reason(delivery: DeliveryHistory) -> str:
    """What is recorded of the first attempt."""
    return delivery.attempts[0].reason


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock(datetime.now(UTC))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> AsyncIterator[World]:
    made = World(tmp_path_factory.mktemp("mta-sts"), clock)
    async with AsyncExitStack() as stack:
        stack.callback(clock.close)
        made.prepare()
        await stack.enter_async_context(made.dns)
        await stack.enter_async_context(made.policies)
        for host in made.hosts.values():
            await stack.enter_async_context(host)
        stack.push_async_callback(made.appliance.stop)
        await made.appliance.start()
        yield made


async def test_an_enforced_policy_that_is_met(world: World) -> None:
    delivery = await world.tried("met")
    assert (delivery.line.state, reason(delivery)) == ("delivered", "taken by mx.met.example (TLSv1.3, MTA-STS)")
    assert world.taken(GOOD, "met") == 1


async def test_an_enforced_policy_that_is_not_met_keeps_the_letter_until_it_is(world: World) -> None:
    look = await world.sent_to("unmet")
    await until(lambda: any(each.outcome for each in look().attempts), "an attempt")
    assert look().line.state == "deferred"
    assert "mx.unmet.example[127.0.0.3] can't be trusted: self-signed certificate" in reason(look())
    assert world.taken(BAD, "unmet") == 0
    world.dns.remove("mx.unmet.example")
    world.dns.add("mx.unmet.example", "A", GOOD)
    await until(lambda: look().line.state == "delivered", lambda: f"it to leave; {look().attempts[-1].reason}")
    assert (world.taken(BAD, "unmet"), world.taken(GOOD, "unmet")) == (0, 1)


async def test_an_enforced_policy_that_names_another_host_keeps_the_letter(world: World) -> None:
    delivery = await world.tried("elsewhere")
    assert (delivery.line.state, reason(delivery)) == (
        "deferred",
        "the MTA-STS policy of elsewhere.example is enforced, and does not name its mail hosts: mx.elsewhere.example",
    )
    assert world.taken(GOOD, "elsewhere") == 0


async def test_a_policy_in_testing_lets_the_letter_leave_and_counts_it(world: World) -> None:
    delivery = await world.tried("testing")
    assert delivery.line.state == "delivered"
    assert world.taken(BAD, "testing") == 1
    text = await asyncio.to_thread(metrics_of, load(world.institution.config))
    assert 'slip_relay_tls_missed_total{policy="mta-sts"} 1.0' in text
    log = world.appliance.log.read_text()
    assert "event=tls-missed domain=testing.example host=mx.testing.example policy=mta-sts why=" in log


async def test_a_policy_that_asks_for_nothing_and_one_that_is_nowhere(world: World) -> None:
    for name in ("none", "down"):
        delivery = await world.tried(name)
        assert (delivery.line.state, reason(delivery)) == (
            "delivered",
            f"taken by mx.{name}.example (TLSv1.3, opportunistic)",
        )
    assert (
        'event=mta-sts domain=down.example result=failed why="mta-sts.down.example: ' in world.appliance.log.read_text()
    )


async def test_a_host_is_known_by_its_tlsa_record_or_gets_nothing(world: World) -> None:
    delivery = await world.tried("dane")
    assert (delivery.line.state, reason(delivery)) == ("delivered", "taken by mx.dane.example (TLSv1.3, DANE)")
    delivery = await world.tried("dane-other")
    assert delivery.line.state == "deferred"
    assert reason(delivery).endswith("can't be trusted: its certificate is not one of its TLSA records")
    assert (world.taken(BAD, "dane"), world.taken(BAD, "dane-other")) == (1, 0)


def submit_with_requiretls(port: int, recipient: str) -> str:
    """Hands a letter in over TLS, with REQUIRETLS; gives its queue id."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP(LOCALHOST, port, local_hostname="alma.example", timeout=20) as client:
        client.starttls(context=context)
        client.ehlo()
        assert client.has_extn("requiretls")
        assert client.mail("alma@exlibrisgroup.example", ["REQUIRETLS"])[0] == 250
        assert client.rcpt(recipient)[0] == 250
        code, said = client.data(letter(f"requiretls-{recipient}", recipient))
    assert code == 250
    return said.decode().split()[-1]


@pytest.mark.parametrize(("name", "state"), [("met", "delivered"), ("dane", "failed"), ("testing", "deferred")])
async def test_requiretls_goes_all_the_way_or_nowhere(world: World, name: str, state: str) -> None:
    before = len(world.hosts[GOOD].taken)
    number = await asyncio.to_thread(submit_with_requiretls, world.appliance.port, f"reader@{name}.example")

    def look() -> DeliveryHistory:
        message = message_history(Place.file(world.institution.spool), number)
        assert message is not None
        assert (message.message.requiretls, message.message.ret) == (True, "HDRS")
        return message.deliveries[0]

    await until(lambda: any(each.outcome for each in look().attempts), "an attempt")
    assert look().line.state == state
    if state == "delivered":
        assert "REQUIRETLS" in world.hosts[GOOD].taken[before].mail_parameters.split()
    elif state == "failed":
        assert (
            reason(look()) == "mx.dane.example can't be sent it: it does not offer REQUIRETLS, which the mail asks for"
        )
        assert "5.7.30" in str(look().attempts[0])
    else:
        assert "can't be trusted: self-signed certificate" in reason(look())


async def test_a_policy_holds_over_a_restart_without_its_host_and_ends_in_time(world: World, clock: Clock) -> None:
    assert (await world.tried("ends")).line.state == "delivered"
    await until(lambda: "ends.example" in json.loads(world.file.read_text())["policies"], "the file")
    assert await world.appliance.stop() == 0
    world.dns.fail("_mta-sts.ends.example")
    world.dns.fail("mta-sts.ends.example")
    world.dns.remove("mx.ends.example")
    world.dns.add("mx.ends.example", "A", BAD)
    await world.appliance.start()
    look = await world.sent_to("ends")
    await until(lambda: any(each.outcome for each in look().attempts), "an attempt")
    assert (look().line.state, world.taken(BAD, "ends")) == ("deferred", 0)
    assert "can't be trusted: self-signed certificate" in reason(look())
    clock.set(datetime.fromtimestamp(clock.now() + 7201, UTC))
    await until(lambda: look().line.state == "delivered", lambda: f"it to leave; {look().attempts[-1].reason}")
    assert world.taken(BAD, "ends") == 1
