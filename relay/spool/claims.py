"""Who takes what next: functions of a connection, which may be run again.

Does: finds what is due, the oldest of each destination first, and gives it to a node. A destination may be asked for
what was due by a certain time only: while a printer is closed that is AT_ONCE, so nothing but what a person let go or
what was cut off. What is to keep its order across nodes is claimed by one node at a time: by the one that has some of
it, or by any while none has.
Promises: what is not asked for costs nothing, and a claim costs the same with ten deliveries in the spool as with a
million, for it jumps along the index of what waits.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from math import inf
from typing import Any

from sqlalchemy import Connection, Select, bindparam, case, literal, select, text, update

from relay.mail.queue_id import new_queue_id
from relay.spool.records import AT_ONCE, Delivery
from relay.spool.rows import delivery_of, joined
from relay.spool.schema import deliveries

_ONE_NODE = 0x736C6962
"""Names the locks of PostgreSQL under which one node after the other takes what belongs to one of them at a time."""

_DUE_DESTINATIONS = text("""
    WITH RECURSIVE waiting(destination) AS (
        SELECT min(destination) FROM deliveries WHERE due_at IS NOT NULL
        UNION ALL
        SELECT (SELECT min(destination) FROM deliveries WHERE due_at IS NOT NULL AND destination > waiting.destination)
        FROM waiting WHERE waiting.destination IS NOT NULL
    )
    SELECT destination, first_due FROM (
        SELECT destination, (
            SELECT min(due_at) FROM deliveries
            WHERE due_at IS NOT NULL AND deliveries.destination = waiting.destination
        ) AS first_due
        FROM waiting WHERE destination IS NOT NULL
    ) AS firsts
    WHERE first_due <= :now
