"""What an operator may say of a delivery, and what the spool makes of it: hold, release, retry, cancel, printed.

Does: judges each delivery by what it is at that moment, changes it along `records.TRANSITIONS`, and keeps who said what
and when in the table `orders`: nothing is discarded without somebody's word. All of a call is one transaction.
Promises: a delivery that only waits its turn with a node can be changed too: the order takes it away from the node,
whose fence then does not match. Whatever may have been handed to CUPS, or is being tried, is left alone, so that only
what is certain is recorded. What is released or retried gets its time anew, and is due before what waits, though its
printer may be closed. What ends a bundle ends its slips.
Refuses, with a sentence for each delivery: what is being tried, what is with CUPS, what is settled for good; and a slip
of a bundle, which is decided about as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, update

from relay.errors import OrderError
from relay.mail.status import printable
from relay.spool import members
from relay.spool.queries import among
from relay.spool.records import AT_ONCE, FINAL, TRANSITIONS, Delivery, Key, State
from relay.spool.rows import delivery_of, joined
from relay.spool.schema import deliveries, orders, print_jobs

STEP = 200
"""Deliveries that one transaction changes at the most: who waits for the spool meanwhile waits some 30 ms."""

SEEN_BY_PERSON = "operator-confirmed"
"""The evidence of a slip that a person found on paper."""


class Verb(StrEnum):
    """What can be ordered."""

    HOLD = "hold"
    "Keep it; nothing is tried until it is released."
    RELEASE = "release"
    "Let go what is held; print again what is uncertain."
    RETRY = "retry"
    "Try now what was put off."
    CANCEL = "cancel"
    "Nothing is to become of it."
    PRINTED = "printed"
    "The uncertain slip is on paper."


FROM: dict[Verb, frozenset[State]] = {
    Verb.HOLD: frozenset({State.QUEUED, State.DEFERRED, State.ACTIVE}),
    Verb.RELEASE: frozenset({State.HELD, State.UNCERTAIN}),
    Verb.RETRY: frozenset({State.QUEUED, State.DEFERRED}),
    Verb.CANCEL: frozenset({State.QUEUED, State.DEFERRED, State.ACTIVE, State.HELD, State.UNCERTAIN, State.CORRUPT}),
    Verb.PRINTED: frozenset({State.UNCERTAIN}),
}
"""The states in which an order is heard. ACTIVE only when nobody is at it: its attempt was cut off."""

TO: dict[Verb, State] = {
    Verb.HOLD: State.HELD,
    Verb.RELEASE: State.QUEUED,
    Verb.CANCEL: State.CANCELLED,
    Verb.PRINTED: State.DELIVERED,
}
"""The state that follows; RETRY leaves it as it is."""

_DONE = {
    Verb.HOLD: "held",
    Verb.RELEASE: "released",
    Verb.RETRY: "tried again",
    Verb.CANCEL: "cancelled",
    Verb.PRINTED: "said to be printed",
}


@dataclass(frozen=True, slots=True)
class Order:
    """What is ordered, by whom and when."""

    verb: Verb
    who: str
    "Name of the person's account."
    at: float
    why: str = ""
    "The person's reason, where one was given."
    only: frozenset[State] | None = None
    "Only what is still in one of these states: what the person saw."


@dataclass(frozen=True, slots=True)
class Way:
    """Where a delivery goes that is let go, and until when (None for ever)."""

    route: str
    destination: str
    warn_at: float | None = None
    expires_at: float | None = None


Ways = Callable[[Delivery, Verb], Way]
"""Says where a delivery goes. Raises OrderError when it can't go anywhere."""


@dataclass(frozen=True, slots=True)
class Done:
    """A delivery that was changed."""

    key: Key
    was: State
    now: State
    route: str
    made: int | None = None
    "The number of the delivery that was made for it: a reprint."


@dataclass(frozen=True, slots=True)
class Refused:
    """A delivery that was left as it is, and why."""

    key: Key
    why: str


@dataclass(slots=True)
class Result:
    """What came of an order."""

    done: list[Done] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


def carry_out(connection: Connection, order: Order, keys: Collection[Key], ways: Ways) -> Result:
    """Carries out an order on some deliveries, up to `STEP` of them; each is changed, or refused with a reason."""
    result = Result()
    found = _locked(connection, keys)
    changes: list[dict[str, Any]] = []
    bundles: list[Key] = []
    for key in dict.fromkeys(keys):
        row = found.get(key)
        if row is None:
            result.refused.append(Refused(key, "there is no such delivery"))
            continue
        delivery = delivery_of(row)
        try:
            _judge(order, delivery, is_held=row.lease_owner is not None)
            changes.append(_change(order, delivery, ways))
        except OrderError as error:
            result.refused.append(Refused(key, str(error)))
            continue
        now = State(changes[-1]["state"])
        result.done.append(Done(key, delivery.state, now, changes[-1].get("route", delivery.route)))
        if delivery.is_bundle and now in FINAL:
            bundles.append(key)
    if changes:
        _write(connection, order, result.done, changes, bundles)
    return result


