"""How the slips of each printer stand, and when mail last came: what notices are decided by. Read-only.

Promises: counts along the index of the unfinished, and of the printers' routes only, so that letters that wait by the
million cost nothing; the rest are steps to single rows. When mail last came is asked of what is new since the last
look; the first one goes back through the messages, in windows and as far as a bound.
Each question raises SpoolError when the spool can't be read.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, literal_column, select

from relay.mail.queue_id import new_queue_id
from relay.spool.engine import Place
from relay.spool.queries import reading
from relay.spool.records import OPEN, State
from relay.spool.schema import UNFINISHED, attempts, deliveries, messages, orders, print_jobs

FOR_A_PERSON = frozenset({State.HELD, State.UNCERTAIN, State.CORRUPT})
"""States in which a slip waits for somebody's word."""

_BEGUN = frozenset({State.ACTIVE, State.PENDING, State.DEFERRED})

HORIZON = 30 * 86400.0
"""Seconds that are looked back for the last mail; an institution without any in that time is not known to be silent."""

WINDOW, MOST = 2000, 200_000
"""Messages of one question for the last mail, and of all questions of one look."""

OVERLAP = 120.0
"""Seconds by which a look goes back behind the one before: a message may be committed late, or by another clock."""

Groups = dict[tuple[str, str], tuple[int, str]]
"""Count and oldest queue id by state and route."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the slips of one route stand. Times are seconds since the epoch; None where there is no such slip."""

    open: int = 0
    "Slips that are to come out, among them the one under way."
    oldest_at: float | None = None
    "When the oldest of them was received, or a person last said something of it: a reprint is not late."
    tried_since: float | None = None
    "Since when the oldest that was begun is tried: it is the one at the printer."
    reason: str = ""
    "What keeps that one from paper, as far as it was said."
    for_a_person: int = 0
    "Slips that are held, uncertain or corrupt."
    for_a_person_since: float | None = None
    "Since when the oldest of these is."


def standings(place: Place, routes: Collection[str]) -> dict[str, Standing]:
    """How the slips of some routes stand, at one moment."""
    if not routes:
        return {}
    with reading(place) as connection:
        groups = _groups(connection, routes)
        return {route: _standing(connection, groups, route) for route in routes}


