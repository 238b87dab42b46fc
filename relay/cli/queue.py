"""`queue`: what is in the spool, where a message is, and its bytes. Reads the spool without disturbing the service.

What is printed for programs (`--json`) has one shape everywhere, see `relay.cli.shapes`.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import click

from relay.cli import shapes, stories
from relay.cli.options import as_duration, config_option, json_option, load_or_exit
from relay.cli.queue_orders import ORDERS
from relay.cli.tables import Column, age, clock, show_table
from relay.cli.waiting import Waiting
from relay.config.settings import Config
from relay.spool.engine import Place
from relay.spool.histories import message_history, stored, trace
from relay.spool.queries import DeliveryLine, Filter, list_deliveries, summary
from relay.spool.records import State

_GROUPS = (
    Column("state"),
    Column("route"),
    Column("count", right=True),
    Column("oldest"),
    Column("age", right=True),
)
_HOURS = Column("hours", folds=True)
_DELIVERIES = (
    Column("delivery"),
    Column("received"),
    Column("state"),
    Column("route"),
    Column("recipient"),
    Column("tries", right=True),
    Column("reason", folds=True),
)


@click.group(invoke_without_command=True)
@config_option
@json_option
@click.pass_context
def queue(context: click.Context, config_path: Path, as_json: bool) -> None:
    """Look at the deliveries in the spool, and decide about them.

    Without a command: how many deliveries are not finished, by state and route, and since when.
    """
    if context.invoked_subcommand is not None:
        ours = {"config_path": str(config_path), "as_json": as_json}  # said before the command is said of it
        context.default_map = dict.fromkeys(queue.commands, ours)
        return
    config = load_or_exit(config_path)
    groups, waiting = summary(_place(config)), Waiting(config)
    if as_json:
        shapes.print_json(shapes.groups(groups, waiting))
        return
    now = time.time()
    rows = [
        (
            group.state,
            group.route,
            str(group.count),
            clock(group.oldest),
            age(now - group.oldest),
            waiting.in_words(group.state, group.route, group.oldest),
        )
        for group in groups
    ]
    waits = any(hours for *_, hours in rows)  # most printers never close
    show_table((*_GROUPS, _HOURS) if waits else _GROUPS, rows if waits else [row[:-1] for row in rows])
    total = sum(group.count for group in groups)
    click.echo(f"{total} not finished" if groups else "nothing waits, and nothing needs a person")


@queue.command("list")
@config_option
@click.option(
    "--state",
    "states",
    type=click.Choice([state.value for state in State]),
    multiple=True,
    help="Only deliveries in this state; may be given several times.",
)
@click.option("--route", default="", help="Only this route, as in campus or print:main-desk.")
@click.option("--institution", default="", help="Only mail of this institution.")
@click.option("--recipient", default="", help="Only this recipient; * and ? stand for anything.")
@click.option("--sender", default="", help="Only this envelope sender; * and ? stand for anything, <> for none.")
@click.option("--reason", default="", help="Only where this text stands in the reason.")
@click.option("--older-than", callback=as_duration, help='Only what was received longer ago than this, as in "2h".')
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="So many at the most.")
@click.option("--newest/--oldest", default=True, show_default="newest", help="Which end to take when there are more.")
@json_option
def list_(
    config_path: Path,
    states: tuple[str, ...],
    route: str,
    institution: str,
    recipient: str,
    sender: str,
    reason: str,
    older_than: float | None,
    limit: int,
    newest: bool,
    as_json: bool,
) -> None:
    """List deliveries in order of arrival: those that fit everything that is asked for."""
    only = Filter(
        states=tuple(State(state) for state in states),
        route=route,
        institution=institution,
        recipient=recipient,
        sender=sender,
        reason=reason,
        before=time.time() - older_than if older_than is not None else None,
    )
    config = load_or_exit(config_path)
    lines, waiting = list_deliveries(_place(config), only=only, limit=limit, oldest=not newest), Waiting(config)
    if as_json:
        shapes.print_json([shapes.delivery(line, waiting) for line in lines])
        return
    show_table(_DELIVERIES, [_row(line, waiting) for line in lines])
    if len(lines) == limit:
        click.echo(f"the {'newest' if newest else 'oldest'} {limit}; there may be more (--limit)", err=True)


@queue.command()
@config_option
@click.argument("queue_id")
@json_option
def show(config_path: Path, queue_id: str, as_json: bool) -> None:
    """Show one message: its envelope, and the history of each of its deliveries."""
    config = load_or_exit(config_path)
    message = message_history(_place(config), queue_id.upper().partition("/")[0])
    if message is None:
        raise click.ClickException(f"there is no message {queue_id} in the spool")
    if as_json:
        shapes.print_json(shapes.message(message, Waiting(config)))
    else:
        stories.tell(message, Waiting(config))


@queue.command("trace")
@config_option
@click.argument("name", metavar="ADDRESS|QUEUE-ID|MESSAGE-ID")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="The newest so many messages.")
@json_option
def trace_(config_path: Path, name: str, limit: int, as_json: bool) -> None:
    """Tell what became of mail, the oldest first: of one message, or of all mail to (or from) an address."""
    config = load_or_exit(config_path)
    waiting = Waiting(config)
    found = trace(_place(config), name.partition("/")[0] if "@" not in name else name, limit)
    if as_json:
        shapes.print_json([shapes.message(message, waiting) for message in found])
    else:
        for number, message in enumerate(found):
            if number:
                click.echo()
            stories.tell(message, waiting)
    if len(found) == limit:
        click.echo(f"the newest {limit}; there may be more (--limit)", err=True)
    if not found:
        raise click.ClickException(f"nothing in the spool goes by {name}")


@queue.command()
@config_option
@click.argument("queue_id")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to a new file.")
@click.option("--force", is_flag=True, help="Write bytes that are not those accepted, too.")
def export(config_path: Path, queue_id: str, out: Path | None, force: bool) -> None:
    """Write the bytes of a message as they were accepted (.eml), to standard output or a file."""
    found = stored(_place(load_or_exit(config_path)), queue_id.upper().partition("/")[0])
    if found is None:
        raise click.ClickException(f"there is no message {queue_id} in the spool")
    message, content = found
    if content is None:
        raise click.ClickException(
            f"the bytes of {queue_id} are gone: they are removed some days after it is settled (spool.keep_bodies)"
        )
    if hashlib.sha256(content).hexdigest() != message.sha256:
        if not force:
            raise click.ClickException(
                f"the stored bytes of {queue_id} are not those that were accepted; --force writes them all the same"
            )
        click.echo(f"slip-relay: the bytes of {queue_id} are not those that were accepted", err=True)
    if out is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        _write_new(out, content)


def _place(config: Config) -> Place:
    return Place.of(config.spool)


def _row(line: DeliveryLine, waiting: Waiting) -> tuple[str, ...]:
    reason = f"{line.reason} ({line.evidence})" if line.evidence else line.reason
    reason = "; ".join(filter(None, (reason, waiting.in_words(line.state, line.route, line.received_at))))
    identity = f"{line.queue_id}/{line.number}"
    return (identity, clock(line.received_at), line.state, line.route, line.recipient, str(line.attempts), reason)


def _write_new(path: Path, content: bytes) -> None:
    """Writes a file that did not exist, readable by its owner only: it is patrons' mail."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    except FileExistsError:
        raise click.ClickException(f"{path} exists already") from None
    except OSError as error:
        raise click.ClickException(f"{path} can't be written: {error.strerror}") from None


for _order in ORDERS:
    queue.add_command(_order)
