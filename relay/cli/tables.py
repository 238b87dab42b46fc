"""Tables and times for people: with rich on a terminal; elsewhere plain columns, each row on its one line, uncut."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.mail.status import printable

LONGEST = 4000
"""Characters of a cell. Nothing that the spool keeps is longer, but for what clients make up."""


FOLDED = 30
"""Characters that a column which may be folded gets at least, if it needs them."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its head, whether it is flush right, whether it may be folded on a narrow terminal, and what colours
    some words have there.
    """

    head: str
    right: bool = False
    folds: bool = False
    colours: Mapping[str, str] = field(default_factory=dict)


def show_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; nothing but its head when it has no rows."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _show_on_terminal(columns, cells)
        return
    heads = [column.head for column in columns]
    widths = [max(len(row[i]) for row in [heads, *cells]) for i in range(len(columns))]
    for row in [heads, *cells]:
        padded = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        click.echo("  ".join(padded).rstrip())


def clean(text: str) -> str:
    """Text on one line, without what would command a terminal."""
    return printable(text, LONGEST)


def clock(seconds: float | None) -> str:
    """A time by the clock on the wall; "never" where there is none."""
    if seconds is None:
        return "never"
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def age(seconds: float) -> str:
    """A length of time, roughly: 12 s, 5 min, 3 h, 4 d."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _show_on_terminal(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    needed = 0
    for number, column in enumerate(columns):
        width = max(len(text) for text in (column.head, *(row[number] for row in rows)))
        width = min(width, FOLDED) if column.folds else width
        needed += width + 2
        table.add_column(
            column.head,
            justify="right" if column.right else "left",
            no_wrap=not column.folds,
            overflow="fold",
            min_width=width,
        )
    for row in rows:
        table.add_row(*(Text(cell, column.colours.get(cell, "")) for column, cell in zip(columns, row, strict=True)))
    # What a narrow terminal has no room for goes on in its next line: nothing is left out.
    Console(width=max(Console().width, needed)).print(table)
