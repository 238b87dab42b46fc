"""`reprint`: slips that were printed, once more on paper. The order goes the way of those of `queue`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import click

from relay import maillog
from relay.cli import shapes
from relay.cli.options import config_option, json_option, load_or_exit
from relay.cli.queue_orders import named
from relay.config.settings import Config
from relay.control.client import Give, on_behalf_of, orders_for
from relay.control.protocol import MAX_WHY, Reprint
from relay.routing.rules import PRINT
from relay.spool.engine import Place
from relay.spool.orders import STEP, Result
from relay.spool.queries import slips_of
from relay.spool.records import Key


@click.command()
@config_option
@click.argument("slips", nargs=-1, required=True, metavar="QUEUE-ID[/NUMBER]...")
@click.option("--printer", default="", help="On this printer of the same institution, instead of its own.")
@click.option("--mark/--no-mark", default=None, help="Say REPRINT, date and time on paper.  [default: as configured]")
@click.option("--reason", default="", help="Why; it is kept with the reprint and shown.")
@json_option
def reprint(
    config_path: Path, slips: tuple[str, ...], printer: str, mark: bool | None, reason: str, as_json: bool
) -> None:
    """Print slips once more that were printed, or are duplicates: all of a message, or one of its deliveries.

    Each becomes a further delivery of its message. It is printed from the PDF that was printed, while that is kept
    (spool.keep_pdfs), else rendered again; `queue show` says which.
    """
    if len(reason) > MAX_WHY:
        raise click.UsageError(f"a reason has at most {MAX_WHY} characters")
    config = load_or_exit(config_path)
    if printer and printer not in (known := [each.name for each in config.printers]):
        raise click.ClickException(f"there is no printer {printer!r}; there are: {', '.join(known) or 'none'}")
    keys = iter(list(dict.fromkeys(key for name in slips for key in _meant(config, name))))
    os.umask(0o077)  # the spool holds patrons' mail
    maillog.set_up()  # without a service what is done here is logged here
    with orders_for(config) as give:
        like = Reprint((), reason, printer, mark, on_behalf_of=on_behalf_of())
        _report(_in_steps(give, keys, like), as_json)


def _meant(config: Config, name: str) -> list[Key]:
    """The delivery of that name, or all slips of a message. Raises click's errors when there is none."""
    keys = list(named(config, name))
    if "/" in name:
        return keys
    found = slips_of(Place.of(config.spool), keys[0][0], PRINT)
    if not found:
        raise click.ClickException(f"the message {name} has no slip")
    return found


def _in_steps(give: Give, keys: Iterator[Key], like: Reprint) -> Result:
    result = Result()
    step = tuple(islice(keys, STEP))
    while step:
        following = tuple(islice(keys, STEP))
        answer = give(replace(like, keys=step, more=bool(following)))
        result.done += answer.done
        result.refused += answer.refused
        step = following
    return result


def _report(result: Result, as_json: bool) -> None:
    if as_json:
        shapes.print_json(shapes.result(result))
    else:
        for done in result.done:
            queue_id, number = done.key
            click.echo(f"{queue_id}/{number} is printed once more as {queue_id}/{done.made}, by {done.route}")
        for refused in result.refused:
            click.echo(f"{refused.key[0]}/{refused.key[1]} is not printed once more: {refused.why}", err=True)
    if result.refused or not result.done:
        raise SystemExit(1)
