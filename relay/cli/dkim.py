"""`dkim`: keys for signing."""

from __future__ import annotations

from pathlib import Path

import click

from relay.cli.dkim_rotate import rotate
from relay.dns.dkim_record import key_record
from relay.errors import AddressError
from relay.mail.address import ascii_domain, parse_domain
from relay.outgoing.private_key import Kind, new_private_key, pem, write_new


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
def keygen(domain: str, selector: str, kind: Kind, out: Path) -> None:
    """Write a new key (mode 0600) and print the DNS record to publish."""
    try:
        names = ascii_domain(parse_domain(domain)), ascii_domain(parse_domain(selector))
    except AddressError as error:
        raise click.UsageError(str(error)) from None
    key = new_private_key(kind)
    write_new(out, pem(key))
    click.echo(f"The key is in {out}. Publish this record, then name the key in [[institutions.dkim]]:\n", err=True)
    click.echo(key_record(*names, key.public_key()).zone_line)


dkim.add_command(rotate)
