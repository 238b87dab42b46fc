"""`dkim`: keys for signing."""

from __future__ import annotations

import os
from pathlib import Path

import click
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from relay.dns.dkim_record import key_record
from relay.errors import AddressError
from relay.mail.address import ascii_domain, parse_domain
from relay.outgoing.keys import PrivateKey

BITS = 2048


@click.group()
def dkim() -> None:
    """Keys that sign the institution's mail."""


@dkim.command()
@click.option("--domain", required=True, help="The From domain, d= of the signature.")
@click.option("--selector", required=True, help="A name of your choice, s= of the signature, as in alma2026.")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["rsa", "ed25519"]),
    default="rsa",
    show_default=True,
    help="Ed25519 (RFC 8463) only beside RSA: not every receiver reads it.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File for the key.")
def keygen(domain: str, selector: str, kind: str, out: Path) -> None:
    """Write a new key (mode 0600) and print the DNS record to publish."""
    try:
        names = ascii_domain(parse_domain(domain)), ascii_domain(parse_domain(selector))
    except AddressError as error:
        raise click.UsageError(str(error)) from None
    key: PrivateKey = (
        ed25519.Ed25519PrivateKey.generate()
        if kind == "ed25519"
        else rsa.generate_private_key(public_exponent=65537, key_size=BITS)
    )
    _write_new(out, pem(key))
    click.echo(f"The key is in {out}. Publish this record, then name the key in [[institutions.dkim]]:\n", err=True)
    click.echo(key_record(*names, key.public_key()).zone_line)


def pem(key: PrivateKey) -> bytes:
    """The private key as PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_new(path: Path, content: bytes) -> None:
    """Writes a file that did not exist, readable by its owner only."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    except FileExistsError:
        raise click.ClickException(f"{path} exists already; a key in use is not overwritten") from None
    except OSError as error:
        raise click.ClickException(f"{path} can't be written: {error.strerror}") from None
