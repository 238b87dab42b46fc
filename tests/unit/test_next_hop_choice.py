"""Which host of a next hop a letter goes to, and from which address: servers on loopback, some dead or unwilling."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.errors import DnsError
from relay.spool.records import State
from relay.transports import addresses
from relay.transports.addresses import Addresses
from tests.harness.certificates import make
from tests.harness.dns_server import DnsServer
from tests.harness.faulty_hop import CLOSE, HANG, FaultyHop, Stage
from tests.harness.next_hop import NextHop
from tests.harness.waiting import LOCALHOST, free_ports, until
from tests.harness.way_out import letters_by

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def good(folder: Path, port: int | None = None, address: str = LOCALHOST, **more: Any) -> AsyncIterator[NextHop]:
    async with NextHop(port or free_ports(1), folder / f"good {address}", address=address, **more) as hop:
        yield hop


def listed(*ports: int) -> list[str]:
    return [f"{LOCALHOST}:{port}" for port in ports]


# --- several hosts


async def test_dead_and_unwilling_hosts_are_passed_over_and_not_asked_by_each_mail(tmp_path: Path) -> None:
    unwilling = FaultyHop("connect", b"554 5.7.1 go away", times=100)
    async with unwilling.listening() as second, good(tmp_path) as third:
        hosts = listed(free_ports(1), second, third.port)
        async with letters_by("", 25, hosts=hosts, idle_timeout=0, backoff_longest="60s") as letters:
            for _ in range(3):
                outcome = await letters.send()
                assert (outcome.state, outcome.reason) == (State.DELIVERED, "taken by 127.0.0.1 (in clear text)")
        assert (len(third.taken), unwilling.times) == (3, 99)


PASSED_OVER: list[tuple[Stage, bytes]] = [
    ("connect", b"421 4.3.2 closing"),
    ("connect", CLOSE),
    ("connect", HANG),
    ("ehlo", b"502 5.5.1 what?"),
    ("mail", b"421 4.3.2 closing"),
    ("mail", CLOSE),
    ("mail", HANG),
    ("rcpt", b"421 4.3.2 closing"),
    ("rcpt", CLOSE),
    ("data", CLOSE),
]
ANSWERS: list[tuple[Stage, bytes, State]] = [
    ("mail", b"550 5.7.1 not from you", State.FAILED),
    ("mail", b"451 4.3.0 not now", State.DEFERRED),
    ("rcpt", b"550 5.1.1 no such mailbox", State.FAILED),
    ("rcpt", b"450 4.2.1 greylisted", State.DEFERRED),
    ("data", b"554 5.5.1 no", State.FAILED),
    ("body", b"554 5.6.0 spam", State.FAILED),
    ("body", b"421 4.3.2 closing", State.DEFERRED),
    ("body", CLOSE, State.DEFERRED),
]


@pytest.mark.parametrize(("stage", "does"), PASSED_OVER, ids=[f"{s}-{d[:5].decode()}" for s, d in PASSED_OVER])
async def test_a_host_that_has_not_had_the_message_is_passed_over(tmp_path: Path, stage: Stage, does: bytes) -> None:
    faulty = FaultyHop(stage, does)
    async with faulty.listening() as first, good(tmp_path) as second:
        async with letters_by("", 25, hosts=listed(first, second.port), timeout=0.4) as letters:
            assert (await letters.send()).state is State.DELIVERED
        assert (len(second.taken), faulty.taken) == (1, [])


@pytest.mark.parametrize(("stage", "does", "state"), ANSWERS, ids=[f"{s}-{d[:5].decode()}" for s, d, _ in ANSWERS])
async def test_an_answer_to_the_mail_is_an_answer(tmp_path: Path, stage: Stage, does: bytes, state: State) -> None:
    async with FaultyHop(stage, does).listening() as first, good(tmp_path) as second:
        async with letters_by("", 25, hosts=listed(first, second.port)) as letters:
            assert (await letters.send()).state is state
        assert second.connections == 0


async def test_a_host_comes_back_by_itself(tmp_path: Path) -> None:
    faulty = FaultyHop("connect", b"421 4.3.2 closing", times=2)
    async with faulty.listening() as first, good(tmp_path) as second:
        hosts = listed(first, second.port)
        async with letters_by("", 25, hosts=hosts, idle_timeout=0, backoff_longest="0.2s") as letters:

            async def is_back() -> bool:
                assert (await letters.send()).state is State.DELIVERED
                return bool(faulty.taken)

            await until(is_back, "a letter at the first host")
            assert len(second.taken) >= 2
            before = len(second.taken)
            assert (await letters.send()).state is State.DELIVERED
            assert (len(faulty.taken), len(second.taken)) == (2, before)


async def test_when_all_fail_each_is_named(tmp_path: Path) -> None:
    dead = free_ports(1)
    async with (
        FaultyHop("connect", b"554 5.7.1 go away").listening() as second,
        letters_by("", 25, hosts=[*listed(dead, second), f"localhost:{dead}"]) as letters,
    ):
        outcome = await letters.send()
    assert outcome.reason == (
        "127.0.0.1 can't be reached: Connection refused; 127.0.0.1 refused the session: 554 5.7.1 go away; "
        "localhost[127.0.0.1] can't be reached: Connection refused"
    )
    assert (outcome.state, outcome.trouble, str(outcome.reply)) == (State.DEFERRED, "unreachable", "554 5.7.1 go away")


async def test_a_host_with_a_wrong_certificate_or_that_refuses_the_login_is_passed_over(tmp_path: Path) -> None:
    for name in ("strange", "one", "two"):
        (tmp_path / name).mkdir()
    authority = make(tmp_path, "authority", is_authority=True)
    shown = [make(tmp_path / "strange", "localhost")]
    shown += [make(tmp_path / name, "localhost", signed_by=authority) for name in ("one", "two")]
    strange, unwilling, third = [
        NextHop(
            free_ports(1),
            tmp_path / made.certificate.parent.name / "mail",
            certificate=(made.certificate, made.key),
            user="campus",
            password=password,
        )
        for made, password in zip(shown, ("right", "wrong", "right"), strict=True)
    ]
    (tmp_path / "password").write_text("right")
    login = {"username": "campus", "password": {"file": str(tmp_path / "password")}}
    tls = {"tls": "required", "ca_file": str(authority.certificate)}
    async with strange, unwilling, third:
        hosts = [f"localhost:{hop.port}" for hop in (strange, unwilling, third)]
        async with letters_by("", 25, hosts=hosts, **login, **tls) as letters:
            assert (await letters.send()).state is State.DELIVERED
        assert (strange.logins, unwilling.logins) == ([], [("PLAIN", False), ("LOGIN", False)])
        assert (len(third.taken), third.logins) == (1, [("PLAIN", True)])


# --- several addresses


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str] | OSError]:
    """What the system knows of names."""
    known: dict[str, list[str] | OSError] = {}

    async def look_up(name: str, port: object, **more: object) -> list[tuple[object, ...]]:
        found = known[name]
        if isinstance(found, OSError):
            raise found
        if not found:
            await asyncio.Event().wait()  # the DNS is silent
        kinds = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in found]
        return [(kind, 1, 6, "", (address, 0)) for kind, address in zip(kinds, found, strict=True)]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", lambda self, *args, **more: look_up(*args, **more))
    return known


UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def test_each_address_of_a_smarthost_is_tried_ipv6_first(
    tmp_path: Path, names: dict[str, list[str] | OSError]
) -> None:
    names["smtp.example"] = ["127.0.0.2", "127.0.0.3", "::1", "127.0.0.3"]
    async with good(tmp_path, address="127.0.0.3") as hop:
        async with letters_by("smtp.example", hop.port, idle_timeout=0) as letters:
            assert (await letters.send()).state is State.DELIVERED
        async with good(tmp_path, hop.port, address="::1") as by_ipv6:
            async with letters_by("smtp.example", hop.port) as letters:
                assert (await letters.send()).state is State.DELIVERED
            assert (len(hop.taken), len(by_ipv6.taken)) == (1, 1)


async def test_a_name_that_is_not_known_or_a_dns_that_is_silent_holds_up_no_other_host(
    tmp_path: Path, names: dict[str, list[str] | OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    names |= {"gone.example": UNKNOWN, "smtp.example": [LOCALHOST]}
    async with good(tmp_path) as hop:
        async with letters_by("", hop.port, hosts=["gone.example", "smtp.example"]) as letters:
            assert (await letters.send()).state is State.DELIVERED
            monkeypatch.setattr(addresses, "GOOD_FOR", 0.0)
            names["gone.example"] = names["smtp.example"] = []
            async with asyncio.timeout(5):
                assert (await letters.send()).state is State.DELIVERED
                await letters.send()
        async with letters_by("gone.example", hop.port) as letters:
            names["gone.example"] = UNKNOWN
            outcome = await letters.send()
    assert (outcome.state, outcome.trouble) == (State.DEFERRED, "unreachable")
    assert outcome.reason == "gone.example can't be reached: Name or service not known"


async def test_what_was_known_of_a_name_is_used_until_there_is_something_newer(
    names: dict[str, list[str] | OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Addresses()
    names["smtp.example"] = ["192.0.2.1"]
    assert await known.of(["smtp.example"]) == {"smtp.example": ("192.0.2.1",)}
    names["smtp.example"] = UNKNOWN
    assert await known.of(["smtp.example"]) == {"smtp.example": ("192.0.2.1",)}
    monkeypatch.setattr(addresses, "GOOD_FOR", 0.0)
    for _ in range(2):
        assert await known.of(["smtp.example"]) == {"smtp.example": ("192.0.2.1",)}
        await asyncio.sleep(0)
    names["smtp.example"] = ["192.0.2.2"]

    async def is_new() -> bool:
        return await known.of(["smtp.example"]) == {"smtp.example": ("192.0.2.2",)}

    await until(is_new, "the new address")
    names["gone.example"] = UNKNOWN
    with pytest.raises(DnsError, match=r"^gone\.example can't be reached: Name or service not known$"):
        await known.of(["gone.example"])


# --- the address of this side


async def test_mail_leaves_from_the_source_address(tmp_path: Path) -> None:
    async with good(tmp_path) as hop:
        async with letters_by(LOCALHOST, hop.port, source_address="127.0.0.5") as letters:
            assert (await letters.send()).state is State.DELIVERED
        assert hop.clients == ["127.0.0.5"]


@pytest.mark.parametrize(
    ("source", "v4", "v6"),
    [
        ((), [], ["::1"]),
        (("127.0.0.5",), ["127.0.0.5"], []),
        (("::1",), [], ["::1"]),
        (("127.0.0.5", "::1"), [], ["::1"]),
    ],
    ids=["any", "IPv4", "IPv6", "both"],
)
async def test_by_mx_what_has_no_source_address_is_not_used(
    tmp_path: Path, source: tuple[str, ...], v4: list[str], v6: list[str]
) -> None:
    dns_port = free_ports(1)
    async with DnsServer(dns_port) as dns, good(tmp_path) as hop, good(tmp_path, hop.port, address="::1") as by_ipv6:
        dns.add("patron.example", "MX", "10 mx.patron.example.")
        dns.add("mx.patron.example", "A", LOCALHOST)
        dns.add("mx.patron.example", "AAAA", "::1")
        async with letters_by("", hop.port, dns=dns.address, source_address=source) as letters:
            assert (await letters.send()).state is State.DELIVERED
        assert (hop.clients, by_ipv6.clients) == (v4, v6)


async def test_by_mx_ipv4_is_used_where_ipv6_fails(tmp_path: Path) -> None:
    dns_port = free_ports(1)
    async with DnsServer(dns_port) as dns, good(tmp_path) as hop:
        dns.add("patron.example", "MX", "10 mx.patron.example.")
        dns.add("mx.patron.example", "A", LOCALHOST)
        dns.add("mx.patron.example", "AAAA", "::1")
        async with letters_by("", hop.port, dns=dns.address, source_address=("127.0.0.5", "::1")) as letters:
            outcome = await letters.send()
        assert outcome.reason == "taken by mx.patron.example (in clear text)"
        assert hop.clients == ["127.0.0.5"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("::1", "127.0.0.1 can't be reached from source_address: it has no address of that kind"),
        ("192.0.2.77", "127.0.0.1 can't be reached: Cannot assign requested address"),
    ],
)
async def test_a_source_address_that_does_not_do_puts_mail_off(tmp_path: Path, source: str, reason: str) -> None:
    async with good(tmp_path) as hop:
        async with letters_by(LOCALHOST, hop.port, source_address=source) as letters:
            outcome = await letters.send()
        assert (outcome.state, outcome.trouble, outcome.reason) == (State.DEFERRED, "unreachable", reason)
        assert hop.connections == 0
