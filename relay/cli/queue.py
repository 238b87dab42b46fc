"""`queue`: what is in the spool. Reads it without disturbing the service."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from relay.cli.options import config_option, load_or_exit
from relay.spool.engine import Place
from relay.spool.queries import DeliveryLine, MessageHistory, list_deliveries, message_history
from relay.spool.records import State

_COLUMNS = ("queue id", "received", "state", "route", "recipient", "tries", "reason")


@click.group()
def queue() -> None:
    """Look at the deliveries in the spool."""


@queue.command("list")
@config_option
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only deliveries in this state.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array for programs, with every field.")
def list_(config_path: Path, state: str | None, limit: int, as_json: bool) -> None:
    """List deliveries in order of arrival."""
    config = load_or_exit(config_path)
    lines = list_deliveries(Place.of(config.spool), state=state, limit=limit)
    if as_json:
        click.echo(json.dumps([asdict(line) for line in lines], ensure_ascii=False, indent=1))
    else:
        _print_table([_row(line) for line in lines])


@queue.command()
@config_option
@click.argument("queue_id")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for programs, with every field.")
def show(config_path: Path, queue_id: str, as_json: bool) -> None:
    """Show one message: where it came from, and the history of each of its deliveries."""
    config = load_or_exit(config_path)
    message = message_history(Place.of(config.spool), queue_id.upper())
    if message is None:
        raise click.ClickException(f"there is no message {queue_id} in the spool")
    if as_json:
        click.echo(json.dumps(asdict(message), ensure_ascii=False, indent=1))
    else:
        _print_message(message)


def _print_message(message: MessageHistory) -> None:
    click.echo(f"{message.queue_id}  {message.size} bytes  Message-ID {message.message_id or 'none'}")
    click.echo(
        f"received {_time(message.received_at)} from {message.client} ({message.helo}) with {message.protocol}, "
        f"source {message.source}, institution {message.institution}"
    )
    click.echo(f"reverse-path <{message.reverse_path or ''}>")
    for delivery in message.deliveries:
        line = delivery.line
        evidence = f" ({line.evidence})" if line.evidence else ""
        click.echo(f"\nto <{line.recipient}> by {line.route}: {line.state}{evidence}  {line.reason}".rstrip())
        if delivery.job_name is not None:
            click.echo(
                f"  print job {delivery.job_id if delivery.job_id is not None else 'unknown'} {delivery.job_name}"
            )
        for attempt in delivery.attempts:
            ended = f"{attempt.ended_at - attempt.started_at:.1f} s" if attempt.ended_at else "not ended"
            said = attempt.reply or attempt.reason
            click.echo(f"  {attempt.number}. {_time(attempt.started_at)}  {ended}  {attempt.outcome}  {said}".rstrip())
        if line.state == "deferred":
            click.echo(f"  next attempt {_time(line.next_attempt_at)}")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _row(line: DeliveryLine) -> tuple[str, ...]:
    reason = line.reason if line.state != "delivered" or line.evidence == "" else f"{line.reason} ({line.evidence})"
    return (line.queue_id, _time(line.received_at), line.state, line.route, line.recipient, str(line.attempts), reason)


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in [_COLUMNS, *rows]) for i in range(len(_COLUMNS))]
    for row in [_COLUMNS, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
