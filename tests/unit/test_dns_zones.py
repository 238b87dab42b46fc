"""`slip-relay dns` against one zone after another, each with a single thing wrong: verdict, words and exit code.

Each begins as the zone of `GOOD`, in which all is right; what stands in the table takes the place of what a name says.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import rsa

from relay.cli import command
from relay.dns.dkim_record import key_text
from relay.outgoing.private_key import pem
from tests.harness import toml
from tests.harness.dns_server import DnsServer
from tests.harness.waiting import free_ports

Tree = dict[str, Any]
Zone = Mapping[tuple[str, str], tuple[str, ...]]

KEY = rsa.generate_private_key(65537, 2048)
OURS = key_text(KEY.public_key())
OTHER = key_text(rsa.generate_private_key(65537, 2048).public_key())
FAILS = ("SERVFAIL",)
EX_LIBRIS = "spf-eu.exlibrisgroup.com"

DKIM, BOUNCES = ("s1._domainkey.lib.example", "TXT"), ("bounces.lib.example", "TXT")
DMARC, PTR = ("_dmarc.lib.example", "TXT"), ("25.2.0.192.in-addr.arpa", "PTR")
FROM, HELO, MX = ("lib.example", "TXT"), ("relay.lib.example", "TXT"), ("bounces.lib.example", "MX")

GOOD: Zone = {
    DKIM: (OURS,),
    BOUNCES: ("v=spf1 ip4:192.0.2.25 -all",),
    FROM: ("v=spf1 ip4:192.0.2.25 -all",),
    MX: ("10 mx.lib.example.",),
    ("mx.lib.example", "A"): ("192.0.2.9",),
    DMARC: ("v=DMARC1; p=reject; rua=mailto:dmarc@lib.example",),
    ("relay.lib.example", "A"): ("192.0.2.25",),
    HELO: ("v=spf1 a -all",),
    PTR: ("relay.lib.example.",),
    ("_smtp._tls.bounces.lib.example", "TXT"): ("v=TLSRPTv1; rua=mailto:tls@lib.example",),
}

ELEVEN = " ".join(f"include:s{i}.example" for i in range(11))
INCLUDED = {(f"s{i}.example", "TXT"): ("v=spf1 -all",) for i in range(11)}
LOOP: Zone = {
    BOUNCES: ("v=spf1 include:a.example -all",),
    ("a.example", "TXT"): ("v=spf1 include:b.example -all",),
    ("b.example", "TXT"): ("v=spf1 include:a.example -all",),
}
CNAME = {DKIM: (), (DKIM[0], "CNAME"): ("k.hoster.example.",)}

ZONES: dict[str, tuple[Zone, int, str, str, str]] = {
    "perfect": ({}, 0, "dkim", "ok", "our key"),
    "no key": ({DKIM: ()}, 1, "dkim", "wrong", "no record"),
    "another key": ({DKIM: (OTHER,)}, 1, "dkim", "wrong", "another key"),
    "revoked key": ({DKIM: ("v=DKIM1; k=rsa; p=",)}, 1, "dkim", "wrong", "an empty p=: the key is revoked"),
    "two keys": ({DKIM: (OURS, OTHER)}, 1, "dkim", "wrong", "2 TXT records"),
    "selector by CNAME": ({**CNAME, ("k.hoster.example", "TXT"): (OURS,)}, 0, "dkim", "ok", "our key"),
    "selector by CNAME to nowhere": (CNAME, 1, "dkim", "wrong", "no record"),
    "key in a test": ({DKIM: (f"{OURS}; t=y",)}, 0, "dkim", "warn", "our key, with t=y"),
    "DKIM fails": ({DKIM: FAILS}, 3, "dkim", "unknown", "no answer from the DNS"),
    "no SPF": ({BOUNCES: ()}, 1, "spf", "wrong", "no SPF record"),
    "two SPF records": (
        {BOUNCES: ("v=spf1 ip4:192.0.2.25 -all", "v=spf1 mx -all")},
        *(1, "spf", "wrong", "bounces.lib.example has 2 SPF records; one is allowed"),
    ),
    "eleven look-ups": (
        {BOUNCES: (f"v=spf1 {ELEVEN} ip4:192.0.2.25 -all",), **INCLUDED},
        *(1, "spf", "wrong", "permerror for 192.0.2.25 (more than 10 look-ups)"),
    ),
    "eleven look-ups behind us": (
        {BOUNCES: (f"v=spf1 ip4:192.0.2.25 {ELEVEN} -all",), **INCLUDED},
        *(0, "spf", "warn", "11 of 10 look-ups, 0 of 2 void"),
    ),
    "void look-ups": (
        {BOUNCES: ("v=spf1 a:n1.example a:n2.example a:n3.example ip4:192.0.2.25 -all",)},
        *(1, "spf", "wrong", "more than 2 look-ups without an answer, the last one of n3.example"),
    ),
    "include loop": (LOOP, 1, "spf", "wrong", "permerror for 192.0.2.25 (more than 10 look-ups)"),
    "include of nothing": (
        {BOUNCES: ("v=spf1 include:nobody.example -all",)},
        *(1, "spf", "wrong", "include:nobody.example: nobody.example has no SPF record"),
    ),
    "+all": ({BOUNCES: ("v=spf1 +all",)}, 0, "spf", "warn", "pass (bounces.lib.example: +all)"),
    "macro": (
        {BOUNCES: ("v=spf1 exists:%{ir}.list.example -all",), ("25.2.0.192.list.example", "A"): ("127.0.0.2",)},
        *(0, "spf", "ok", "pass (bounces.lib.example: exists:%{ir}.list.example)"),
    ),
    "broken macro": (
        {BOUNCES: ("v=spf1 exists:%{z}.list.example -all",)},
        *(1, "spf", "wrong", "has a macro that is not allowed there"),
    ),
    "SPF of another address": (
        {BOUNCES: ("v=spf1 ip4:198.51.100.1 ~all",)},
        *(1, "spf", "wrong", "softfail for 192.0.2.25 (bounces.lib.example: ~all)"),
    ),
    "SPF fails": (
        {BOUNCES: ("v=spf1 include:away.example -all",), ("away.example", "TXT"): FAILS},
        *(3, "spf", "unknown", "no answer from the DNS for away.example"),
    ),
    "SPF of From fails us": (
        {FROM: ("v=spf1 ip4:198.51.100.1 -all",)},
        *(0, "from-spf", "warn", "fail for 192.0.2.25 (lib.example: -all)"),
    ),
    "no SPF of From": ({FROM: ()}, 0, "from-spf", "ok", "no SPF record"),
    "no SPF of HELO": ({HELO: ()}, 0, "helo-spf", "warn", "no SPF record"),
    "no DMARC": ({DMARC: ()}, 1, "dmarc", "wrong", "no record, nor at a parent"),
    "two DMARC records": (
        {DMARC: ("v=DMARC1; p=none", "v=DMARC1; p=reject")},
        *(1, "dmarc", "wrong", "_dmarc.lib.example has 2 DMARC records: none of them counts"),
    ),
    "DMARC of another policy": ({DMARC: ("v=DMARC1; p=bounce",)}, 1, "dmarc", "wrong", "p=bounce"),
    "DMARC that asks nothing": (
        {DMARC: ("v=DMARC1; p=none; rua=mailto:dmarc@lib.example",)},
        *(0, "dmarc", "warn", "p=none"),
    ),
    "DMARC fails": ({DMARC: FAILS}, 3, "dmarc", "unknown", "no answer from the DNS"),
    "misaligned envelope": (
        {DMARC: ("v=DMARC1; p=reject; aspf=s; rua=mailto:dmarc@lib.example",)},
        *(0, "alignment", "warn", "SPF by bounces.lib.example, not aligned; DKIM by lib.example"),
    ),
    "no MX for bounces": ({MX: ()}, 1, "mx", "wrong", "no MX, and no address"),
    "MX without an address": ({("mx.lib.example", "A"): ()}, 1, "mx", "wrong", "mx.lib.example, without an address"),
    "null MX for bounces": ({MX: ("0 .",)}, 1, "mx", "wrong", "a null MX"),
    "no PTR": ({PTR: ()}, 1, "ptr", "wrong", "no name"),
    "PTR of another name": (
        {PTR: ("host25.provider.example.",), ("host25.provider.example", "A"): ("192.0.2.25",)},
        *(0, "ptr", "warn", "host25.provider.example"),
    ),
    "PTR mismatch": (
        {PTR: ("host25.provider.example.",)},
        *(1, "ptr", "wrong", "host25.provider.example, which does not have this address"),
    ),
    "PTR fails": ({PTR: FAILS}, 3, "ptr", "unknown", "no answer from the DNS"),
}


async def look(zone: Zone, tree: Tree, folder: Path) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and findings."""
    async with DnsServer(free_ports(1)) as dns:
        for (name, kind), values in {**GOOD, **zone}.items():
            if values == FAILS:
                dns.fail(name)
            elif values:
                dns.add(name, kind, *values)
        return await ask(dns.address, tree, folder)


