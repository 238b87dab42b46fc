"""Who is alive, and whose work is free: one row per service, and deliveries that bear its name.

A service shows that it lives by renewing its row. When a row's lease has run out, whoever notices first removes it and
lets go of all that bore its name; the fence of each write does the rest. A service whose own lease had run out takes
nothing over before it has renewed in time: the server may have been away, and the others be as late as it is. Times are
the database's own on a server, so that clocks of nodes may differ. The others look when the first lease ends.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from sqlalchemy import Connection, case, delete, func, literal, select, text, update

from relay.spool.records import AT_ONCE, Key, State
from relay.spool.schema import attempts, commits, deliveries, nodes
from relay.spool.writes import let_go, upsert

_MARKS_KEPT = 3600.0


def sign_in(connection: Connection, node: str, lease: float) -> bool:
    """The node lives, for `lease` seconds from now; whether its lease held until now."""
    now = _now(connection)
    before = connection.execute(select(nodes.c.lease_until).where(nodes.c.name == node)).scalar_one_or_none()
    put = upsert(connection)(nodes).values(name=node, lease_until=now + lease)
    connection.execute(put.on_conflict_do_update(index_elements=["name"], set_={"lease_until": now + lease}))
    return before is not None and before >= now


def somebody(connection: Connection) -> str | None:
    """The name of a node that is alive; None when there is none."""
    return connection.execute(select(nodes.c.name).where(nodes.c.lease_until >= _now(connection)).limit(1)).scalar()


def sign_out(connection: Connection, node: str) -> None:
    """The node ends, and lets go of what it holds."""
    connection.execute(delete(nodes).where(nodes.c.name == node))
    take_over(connection)


def alone(connection: Connection) -> None:
    """Nobody else can be at work: every lease ends now."""
    connection.execute(delete(nodes))
    take_over(connection)


def take_over(connection: Connection) -> int:
    """Lets go of what dead nodes hold; how many deliveries that were."""
    now = _now(connection)
    connection.execute(delete(nodes).where(nodes.c.lease_until < now))
    orphaned = deliveries.c.lease_owner.is_not(None) & deliveries.c.lease_owner.not_in(select(nodes.c.name))
    if connection.execute(select(literal(1)).where(orphaned).limit(1)).first() is None:
        return 0
    # The attempt that was cut off becomes history; what it was about is due at once, the rest before what waits.
    cut_off = select(
        deliveries.c.queue_id,
        deliveries.c.number,
        deliveries.c.attempts,
        deliveries.c.begun_at,
        literal(""),
        literal(""),
        literal("cut off"),
    ).where(orphaned, deliveries.c.state == State.ACTIVE.value, deliveries.c.begun_at.is_not(None))
    put = upsert(connection)(attempts).from_select(
        ["queue_id", "number", "attempt", "started_at", "outcome", "reply", "reason"], cut_off
    )
    connection.execute(put.on_conflict_do_nothing())
    begun = deliveries.c.state.in_([State.ACTIVE.value, State.PENDING.value])
    return connection.execute(
        update(deliveries).where(orphaned).values(let_go(case((begun, AT_ONCE), else_=0.0)))
    ).rowcount


def first_end(connection: Connection, node: str) -> float | None:
    """Seconds until the first lease of another node ends, negative when it has; None when there is no other node."""
    ends = connection.execute(select(func.min(nodes.c.lease_until)).where(nodes.c.name != node)).scalar_one()
    return None if ends is None else float(ends) - _now(connection)


def is_alive(connection: Connection, node: str) -> bool:
    """Whether a node's lease holds."""
    holds = (nodes.c.name == node) & (nodes.c.lease_until >= _now(connection))
    return connection.execute(select(literal(1)).where(holds)).first() is not None


def held_keys(connection: Connection, node: str) -> set[Key]:
    """What bears the name of a node."""
    query = select(deliveries.c.queue_id, deliveries.c.number).where(deliveries.c.lease_owner == node)
    return {(queue_id, number) for queue_id, number in connection.execute(query)}


def let_go_of(connection: Connection, node: str, keys: Collection[Key]) -> None:
    """Lets go of deliveries that bear this node's name though nobody here works on them."""
    for queue_id, number in keys:
        connection.execute(
            update(deliveries)
            .where(deliveries.c.queue_id == queue_id, deliveries.c.number == number, deliveries.c.lease_owner == node)
            .values(let_go(0.0))
        )


def forget_marks(connection: Connection) -> None:
    """Removes marks of commits that nobody asks about any more."""
    connection.execute(delete(commits).where(commits.c.at < _now(connection) - _MARKS_KEPT))


def _now(connection: Connection) -> float:
    if connection.dialect.name == "sqlite":
        return time.time()
    return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
