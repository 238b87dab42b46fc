"""`pictures`: the copies of pictures on other servers, shown and fetched."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

import click

from relay.cli.options import config_option, load_or_exit
from relay.config.pictures import Pictures, canonical
from relay.pictures.fetch import Fetcher
from relay.pictures.shelf import Note, Shelf


@click.group()
def pictures() -> None:
    """Show and fetch the copies of pictures on other servers that slips are printed with."""


@pictures.command("list")
@config_option
def list_(config_path: Path) -> None:
    """Each URL that was asked for, its copy, and what is wrong with it."""
    settings, shelf = _shelf(config_path)
    notes = list(shelf.notes())
    for note in notes:
        click.echo(_line(note) + ("" if settings.allows(note.url) else "  (no longer allowed, and not used)"))
    if not notes:
        click.echo(f"no copies in {shelf.folder} yet")


@pictures.command()
@config_option
@click.argument("urls", nargs=-1)
def fetch(config_path: Path, urls: tuple[str, ...]) -> None:
    """Fetch URLS now, or else everything that is on the shelf. Exit code 1 when one could not be had.

    Run it as the account of the service, before the first slip needs a logo, or after the logo was changed.
    """
    settings, shelf = _shelf(config_path)
    wanted = [(url, canonical(url)) for url in urls] or [(note.url, note.url) for note in shelf.notes()]
    for given, url in wanted:
        if url is None or (not settings.allows(url) and urls):
            raise click.ClickException(f"{given} is not allowed by pictures.allow")
    fetcher = Fetcher(settings, shelf)
    failed = 0
    for _, url in wanted:
        if url is not None and settings.allows(url):
            note = asyncio.run(fetcher.fetch(url))
            failed += note.failures > 0
            click.echo(_line(note))
    if failed:
        raise click.ClickException(f"{failed} of {len(wanted)} could not be fetched; old copies stay in use")


def _shelf(config_path: Path) -> tuple[Pictures, Shelf]:
    settings = load_or_exit(config_path).copies()
    if settings.folder is None:
        raise click.ClickException("pictures.allow is empty: nothing is fetched from other servers")
    return settings, Shelf(settings.folder)


def _line(note: Note) -> str:
    copy = f"{note.size} bytes of {datetime.fromtimestamp(note.fetched):%Y-%m-%d %H:%M}" if note.size else "no copy"
    return f"{note.url}  {copy}" + (f"  ({note.trouble})" if note.trouble else "")