""")
"""Jumps from destination to destination along the index, so that a million deliveries of one cost a single step."""


def due(
    connection: Connection, now: float, until: Mapping[str, float], node: str = "", alone: Collection[str] = ()
) -> list[str]:
    """The destinations that something is due for, and of those in `until` by the time that it says; without those in
    `alone` of which another node than `node` has some.
    """
    rows = connection.execute(_DUE_DESTINATIONS, {"now": now})
    found = [destination for destination, first in rows if first <= until.get(destination, inf)]
    taken = _elsewhere(connection, node, [each for each in found if each in alone])
    return [destination for destination in found if destination not in taken]


def claim(
    connection: Connection,
    node: str,
    limit: int,
    room: Mapping[str, int],
    until: Mapping[str, float],
    alone: Collection[str] = (),
) -> tuple[list[Delivery], frozenset[str]]:
    """Takes what is due, the oldest of each destination first, a fair share of each, and no more of one than there is
    room for; and says which have more. What has no room is not looked at. Of a destination in `alone` it takes nothing
    while another node has some.
    """
    now = time.time()
    wanted = [
        destination
        for destination in due(connection, now, until)
        if room.get(destination, limit) > 0
        and (destination not in alone or _is_ours(connection, node, destination, waits=False))
    ]
    share = max(limit // max(len(wanted), 1), 10)
    claimed: list[Delivery] = []
    have_more = []
    for destination in wanted:
        most = max(min(share, limit - len(claimed), room.get(destination, limit)), 0)
        found = _claim_of(connection, destination, min(now, until.get(destination, inf)), most) if most else []
        claimed += found
        if len(found) == most:
            have_more.append(destination)
    hold(connection, node, claimed)
    return claimed, frozenset(have_more)


def claim_overdue(connection: Connection, node: str, limit: int) -> list[Delivery]:
    """Takes what has waited so long that something has to be said or done about it."""
    late = joined().where(deliveries.c.deadline <= time.time()).order_by(deliveries.c.deadline).limit(limit)
    found = [delivery_of(row) for row in connection.execute(late.with_for_update(skip_locked=True, of=deliveries))]
    hold(connection, node, found)
    return found


def waiting_since(connection: Connection, moments: Mapping[str, float]) -> frozenset[str]:
    """Those of some destinations for which something waits that arrived before the moment given: a batch."""
    return frozenset(
        destination
        for destination, moment in moments.items()
        if connection.execute(_of_batch(select(literal(1)), destination, moment).limit(1)).first() is not None
    )


def claim_batch(connection: Connection, node: str, destination: str, moment: float, limit: int) -> list[Delivery]:
    """Takes all that waits for a destination and arrived before a moment, up to `limit`, in order of arrival.

    Takes nothing while another node has some of that destination: a batch goes out at one node.
    """
    if not _is_ours(connection, node, destination, waits=True):
        return []
    # Along the index; what was put off or taken over has another place there than by its arrival.
    query = _of_batch(joined(), destination, moment).order_by(deliveries.c.due_at, deliveries.c.queue_id).limit(limit)
    found = [delivery_of(row) for row in connection.execute(query.with_for_update(skip_locked=True, of=deliveries))]
    hold(connection, node, found)
    return sorted(found, key=lambda delivery: delivery.key)


def _is_ours(connection: Connection, node: str, destination: str, *, waits: bool) -> bool:
    """Whether this node may take of a destination that belongs to one node at a time; until the transaction ends no
    other one may. Several locks in one transaction are not waited for, or two nodes could wait for each other.
    """
    if connection.dialect.name == "sqlite":
        return True
    lock = "pg_advisory_xact_lock" if waits else "pg_try_advisory_xact_lock"
    values = {"what": _ONE_NODE, "name": zlib.crc32(destination.encode()) - 2**31}
    got = connection.execute(text(f"SELECT {lock}(:what, :name)"), values).scalar_one()
    return got is not False and not _elsewhere(connection, node, [destination])


def _elsewhere(connection: Connection, node: str, destinations: Sequence[str]) -> set[str]:
    """Those of some destinations of which another node has some."""
    if not destinations or connection.dialect.name == "sqlite":
        return set()
    elsewhere = deliveries.c.lease_owner.is_not(None) & (deliveries.c.lease_owner != node)
    query = select(deliveries.c.destination).where(elsewhere, deliveries.c.destination.in_(destinations)).distinct()
    return set(connection.execute(query).scalars())


def set_back(connection: Connection, seconds: float) -> int:
    """The clock was set back: what was to wait until a time by the old one waits as long by the new one, and what had
    come is due now, all in the order in which it was; how many deliveries that were.
    """
    now = time.time()
    earlier = deliveries.c.due_at - seconds
    due_at = case((earlier > now, earlier), else_=now)
    later = update(deliveries).where(deliveries.c.due_at > now)
    return connection.execute(later.values(due_at=due_at, next_attempt_at=due_at)).rowcount


def _of_batch(query: Select[Any], destination: str, moment: float) -> Select[Any]:
    return query.where(
        deliveries.c.destination == destination,
        deliveries.c.due_at > AT_ONCE,
        deliveries.c.due_at <= moment,
        deliveries.c.queue_id < new_queue_id(moment),
    )


def _claim_of(connection: Connection, destination: str, until: float, limit: int) -> list[Delivery]:
    return [
        delivery_of(row)
        for row in connection.execute(_due_of_one(), {"destination": destination, "until": until, "limit": limit})
    ]


@cache
def _due_of_one() -> Select[Any]:
    """Made once: with many destinations, putting it together takes longer than asking it."""
    return (
        joined()
        .where(deliveries.c.destination == bindparam("destination"), deliveries.c.due_at <= bindparam("until"))
        .order_by(deliveries.c.due_at, deliveries.c.queue_id, deliveries.c.number)
        .limit(bindparam("limit"))
        .with_for_update(skip_locked=True, of=deliveries)
    )


def hold(connection: Connection, node: str, claimed: Sequence[Delivery]) -> None:
    """Gives deliveries that nobody holds to a node."""
    if claimed:
        connection.execute(
            text(
                "UPDATE deliveries SET lease_owner = :node, due_at = NULL, deadline = NULL "
                "WHERE queue_id = :queue_id AND number = :number"
            ),
            [{"node": node, "queue_id": each.message.queue_id, "number": each.number} for each in claimed],
        )
