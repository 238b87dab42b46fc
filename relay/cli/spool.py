"""`spool`: the place where accepted mail lives, as a whole: copied to another place, and checked."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from relay.cli.options import config_option, load_or_exit
from relay.config.load import spool_at
from relay.spool.copy import Report, copy
from relay.spool.digests import check_bodies
from relay.spool.engine import Place


@click.group()
def spool() -> None:
    """Move the spool to another database, and check it."""


@spool.command("copy")
@config_option
@click.argument("target_url")
@click.option(
    "--password-file", type=click.Path(path_type=Path), help="File with the password of the target's PostgreSQL user."
)
def copy_(config_path: Path, target_url: str, password_file: Path | None) -> None:
    """Copy the spool of the configuration, with all that is in it, into an empty one.

    TARGET_URL is written as spool.url: postgresql+psycopg://USER@HOST/DATABASE, or sqlite:////PATH. The service must be
    stopped. Each table is read back and compared with the old one by digest. All or nothing: a copy that fails or is
    cut off leaves the target empty. The old spool stays as it is.
    """
    config = load_or_exit(config_path)
    target = Place.of(spool_at(target_url, password_file))
    os.umask(0o077)  # a spool holds patrons' mail
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as shown:
        task = shown.add_task("copying")
        report = copy(Place.of(config.spool), target, lambda done, of: shown.update(task, completed=done, total=of))
    _print_report(report)
    with_password = f' and spool.password to {{ file = "{password_file}" }}' if password_file else ""
    click.echo(
        f"Everything is in {target} now. Set spool.url in {config_path} to {target_url}{with_password}, and start the "
        "service. Don't start one on the old spool any more: what is open there would be delivered a second time."
    )


@spool.command()
@config_option
def check(config_path: Path) -> None:
    """Read every body and compare it with what was accepted, beside the running service. Exit code 1 when one is
    corrupt. Changes nothing.
    """
    place = Place.of(load_or_exit(config_path).spool)
    count, corrupt = check_bodies(place)
    for queue_id in corrupt:
        click.echo(f"{queue_id}: the stored bytes are not those that were accepted")
    if corrupt:
        raise click.ClickException(f"{len(corrupt)} of {count} bodies in {place} are corrupt")
    click.echo(f"{place}: every body is as it was accepted ({count} of them)")


def _print_report(report: Report) -> None:
    width = max(len(copied.table) for copied in report.tables)
    for copied in report.tables:
        click.echo(f"{copied.table.ljust(width)}  {copied.rows:>10} rows, the same in both: {copied.digest}")
    for queue_id in report.corrupt:
        click.echo(f"{queue_id}: its bytes were not those that were accepted before, and are not now", err=True)
