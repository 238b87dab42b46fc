"""The demo library: keys, certificate, secrets, DNS records and the appliance's relay.toml, all made in one folder.

Everything is fresh and worthless elsewhere: names end in .example, passwords are random, addresses are 127.0.0.1.
The configuration is an ordinary one, apart from short retry times and a cheap password hash.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from tests.harness import toml
from tests.harness.dns_server import DnsServer
from tests.harness.waiting import LOCALHOST

DOMAIN = "lib.example"
BOUNCE_DOMAIN = f"bounces.{DOMAIN}"
PRINT_DOMAIN = f"print.{DOMAIN}"
HOSTNAME = f"relay.{DOMAIN}"
PATRON_DOMAINS = ("patron.example", "students.example")
RELAY_FROM = f"circulation@{DOMAIN}"
SELECTOR = "demo"
USER = "alma"
PROFILES = {"laser": "a4", "a5": "a5", "receipt": "receipt80"}
"""The demo's printers, by name, and their profiles."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens: at most 21 ports from `first`."""

    first: int

    COUNT = 21

    @property
    def smtp(self) -> int:
        """The appliance, for known networks."""
        return self.first

    @property
    def submission(self) -> int:
        """The appliance, for those who log in."""
        return self.first + 1

    @property
    def web(self) -> int:
        """The appliance's pages, some day."""
        return self.first + 2

    @property
    def dns(self) -> int:
        """The DNS server."""
        return self.first + 3

    @property
    def cups(self) -> int:
        """The private CUPS."""
        return self.first + 4

    @property
    def next_hop(self) -> int:
        """The smarthost."""
        return self.first + 5

    def printer(self, name: str) -> int:
        """A virtual printer."""
        return self.first + 10 + list(PROFILES).index(name)


class Institution:
    """The demo library in a folder; making one writes its keys, `write_config` its relay.toml."""

    def __init__(self, folder: Path, ports: Ports) -> None:
        self.folder = folder
        self.ports = ports
        self.password = secrets.token_hex(12)
        self.config = folder / "relay.toml"
        self.spool = folder / "spool" / "spool.db"
        keys = folder / "keys"
        for path in (keys, self.spool.parent):
            path.mkdir(parents=True, exist_ok=True)
        self.certificate, self.certificate_key = keys / "certificate.pem", keys / "certificate.key"
        self.dkim_key, self.secret = keys / "dkim.pem", keys / "verp.secret"
        self.dkim_record = _make_dkim_key(self.dkim_key)
        _make_certificate(self.certificate, self.certificate_key)
        _write_private(self.secret, secrets.token_hex(32).encode() + b"\n")

    def mailbox(self, printer: str) -> str:
        """The address that stands for a printer."""
        return f"{printer}@{PRINT_DOMAIN}"

    def publish(self, dns: DnsServer) -> None:
        """Put the library's zone, and its patrons' domains, into the DNS."""
        dns.add(HOSTNAME, "A", LOCALHOST)
        dns.add("1.0.0.127.in-addr.arpa", "PTR", f"{HOSTNAME}.")
        dns.add(f"{SELECTOR}._domainkey.{DOMAIN}", "TXT", self.dkim_record)
        dns.add(f"_dmarc.{DOMAIN}", "TXT", f"v=DMARC1; p=reject; rua=mailto:dmarc@{DOMAIN}")
        for domain in (DOMAIN, BOUNCE_DOMAIN, PRINT_DOMAIN):
            dns.add(domain, "MX", f"10 {HOSTNAME}.")
            dns.add(domain, "TXT", f"v=spf1 ip4:{LOCALHOST} -all")
        for domain in PATRON_DOMAINS:
            dns.add(domain, "MX", f"10 mx.{domain}.")
            dns.add(f"mx.{domain}", "A", LOCALHOST)

    def write_config(self, extra: Mapping[str, Any] | None = None) -> None:
        """Write relay.toml, with further tables merged in."""
        self.config.write_text(toml.dumps(toml.merged(self.tables(), extra or {})))

    def tables(self) -> toml.Table:
        """The appliance's configuration."""
        tls = {"address": LOCALHOST, "tls_certificate": str(self.certificate), "tls_key": str(self.certificate_key)}
        hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
        return {
            "server": {"hostname": HOSTNAME, "secret": {"file": str(self.secret)}},
            "spool": {"url": f"sqlite:///{self.spool}"},
            "dns": {"nameservers": [f"{LOCALHOST}:{self.ports.dns}"], "timeout": "3s"},
            "delivery": {"retry_first": "1s", "retry_longest": "10s"},
            "cups": {"server": f"{LOCALHOST}:{self.ports.cups}", "poll": "0.25s"},
            "listeners": [
                {"name": "relay", "port": self.ports.smtp, "kind": "relay", **tls},
                {"name": "submission", "port": self.ports.submission, "kind": "submission", **tls},
            ],
            "institutions": [{
                "name": "demo",
                "domains": [DOMAIN],
                "bounce_domain": BOUNCE_DOMAIN,
                "envelope_from": "verp",
                "dkim": [{"domain": DOMAIN, "selector": SELECTOR, "key_file": str(self.dkim_key)}],
            }],
            "sources": [{
                "name": "alma",
                "institutions": ["demo"],
                "networks": [f"{LOCALHOST}/32", "::1/128"],
                "username": USER,
                "password_hash": hasher.hash(self.password),
            }],
            "next_hops": [{"name": "default", "host": LOCALHOST, "port": self.ports.next_hop, "tls": "opportunistic",
                           "timeout": "10s", "sends_from": [LOCALHOST]}],
            "printers": [{"name": name, "institution": "demo", "mailboxes": [self.mailbox(name)], "queue": name,
                          "profile": profile} for name, profile in PROFILES.items()],
        }  # fmt: skip


def _make_dkim_key(path: Path) -> str:
    """Write an RSA-2048 key; gives the DNS record that belongs to it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}"


def _make_certificate(certificate: Path, key_path: Path) -> None:
    """Write a self-signed certificate for the bench's names; it is its own authority (`ca_file`)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOSTNAME)])
    names = [x509.DNSName(text) for text in (HOSTNAME, "localhost", "next-hop.example")]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([*names, x509.IPAddress(ipaddress.ip_address(LOCALHOST))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    _write_private(key_path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