def _locked(connection: Connection, keys: Collection[Key]) -> dict[Key, Row[Any]]:
    """The deliveries of some keys, which nobody else changes before the transaction ends."""
    query = joined().where(among(deliveries, keys)).order_by(deliveries.c.queue_id, deliveries.c.number)
    return {(row.queue_id, row.number): row for row in connection.execute(query.with_for_update(of=deliveries))}


def _judge(order: Order, delivery: Delivery, *, is_held: bool) -> None:
    """Raises OrderError with the reason why an order is not heard. `is_held`: a node has the delivery."""
    state, verb, job = delivery.state, order.verb, delivery.job
    if state in FINAL:
        raise OrderError(f"it is {state} already")
    if delivery.bundle:
        raise OrderError(f"it is printed in one document with others, the bundle {delivery.bundle}: name that one")
    if state is State.ACTIVE and is_held:
        raise OrderError("an attempt is running; try again in a moment")
    if state is State.HELD and verb is Verb.HOLD:
        raise OrderError("it is held already")
    if state is State.HELD and verb is Verb.RETRY:
        raise OrderError("it is held: release it")
    if order.only is not None and state not in order.only:
        raise OrderError(f"it is {state} now")
    # The document goes to CUPS only after the id of the job was recorded: without an id nothing can be on paper.
    may_be_printed = job is not None and job.job_id is not None
    if state is State.PENDING or (
        may_be_printed and verb in (Verb.HOLD, Verb.CANCEL) and state in (State.ACTIVE, State.DEFERRED, State.QUEUED)
    ):
        where = f" (job {job.job_id} of the queue {job.queue})" if job is not None else ""
        raise OrderError(f"it is with CUPS{where}: cancel it there, then it is held or uncertain, and can be cancelled")
    if state not in FROM[verb]:
        can = ", ".join(sorted(known.value for known in FROM[verb] if known is not State.ACTIVE))
        raise OrderError(f"it is {state}, and only what is {can} can be {_DONE[verb]}")


def _change(order: Order, delivery: Delivery, ways: Ways) -> dict[str, Any]:
    """The new values of a delivery."""
    state = TO.get(order.verb, delivery.state)
    assert state is delivery.state or state in TRANSITIONS[delivery.state], f"{state} does not follow {delivery.state}"
    values: dict[str, Any] = {"state": state.value}
    if order.verb in (Verb.RELEASE, Verb.RETRY):
        way = ways(delivery, order.verb)
        values |= {
            "route": way.route,
            "destination": way.destination,
            "warn_at": way.warn_at,
            "expires_at": way.expires_at,
            "deadline": way.warn_at or way.expires_at,
        }
    return values | {"of": delivery.message.queue_id, "which": delivery.number}


def _write(
    connection: Connection,
    order: Order,
    done: Sequence[Done],
    changes: Sequence[dict[str, Any]],
    bundles: Sequence[Key],
) -> None:
    said = f"{_DONE[order.verb]} by {order.who}{f': {order.why}' if order.why else ''}"
    fixed: dict[str, Any] = {"lease_owner": None, "next_attempt_at": order.at}
    if order.verb in (Verb.RELEASE, Verb.RETRY):
        fixed |= {"due_at": AT_ONCE, "settled_at": None}
    else:
        fixed |= {"due_at": None, "deadline": None, "settled_at": order.at}
    if order.verb is Verb.PRINTED:
        fixed |= {"evidence": SEEN_BY_PERSON}
    if order.verb is not Verb.RETRY:
        fixed |= {"reason": printable(said, 2000)}
    own: dict[str, Any] = {name: bindparam(name) for name in changes[0] if name not in ("of", "which")}
    connection.execute(
        update(deliveries)
        .where(deliveries.c.queue_id == bindparam("of"), deliveries.c.number == bindparam("which"))
        .values({**fixed, **own}),
        changes,
    )
    if order.verb in (Verb.RELEASE, Verb.HOLD):
        # Nothing of a job that is forgotten can come onto paper any more, or a person takes that upon himself.
        connection.execute(delete(print_jobs).where(among(print_jobs, [change.key for change in done])))
    kept = {
        "at": order.at,
        "verb": order.verb.value,
        "who": printable(order.who, 100),
        "why": printable(order.why, 500),
    }
    connection.execute(
        insert(orders),
        [{"queue_id": change.key[0], "number": change.key[1], "was": change.was.value, **kept} for change in done],
    )
    for key in bundles:
        members.ordered(connection, key, TO[order.verb], said, fixed.get("evidence", ""), kept, order.at)
