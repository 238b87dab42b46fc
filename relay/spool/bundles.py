"""Bundles: slips that waited for the same printer and come out as one document, which is a delivery of its own.

Does: makes the bundle, as one more delivery of the message that arrived first, held by the node that had its slips; an
attempt of each slip begins with that, and ends with the bundle. Takes slips out of it again that can't be printed with
the others.
Promises: each of these is one transaction behind the fence, so that a crash leaves either slips that wait by themselves
or a bundle that has them. A slip belongs to one bundle, and leaves it only while the bundle has no print job. What is
sent to the printer is what the spool has as the bundle's slips at that moment (`duplicates.begin_bundle`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sqlalchemy import Connection, func, select, update

from relay.errors import LeaseLost
from relay.spool.fence import change
from relay.spool.members import is_in
from relay.spool.records import OPEN, Delivery, NewDelivery, Outcome, State
from relay.spool.rows import delivery_of, joined
from relay.spool.schema import deliveries, messages
from relay.spool.writes import add_delivery, begin, let_go, put_attempt, said


@dataclass(frozen=True, slots=True)
class Bundled:
    """A bundle that was made, and the slips that it has, in the order in which they are printed."""

    bundle: Delivery
    slips: tuple[Delivery, ...]


def bundle(connection: Connection, node: str, slips: Sequence[Delivery]) -> Bundled:
    """Makes a bundle of slips of one printer that this node holds and has not begun. One that is not this node's any
    more is left out; raises LeaseLost when fewer than two are left.
    """
    first = min(slips, key=lambda slip: slip.key)
    queue_id = first.message.queue_id
    # Keeps others from numbering deliveries of the message before this transaction ends.
    connection.execute(select(messages.c.queue_id).where(messages.c.queue_id == queue_id).with_for_update())
    of_message = deliveries.c.queue_id == queue_id
    number = int(connection.execute(select(func.max(deliveries.c.number)).where(of_message)).scalar_one()) + 1
    name = f"{queue_id}/{number}"
    taken: dict[int, Delivery] = {}
    now = time.time()
    reason = f"is printed in one document with others, the bundle {name}"
    for place, slip in sorted(enumerate(slips), key=lambda each: each[1].key):  # rows are locked in one order
        with suppress(LeaseLost):
            begun = begin(connection, node, slip, now)
            change(connection, node, begun, State.PENDING, lease_owner=None, bundle=name, place=place, reason=reason)
            taken[place] = replace(begun, state=State.PENDING, bundle=name, reason=reason)
    if len(taken) < 2:
        raise LeaseLost(f"the slips of the bundle {name} are not held by this node any more")
    new = NewDelivery(
        recipient=first.recipient,
        route=first.route,
        destination=first.destination,
        notify="NEVER",
        profile=first.profile,
        copies=first.copies,
        moved_from=first.moved_from,
        is_bundle=True,
    )
    add_delivery(connection, queue_id, number, new, now, node)
    made = Delivery(
        message=first.message,
        number=number,
        recipient=new.recipient,
        route=new.route,
        destination=new.destination,
        state=State.QUEUED,
        attempts=0,
        next_attempt_at=now,
        notify=new.notify,
        profile=new.profile,
        copies=new.copies,
        moved_from=new.moved_from,
        is_bundle=True,
    )
    return Bundled(made, tuple(taken[place] for place in sorted(taken)))


def members(connection: Connection, name: str) -> list[Delivery]:
    """The slips of a bundle, as `QUEUE-ID/NUMBER`, in the order in which they are printed."""
    return [delivery_of(row) for row in connection.execute(joined().where(is_in(name)).order_by(deliveries.c.place))]


def part(connection: Connection, node: str, bundle: Delivery, leaving: Sequence[tuple[Delivery, Outcome]]) -> None:
    """Slips leave a bundle that has no print job, each with what became of it. Raises LeaseLost where a fence does not
    match.
    """
    assert bundle.job is None, "what may be on paper stays together"
    change(connection, node, bundle, State.ACTIVE)
    now = time.time()
    for slip, outcome in sorted(leaving, key=lambda each: each[0].key):
        waits = outcome.state in OPEN
        changed = connection.execute(
            update(deliveries)
            .where(deliveries.c.queue_id == slip.message.queue_id, deliveries.c.number == slip.number)
            .where(is_in(bundle), deliveries.c.state == State.PENDING.value)
            .values(
                state=outcome.state.value,
                bundle="",
                place=0,
                reason=said(outcome),
                evidence=outcome.evidence,
                duplicate_of=outcome.duplicate_of,
                next_attempt_at=now,
                settled_at=None if waits else now,
                **(let_go(0.0) if waits else {}),  # before what came later
            )
        )
        if changed.rowcount != 1:
            raise LeaseLost(f"the slip {slip} is not in the bundle {bundle} any more")
        put_attempt(connection, slip, outcome, now)
