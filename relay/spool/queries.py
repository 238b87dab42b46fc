"""Questions about the queue as a whole, read-only: they may be asked beside the running service.

Each answer is of one moment. Each question raises SpoolError when the spool can't be read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Table, func, literal_column, select, true, tuple_
from sqlalchemy.exc import SQLAlchemyError

from relay.errors import SpoolError
from relay.mail.queue_id import new_queue_id
from relay.spool.engine import Place, in_words, reading_engine
from relay.spool.records import FINAL, Key, State
from relay.spool.schema import UNFINISHED, deliveries, messages

_UNFINISHED: ColumnElement[bool] = literal_column(f"({UNFINISHED})")
_WITH_A_NODE = deliveries.c.lease_owner.is_not(None)
_KEY = (deliveries.c.queue_id, deliveries.c.number)
_SOME = 500
"""Keys in one question."""


@dataclass(frozen=True, slots=True)
class Group:
    """Deliveries of one state and route that are not finished."""

    state: str
    route: str
    count: int
    oldest: float
    "When the oldest of them was received, in seconds since the epoch."


@dataclass(frozen=True, slots=True)
class DeliveryLine:
    """One delivery as the queue listing shows it. Times are seconds since the epoch."""

    queue_id: str
    number: int
    recipient: str
    route: str
    destination: str
    state: str
    attempts: int
    reason: str
    evidence: str
    notify: str
    orcpt: str
    next_attempt_at: float
    warn_at: float | None
    expires_at: float | None
    settled_at: float | None
    institution: str
    sender: str | None
    "The reverse-path; None is the null one."
    message_id: str
    size: int
    received_at: float
    profile: str
    "The profile that a rule set; empty for that of the printer."
    copies: int
    "How often a rule has it printed; 0 for what the profile says."
    copy_of: int | None
    "The number of the delivery that a rule made this one from."
    reprint_of: int | None
    "The number of the delivery that this one prints once more."
    marked: bool
    "Whether that reprint says on paper that it is one."
    duplicate_of: str
    "The printed delivery, as QUEUE-ID/NUMBER, that is the same slip; this one made no paper."
    merge: bool
    "Whether a rule lets it come out in one document with others."
    is_bundle: bool
    "Whether it is such a document of several slips."
    bundle: str
    "The document of several slips, as QUEUE-ID/NUMBER, that it is part of."

    @property
    def key(self) -> Key:
        """Names the delivery."""
        return self.queue_id, self.number


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deliveries are meant: those that fit everything that is said here."""

    states: tuple[State, ...] = ()
    route: str = ""
    institution: str = ""
    recipient: str = ""
    "A pattern with `*` and `?`; case does not count."
    sender: str = ""
    "A pattern of the reverse-path; `<>` is the null one."
    reason: str = ""
    "Text that stands in the reason; case does not count."
    before: float | None = None
    "Received before that time, in seconds since the epoch."


LINE = (
    *(deliveries.c[name] for name in ("queue_id", "number", "recipient", "route", "destination", "state", "attempts")),
    *(deliveries.c[name] for name in ("reason", "evidence", "notify", "orcpt", "next_attempt_at", "warn_at")),
    deliveries.c.expires_at,
    deliveries.c.settled_at,
    messages.c.institution,
    messages.c.reverse_path,
    *(messages.c[name] for name in ("message_id", "size", "received_at")),
    *(deliveries.c[name] for name in ("profile", "copies", "copy_of", "reprint_of", "marked", "duplicate_of")),
    *(deliveries.c[name] for name in ("merge", "is_bundle", "bundle")),
)
"""The columns of a `DeliveryLine`."""


def summary(place: Place) -> list[Group]:
    """What is not finished, by state and route, with the oldest of each.

    It counts along an index: a second is enough for some millions.
    """
    with reading(place) as connection:
        groups: dict[tuple[str, str], tuple[int, str]] = {}
        for part in (_UNFINISHED, _WITH_A_NODE):
            query = select(deliveries.c.state, deliveries.c.route, func.count(), func.min(deliveries.c.queue_id))
            for state, route, count, oldest in connection.execute(query.where(part).group_by("state", "route")):
                known, oldest_known = groups.get((state, route), (0, oldest))
                groups[state, route] = known + count, min(oldest, oldest_known)
        received = _received_at(connection, [oldest for _, oldest in groups.values()])
    order = list(State)
    return [
        Group(state, route, count, received.get(oldest, 0.0))
        for (state, route), (count, oldest) in sorted(groups.items(), key=lambda g: (order.index(State(g[0][0])), g[0]))
    ]


def list_deliveries(
    place: Place, *, only: Filter = Filter(), limit: int = 1000, oldest: bool = False
) -> list[DeliveryLine]:
    """Deliveries in order of arrival: the newest `limit` of those that are meant, or the oldest."""
    with reading(place) as connection:
        found = _search(connection, only, limit, oldest=oldest)
        return list(_lines(connection, found))


def list_keys(place: Place, only: Filter, *, after: Key | None, limit: int) -> list[Key]:
    """The oldest keys of those deliveries that are meant, after a given one: for going through them in steps."""
    with reading(place) as connection:
        return _search(connection, only, limit, oldest=True, after=after)


def keys_of(place: Place, queue_id: str, *, bundles: bool = True) -> list[Key]:
    """The keys of a message's deliveries, with or without bundles, which are more than that message; none when there
    is no such message.
    """
    with reading(place) as connection:
        query = select(*_KEY).where(deliveries.c.queue_id == queue_id).order_by(deliveries.c.number)
        query = query if bundles else query.where(deliveries.c.is_bundle.is_(False))
        return [(queue_id, number) for queue_id, number in connection.execute(query)]


