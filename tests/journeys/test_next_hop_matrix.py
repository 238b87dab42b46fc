"""Each TLS policy of a next hop, against each certificate that a host may show: the outcome is as in docs/letters.md.

The hosts are Postfix and the bench's own; what they saw of TLS is compared with what we say of it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding

from relay.spool.records import Outcome, State
from relay.transports.tls_policy import fingerprints
from tests.harness.certificates import Made, make
from tests.harness.next_hop import NextHop
from tests.harness.postfix import NO_POSTFIX, Postfix, can_run_postfix
from tests.harness.waiting import LOCALHOST, free_ports, until
from tests.harness.way_out import send

pytestmark = pytest.mark.asyncio(loop_scope="session")

GUIDE = Path(__file__).parents[2] / "docs" / "letters.md"
CERTIFICATES = ("good", "expired", "other-name", "self-signed")
HOSTS = (*CERTIFICATES, "no TLS")
WORDS = {
    "certificate has expired": "expired",
    "Hostname mismatch, certificate is not valid for 'localhost'.": "wrong name",
    "self-signed certificate": "unknown issuer",
    "its certificate is not a pinned one": "not pinned",
    "SMTP STARTTLS extension not supported by server.": "no TLS",
    "TLS failed, wrong version number": "no TLS",
}
"""How the table calls the reasons."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """Hosts on ports of localhost, by what they show; `implicit` are those that begin with TLS."""

    starttls: Mapping[str, int]
    implicit: Mapping[str, int]
    shown: Mapping[str, Made]
    authority: Path


def table() -> dict[str, list[str]]:
    """The rows of the table in docs/letters.md: a policy, and its outcome at each host."""
    rows = [line.strip("| \n").split(" | ") for line in GUIDE.read_text(encoding="utf-8").splitlines() if "|" in line]
    head = next(i for i, row in enumerate(rows) if row[0] == "the host's certificate is")
    assert tuple(rows[head][1:]) == (
        "good",
        "expired",
        "for another name",
        "self-signed",
        "missing (STARTTLS stripped)",
    )
    return {row[0].replace("`", ""): row[1:] for row in rows[head + 2 :] if len(row) == 1 + len(HOSTS)}


def settings(policy: str, hosts: Hosts, shown: str) -> dict[str, Any]:
    """What stands in the configuration for a row of the table."""
    ours = [hosts.shown[shown if shown in hosts.shown else "good"].sha256]
    authority = {"ca_file": str(hosts.authority)}
    rows: dict[str, dict[str, Any]] = {
        'tls = "none"': {"tls": "none"},
        'tls = "opportunistic"': {"tls": "opportunistic"},
        'tls = "encrypted"': {"tls": "encrypted"},
        'tls = "required"': {"tls": "required", **authority},
        'tls = "required", pins: it': {"tls": "required", "pins": ours},
        'tls = "required", pins: another': {"tls": "required", "pins": [f"sha256:{64 * 'a'}"]},
        'tls = "required", pins: it, and ca_file': {"tls": "required", "pins": ours, **authority},
        'tls = "implicit"': {"tls": "implicit", **authority},
    }
    return rows[policy]


def in_the_table(outcome: Outcome) -> str:
    """How the table says it."""
    if outcome.state is State.DELIVERED:
        return "sent in clear text" if "(in clear text)" in outcome.reason else "sent by TLS"
    why = outcome.reason.partition(": ")[2].partition("; it is")[0]
    return f"waits: {WORDS.get(why, outcome.reason)}"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """The certificates, and the authority that signed them."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in CERTIFICATES:
        (folder / name).mkdir()
    authority = make(folder, "authority", is_authority=True)
    return {
        "authority": authority,
        "good": make(folder / "good", "localhost", signed_by=authority),
        "expired": make(folder / "expired", "localhost", signed_by=authority, days=-1),
        "other-name": make(folder / "other-name", "other.example", signed_by=authority),
        "self-signed": make(folder / "self-signed", "localhost"),
    }


def _hosts(first: int, shown: Mapping[str, Made], *, has_implicit: bool) -> Hosts:
    starttls = {name: first + n for n, name in enumerate(HOSTS)}
    implicit = {name: first + len(HOSTS) + n for n, name in enumerate(CERTIFICATES)} if has_implicit else {}
    certificates = {name: shown[name] for name in CERTIFICATES}
    return Hosts(starttls, implicit, certificates, shown["authority"].certificate)


