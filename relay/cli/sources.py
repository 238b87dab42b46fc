"""`slip-relay sources`: who may send, and from which addresses now.

What is printed for programs (`--json`) is described in `relay.control.sources`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from relay.cli import shapes
from relay.cli.options import config_option, json_option, load_or_exit
from relay.cli.tables import Column, age, show_table
from relay.control.client import sources_of

_COLUMNS = (
    Column("source"),
    Column("known by"),
    Column("addresses", folds=True),
    Column("age", right=True),
    Column("asked again", right=True),
)


@click.command
@config_option
@json_option
def sources(config_path: Path, as_json: bool) -> None:
    """Who may send: each source, how it is known, and its addresses in force, by what the running service knows.

    As root or the account of the service. Exit code 1 when an SPF name has no addresses, or its last look-up failed.
    """
    found = sources_of(load_or_exit(config_path))
    troubles = list(_troubles(found))
    if as_json:
        shapes.print_json(found)
    else:
        now = time.time()
        show_table(_COLUMNS, [row for source in found for row in _rows(source, now)])
        for trouble in troubles:
            click.echo(trouble)
        for source in found:
            for spf in source["spf"]:
                for text in spf["unusable"]:
                    click.echo(f"{source['name']}: not used: {text}")
    if troubles:
        raise SystemExit(1)


def _rows(source: dict[str, Any], now: float) -> Iterator[tuple[str, ...]]:
    """A row for each way in which a source is known."""
    name = source["name"] + (" (sandbox)" if source["sandbox"] else "")
    if source["networks"]:
        yield name, "networks", " ".join(source["networks"]), "", ""
    for spf in source["spf"]:
        old = age(now - spf["looked_up_at"]) if spf["looked_up_at"] is not None else "never"
        yield name, f"SPF of {spf['name']}", " ".join(spf["networks"]), old, f"in {age(max(spf['due_at'] - now, 0))}"
    for certificate in source["certificates"]:
        yield name, "certificate", certificate, "", ""
    if source["username"] is not None:
        yield name, "user name", source["username"], "", ""


def _troubles(found: list[dict[str, Any]]) -> Iterator[str]:
    for source in found:
        for spf in source["spf"]:
            if spf["fault"]:
                kept = "the last good answer stays in force" if spf["looked_up_at"] is not None else "nobody is let in"
                yield f"{source['name']}: {spf['name']}: {spf['fault']}; {kept}"
            elif not spf["networks"]:
                yield f"{source['name']}: {spf['name']}: its SPF record names no address that can be used"