async def ask(nameserver: str, tree: Tree, folder: Path, timeout: str = "2s") -> tuple[int, list[dict[str, Any]]]:
    (folder / "key.pem").write_bytes(pem(KEY))
    key = {"domain": "lib.example", "selector": "s1", "key_file": str(folder / "key.pem")}
    tree["institutions"][0] |= {"dkim": [key]}
    tree["dns"] = {"nameservers": [nameserver], "timeout": timeout}
    tree["next_hops"] = [{"name": "default", "sends_from": ["192.0.2.25"]}]
    path = folder / "relay.toml"
    path.write_text(toml.dumps(tree), encoding="utf-8")
    ran = await asyncio.to_thread(CliRunner().invoke, command, ["dns", "-c", str(path), "--json"])
    return ran.exit_code, [finding for part in json.loads(ran.stdout) for finding in part["findings"]]


def of(topic: str, findings: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [each for each in findings if each["topic"] == topic]
    return found


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ZONES)
async def test_a_zone(name: str, tree: Tree, tmp_path: Path) -> None:
    zone, code, topic, verdict, says = ZONES[name]
    exit_code, findings = await look(zone, tree, tmp_path)
    found = of(topic, findings)
    assert found["verdict"] == verdict
    assert says in found["says"]
    assert exit_code == code
    others = [each for each in findings if each["topic"] not in (topic, "mta-sts")]  # policies: test_sts_check
    assert {each["verdict"] for each in others} == {"ok"}, findings


