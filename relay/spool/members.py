"""The slips of a bundle: what is written about them along with the bundle itself, as functions of a connection.

A bundle is one document of several slips. Its slips are `pending` and nobody's, and are never claimed; what becomes of
the bundle becomes of them in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import ColumnElement, Connection, Double, String, and_, func, insert, literal, select, text, update

from relay.mail.status import printable
from relay.spool.records import Delivery, Key, NewDelivery, Outcome, State
from relay.spool.schema import attempts, deliveries, orders


def is_in(bundle: Delivery | str) -> ColumnElement[bool]:
    """That a delivery is a slip of a bundle, also of one that is settled."""
    return and_(deliveries.c.bundle == str(bundle), text("bundle <> ''"))  # the words of the index


def _waits_in(bundle: Delivery | str) -> ColumnElement[bool]:
    return is_in(bundle) & (deliveries.c.state == State.PENDING.value)


def settle(connection: Connection, bundle: Delivery, outcome: Outcome, now: float) -> None:
    """The bundle came to an end: its slips come to the same."""
    _end(connection, bundle, outcome.state, outcome.reason, outcome.evidence, now)


def ordered(
    connection: Connection,
    bundle: Key,
    state: State,
    reason: str,
    evidence: str,
    order: Mapping[str, object],
    now: float,
) -> None:
    """A person brought the bundle to its end: it is said of its slips as well. `order` is what is kept of that."""
    name = f"{bundle[0]}/{bundle[1]}"
    query = select(deliveries.c.queue_id, deliveries.c.number).where(_waits_in(name))
    kept = [{"queue_id": queue_id, "number": number, **order} for queue_id, number in connection.execute(query)]
    if kept:
        connection.execute(insert(orders), [each | {"was": State.PENDING.value} for each in kept])
        _end(connection, name, state, reason, evidence, now)


def move(connection: Connection, bundle: Delivery, way: NewDelivery) -> None:
    """Another printer prints the bundle."""
    connection.execute(
        update(deliveries)
        .where(_waits_in(bundle))
        .values(route=way.route, destination=way.destination, moved_from=way.moved_from)
    )


def waiting_in(connection: Connection, bundle: Delivery) -> set[Key]:
    """The slips that a bundle has now."""
    query = select(deliveries.c.queue_id, deliveries.c.number).where(_waits_in(bundle))
    return {(queue_id, number) for queue_id, number in connection.execute(query)}


def _end(connection: Connection, bundle: Delivery | str, state: State, reason: str, evidence: str, now: float) -> None:
    """The slips of a bundle are settled, with their attempts in the history."""
    reason = printable(f"in the bundle {bundle}: {reason}", 2000)
    history = select(
        deliveries.c.queue_id,
        deliveries.c.number,
        deliveries.c.attempts,
        func.coalesce(deliveries.c.begun_at, now),
        literal(now, Double),
        literal(state.value, String),
        literal("", String),
        literal(reason, String),
    ).where(_waits_in(bundle))
    columns = ["queue_id", "number", "attempt", "started_at", "ended_at", "outcome", "reply", "reason"]
    connection.execute(insert(attempts).from_select(columns, history))
    values = {"state": state.value, "reason": reason, "evidence": evidence, "next_attempt_at": now, "settled_at": now}
    connection.execute(update(deliveries).where(_waits_in(bundle)).values(values))
