"""What mail by MX asks of the hosts: DANE (RFC 7672) and MTA-STS (RFC 8461), with real hosts and a real DNS."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.config.mta_sts import MtaSts
from relay.config.settings import Config
from relay.dns.resolver import Resolver
from relay.dns.sts_fetch import PolicyFetcher
from relay.dns.sts_policies import StsPolicies
from relay.maillog import MailLog
from relay.outgoing.assemble import Assembler
from relay.outgoing.sign import Signer
from relay.spool.records import Outcome, State
from relay.transports.smtp import SmtpTransport
from tests.harness import certificates
from tests.harness.certificates import Made
from tests.harness.dns_server import DnsServer
from tests.harness.next_hop import NextHop
from tests.harness.policy_server import PolicyServer
from tests.harness.waiting import LOCALHOST, free_ports
from tests.harness.way_out import Letters

pytestmark = pytest.mark.asyncio

HOSTS = {"mx1.patron.example": "127.0.0.2", "mx2.patron.example": "127.0.0.3"}
FIRST, SECOND = HOSTS


@dataclass
class World:
    """A domain with two mail hosts, its DNS, its policy host, and our way out to it."""

    dns: DnsServer
    policies: PolicyServer
    authority: Made
    port: int
    folder: Path
    make_config: Callable[..., Config]
    stack: AsyncExitStack
    hosts: dict[str, NextHop] = field(default_factory=dict)
    shown: dict[str, Made] = field(default_factory=dict)
    maillog: MailLog = field(default_factory=MailLog)

    async def host(self, name: str, certificate: Made | None) -> None:
        """Start a mail host."""
        files = (certificate.certificate, certificate.key) if certificate else None
        hop = NextHop(self.port, self.folder / name, certificate=files, address=HOSTS[name], hostname=name)
        self.hosts[name] = await self.stack.enter_async_context(hop)
        if certificate is not None:
            self.shown[name] = certificate

    def good(self, name: str) -> Made:
        """A certificate of the authority, for that name."""
        return certificates.make(self.folder, name, signed_by=self.authority)

    def way(self, *, dnssec: str = "off", tls: str = "opportunistic") -> Letters:
        """A way out by MX."""
        hop = {"name": "default", "port": self.port, "timeout": "3s", "tls": tls}
        dns = {"nameservers": [self.dns.address], "timeout": "2s", "dnssec": dnssec}
        config = self.make_config(next_hops=[hop], dns=dns)
        resolver = Resolver(config.dns)
        sts = MtaSts(ca_file=self.authority.certificate, port=self.policies.port, private_hosts=True)
        letters = Letters(config)
        letters.transport = SmtpTransport(
            config.next_hops[0],
            config.server.hostname,
            Assembler(config, Signer(config.institutions), self.maillog),
            resolver,
            self.maillog,
            backoff_first=1.0,
            policies=StsPolicies(None, resolver, PolicyFetcher(sts, resolver), self.maillog),
        )
        self.stack.push_async_callback(letters.transport.close)
        return letters

    async def send(self, **settings: str) -> Outcome:
        """What becomes of one letter."""
        return await self.way(**settings).send()

    def announce(self, mode: str, *mx: str) -> None:
        """Publish a policy."""
        self.dns.add("_mta-sts.patron.example", "TXT", "v=STSv1; id=1")
        self.policies.show(mode, *mx)

    def tlsa(self, name: str, text: str) -> None:
        """Publish a TLSA record of a mail host."""
        self.dns.add(f"_{self.port}._tcp.{name}", "TLSA", text)

    @property
    def missed(self) -> float:
        """Mails that left although a policy in testing would have kept them."""
        lines = self.maillog.metrics.text().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("slip_relay_tls_missed_total{"))


@pytest_asyncio.fixture
async def world(tmp_path: Path, make_config: Callable[..., Config]) -> AsyncIterator[World]:
    authority = certificates.make(tmp_path, "authority", is_authority=True)
    policy_host = certificates.make(tmp_path, "mta-sts.patron.example", signed_by=authority)
    async with AsyncExitStack() as stack:
        dns = await stack.enter_async_context(DnsServer(free_ports(1)))
        policies = await stack.enter_async_context(PolicyServer(free_ports(1), policy_host))
        dns.add("mta-sts.patron.example", "A", LOCALHOST)
        for preference, (name, address) in enumerate(HOSTS.items()):
            dns.add("patron.example", "MX", f"{preference} {name}.")
            dns.add(name, "A", address)
        yield World(dns, policies, authority, free_ports(1), tmp_path, make_config, stack)


def waits(outcome: Outcome) -> str:
    """The reason of a delivery that waits."""
    assert (outcome.state, outcome.trouble) == (State.DEFERRED, "unreachable"), outcome
    return outcome.reason


# --- MTA-STS


async def test_without_a_policy_mail_leaves_as_ever(world: World) -> None:
    await world.host(FIRST, None)
    outcome = await world.send()
    assert (outcome.state, outcome.reason) == (State.DELIVERED, f"taken by {FIRST} (in clear text)")
    assert world.policies.asked == []


async def test_a_policy_that_is_enforced_is_met_by_a_good_certificate(world: World) -> None:
    world.announce("enforce", FIRST)
    await world.host(FIRST, world.good(FIRST))
    outcome = await world.send(tls="none")
    assert (outcome.state, outcome.reason) == (State.DELIVERED, f"taken by {FIRST} (TLSv1.3, MTA-STS)")
    assert world.hosts[FIRST].taken[0].tls


@pytest.mark.parametrize("shown", ["nothing", "another name", "self-signed", "expired"])
async def test_a_policy_that_is_enforced_keeps_mail_from_a_host_that_proves_nothing(world: World, shown: str) -> None:
    world.announce("enforce", FIRST)
    made = {
        "nothing": lambda: None,
        "another name": lambda: world.good("mx.other.example"),
        "self-signed": lambda: certificates.make(world.folder, FIRST),
        "expired": lambda: certificates.make(world.folder, FIRST, signed_by=world.authority, days=-1),
    }
    await world.host(FIRST, made[shown]())
    reason = waits(await world.send())
    words = {
        "nothing": "STARTTLS",
        "another name": "not valid for 'mx1.patron.example'",
        "self-signed": "self-signed",
        "expired": "expired",
    }
    assert words[shown] in reason
    assert world.hosts[FIRST].taken == []


async def test_only_hosts_that_an_enforced_policy_names_are_used(world: World) -> None:
    world.announce("enforce", SECOND)
    for name in HOSTS:
        await world.host(name, world.good(name))
    assert (await world.send()).reason == f"taken by {SECOND} (TLSv1.3, MTA-STS)"
    assert world.hosts[FIRST].connections == 0
    world.policies.show("enforce", "mx.other.example")
    assert waits(await world.send()) == (
        "the MTA-STS policy of patron.example is enforced, and does not name its mail hosts: "
        "mx1.patron.example, mx2.patron.example"
    )
    assert (world.hosts[FIRST].connections, world.hosts[SECOND].connections) == (0, 1)


async def test_a_policy_in_testing_lets_mail_leave_and_tells(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "slip-relay")
    world.announce("testing", FIRST)
    await world.host(FIRST, certificates.make(world.folder, FIRST))
    way = world.way()
    for count in (1, 2):
        outcome = await way.send()
        assert (outcome.state, outcome.reason) == (
            State.DELIVERED,
            f"taken by {FIRST} (TLSv1.3, MTA-STS in testing, not met)",
        )
        assert world.missed == count
    first, second = [record.getMessage() for record in caplog.records if "tls-missed" in record.getMessage()]
    assert first.startswith(f"event=tls-missed domain=patron.example host={FIRST} policy=mta-sts why=")
    assert "can't be trusted: self-signed certificate" in first
    assert "a while ago" in second
    assert len(world.hosts[FIRST].taken) == 2


async def test_a_policy_in_testing_that_does_not_name_the_host_tells_too(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "slip-relay")
    world.announce("testing", "mx.other.example")
    await world.host(FIRST, None)
    assert (await world.send()).reason == f"taken by {FIRST} (in clear text)"
    assert caplog.records[-1].getMessage().endswith('why="the policy does not name the host"')
    assert world.missed == 1


async def test_a_policy_in_testing_that_is_met_is_not_told(world: World) -> None:
    world.announce("testing", FIRST)
    await world.host(FIRST, world.good(FIRST))
    assert (await world.send()).reason == f"taken by {FIRST} (TLSv1.3, MTA-STS)"
    assert world.missed == 0


async def test_a_policy_of_mode_none_asks_for_nothing(world: World) -> None:
    world.announce("none")
    await world.host(FIRST, None)
    assert (await world.send()).state is State.DELIVERED
    assert world.missed == 0


async def test_without_its_policy_host_a_domain_is_as_one_that_has_none(world: World) -> None:
    world.announce("enforce", "mx.other.example")
    await world.policies.stop()
    await world.host(FIRST, None)
    assert (await world.send()).state is State.DELIVERED


async def test_an_address_literal_has_no_policy(world: World) -> None:
    await world.host(FIRST, None)
    letters = world.way()
    assert (await letters.send(recipient=f"reader@[{HOSTS[FIRST]}]")).state is State.DELIVERED
    assert not [name for name, _ in world.dns.questions if name.startswith("_mta-sts")]


# --- DANE


def tlsa(made: Made, usage: int, selector: int, matching: int) -> str:
    """The record for a certificate."""
    content = (
        made.read.public_bytes(Encoding.DER)
        if selector == 0
        else made.read.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    digest = {0: content, 1: hashlib.sha256(content).digest(), 2: hashlib.sha512(content).digest()}[matching]
    return f"{usage} {selector} {matching} {digest.hex()}"


def sign_all(world: World) -> None:
    world.dns.secure("patron.example")


@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("selector", [0, 1])
async def test_a_host_is_known_by_its_own_certificate_whatever_its_name_and_date(
    world: World, selector: int, matching: int
) -> None:
    made = certificates.make(world.folder, "another.example", days=-1)
    await world.host(FIRST, made)
    world.tlsa(FIRST, tlsa(made, 3, selector, matching))
    sign_all(world)
    outcome = await world.send(dnssec="local", tls="none")
    assert (outcome.state, outcome.reason) == (State.DELIVERED, f"taken by {FIRST} (TLSv1.3, DANE)")


async def test_a_host_with_another_certificate_is_passed_over_for_the_next(world: World) -> None:
    stranger = certificates.make(world.folder, "stranger.example")
    for name in HOSTS:
        await world.host(name, world.good(name))
    world.tlsa(FIRST, tlsa(stranger, 3, 1, 1))
    sign_all(world)
    assert (await world.send(dnssec="local")).reason.startswith(f"taken by {SECOND} (TLSv1.3, opportunistic")
    world.tlsa(SECOND, tlsa(stranger, 3, 0, 2))
    reason = waits(await world.send(dnssec="local"))
    assert reason.count("can't be trusted: its certificate is not one of its TLSA records") == 2
    assert (len(world.hosts[FIRST].taken), len(world.hosts[SECOND].taken)) == (0, 1)


async def test_without_tls_a_host_with_tlsa_records_gets_nothing(world: World) -> None:
    await world.host(FIRST, None)
    world.tlsa(FIRST, tlsa(world.authority, 3, 1, 1))
    sign_all(world)
    assert "STARTTLS" in waits(await world.send(dnssec="local"))
    assert world.hosts[FIRST].taken == []


@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("selector", [0, 1])
async def test_a_host_is_known_by_its_trust_anchor(world: World, selector: int, matching: int) -> None:
    made = certificates.make(world.folder, FIRST, signed_by=world.authority)
    with made.certificate.open("ab") as file:
        file.write(world.authority.certificate.read_bytes())
    await world.host(FIRST, made)
    world.tlsa(FIRST, tlsa(world.authority, 2, selector, matching))
    sign_all(world)
    assert (await world.send(dnssec="local")).reason == f"taken by {FIRST} (TLSv1.3, DANE)"


@pytest.mark.parametrize(
    ("name", "days", "signs", "words"),
    [
        ("patron.example", 30, True, ""),  # the domain itself is a name that counts (RFC 7672 3.2.2)
        ("other.example", 30, True, "does not follow from its TLSA records"),
        (FIRST, -1, True, "does not follow from its TLSA records"),
        (FIRST, 30, False, "does not follow from its TLSA records"),
    ],
)
async def test_below_a_trust_anchor_name_date_and_signature_count(
    world: World, name: str, days: float, signs: bool, words: str
) -> None:
    stranger = certificates.make(world.folder, "stranger", is_authority=True)
    made = certificates.make(world.folder, name, signed_by=world.authority if signs else stranger, days=days)
    with made.certificate.open("ab") as file:
        file.write(world.authority.certificate.read_bytes())
    await world.host(FIRST, made)
    world.tlsa(FIRST, tlsa(world.authority, 2, 0, 1))
    sign_all(world)
    outcome = await world.send(dnssec="local")
    if words:
        assert words in waits(outcome)
        assert world.hosts[FIRST].taken == []
    else:
        assert outcome.state is State.DELIVERED


@pytest.mark.parametrize(("is_authority", "signs"), [(False, None), (True, False)])
async def test_what_is_no_authority_signs_nothing(world: World, is_authority: bool, signs: bool | None) -> None:
    between = certificates.make(
        world.folder, "between.example", signed_by=world.authority, is_authority=is_authority, signs=signs
    )
    made = certificates.make(world.folder, FIRST, signed_by=between)
    with made.certificate.open("ab") as file:
        file.write(between.certificate.read_bytes() + world.authority.certificate.read_bytes())
    await world.host(FIRST, made)
    world.tlsa(FIRST, tlsa(world.authority, 2, 0, 1))
    world.tlsa(FIRST, tlsa(between, 2, 0, 1))
    sign_all(world)
    assert "does not follow from its TLSA records" in waits(await world.send(dnssec="local"))


async def test_an_authority_below_the_topmost_may_be_the_anchor(world: World) -> None:
    between = certificates.make(world.folder, "between", signed_by=world.authority, is_authority=True, signs=True)
    made = certificates.make(world.folder, FIRST, signed_by=between)
    with made.certificate.open("ab") as file:
        file.write(between.certificate.read_bytes())
    await world.host(FIRST, made)
    world.tlsa(FIRST, tlsa(between, 2, 1, 1))
    sign_all(world)
    assert (await world.send(dnssec="local")).reason == f"taken by {FIRST} (TLSv1.3, DANE)"


async def test_a_trust_anchor_in_the_record_need_not_be_sent(world: World) -> None:
    await world.host(FIRST, world.good(FIRST))
    world.tlsa(FIRST, tlsa(world.authority, 2, 0, 0))
    sign_all(world)
    assert (await world.send(dnssec="local")).reason == f"taken by {FIRST} (TLSv1.3, DANE)"


@pytest.mark.parametrize("text", ["1 1 1 " + 64 * "a", "0 0 1 " + 64 * "a", "3 1 9 " + 64 * "a"])
async def test_records_that_cannot_be_used_ask_for_tls_and_no_more(world: World, text: str) -> None:
    await world.host(FIRST, certificates.make(world.folder, "whoever.example"))
    await world.host(SECOND, None)
    for name in HOSTS:
        world.tlsa(name, text)
    sign_all(world)
    assert (await world.send(dnssec="local")).reason == f"taken by {FIRST} (TLSv1.3, DANE without usable records)"
    world.hosts[FIRST].refuse_next(421, at="connect", times=9)
    assert f"{SECOND}[127.0.0.3]" in waits(await world.send(dnssec="local"))
    assert world.hosts[SECOND].taken == []


@pytest.mark.parametrize("unsigned", ["MX", "address", "TLSA", "resolver"])
async def test_what_was_not_validated_does_not_count(world: World, unsigned: str) -> None:
    await world.host(FIRST, None)
    record, alias = f"_{world.port}._tcp.{FIRST}", "tlsa.hoster.example"
    world.dns.add(record if unsigned != "TLSA" else alias, "TLSA", tlsa(world.authority, 3, 1, 1))
    match unsigned:
        case "MX":
            world.dns.secure(FIRST)
        case "address":
            world.dns.remove(FIRST)
            world.dns.add(FIRST, "CNAME", "mx.hoster.example.")
            world.dns.add("mx.hoster.example", "A", HOSTS[FIRST])
        case "TLSA":
            world.dns.add(record, "CNAME", f"{alias}.")
    if unsigned != "MX":
        sign_all(world)
    outcome = await world.send(dnssec="off" if unsigned == "resolver" else "local")
    assert (outcome.state, outcome.reason) == (State.DELIVERED, f"taken by {FIRST} (in clear text)")
    if unsigned != "resolver":
        world.dns.secure("patron.example")
        world.dns.secure("hoster.example")
        assert "STARTTLS" in waits(await world.send(dnssec="local"))


async def test_a_host_whose_records_are_bogus_is_left_out(world: World) -> None:
    for name in HOSTS:
        await world.host(name, world.good(name))
    sign_all(world)
    world.dns.fail(f"_{world.port}._tcp.{FIRST}")
    assert (await world.send(dnssec="local")).reason.startswith(f"taken by {SECOND}")
    world.dns.fail(f"_{world.port}._tcp.{SECOND}")
    reason = waits(await world.send(dnssec="local"))
    assert reason.startswith(f"the TLSA records of {FIRST} can't be had: no answer from the DNS for ")
    assert world.hosts[FIRST].connections == 0


async def test_dane_wins_over_mta_sts_host_by_host(world: World) -> None:
    world.announce("enforce", SECOND)
    made = certificates.make(world.folder, FIRST)
    await world.host(FIRST, made)
    await world.host(SECOND, world.good(SECOND))
    world.tlsa(FIRST, tlsa(made, 3, 1, 1))
    sign_all(world)
    assert (await world.send(dnssec="local")).reason == f"taken by {FIRST} (TLSv1.3, DANE)"
    world.hosts[FIRST].refuse_next(421, at="connect")
    assert (await world.send(dnssec="local")).reason == f"taken by {SECOND} (TLSv1.3, MTA-STS)"
    world.dns.remove(f"_{world.port}._tcp.{FIRST}")
    world.tlsa(FIRST, "1 1 1 " + 64 * "a")
    world.policies.show("enforce", FIRST)
    reason = waits(await world.send(dnssec="local"))
    assert "self-signed" in reason, "records that can't be used leave the policy in force"


# --- what the sender wishes (RFC 8689)

UNIMPORTANT = b"From: circ@lib.example\r\nTLS-Required:\r\n no\r\nSubject: due\r\n\r\nbody\r\n"


def fails(outcome: Outcome) -> str:
    """The reason of a delivery that has failed for want of REQUIRETLS."""
    assert outcome.state is State.FAILED
    assert outcome.reply is not None
    assert (outcome.reply.code, outcome.reply.enhanced) == (550, "5.7.30")
    return outcome.reason


@pytest.mark.parametrize("mode", ["enforce", "testing"])
async def test_requiretls_is_passed_on_to_a_host_of_the_policy_that_offers_it(world: World, mode: str) -> None:
    world.announce(mode, FIRST, SECOND)
    for name in HOSTS:
        await world.host(name, world.good(name))
    letters = world.way()
    assert fails(await letters.send(requiretls=True)) == (
        f"{FIRST} can't be sent it: it does not offer REQUIRETLS, which the mail asks for; "
        f"{SECOND} can't be sent it: it does not offer REQUIRETLS, which the mail asks for"
    )
    world.hosts[SECOND].requiretls = True
    letters = world.way()
    outcome = await letters.send(requiretls=True)
    assert (outcome.state, outcome.reason) == (State.DELIVERED, f"taken by {SECOND} (TLSv1.3, MTA-STS)")
    assert "REQUIRETLS" in world.hosts[SECOND].taken[0].mail_parameters.split()
    outcome = await letters.send()
    assert outcome.reason == f"taken by {FIRST} (TLSv1.3, MTA-STS)", "other mail is not put off by it"
    assert "REQUIRETLS" not in world.hosts[FIRST].taken[0].mail_parameters


async def test_requiretls_takes_dnssec_for_a_proof_and_dane_for_a_certificate(world: World) -> None:
    await world.host(FIRST, world.good(FIRST))
    world.hosts[FIRST].requiretls = True
    sign_all(world)
    assert (await world.way(dnssec="local").send(requiretls=True)).state is State.DELIVERED
    world.tlsa(FIRST, tlsa(world.shown[FIRST], 3, 1, 1))
    outcome = await world.way(dnssec="local").send(requiretls=True)
    assert outcome.reason == f"taken by {FIRST} (TLSv1.3, DANE)"


async def test_requiretls_fails_where_nothing_says_that_the_hosts_are_the_domains_own(world: World) -> None:
    await world.host(FIRST, world.good(FIRST))
    world.hosts[FIRST].requiretls = True
    reason = fails(await world.way().send(requiretls=True))
    assert reason.endswith(f"says that the mail hosts of patron.example are its own: {FIRST}, {SECOND}")
    world.announce("none")
    assert fails(await world.way().send(requiretls=True)) == reason
    assert world.hosts[FIRST].connections == 0


async def test_requiretls_waits_for_a_host_that_may_offer_it(world: World) -> None:
    world.announce("enforce", FIRST, SECOND)
    await world.host(FIRST, world.good(FIRST))
    reason = waits(await world.way().send(requiretls=True))
    assert reason.startswith(f"{FIRST} can't be sent it: it does not offer REQUIRETLS")
    assert f"{SECOND}[127.0.0.3] can't be reached" in reason


async def test_a_dsn_leaves_though_nobody_promises_requiretls(world: World) -> None:
    world.announce("enforce", FIRST)
    await world.host(FIRST, world.good(FIRST))
    assert (await world.way().send(requiretls=True, reverse_path=None)).state is State.DELIVERED
    assert "REQUIRETLS" not in world.hosts[FIRST].taken[0].mail_parameters
    world.hosts[FIRST].requiretls = True
    assert (await world.way().send(requiretls=True, reverse_path=None)).state is State.DELIVERED
    assert "REQUIRETLS" in world.hosts[FIRST].taken[1].mail_parameters.split()


async def test_where_tls_is_unimportant_no_policy_counts(world: World) -> None:
    world.announce("enforce", "mx.other.example")
    await world.host(FIRST, None)
    world.tlsa(FIRST, tlsa(world.authority, 3, 1, 1))
    sign_all(world)
    letters = world.way(dnssec="local")
    assert (await letters.send(UNIMPORTANT)).reason == f"taken by {FIRST} (in clear text)"
    waits(await letters.send(UNIMPORTANT.replace(b" no\r\n", b" yes\r\n")))
    waits(await letters.send(b"From: circ@lib.example\r\n\r\nTLS-Required: No\r\n"))
    waits(await letters.send(UNIMPORTANT, requiretls=True))


# --- which hosts there are


async def test_a_null_mx_is_final(world: World) -> None:
    world.dns.remove("patron.example", "MX")
    world.dns.add("patron.example", "MX", "0 .")
    outcome = await world.send()
    assert (outcome.state, str(outcome.reply)) == (
        State.FAILED,
        "556 5.1.10 the domain patron.example takes no mail",
    )


async def test_without_an_mx_the_domain_itself_takes_mail_and_may_have_tlsa_records(world: World) -> None:
    made = certificates.make(world.folder, "whoever.example")
    await world.host(FIRST, made)
    world.dns.remove("patron.example", "MX")
    world.dns.add("patron.example", "A", HOSTS[FIRST])
    world.tlsa("patron.example", tlsa(made, 3, 1, 1))
    sign_all(world)
    outcome = await world.send(dnssec="local")
    assert (outcome.state, outcome.reason) == (State.DELIVERED, "taken by patron.example (TLSv1.3, DANE)")


async def test_ipv6_comes_before_ipv4_and_ipv4_follows(world: World) -> None:
    world.dns.add(FIRST, "AAAA", "::1")
    resolver = Resolver(world.make_config(dns={"nameservers": [world.dns.address]}).dns)
    assert [(host.name, host.address) for host in await resolver.mail_hosts("patron.example")] == [
        (FIRST, "::1"),
        (FIRST, "127.0.0.2"),
        (SECOND, "127.0.0.3"),
    ]
    await world.host(FIRST, None)
    assert (await world.send()).state is State.DELIVERED, "nobody listens at ::1"


async def test_a_domain_that_does_not_exist_is_final_and_one_without_addresses_waits(world: World) -> None:
    letters = world.way()
    assert (await letters.send(recipient="reader@nowhere.invalid")).state is State.FAILED
    world.dns.remove(FIRST)
    world.dns.remove(SECOND)
    assert waits(await letters.send()) == "no host that takes mail for patron.example has an address"
    world.dns.fail("patron.example")
    assert waits(await letters.send()).startswith("no answer from the DNS for patron.example")