@pytest.mark.asyncio
async def test_the_key_stands_in_several_strings(tree: Tree, tmp_path: Path) -> None:
    """A record of more than 255 octets is several strings in any case; here each has ten."""
    async with DnsServer(free_ports(1)) as dns:
        for (name, kind), values in GOOD.items():
            dns.add(name, kind, *values)
        dns.remove(DKIM[0])
        dns.add_strings(DKIM[0], [OURS[i : i + 10] for i in range(0, len(OURS), 10)])
        code, findings = await ask(dns.address, tree, tmp_path)
    assert (code, of("dkim", findings)["says"]) == (0, "our key")


@pytest.mark.asyncio
async def test_a_domain_that_does_not_exist_goes_by_np_of_its_parent(tree: Tree, tmp_path: Path) -> None:
    tree["institutions"][0]["domains"] = ["library.lib.example"]
    policy = {DMARC: ("v=DMARC1; p=reject; sp=quarantine; np=none; rua=mailto:dmarc@lib.example",)}
    _, findings = await look(policy, tree, tmp_path)
    assert of("dmarc", findings)["says"] == "p=none (of _dmarc.lib.example, by np=)"
    _, findings = await look({**policy, ("library.lib.example", "A"): ("192.0.2.1",)}, tree, tmp_path)
    dmarc = of("dmarc", findings)
    assert (dmarc["verdict"], dmarc["says"]) == ("ok", "p=quarantine (of _dmarc.lib.example, by sp=)")