class LastMail:
    """When mail last came for each institution, our own left out. Remembers between the looks."""

    def __init__(self, place: Place, institutions: Iterable[str], own_source: str) -> None:
        self._place = place
        self._institutions = frozenset(institutions)
        self._own = own_source
        self._known: dict[str, float] = {}
        self._looked_to: float | None = None

    def look(self) -> dict[str, float]:
        """When it was, by institution, in seconds since the epoch; those without any in `HORIZON` are left out."""
        now = time.time()
        since = now - HORIZON if self._looked_to is None else self._looked_to - OVERLAP
        with reading(self._place) as connection:
            found = self._walk(connection, new_queue_id(since))
        for name, at in found.items():
            self._known[name] = max(at, self._known.get(name, 0.0))
        self._looked_to = now
        return {name: self._known[name] for name in self._institutions & self._known.keys()}

    def _walk(self, connection: Connection, lowest: str) -> dict[str, float]:
        """From the newest message back to `lowest`, or until mail of each institution was found."""
        found: dict[str, float] = {}
        below = "Z" * 13
        columns = (messages.c.queue_id, messages.c.institution, messages.c.source, messages.c.received_at)
        for _ in range(MOST // WINDOW):
            window = select(*columns).where(messages.c.queue_id < below, messages.c.queue_id >= lowest)
            rows = connection.execute(window.order_by(messages.c.queue_id.desc()).limit(WINDOW)).all()
            for row in rows:
                if row.source != self._own:
                    found.setdefault(row.institution, row.received_at)
            if len(rows) < WINDOW or self._institutions <= found.keys():
                break
            below = rows[-1].queue_id
        return found


def _groups(connection: Connection, routes: Collection[str]) -> Groups:
    """What nobody holds just now, along its index, and what nodes hold, which is little."""
    groups: Groups = {}
    states = [state.value for state in OPEN | FOR_A_PERSON]
    parts: tuple[ColumnElement[bool], ...] = (literal_column(f"({UNFINISHED})"), deliveries.c.lease_owner.is_not(None))
    for part in parts:
        query = select(deliveries.c.state, deliveries.c.route, func.count(), func.min(deliveries.c.queue_id))
        query = query.where(part, deliveries.c.state.in_(states), deliveries.c.route.in_(routes))
        for state, route, count, oldest in connection.execute(query.group_by("state", "route")):
            known, oldest_known = groups.get((state, route), (0, oldest))
            groups[state, route] = known + count, min(oldest, oldest_known)
    return groups


def _standing(connection: Connection, groups: Groups, route: str) -> Standing:
    open_count, oldest = _of(groups, route, OPEN)
    person_count, person = _of(groups, route, FOR_A_PERSON)
    _, begun = _of(groups, route, _BEGUN)
    tried_since, reason = _tried(connection, begun, route) if begun is not None else (None, "")
    return Standing(
        open=open_count,
        oldest_at=_arrived_at(connection, oldest, route) if oldest is not None else None,
        tried_since=tried_since,
        reason=reason,
        for_a_person=person_count,
        for_a_person_since=_settled_at(connection, person, route) if person is not None else None,
    )


def _of(groups: Groups, route: str, states: Collection[State]) -> tuple[int, str | None]:
    found = [groups[state.value, route] for state in states if (state.value, route) in groups]
    return sum(count for count, _ in found), min((oldest for _, oldest in found), default=None)


def _arrived_at(connection: Connection, queue_id: str, route: str) -> float | None:
    """When the first open slip of a message began to wait."""
    states = [state.value for state in OPEN]
    query = (
        select(deliveries.c.number, messages.c.received_at)
        .join_from(deliveries, messages)
        .where(deliveries.c.queue_id == queue_id, deliveries.c.route == route, deliveries.c.state.in_(states))
    )
    row = connection.execute(query.order_by(deliveries.c.number).limit(1)).first()
    return max(row.received_at, _ordered_at(connection, queue_id, row.number)) if row is not None else None


def _ordered_at(connection: Connection, queue_id: str, number: int) -> float:
    """When a person last said something of a slip; 0 for never."""
    of_slip = (orders.c.queue_id == queue_id) & (orders.c.number == number)
    return connection.execute(select(func.max(orders.c.at)).where(of_slip)).scalar() or 0.0


def _settled_at(connection: Connection, queue_id: str, route: str) -> float | None:
    """Since when a slip waits for a person."""
    states = [state.value for state in FOR_A_PERSON]
    query = (
        select(func.min(func.coalesce(deliveries.c.settled_at, messages.c.received_at)))
        .join_from(deliveries, messages)
        .where(deliveries.c.queue_id == queue_id, deliveries.c.route == route, deliveries.c.state.in_(states))
    )
    return connection.execute(query).scalar()


def _tried(connection: Connection, queue_id: str, route: str) -> tuple[float | None, str]:
    """Since when a slip is tried at its printer, and what kept it from paper last.

    It is tried since its first attempt, but for one that only asked the rules, or since the last order about it. An
    attempt that was cut off while its job was followed is no history: of that one the job knows when it was sent.
    """
    states = [state.value for state in _BEGUN]
    query = select(deliveries.c.number, deliveries.c.begun_at, deliveries.c.reason)
    of_route = query.where(
        deliveries.c.queue_id == queue_id, deliveries.c.route == route, deliveries.c.state.in_(states)
    )
    of_route = of_route.where(deliveries.c.bundle == "")  # of slips in a bundle it is the bundle that is tried
    row = connection.execute(of_route.order_by(deliveries.c.number).limit(1)).first()
    if row is None or row.begun_at is None:
        return None, ""
    ended = (attempts.c.queue_id == queue_id) & (attempts.c.number == row.number)
    sorted_by = select(func.max(attempts.c.attempt)).where(ended, attempts.c.outcome == State.QUEUED.value)
    since_then = ended & (attempts.c.attempt > func.coalesce(sorted_by.scalar_subquery(), 0))
    first = connection.execute(select(func.min(attempts.c.started_at)).where(since_then)).scalar()
    last = select(attempts.c.reason).where(since_then, attempts.c.outcome != "")
    said = row.reason or connection.execute(last.order_by(attempts.c.attempt.desc()).limit(1)).scalar() or ""
    of_job = (print_jobs.c.queue_id == queue_id) & (print_jobs.c.number == row.number)
    sent_at = connection.execute(select(print_jobs.c.sent_at).where(of_job)).scalar()
    tried_since = min(at for at in (row.begun_at, first, sent_at) if at is not None)
    return max(tried_since, _ordered_at(connection, queue_id, row.number)), said
