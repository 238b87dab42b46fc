"""`slip-relay dns` with a real DNS server: the table, what is to be published, `--json`, and the exit codes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import rsa

from relay.cli import command
from relay.dns.dkim_record import key_text
from relay.outgoing.private_key import pem
from tests.harness import certificates, toml
from tests.harness.dns_server import DnsServer
from tests.harness.institution import Institution, Ports
from tests.harness.policy_server import PolicyServer
from tests.harness.waiting import free_ports

pytestmark = pytest.mark.asyncio

Tree = dict[str, Any]

KEY = rsa.generate_private_key(65537, 2048)
DKIM = "s1._domainkey.lib.example"
DIRECT = {"name": "default", "sends_from": ["192.0.2.25"]}


@pytest_asyncio.fixture
async def dns() -> AsyncIterator[DnsServer]:
    """Everything as it must be."""
    async with DnsServer(free_ports(1)) as server:
        server.add(DKIM, "TXT", key_text(KEY.public_key()))
        server.add("bounces.lib.example", "TXT", "v=spf1 ip4:192.0.2.25 -all")
        server.add("bounces.lib.example", "MX", "10 mx.lib.example.")
        server.add("mx.lib.example", "A", "192.0.2.9")
        server.add("_dmarc.lib.example", "TXT", "v=DMARC1; p=reject; rua=mailto:dmarc@lib.example")
        server.add("relay.lib.example", "A", "192.0.2.25")
        server.add("relay.lib.example", "TXT", "v=spf1 a -all")
        server.add("25.2.0.192.in-addr.arpa", "PTR", "relay.lib.example.")
        server.add("_mta-sts.bounces.lib.example", "TXT", "v=STSv1; id=1")
        server.add("mta-sts.bounces.lib.example", "A", "127.0.0.1")
        server.add("_smtp._tls.bounces.lib.example", "TXT", "v=TLSRPTv1; rua=mailto:tls@lib.example")
        yield server


@pytest_asyncio.fixture
async def policies(tmp_path: Path) -> AsyncIterator[PolicyServer]:
    made = certificates.make(tmp_path, "mta-sts.bounces.lib.example")
    async with PolicyServer(free_ports(1), made) as server:
        server.show("enforce", "mx.lib.example")
        yield server


@pytest.fixture
def config(tree: Tree, tmp_path: Path, dns: DnsServer, policies: PolicyServer) -> Tree:
    authority = str(tmp_path / "mta-sts.bounces.lib.example.pem")
    tree["mta_sts"] = {"ca_file": authority, "port": policies.port, "private_hosts": True}
    (tmp_path / "key.pem").write_bytes(pem(KEY))
    key = {"domain": "lib.example", "selector": "s1", "key_file": str(tmp_path / "key.pem")}
    tree["institutions"][0]["dkim"] = [key]
    tree["dns"] = {"nameservers": [dns.address], "timeout": "2s"}
    tree["next_hops"] = [dict(DIRECT)]
    return tree


async def run(config: Tree, folder: Path, *arguments: str) -> Result:
    path = folder / "relay.toml"
    path.write_text(toml.dumps(config), encoding="utf-8")
    return await asyncio.to_thread(CliRunner().invoke, command, ["dns", "-c", str(path), *arguments])


async def found(config: Tree, folder: Path) -> tuple[int, dict[str, str], dict[str, str]]:
    """Exit code, and for each topic what is said and the verdict."""
    ran = await run(config, folder, "--json")
    findings = [finding for part in json.loads(ran.output) for finding in part["findings"]]
    says = {finding["topic"]: finding["says"] for finding in findings}
    return ran.exit_code, says, {finding["topic"]: finding["verdict"] for finding in findings}


async def test_all_is_right(config: Tree, tmp_path: Path) -> None:
    ran = await run(config, tmp_path)
    assert ran.exit_code == 0, ran.output
    lines = ran.output.splitlines()
    assert lines[0] == "demo:"
    assert lines[1].split() == ["what", "name", "must", "say", "says", "verdict"]
    rows = [line for line in lines if line.endswith("  ok")]
    assert [row.split("  ")[0] for row in rows] == [
        "DKIM",
        "SPF",
        "SPF of From",
        "DMARC",
        "alignment",
        "MX",
        "MTA-STS",
        "MTA-STS",
        "TLS-RPT",
        "SPF of HELO",
        "PTR",
    ]
    assert "the appliance:" in lines
    assert "to publish:" not in lines


async def test_what_is_missing_is_printed_ready_to_paste(config: Tree, tmp_path: Path, dns: DnsServer) -> None:
    for name in (DKIM, "bounces.lib.example", "_dmarc.lib.example", "relay.lib.example", "25.2.0.192.in-addr.arpa"):
        dns.remove(name)
    ran = await run(config, tmp_path)
    assert ran.exit_code == 1
    lines = ran.output.splitlines()
    start = lines.index("to publish:") + 1
    assert lines[start].startswith(f'{DKIM}. IN TXT ( "v=DKIM1; k=rsa; p=')
    assert lines[start + 1 : start + 3] == [
        'bounces.lib.example. IN TXT ( "v=spf1 ip4:192.0.2.25 -all" )',
        '_dmarc.lib.example. IN TXT ( "v=DMARC1; p=none; rua=mailto:dmarc-reports@lib.example" )',
    ]
    assert lines[-3:-1] == [
        'relay.lib.example. IN TXT ( "v=spf1 ip4:192.0.2.25 -all" )',
        "25.2.0.192.in-addr.arpa. IN PTR relay.lib.example.",
    ]
    assert sum("  WRONG" in line for line in lines) == 5
    assert sum(line.endswith("  warn") for line in lines) == 1
    assert f"DKIM {DKIM}: publish it: without it every signature fails" in lines


async def test_json_has_every_field(config: Tree, tmp_path: Path, dns: DnsServer) -> None:
    dns.remove("bounces.lib.example", "TXT")
    parts = json.loads((await run(config, tmp_path, "--json")).output)
    assert [part["institution"] for part in parts] == ["demo", None]
    assert parts[0]["findings"][1] == {
        "topic": "spf",
        "name": "bounces.lib.example",
        "must": "pass for 192.0.2.25",
        "says": "no SPF record",
        "verdict": "wrong",
        "advice": "publish it",
        "record": {
            "name": "bounces.lib.example",
            "kind": "TXT",
            "text": "v=spf1 ip4:192.0.2.25 -all",
            "zone_line": 'bounces.lib.example. IN TXT ( "v=spf1 ip4:192.0.2.25 -all" )',
        },
        "file": None,
    }


async def test_what_could_not_be_asked_is_not_wrong(config: Tree, tmp_path: Path, dns: DnsServer) -> None:
    dns.fail("_dmarc.lib.example")
    code, _, verdicts = await found(config, tmp_path)
    assert (code, verdicts["dmarc"]) == (3, "unknown")
    assert "could not be asked" in (await run(config, tmp_path)).output
    dns.remove(DKIM)
    assert (await found(config, tmp_path))[0] == 1


async def test_warnings_leave_the_exit_code_alone(config: Tree, tmp_path: Path, dns: DnsServer) -> None:
    config["institutions"][0]["dkim"] = []
    code, says, verdicts = await found(config, tmp_path)
    assert (code, verdicts["dkim"], verdicts["alignment"]) == (0, "warn", "warn")
    assert says["dkim"] == "no key: letters go unsigned"


async def test_a_fixed_mailbox_is_judged_by_its_domain(config: Tree, tmp_path: Path, dns: DnsServer) -> None:
    config["institutions"][0] |= {"envelope_from": "library@mail.lib.example"}
    del config["institutions"][0]["bounce_domain"]
    dns.add("mail.lib.example", "TXT", "v=spf1 ip4:198.51.100.1 ~all")
    code, says, verdicts = await found(config, tmp_path)
    assert code == 1
    assert says["spf"].startswith("softfail for 192.0.2.25")
    assert "mx" not in verdicts


async def test_an_envelope_that_is_kept_has_no_domain_to_judge_and_only_dkim_aligns(
    config: Tree, tmp_path: Path, dns: DnsServer
) -> None:
    config["institutions"][0] |= {"envelope_from": "keep"}
    code, says, verdicts = await found(config, tmp_path)
    assert (code, verdicts["spf"], verdicts["alignment"]) == (0, "warn", "warn")
    assert says["spf"] == "the senders' own is kept, and SPF is judged by their domains"
    assert says["alignment"].startswith("SPF by the sender's domain, not aligned; DKIM by lib.example")
    assert "mx" not in verdicts


async def test_a_next_hop_with_an_envelope_of_its_own_is_judged_by_that(
    config: Tree, tmp_path: Path, dns: DnsServer
) -> None:
    campus = {"name": "campus", "host": "smtp.campus.example", "sends_from": ["198.51.100.7"]}
    config["next_hops"].append(campus | {"rewriting": {"envelope_from": "library@mail.lib.example"}})
    config["rules"] = [{"name": "staff", "recipient": "*@campus.example", "next_hop": "campus"}]
    dns.add("mail.lib.example", "TXT", "v=spf1 ip4:198.51.100.1 ~all")
    assert (await found(config, tmp_path))[0] == 1
    dns.remove("mail.lib.example")
    dns.add("mail.lib.example", "TXT", "v=spf1 ip4:198.51.100.7 ~all")
    assert (await found(config, tmp_path))[0] == 0


async def test_behind_a_smarthost_its_addresses_count_and_not_our_name(
    config: Tree, tmp_path: Path, dns: DnsServer
) -> None:
    config["next_hops"] = [{"name": "default", "host": "smtp.campus.example"}]
    code, says, _ = await found(config, tmp_path)
    assert (code, says["spf"]) == (1, "smtp.campus.example has no address")
    dns.add("smtp.campus.example", "A", "10.1.2.3")
    code, says, verdicts = await found(config, tmp_path)
    assert (code, says["spf"]) == (3, "not asked: 10.1.2.3 is no address that the world sees")
    assert {"helo-spf", "ptr"}.isdisjoint(verdicts)
    config["next_hops"][0]["sends_from"] = ["spf.campus.example"]
    dns.add("spf.campus.example", "TXT", "v=spf1 ip4:192.0.2.24/31 -all")
    code, says, _ = await found(config, tmp_path)
    assert (code, says["spf"].partition(" (")[0]) == (1, "fail for 192.0.2.24")
    dns.fail("spf.campus.example")
    assert (await found(config, tmp_path))[0] == 3


async def test_the_names_of_a_whole_network_are_not_asked(config: Tree, tmp_path: Path, dns: DnsServer) -> None:
    dns.add("spf.lib.example", "TXT", "v=spf1 ip4:192.0.2.0/24 -all")
    for name in ("bounces.lib.example", "relay.lib.example"):
        dns.remove(name, "TXT")
        dns.add(name, "TXT", "v=spf1 include:spf.lib.example -all")
    config["next_hops"] = [DIRECT | {"sends_from": ["192.0.2.25", "spf.lib.example"]}]
    assert (await found(config, tmp_path))[0] == 0
    assert [name for name, kind in dns.questions if kind == "PTR"] == ["25.2.0.192.in-addr.arpa"]


async def test_ways_that_rules_choose_count_as_well(config: Tree, tmp_path: Path, dns: DnsServer) -> None:
    config["next_hops"].append({"name": "other", "host": "198.51.100.7"})
    assert (await found(config, tmp_path))[0] == 0
    config["rules"] = [{"name": "partners", "recipient": "*@partner.example", "next_hop": "other"}]
    code, says, _ = await found(config, tmp_path)
    assert (code, says["spf"].partition(" (")[0]) == (1, "fail for 198.51.100.7")


async def test_the_include_of_ex_libris_is_seen(config: Tree, tmp_path: Path, dns: DnsServer) -> None:
    dns.add("lib.example", "TXT", "v=spf1 include:spf-eu.exlibrisgroup.com -all")
    dns.add("spf-eu.exlibrisgroup.com", "TXT", "v=spf1 ip4:203.0.113.0/24 -all")
    ran = await run(config, tmp_path)
    assert ran.exit_code == 0
    assert "SPF lib.example: it can be dropped then: look-ups fall from 1 to 0" in ran.output.splitlines()


async def test_the_zone_of_the_demo_library_is_right(tmp_path: Path) -> None:
    library = Institution(tmp_path, Ports(free_ports(Ports.COUNT)))
    library.write_config()
    async with DnsServer(library.ports.dns) as dns:
        library.publish(dns)
        ran = await asyncio.to_thread(CliRunner().invoke, command, ["dns", "-c", str(library.config), "--json"])
    assert ran.exit_code == 0
    verdicts = [finding["verdict"] for part in json.loads(ran.output) for finding in part["findings"]]
    assert verdicts == ["ok"] * 6 + ["warn"] * 2, "it has no policy for TLS, and wants no reports"


async def test_explain_says_why_each_matters(config: Tree, tmp_path: Path) -> None:
    lines = (await run(config, tmp_path, "--explain")).output.splitlines()
    explained = [line.partition(": ")[0] for line in lines[-10:]]
    assert explained == [
        "DKIM",
        "SPF",
        "SPF of From",
        "DMARC",
        "alignment",
        "MX",
        "MTA-STS",
        "TLS-RPT",
        "SPF of HELO",
        "PTR",
    ]
    assert lines[-1].startswith("PTR: Many receivers refuse clients whose address has no name")


async def test_a_policy_to_publish_is_printed_with_its_place(config: Tree, tmp_path: Path, dns: DnsServer) -> None:
    dns.remove("_mta-sts.bounces.lib.example")
    ran = await run(config, tmp_path)
    assert ran.exit_code == 0
    lines = ran.output.splitlines()
    at = lines.index("to put at https://mta-sts.bounces.lib.example/.well-known/mta-sts.txt:")
    policy = ["version: STSv1", "mode: testing", "mx: mx.lib.example", "max_age: 604800", ""]
    assert lines[at + 1 : at + 6] == policy
    assert lines[at - 2].startswith('_mta-sts.bounces.lib.example. IN TXT ( "v=STSv1; id=')
    (finding,) = [
        finding
        for part in json.loads((await run(config, tmp_path, "--json")).output)
        for finding in part["findings"]
        if finding["topic"] == "mta-sts"
    ]
    assert finding["file"]["text"].splitlines() == policy[:-1]


async def test_a_policy_that_names_other_hosts_is_wrong(config: Tree, tmp_path: Path, policies: PolicyServer) -> None:
    policies.show("enforce", "mx.elsewhere.example")
    code, _, verdicts = await found(config, tmp_path)
    assert (code, verdicts["mta-sts"]) == (1, "wrong")


async def test_a_wrong_sends_from_is_a_mistake(config: Tree, tmp_path: Path) -> None:
    config["next_hops"] = [DIRECT | {"sends_from": ["192.0.2.300"]}]
    ran = await run(config, tmp_path)
    assert ran.exit_code == 1
    assert "'192.0.2.300' is neither an IP address nor a domain" in ran.output
    assert (await run(config, tmp_path, "--nonsense")).exit_code == 2
