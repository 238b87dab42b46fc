"""What each verb of the store writes: functions of a connection, which may be run again.

A write of a worker goes through `fence.change`. A delivery that is let go of waits again; one that is held, or closed,
does not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, func, insert, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from relay.errors import LeaseLost
from relay.mail.status import printable
from relay.spool import members
from relay.spool.bodies import put_body
from relay.spool.fence import change
from relay.spool.prepared import Prepared
from relay.spool.records import FINAL, OPEN, Delivery, NewDelivery, NewMessage, Outcome, PrintJob, State
from relay.spool.rows import MESSAGE_COLUMNS
from relay.spool.schema import attempts, deliveries, messages, print_jobs

_PUT_MESSAGE, _PUT_DELIVERY = Prepared(insert(messages)), Prepared(insert(deliveries))

# An attempt that was taken for cut off can end after all: its node, late and not dead, came to hold it again.
_attempt = postgresql_insert(attempts)  # SQLite has the same words
_PUT_ATTEMPT = Prepared(
    _attempt.on_conflict_do_update(index_elements=[*attempts.primary_key], set_=dict(_attempt.excluded.items()))
)


def put_message(connection: Connection, new: NewMessage, node: str | None, retry_at: Sequence[float | None]) -> None:
    """Keeps a message, held by `node` when one is given; a delivery with a time in `retry_at` begins an attempt."""
    now = time.time()
    message = new.message
    _PUT_MESSAGE.run(connection, {name: getattr(message, name) for name in MESSAGE_COLUMNS})
    put_body(connection, message.queue_id, new.body)
    rows = []
    for number, delivery in enumerate(new.deliveries):
        row = _row(message.queue_id, number, delivery)
        begun = node is not None and retry_at[number] is not None
        row |= {
            "state": State.ACTIVE.value if begun else State.QUEUED.value,
            "attempts": int(begun),
            "begun_at": now if begun else None,
            "next_attempt_at": retry_at[number] if begun else now,
            "lease_owner": node,
        }
        rows.append(row | _waits(delivery, now) if node is None else row)
    _PUT_DELIVERY.run(connection, *rows)


def add_delivery(
    connection: Connection, queue_id: str, number: int, delivery: NewDelivery, due_at: float, node: str | None = None
) -> None:
    """One more delivery of a message that is in the spool, for `node`, else for whoever claims it first."""
    row = _row(queue_id, number, delivery)
    row |= {"state": State.QUEUED.value, "attempts": 0, "begun_at": None, "next_attempt_at": due_at}
    _PUT_DELIVERY.run(connection, row | {"lease_owner": node} | (_waits(delivery, due_at) if node is None else {}))


def _row(queue_id: str, number: int, delivery: NewDelivery) -> dict[str, Any]:
    """A row of a new delivery, but for how it stands."""
    return {
        "queue_id": queue_id,
        "number": number,
        "recipient": delivery.recipient,
        "route": delivery.route,
        "destination": delivery.destination,
        "notify": delivery.notify,
        "orcpt": delivery.orcpt,
        "reason": "",
        "evidence": "",
        "warn_at": delivery.warn_at,
        "expires_at": delivery.expires_at,
        "settled_at": None,
        "due_at": None,
        "deadline": None,
        "profile": delivery.profile,
        "copies": delivery.copies,
        "copy_of": delivery.copy_of,
        "moved_from": delivery.moved_from,
        "reprint_of": delivery.reprint_of,
        "marked": delivery.marked,
        "duplicate_of": "",
        "merge": delivery.merge,
        "is_bundle": delivery.is_bundle,
        "bundle": "",
        "place": 0,
    }


def _waits(delivery: NewDelivery, due_at: float) -> dict[str, Any]:
    return {"due_at": due_at, "deadline": delivery.warn_at or delivery.expires_at}


def held_at_once(new: NewMessage, retry_at: Sequence[float | None]) -> list[Delivery]:
    """The deliveries of a message that `put_message` kept for this node."""
    now = time.time()
    held = []
    for number, (delivery, retry) in enumerate(zip(new.deliveries, retry_at, strict=True)):
        begun = retry is not None
        held.append(
            Delivery(
                message=new.message,
                number=number,
                recipient=delivery.recipient,
                route=delivery.route,
                destination=delivery.destination,
                state=State.ACTIVE if begun else State.QUEUED,
                attempts=int(begun),
                next_attempt_at=retry if retry is not None else now,
                notify=delivery.notify,
                orcpt=delivery.orcpt,
                begun_at=now if begun else None,
                warn_at=delivery.warn_at,
                expires_at=delivery.expires_at,
                profile=delivery.profile,
                copies=delivery.copies,
                copy_of=delivery.copy_of,
                moved_from=delivery.moved_from,
                merge=delivery.merge,
            )
        )
    return held


def let_go(due_at: Any) -> dict[str, Any]:
    """The values with which a delivery waits again."""
    return {
        "lease_owner": None,
        "due_at": due_at,
        "deadline": func.coalesce(deliveries.c.warn_at, deliveries.c.expires_at),
    }


def release(connection: Connection, node: str, held: Sequence[Delivery], *, in_order: bool = False) -> None:
    """Lets go of deliveries that this node holds and has begun no attempt of; `in_order` without a rest for what was
    put off, so that they keep their places.
    """
    for delivery in held:
        rests = delivery.state is State.DEFERRED and not in_order
        connection.execute(
            update(deliveries)
            .where(*_is(delivery), deliveries.c.lease_owner == node)
            .values(let_go(deliveries.c.next_attempt_at if rests else 0.0))
        )


def begin(connection: Connection, node: str, delivery: Delivery, retry_at: float) -> Delivery:
    """An attempt begins."""
    number, now = delivery.attempts + 1, time.time()
    change(connection, node, delivery, State.ACTIVE, attempts=number, begun_at=now, next_attempt_at=retry_at, reason="")
    return replace(delivery, state=State.ACTIVE, attempts=number, begun_at=now, next_attempt_at=retry_at, reason="")


def record_job(connection: Connection, node: str, delivery: Delivery, job: PrintJob) -> Delivery:
    """What is known of the print job."""
    change(connection, node, delivery, State.ACTIVE)
    _put_job(connection, delivery, job)
    return replace(delivery, job=job)


def _put_job(connection: Connection, delivery: Delivery, job: PrintJob) -> None:
    values = asdict(job)
    put = upsert(connection)(print_jobs).values(queue_id=delivery.message.queue_id, number=delivery.number, **values)
    connection.execute(put.on_conflict_do_update(index_elements=["queue_id", "number"], set_=values))


def pending(connection: Connection, node: str, delivery: Delivery, reason: str) -> Delivery:
    """The document is with CUPS whole."""
    change(connection, node, delivery, State.PENDING, reason=printable(reason))
    return replace(delivery, state=State.PENDING)


def forget_job(connection: Connection, node: str, delivery: Delivery) -> Delivery:
    """There is no print job any more."""
    change(connection, node, delivery, State.ACTIVE)
    connection.execute(
        print_jobs.delete().where(
            print_jobs.c.queue_id == delivery.message.queue_id, print_jobs.c.number == delivery.number
        )
    )
    return replace(delivery, job=None)


def settle(
    connection: Connection,
    node: str,
    delivery: Delivery,
    outcome: Outcome,
    now: float,
    retry_at: float,
    followups: Sequence[NewMessage],
    *,
    keep: bool,
) -> Delivery:
    """The attempt ended `now`, and this is what follows from it."""
    waits = outcome.state in OPEN
    reason = said(outcome)
    values: dict[str, Any] = {} if waits and keep else {"lease_owner": None}
    if outcome.duplicate_of:
        values |= {"duplicate_of": outcome.duplicate_of}
    if waits and not keep:
        values |= {"due_at": retry_at, "deadline": delivery.warn_at or delivery.expires_at}
    change(
        connection,
        node,
        delivery,
        outcome.state,
        reason=reason,
        evidence=outcome.evidence,
        next_attempt_at=retry_at if waits else now,
        settled_at=None if waits else now,
        **values,
    )
    put_attempt(connection, delivery, outcome, now)
    if delivery.is_bundle and outcome.state in FINAL:
        members.settle(connection, delivery, outcome, now)
    if outcome.job is not None:
        _put_job(connection, delivery, outcome.job)
    for new in followups:
        put_message(connection, new, None, ())
    return replace(delivery, state=outcome.state, next_attempt_at=retry_at if waits else now, reason=reason)


def put_attempt(connection: Connection, delivery: Delivery, outcome: Outcome, now: float) -> None:
    """The attempt that ended becomes history."""
    _PUT_ATTEMPT.run(
        connection,
        {
            "queue_id": delivery.message.queue_id,
            "number": delivery.number,
            "attempt": delivery.attempts,
            "started_at": delivery.begun_at or now,
            "ended_at": now,
            "outcome": outcome.state.value,
            "reply": str(outcome.reply or ""),
            "reason": said(outcome),
        },
    )


def said(outcome: Outcome) -> str:
    """The reason of an outcome and its notes, as they are kept."""
    return printable("; ".join([outcome.reason, *outcome.notes] if outcome.reason else outcome.notes), 2000)


def give_up(
    connection: Connection, node: str, delivery: Delivery, reason: str, followups: Sequence[NewMessage]
) -> None:
    """A delivery that waited, without an attempt of its own, has expired."""
    change(
        connection,
        node,
        delivery,
        State.EXPIRED,
        reason=printable(reason, 2000),
        settled_at=time.time(),
        lease_owner=None,
    )
    for new in followups:
        put_message(connection, new, None, ())


def warned(connection: Connection, node: str, delivery: Delivery, followups: Sequence[NewMessage]) -> None:
    """The sender is told that a delivery is late; it waits on."""
    changed = connection.execute(
        update(deliveries)
        .where(*_is(delivery), deliveries.c.lease_owner == node, deliveries.c.attempts == delivery.attempts)
        .values({**let_go(delivery.next_attempt_at), "warn_at": None, "deadline": deliveries.c.expires_at})
    )
    if changed.rowcount != 1:
        raise LeaseLost(f"delivery {delivery} is not held by this node any more")
    for new in followups:
        put_message(connection, new, None, ())


def upsert(connection: Connection) -> Any:
    """The engine's own insert, which can say what to do about a row that is there already."""
    return sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert


def _is(delivery: Delivery) -> tuple[Any, ...]:
    return deliveries.c.queue_id == delivery.message.queue_id, deliveries.c.number == delivery.number
