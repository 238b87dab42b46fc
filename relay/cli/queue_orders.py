"""`queue hold`, `release`, `retry`, `cancel`, `printed`: what a person decides about deliveries.

Orders go to the running service, which has the spool; without one they are carried out here. They are given in steps,
so that neither side is blocked by a million of them, and each is judged by what the delivery is at that moment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click

from relay import maillog
from relay.cli import shapes
from relay.cli.options import config_option, json_option, load_or_exit
from relay.config.settings import Config
from relay.control.client import Give, on_behalf_of, orders_for
from relay.control.protocol import MAX_WHY, Request
from relay.spool.engine import Place
from relay.spool.orders import STEP, Result, Verb
from relay.spool.queries import Filter, keys_of, list_keys
from relay.spool.records import Key, State

_WAITS = (State.QUEUED, State.DEFERRED)

_MANY: dict[Verb, tuple[State, ...]] = {
    Verb.HOLD: _WAITS,
    Verb.RELEASE: (State.HELD,),
    Verb.RETRY: (State.DEFERRED,),
    Verb.CANCEL: (*_WAITS, State.HELD),
}
"""What is meant by a route, or by all. Of what may be on paper, or is corrupt, each is decided by its name."""

_PAST = {
    Verb.HOLD: "held",
    Verb.RELEASE: "released",
    Verb.RETRY: "to be tried now",
    Verb.CANCEL: "cancelled",
    Verb.PRINTED: "recorded as printed",
}

_id_argument = click.argument("delivery", required=False, metavar="[QUEUE-ID[/NUMBER]]")
_route_option = click.option("--route", default="", help="All of this route, as in campus or print:main-desk.")
_all_option = click.option("--all", "everything", is_flag=True, help="All of them.")
_reason_option = click.option("--reason", default="", help="Why; it is kept with the delivery and shown.")


@click.command()
@config_option
@_id_argument
@_route_option
@_all_option
@_reason_option
@json_option
def hold(config_path: Path, delivery: str | None, route: str, everything: bool, reason: str, as_json: bool) -> None:
    """Keep what waits, until it is released: one delivery, all of a message, all of a route, or --all."""
    _order(config_path, Verb.HOLD, delivery, route, everything, as_json, reason)


@click.command()
@config_option
@_id_argument
@_route_option
@_all_option
@json_option
def release(config_path: Path, delivery: str | None, route: str, everything: bool, as_json: bool) -> None:
    """Let go what is held: it is sent or printed now, also where a rule held it.

    An uncertain slip is printed again; it may then be on paper twice. With --route and --all these are left out.
    """
    _order(config_path, Verb.RELEASE, delivery, route, everything, as_json)


@click.command()
@config_option
@_id_argument
@_route_option
@_all_option
@json_option
def retry(config_path: Path, delivery: str | None, route: str, everything: bool, as_json: bool) -> None:
    """Try now what was put off, though its destination was given a rest."""
    _order(config_path, Verb.RETRY, delivery, route, everything, as_json)


@click.command()
@config_option
@_id_argument
@_route_option
@click.option("--yes", is_flag=True, help="Yes, all of the route.")
@_reason_option
@json_option
def cancel(config_path: Path, delivery: str | None, route: str, yes: bool, reason: str, as_json: bool) -> None:
    """Give up a delivery, or all that waits or is held of a route. Nobody is told; the bytes can be exported."""
    if route and not yes:
        raise click.UsageError(f"this gives up all that waits or is held of the route {route}: add --yes")
    _order(config_path, Verb.CANCEL, delivery, route, False, as_json, reason)


@click.command()
@config_option
@click.argument("delivery", metavar="QUEUE-ID[/NUMBER]")
@json_option
def printed(config_path: Path, delivery: str, as_json: bool) -> None:
    """Say that an uncertain slip is on paper: it is delivered."""
    _order(config_path, Verb.PRINTED, delivery, "", False, as_json)


ORDERS = (hold, release, retry, cancel, printed)


def _order(
    config_path: Path, verb: Verb, name: str | None, route: str, everything: bool, as_json: bool, why: str = ""
) -> None:
    if [name is not None, bool(route), everything].count(True) != 1:
        others = " or --all" if verb in (Verb.HOLD, Verb.RELEASE, Verb.RETRY) else ""
        raise click.UsageError(f"say what is meant: one QUEUE-ID or QUEUE-ID/NUMBER, or --route{others}")
    if len(why) > MAX_WHY:
        raise click.UsageError(f"a reason has at most {MAX_WHY} characters")
    config = load_or_exit(config_path)
    os.umask(0o077)  # the spool holds patrons' mail
    maillog.set_up()  # without a service what is done here is logged here
    keys = named(config, name) if name is not None else _many(config, verb, route)
    only = frozenset(_MANY[verb]) if name is None else None
    with orders_for(config) as give:
        result = _in_steps(give, keys, Request(verb, (), why, only, on_behalf_of=on_behalf_of()))
    _report(verb, result, as_json, is_named=name is not None)


def named(config: Config, name: str) -> Iterator[Key]:
    """The deliveries of a message, or the one that is named. Raises click's errors when there is none."""
    queue_id, slash, number = name.upper().partition("/")
    if slash and not (number.isascii() and number.isdigit()):
        raise click.UsageError(f"{name} is not QUEUE-ID/NUMBER, as in 06GXWTSGYD8QM/0")
    keys = keys_of(Place.of(config.spool), queue_id, bundles=bool(slash))
    if slash:
        keys = [key for key in keys if key[1] == int(number)]
    if not keys:
        raise click.ClickException(f"there is no {'delivery' if slash else 'message'} {name} in the spool")
    return iter(keys)


def _many(config: Config, verb: Verb, route: str) -> Iterator[Key]:
    """What is meant by a route or all, looked up as we go."""
    place = Place.of(config.spool)
    for state in _MANY[verb]:
        after: Key | None = None
        while keys := list_keys(place, Filter(states=(state,), route=route), after=after, limit=STEP):
            yield from keys
            after = keys[-1]


def _in_steps(give: Give, keys: Iterator[Key], like: Request) -> Result:
    result = Result()
    step = tuple(islice(keys, STEP))
    while step:
        following = tuple(islice(keys, STEP))
        answer = give(Request(like.verb, step, like.why, like.only, bool(following), like.on_behalf_of))
        result.done += answer.done
        result.refused += answer.refused
        step = following
    return result


def _report(verb: Verb, result: Result, as_json: bool, *, is_named: bool) -> None:
    if as_json:
        shapes.print_json(shapes.result(result))
    elif is_named:
        for done in result.done:
            click.echo(f"{done.key[0]}/{done.key[1]} was {done.was} and is {_PAST[verb]}, by {done.route}")
        for refused in result.refused:
            click.echo(f"{refused.key[0]}/{refused.key[1]} is left as it is: {refused.why}", err=True)
    else:
        click.echo(f"{len(result.done)} {_PAST[verb]}")
        if result.refused:
            click.echo(f"{len(result.refused)} left as they are, for they changed meanwhile", err=True)
    if not result.done:
        raise SystemExit(1)
