"""What the rules made of a delivery once its letter was read, as one unit of work.

Does: ends the attempt that asked the rules; sends the delivery another way, or ends it where others go in its stead;
adds these and the copies as further deliveries of the same message. All in one transaction, behind the fence.
Promises: a crash leaves all of it or nothing; when the rules are asked again (after a release, say), what was added
for a delivery before is not added once more. What goes on is due as if it had gone that way when it arrived, so that
the slips of a printer keep their order; what a person let go is due at once.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection, func, select

from relay.spool import members
from relay.spool.duplicates import Again, add_once
from relay.spool.fence import change
from relay.spool.records import AT_ONCE, Delivery, NewDelivery, Onward, Outcome, State
from relay.spool.schema import deliveries, messages
from relay.spool.writes import add_delivery, put_attempt, said


def sort(connection: Connection, node: str, delivery: Delivery, outcome: Outcome, onward: Onward) -> list[Again]:
    """The rules decided; `outcome` says so. Gives the slips among what was added that came a second time, and go
    nowhere. Raises LeaseLost where the fence does not match.
    """
    now = time.time()
    if onward.more:
        _lock(connection, delivery.message.queue_id)
    ending: dict[str, Any] = {"lease_owner": None, "reason": said(outcome)}
    if onward.way is None:
        change(connection, node, delivery, State.DELIVERED, next_attempt_at=now, settled_at=now, **ending)
    else:
        change(
            connection,
            node,
            delivery,
            State.QUEUED,
            **ending,
            **_values(onward.way, delivery, now, at_once=onward.at_once),
        )
    put_attempt(connection, delivery, outcome, now)
    if delivery.is_bundle and onward.way is not None:
        members.move(connection, delivery, onward.way)
    return _add(connection, delivery, onward.more)


def _values(way: NewDelivery, delivery: Delivery, now: float, *, at_once: bool) -> dict[str, Any]:
    return {
        "route": way.route,
        "destination": way.destination,
        "profile": way.profile,
        "copies": way.copies,
        "moved_from": way.moved_from,
        "merge": way.merge,
        "warn_at": way.warn_at,
        "expires_at": way.expires_at,
        "next_attempt_at": now,
        "settled_at": None,
        "due_at": AT_ONCE if at_once else delivery.message.received_at,
        "deadline": way.warn_at or way.expires_at,
    }


def _lock(connection: Connection, queue_id: str) -> None:
    """Keeps others from numbering deliveries of the message before this transaction ends."""
    connection.execute(select(messages.c.queue_id).where(messages.c.queue_id == queue_id).with_for_update())


def _add(connection: Connection, delivery: Delivery, more: tuple[NewDelivery, ...]) -> list[Again]:
    again: list[Again] = []
    if not more:
        return again
    queue_id = delivery.message.queue_id
    of_message = deliveries.c.queue_id == queue_id
    made = select(deliveries.c.recipient, deliveries.c.route).where(of_message, deliveries.c.copy_of == delivery.number)
    known = {(recipient, route) for recipient, route in connection.execute(made)}
    number = int(connection.execute(select(func.max(deliveries.c.number)).where(of_message)).scalar_one())
    for each in more:
        if (each.recipient, each.route) not in known:
            known.add((each.recipient, each.route))
            number += 1
            if not each.once_at:
                add_delivery(connection, queue_id, number, each, delivery.message.received_at)
            elif (found := add_once(connection, delivery.message, number, each)) is not None:
                again.append(found)
    return again
