"""`serve` and `hash-password`."""

from __future__ import annotations

from pathlib import Path

import click
from argon2 import PasswordHasher

from relay import app, maillog
from relay.cli.options import config_option, load_or_exit


@click.command()
@config_option
def serve(config_path: Path) -> None:
    """Run the service until SIGTERM; running attempts are ended first."""
    config = load_or_exit(config_path)
    maillog.set_up()
    app.serve(config)


@click.command()
@click.password_option(help="The password; asked for when it is not given.")
def hash_password(password: str) -> None:
    """Print the hash of a password, for `password_hash` of a source."""
    click.echo(PasswordHasher().hash(password))