async def outcomes(hosts: Hosts) -> dict[str, list[str]]:
    """The table as it is seen: a letter for each policy and each host."""
    seen: dict[str, list[str]] = {}
    for policy in table():
        if "implicit" in policy and not hosts.implicit:
            continue
        # A host without TLS is one that speaks SMTP in clear text, also where TLS is to come first.
        ports = {**hosts.starttls, **hosts.implicit} if "implicit" in policy else hosts.starttls
        seen[policy] = [in_the_table(await send(ports[name], **settings(policy, hosts, name))) for name in HOSTS]
    return seen


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def postfix(shown: dict[str, Made]) -> AsyncIterator[tuple[Postfix, Hosts]]:
    """A Postfix that shows a certificate on each port; it throws away what it takes."""
    if not can_run_postfix():
        pytest.skip(NO_POSTFIX)
    hosts = _hosts(free_ports(2 * len(HOSTS)), shown, has_implicit=True)
    lines = f"{LOCALHOST}:{hosts.starttls['no TLS']} inet n - n - - smtpd -o smtpd_tls_security_level=none\n"
    for ports, more in ((hosts.starttls, ""), (hosts.implicit, " -o smtpd_tls_wrappermode=yes")):
        for name in CERTIFICATES:
            files = f"{{ -o {{ smtpd_tls_chain_files = {shown[name].key} {shown[name].certificate} }} }}"
            lines += f"{LOCALHOST}:{ports[name]} inet n - n - - smtpd{more} {files[2:-2]}\n"
    settings = {
        "myhostname": "postfix.example",
        "mynetworks": f"{LOCALHOST}/32",
        "default_transport": "discard:",
        "smtpd_tls_security_level": "may",
        "smtpd_tls_loglevel": 1,
        "smtpd_client_connection_count_limit": 0,
    }
    server = Postfix([*hosts.starttls.values(), *hosts.implicit.values()], settings, lines)
    await server.start()
    yield server, hosts
    await server.stop()


def count(seen: Mapping[str, list[str]], what: str) -> int:
    return sum(row.count(what) for row in seen.values())


async def test_postfix_gets_what_the_table_says(postfix: tuple[Postfix, Hosts]) -> None:
    server, hosts = postfix
    seen = await outcomes(hosts)
    assert seen == table()
    by_tls, in_clear = count(seen, "sent by TLS"), count(seen, "sent in clear text")
    assert (by_tls, in_clear) == (15, 6)

    def taken() -> int:
        return len(re.findall(r"postfix/smtpd\[\d+\]: [0-9A-F]+: client=", server.log))

    await until(lambda: taken() >= by_tls + in_clear, lambda: f"the letters at Postfix; it has {taken()}")
    assert taken() == by_tls + in_clear, "what waits has not been said to Postfix"


async def test_the_bench_gets_what_the_table_says(shown: dict[str, Made], tmp_path: Path) -> None:
    hosts = _hosts(free_ports(len(HOSTS)), shown, has_implicit=False)
    async with AsyncExitStack() as stack:
        hops = []
        for name, port in hosts.starttls.items():
            files = (shown[name].certificate, shown[name].key) if name in shown else None
            hops.append(await stack.enter_async_context(NextHop(port, tmp_path / name, certificate=files)))
        seen = await outcomes(hosts)
    assert seen == {policy: row for policy, row in table().items() if "implicit" not in policy}
    taken = [letter.tls for hop in hops for letter in hop.taken]
    assert (taken.count(True), taken.count(False)) == (count(seen, "sent by TLS"), count(seen, "sent in clear text"))


async def test_a_key_may_be_pinned_and_one_of_several_pins_is_enough(shown: dict[str, Made], tmp_path: Path) -> None:
    made = shown["self-signed"]
    sha256, spki = fingerprints(made.read.public_bytes(Encoding.DER))
    assert sha256 == made.sha256
    another = f"spki:{64 * 'a'}"
    async with NextHop(free_ports(1), tmp_path / "hop", certificate=(made.certificate, made.key)) as hop:
        for pins, state in (([spki], State.DELIVERED), ([another, spki], State.DELIVERED), ([another], State.DEFERRED)):
            outcome = await send(hop.port, tls="required", pins=pins)
            assert outcome.state is state, outcome.reason
        assert outcome.reason == (
            f"localhost[127.0.0.1] can't be trusted: its certificate is not a pinned one; it is {sha256} and {spki}"
        )
        assert len(hop.taken) == 2
