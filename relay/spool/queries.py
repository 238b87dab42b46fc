"""Questions about the spool, read-only: they may be asked beside the running service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from relay.errors import SpoolError
from relay.spool.engine import Place, in_words, reading_engine
from relay.spool.schema import attempts, deliveries, messages, print_jobs


@dataclass(frozen=True, slots=True)
class DeliveryLine:
    """One delivery as the queue listing shows it. Times are seconds since the epoch."""

    queue_id: str
    recipient: str
    route: str
    state: str
    attempts: int
    reason: str
    evidence: str
    institution: str
    message_id: str
    size: int
    received_at: float
    next_attempt_at: float
    settled_at: float | None


@dataclass(frozen=True, slots=True)
class AttemptLine:
    """One attempt. `ended_at` is None, and `outcome` empty, while it runs or when it was cut off."""

    number: int
    started_at: float
    ended_at: float | None
    outcome: str
    reply: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeliveryHistory:
    """A delivery with its attempts, and the print job it has or had."""

    line: DeliveryLine
    attempts: tuple[AttemptLine, ...]
    job_name: str | None
    job_id: int | None


@dataclass(frozen=True, slots=True)
class MessageHistory:
    """What is known of a message, apart from its bytes. A `reverse_path` of None is the null reverse-path."""

    queue_id: str
    institution: str
    source: str
    reverse_path: str | None
    client: str
    helo: str
    protocol: str
    message_id: str
    size: int
    received_at: float
    deliveries: tuple[DeliveryHistory, ...]


_LINE = (
    *(deliveries.c[name] for name in ("queue_id", "recipient", "route", "state", "attempts", "reason", "evidence")),
    *(messages.c[name] for name in ("institution", "message_id", "size", "received_at")),
    deliveries.c.next_attempt_at,
    deliveries.c.settled_at,
)
_MESSAGE = (
    "queue_id",
    "institution",
    "source",
    "reverse_path",
    "client",
    "helo",
    "protocol",
    "message_id",
    "size",
    "received_at",
)


def list_deliveries(place: Place, *, state: str | None = None, limit: int = 1000) -> list[DeliveryLine]:
    """Deliveries in order of arrival, of one state or all, the newest `limit` of them.

    Raises SpoolError when the spool can't be read.
    """
    query = (
        select(*_LINE)
        .join_from(deliveries, messages)
        .order_by(deliveries.c.queue_id.desc(), deliveries.c.number.desc())
        .limit(limit)
    )
    if state is not None:
        query = query.where(deliveries.c.state == state)
    with _reading(place) as connection:
        return [DeliveryLine(*row) for row in reversed(connection.execute(query).all())]


def message_history(place: Place, queue_id: str) -> MessageHistory | None:
    """A message with its deliveries and their attempts; None when there is none of that queue id.

    Raises SpoolError when the spool can't be read.
    """
    with _reading(place) as connection:
        query = select(*(messages.c[name] for name in _MESSAGE)).where(messages.c.queue_id == queue_id)
        message = connection.execute(query).one_or_none()
        if message is None:
            return None
        return MessageHistory(**message._mapping, deliveries=tuple(_deliveries(connection, queue_id)))


def _deliveries(connection: Connection, queue_id: str) -> Iterator[DeliveryHistory]:
    same = (print_jobs.c.queue_id == deliveries.c.queue_id) & (print_jobs.c.number == deliveries.c.number)
    query = (
        select(deliveries.c.number, deliveries.c.begun_at, print_jobs.c.name, print_jobs.c.job_id, *_LINE)
        .join_from(deliveries, messages)
        .outerjoin(print_jobs, same)
        .where(deliveries.c.queue_id == queue_id)
        .order_by(deliveries.c.number)
    )
    columns = [attempts.c[name] for name in ("attempt", "started_at", "ended_at", "outcome", "reply", "reason")]
    for number, begun_at, job_name, job_id, *rest in connection.execute(query).all():
        line = DeliveryLine(*rest)
        ended = select(*columns).where(attempts.c.queue_id == queue_id, attempts.c.number == number)
        made = [AttemptLine(*row) for row in connection.execute(ended.order_by(attempts.c.attempt))]
        if begun_at is not None and line.attempts > (made[-1].number if made else 0):
            made.append(AttemptLine(line.attempts, begun_at, None, "", "", ""))  # it runs, or was cut off
        yield DeliveryHistory(line, tuple(made), job_name, job_id)


@contextmanager
def _reading(place: Place) -> Iterator[Connection]:
    """A connection that does not write; what goes wrong with it is a SpoolError."""
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
            yield connection
    except SQLAlchemyError as error:
        raise SpoolError(f"the spool {place} can't be read: {in_words(error)}") from error
    finally:
        engine.dispose()