def slips_of(place: Place, queue_id: str, routes: str) -> list[Key]:
    """The keys of a message's deliveries by routes that begin with `routes`, without reprints and bundles."""
    with reading(place) as connection:
        meant = deliveries.c.route.startswith(routes, autoescape=True) & deliveries.c.reprint_of.is_(None)
        meant &= deliveries.c.is_bundle.is_(False)
        query = select(*_KEY).where(deliveries.c.queue_id == queue_id, meant).order_by(deliveries.c.number)
        return [(queue_id, number) for queue_id, number in connection.execute(query)]


def among(table: Table, keys: Collection[Key]) -> ColumnElement[bool]:
    """That a row of `table` belongs to one of some deliveries.

    The queue ids alone are what SQLite looks up in the key; for pairs it would go through the table.
    """
    pair = tuple_(table.c.queue_id, table.c.number)
    return table.c.queue_id.in_({queue_id for queue_id, _ in keys}) & pair.in_(keys)


@contextmanager
def reading(place: Place) -> Iterator[Connection]:
    """A connection that sees one moment and does not write; what goes wrong with it is a SpoolError."""
    if place.path is not None:
        try:
            place.path.stat()
        except FileNotFoundError:
            raise SpoolError(f"there is no spool at {place}; the service makes it at its first start") from None
        except OSError as error:
            raise SpoolError(f"the spool {place} can't be read: {error.strerror}") from None
    engine = reading_engine(place)
    try:
        with engine.connect() as connection:
            if place.path is not None:
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield connection
    except SQLAlchemyError as error:
        raise SpoolError(f"the spool {place} can't be read: {in_words(error)}") from error
    finally:
        engine.dispose()


def _search(connection: Connection, only: Filter, limit: int, *, oldest: bool, after: Key | None = None) -> list[Key]:
    """Keys in order of arrival. What is not finished is looked for along its index, the rest in order of arrival."""
    wanted = list(_conditions(only))
    if after is not None:
        wanted.append(tuple_(*_KEY) > after)
    order = _KEY if oldest else tuple(column.desc() for column in _KEY)
    found: list[Key] = []
    for part in _parts(connection, only):
        query = select(*_KEY).where(part, *wanted).order_by(*order).limit(limit)
        if only.institution or only.sender:
            query = query.join_from(deliveries, messages)
        found += [(queue_id, number) for queue_id, number in connection.execute(query)]
    found.sort()
    return found[:limit] if oldest else found[-limit:]


def _parts(connection: Connection, only: Filter) -> Iterator[ColumnElement[bool]]:
    """Conditions that have nothing in common, and that an index answers, each in order of arrival."""
    states = [state.value for state in only.states]
    if not states or FINAL & set(only.states):
        yield deliveries.c.state.in_(states) if states else true()
        return
    for state in states:
        of_state = _UNFINISHED & (deliveries.c.state == state)
        for route in [only.route] if only.route else _routes(connection, of_state):
            yield of_state & (deliveries.c.route == route)
    # What nodes hold is little, and named by its keys: else SQLite would go through all there is, for the order's sake.
    held = [(queue_id, number) for queue_id, number in connection.execute(select(*_KEY).where(_WITH_A_NODE))]
    for start in range(0, len(held), _SOME):
        yield among(deliveries, held[start : start + _SOME]) & _WITH_A_NODE & deliveries.c.state.in_(states)


def _lines(connection: Connection, keys: Sequence[Key]) -> Iterator[DeliveryLine]:
    """Some deliveries, in order of arrival."""
    for start in range(0, len(keys), _SOME):
        some = among(deliveries, keys[start : start + _SOME])
        query = select(*LINE).join_from(deliveries, messages).where(some).order_by(*_KEY)
        yield from (DeliveryLine(*tuple(row)) for row in connection.execute(query))


def _routes(connection: Connection, of_state: ColumnElement[bool]) -> Iterator[str]:
    """The routes of a state, jumping from one to the next along the index."""
    query = select(func.min(deliveries.c.route)).where(of_state)
    route = connection.execute(query).scalar_one()
    while route is not None:
        yield route
        route = connection.execute(query.where(deliveries.c.route > route)).scalar_one()


def _conditions(only: Filter) -> Iterator[ColumnElement[bool]]:
    if only.route:
        yield deliveries.c.route == only.route
    if only.institution:
        yield messages.c.institution == only.institution
    if only.recipient:
        yield deliveries.c.recipient.ilike(_pattern(only.recipient), escape="\\")
    if only.sender:
        is_null = only.sender == "<>"
        yield messages.c.reverse_path.is_(None) if is_null else _sender_like(only.sender)
    if only.reason:
        yield deliveries.c.reason.icontains(only.reason, autoescape=True)
    if only.before is not None:
        yield deliveries.c.queue_id < new_queue_id(only.before)


def _sender_like(pattern: str) -> ColumnElement[bool]:
    return messages.c.reverse_path.ilike(_pattern(pattern), escape="\\")


def _pattern(glob: str) -> str:
    """A pattern with `*` and `?` as LIKE has it."""
    literal = glob.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return literal.replace("*", "%").replace("?", "_")


def _received_at(connection: Connection, queue_ids: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for start in range(0, len(queue_ids), _SOME):
        query = select(messages.c.queue_id, messages.c.received_at)
        rows = connection.execute(query.where(messages.c.queue_id.in_(queue_ids[start : start + _SOME])))
        found |= {row.queue_id: row.received_at for row in rows}
    return found