@pytest.mark.asyncio
async def test_a_dns_that_does_not_answer_proves_nothing(tree: Tree, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        code, findings = await ask(f"127.0.0.1:{silent.getsockname()[1]}", tree, tmp_path, "0.1s")
    assert code == 3
    assert {each["verdict"] for each in findings} == {"unknown"}
    assert all("no answer from the DNS" in each["says"] for each in findings)


CLOUD: Zone = {
    (EX_LIBRIS, "TXT"): ("v=spf1 include:_a.exlibrisgroup.com -all",),
    ("_a.exlibrisgroup.com", "TXT"): ("v=spf1 ip4:203.0.113.0/24 -all",),
}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("zone", "domain", "says", "advice"),
    [
        (
            {FROM: (f"v=spf1 ip4:192.0.2.25 include:{EX_LIBRIS} -all",)},
            *("lib.example", f"include:{EX_LIBRIS}", "look-ups fall from 2 to 0"),
        ),
        (
            {
                FROM: ("v=spf1 ip4:192.0.2.25 include:_spf.lib.example -all",),
                ("_spf.lib.example", "TXT"): (f"v=spf1 a:mx.lib.example include:{EX_LIBRIS} -all",),
            },
            *("lib.example", f"include:_spf.lib.example > include:{EX_LIBRIS}", "look-ups fall from 4 to 2"),
        ),
        (
            {FROM: (f"v=spf1 redirect={EX_LIBRIS}",)},
            *("lib.example", f"redirect={EX_LIBRIS}", "look-ups fall from 2 to 0"),
        ),
        (
            {FROM: (f"v=spf1 a:mx.lib.example include:{EX_LIBRIS} -all",)},
            *("library.lib.example", f"include:{EX_LIBRIS}", "look-ups fall from 3 to 1"),
        ),
    ],
    ids=["in the record", "in a record that it includes", "by redirect", "in the record of a parent"],
)
async def test_ex_libris_is_recognised(
    zone: Zone, domain: str, says: str, advice: str, tree: Tree, tmp_path: Path
) -> None:
    tree["institutions"][0]["domains"] = [domain]
    _, findings = await look({**CLOUD, **zone}, tree, tmp_path)
    (found,) = [each for each in findings if each["must"].startswith("no include of Ex Libris")]
    assert (found["name"], found["says"], found["verdict"]) == ("lib.example", says, "ok")
    assert found["advice"] == f"it can be dropped then: {advice}"


@pytest.mark.asyncio
async def test_ex_libris_is_recognised_in_the_record_of_the_envelope_domain(tree: Tree, tmp_path: Path) -> None:
    zone = {BOUNCES: (f"v=spf1 ip4:192.0.2.25 include:{EX_LIBRIS} -all",)}
    code, findings = await look({**CLOUD, **zone}, tree, tmp_path)
    (found,) = [each for each in findings if each["must"].startswith("no include of Ex Libris")]
    assert (code, found["name"]) == (0, "bounces.lib.example")


@pytest.mark.asyncio
async def test_records_that_include_each_other_end(tree: Tree, tmp_path: Path) -> None:
    zone = {FROM: (f"v=spf1 ip4:192.0.2.25 include:lib.example include:{EX_LIBRIS} -all",)}
    _, findings = await look({**CLOUD, **zone}, tree, tmp_path)
    assert len([each for each in findings if each["must"].startswith("no include of Ex Libris")]) == 1
