"""What Microsoft 365 and Google ask for, by the DNS of a local server and the configuration."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from relay.cli import command
from tests.harness import toml
from tests.harness.dns_server import DnsServer
from tests.harness.waiting import free_ports

pytestmark = pytest.mark.asyncio

Tree = dict[str, Any]
Said = dict[str, tuple[str, str, str]]

TENANT = "lib-example.mail.protection.outlook.com"
EXCHANGE = {"host": TENANT, "tls": "required", "sends_from": ["spf.protection.outlook.com"]}
GOOGLE = {"host": "smtp-relay.gmail.com", "port": 587, "tls": "required", "sends_from": ["_spf.google.com"]}
OFFICE = {"host": "smtp.office365.com", "port": 587, "tls": "required", "sends_from": ["spf.protection.outlook.com"]}
GMAIL = {"host": "smtp.gmail.com", "port": 465, "tls": "implicit", "sends_from": ["_spf.google.com"]}


@pytest_asyncio.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer(free_ports(1)) as server:
        server.add("spf.protection.outlook.com", "TXT", "v=spf1 ip4:203.0.113.0/30 -all")
        server.add("_spf.google.com", "TXT", "v=spf1 ip4:198.51.100.0/30 -all")
        yield server


@pytest.fixture
def ask(tree: Tree, tmp_path: Path, dns: DnsServer) -> Callable[..., Any]:
    """What is said of a next hop, by the first word of what must be: says, verdict, advice."""

    async def asked(hop: Tree, **institution: Any) -> Said:
        tree["dns"] = {"nameservers": [dns.address], "timeout": "2s"}
        tree["next_hops"] = [{"name": "default", **hop}]
        tree["institutions"][0] |= institution
        path = tmp_path / "relay.toml"
        path.write_text(toml.dumps(tree), encoding="utf-8")
        ran = await asyncio.to_thread(CliRunner().invoke, command, ["dns", "-c", str(path), "--json"])
        found = [each for part in json.loads(ran.stdout) for each in part["findings"] if each["topic"] == "relay"]
        assert all(each["name"] == hop["host"] for each in found)
        return {each["must"]: (each["verdict"], each["says"], each["advice"]) for each in found}

    return asked


def certificate(folder: Path, common: str, *names: str) -> Tree:
    """A client certificate, as settings of a next hop."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    if names:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
    (folder / "client.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "client.key").write_bytes(text)
    return {"client_certificate": str(folder / "client.pem"), "client_key": str(folder / "client.key")}


ACCEPTED = "bounces.lib.example is a domain of your account"
CERTIFICATE = "a client certificate with a name of your account's domains"


async def test_all_that_microsoft_asks_for(ask: Callable[..., Any], dns: DnsServer, tmp_path: Path) -> None:
    dns.add("bounces.lib.example", "MX", f"0 {TENANT}.")
    found = await ask(EXCHANGE | certificate(tmp_path, "relay.lib.example"))
    assert {must: verdict for must, (verdict, _, _) in found.items()} == {
        "port 25, with TLS": "ok",
        "sends_from names spf.protection.outlook.com": "ok",
        ACCEPTED: "ok",
        CERTIFICATE: "ok",
    }
    assert found[ACCEPTED][1] == f"its MX is {TENANT}"
    assert found[CERTIFICATE] == ("ok", "relay.lib.example", "")


async def test_what_microsoft_misses_is_told(ask: Callable[..., Any], dns: DnsServer, tmp_path: Path) -> None:
    dns.add("bounces.lib.example", "MX", "10 mx.campus.example.")
    found = await ask({"host": TENANT, "port": 587})
    assert found["port 25, with TLS"][:2] == ("wrong", "port 587, TLS not asked for")
    assert found["sends_from names spf.protection.outlook.com"][:2] == ("warn", "sends_from is not set")
    assert found[ACCEPTED][:2] == ("warn", "nothing in the DNS of bounces.lib.example says that it is")
    assert found[CERTIFICATE][:2] == ("warn", "no client certificate")
    assert "DSNs and notices have an empty Envelope-From, and are refused without it (5.7.64)" in found[CERTIFICATE][2]
    dns.add("lib.example", "TXT", "MS=ms12345678")
    found = await ask(EXCHANGE | certificate(tmp_path, "relay.campus.example", "mx.campus.example"))
    assert found[ACCEPTED][:2] == ("warn", "lib.example is one; of bounces.lib.example the DNS does not say so")
    assert "Accepted domains in the Exchange admin center" in found[ACCEPTED][2]
    assert found[CERTIFICATE][:2] == ("wrong", "relay.campus.example, mx.campus.example")
    assert "take one whose name is in lib.example" in found[CERTIFICATE][2]
    found = await ask(EXCHANGE | certificate(tmp_path, "relay", "*.lib.example"))
    assert found[CERTIFICATE][0] == "ok"
    dns.add("bounces.lib.example", "TXT", "MS=ms87654321")
    assert (await ask(EXCHANGE))[ACCEPTED] == ("ok", "it was proved to Microsoft 365 (TXT MS=)", "")


async def test_a_dns_that_fails_proves_nothing(ask: Callable[..., Any], dns: DnsServer) -> None:
    dns.fail("bounces.lib.example")
    assert (await ask(EXCHANGE))[ACCEPTED][0] == "unknown"


async def test_what_google_asks_for(ask: Callable[..., Any], dns: DnsServer, tree: Tree, tmp_path: Path) -> None:
    dns.add("bounces.lib.example", "MX", "1 smtp.google.com.")
    found = await ask(GOOGLE)
    assert [verdict for verdict, _, _ in found.values()] == ["ok"] * 4
    tree["server"]["hostname"] = "relay.campus.example"
    dns.remove("bounces.lib.example")
    dns.add("bounces.lib.example", "TXT", "google-site-verification=abc")
    found = await ask(GOOGLE | {"sends_from": ["192.0.2.1"], "tls": "opportunistic"})
    assert [verdict for verdict, _, _ in found.values()] == ["warn", "warn", "ok", "wrong"]
    verdict, says, advice = found["a login, or a name of your domains in EHLO, for DSNs"]
    assert (verdict, says) == ("wrong", "relay.campus.example")
    assert advice == "let server.hostname be a name in lib.example: DSNs have an empty Envelope-From"
    login = {"username": "alma@lib.example", "password": {"file": str(tmp_path / "secret")}}
    assert [verdict for verdict, _, _ in (await ask(GOOGLE | login)).values()] == ["ok"] * 4


async def test_a_mailbox_at_microsoft(ask: Callable[..., Any], tree: Tree, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    login = {"username": "library@lib.example", "password": {"file": str(secret)}}
    must = "the Envelope-From is the mailbox that logs in"
    found = await ask(OFFICE | login)
    assert found[must][:2] == ("wrong", "other addresses, at bounces.lib.example")
    assert 'set envelope_from = "library@lib.example"' in found[must][2]
    assert found["a login by XOAUTH2"][:2] == ("warn", "a password")
    del tree["institutions"][0]["bounce_domain"]
    token = {"username": "library@lib.example", "token": {"file": str(secret)}}
    found = await ask(OFFICE | token, envelope_from="Library@lib.example")
    assert [verdict for verdict, _, _ in found.values()] == ["ok"] * 4
    found = await ask(OFFICE | token, envelope_from="alma@lib.example")
    assert found[must][0] == "warn"
    assert "library@lib.example needs the right to send as alma@lib.example" in found[must][2]
    assert (await ask(OFFICE, envelope_from="alma@lib.example"))["a login by XOAUTH2"][:2] == ("wrong", "no login")


async def test_a_mailbox_at_google(ask: Callable[..., Any], tmp_path: Path) -> None:
    found = await ask(GMAIL | {"username": "l@lib.example", "password": {"file": str(tmp_path / "secret")}})
    assert found["a login, and few letters"][0] == "warn"
    assert "smtp-relay.gmail.com is for servers" in found["a login, and few letters"][2]
    assert found["the Envelope-From is the mailbox that logs in"][0] == "wrong"


async def test_others_are_asked_for_nothing(ask: Callable[..., Any], dns: DnsServer) -> None:
    dns.add("smtp.campus.example", "A", "192.0.2.1")
    assert await ask({"host": "smtp.campus.example"}) == {}
    assert await ask({"host": "notsmtp-relay.gmail.com"}) == {}


async def test_it_is_explained(ask: Callable[..., Any], tmp_path: Path) -> None:
    await ask(EXCHANGE)
    arguments = ["dns", "-c", str(tmp_path / "relay.toml"), "--explain"]
    ran = await asyncio.to_thread(CliRunner().invoke, command, arguments)
    assert "relay: Microsoft 365 and Google relay for their own customers only." in ran.output
