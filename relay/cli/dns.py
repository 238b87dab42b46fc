"""`slip-relay dns`: what the DNS must say, and what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from relay.cli import shapes
from relay.cli.dns_look import Part, look
from relay.cli.options import config_option, json_option, load_or_exit
from relay.cli.tables import Column, clean, show_table
from relay.dns.findings import MEANINGS, Finding, Topic

NOT_ASKED = 3
"""Exit code when nothing is known to be wrong, but something could not be asked."""

_COLUMNS = (
    Column("what"),
    Column("name"),
    Column("must say", folds=True),
    Column("says", folds=True),
    Column("verdict", colours={"ok": "green", "warn": "yellow", "WRONG": "bold red", "could not be asked": "magenta"}),
)
_LABELS: dict[Topic, str] = {
    "dkim": "DKIM",
    "spf": "SPF",
    "from-spf": "SPF of From",
    "helo-spf": "SPF of HELO",
    "dmarc": "DMARC",
    "alignment": "alignment",
    "mx": "MX",
    "ptr": "PTR",
    "mta-sts": "MTA-STS",
    "tls-rpt": "TLS-RPT",
    "relay": "relay",
}
_VERDICTS = {"ok": "ok", "warn": "warn", "wrong": "WRONG", "unknown": "could not be asked"}


@click.command
@config_option
@json_option
@click.option("--explain", is_flag=True, help="Say in plain words why each of them matters.")
def dns(config_path: Path, as_json: bool, explain: bool) -> None:
    """What the DNS must say for mail to arrive, and what it says, with each missing record ready to paste.

    Exit code 0 when all is right (there may be warnings), 1 when something is wrong, 3 when nothing is known to be
    wrong but something could not be asked.
    """
    parts = asyncio.run(look(load_or_exit(config_path)))
    if as_json:
        shapes.print_json([_shape(part) for part in parts])
    else:
        for part in parts:
            _show(part)
        if explain:
            _explain(parts)
    verdicts = {finding.verdict for part in parts for finding in part.findings}
    if "wrong" in verdicts:
        raise SystemExit(1)
    if "unknown" in verdicts:
        raise SystemExit(NOT_ASKED)


def _show(part: Part) -> None:
    click.echo(f"{part.institution or 'the appliance'}:")
    rows = [(_LABELS[f.topic], f.name, f.must, f.says, _VERDICTS[f.verdict]) for f in part.findings]
    show_table(_COLUMNS, rows)
    for finding in part.findings:
        if finding.advice:
            click.echo(f"{_LABELS[finding.topic]} {finding.name}: {clean(finding.advice)}")
    records = [finding.record.zone_line for finding in part.findings if finding.record is not None]
    if records:
        click.echo("\nto publish:")
        for line in dict.fromkeys(records):
            click.echo(line)
    for file in (finding.file for finding in part.findings if finding.file is not None):
        click.echo(f"\nto put at {file.url}:\n{file.text}")
    click.echo()


def _explain(parts: Sequence[Part]) -> None:
    for topic in dict.fromkeys(finding.topic for part in parts for finding in part.findings):
        click.echo(f"{_LABELS[topic]}: {MEANINGS[topic]}")


def _shape(part: Part) -> dict[str, Any]:
    return {"institution": part.institution, "findings": [_finding(each) for each in part.findings]}


def _finding(finding: Finding) -> dict[str, Any]:
    line = finding.record.zone_line if finding.record is not None else None
    record = {**asdict(finding.record), "zone_line": line} if finding.record is not None else None
    return {**asdict(finding), "record": record}
