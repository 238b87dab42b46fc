"""What became of a message: its envelope, and of each delivery the attempts, replies, paper, orders and DSNs.

Read-only, beside the running service. Each question raises SpoolError when the spool can't be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, or_, select, text

from relay.spool.bodies import has_body, stored_body
from relay.spool.engine import Place
from relay.spool.members import is_in
from relay.spool.queries import LINE, DeliveryLine, reading
from relay.spool.records import Key, Message, PrintJob
from relay.spool.rows import JOB_COLUMNS, MESSAGE_COLUMNS, job_of
from relay.spool.schema import attempts, deliveries, messages, orders, papers, print_jobs


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
class OrderLine:
    """What an operator said: when, what, who, and the state the delivery was in."""

    at: float
    verb: str
    who: str
    was: str
    why: str
    "The person's reason, where one was given."


@dataclass(frozen=True, slots=True)
class DsnLine:
    """A DSN of ours about a delivery: its own queue id, whom it goes to, and how it stands."""

    queue_id: str
    recipient: str
    state: str


@dataclass(frozen=True, slots=True)
class DeliveryHistory:
    """A delivery with all that happened to it, the oldest first, and the print job it has."""

    line: DeliveryLine
    attempts: tuple[AttemptLine, ...]
    orders: tuple[OrderLine, ...]
    dsns: tuple[DsnLine, ...]
    job: PrintJob | None
    duplicates: tuple[str, ...]
    "Deliveries, as QUEUE-ID/NUMBER, that are the same slip and were not printed."
    has_paper: bool
    "Whether the PDF that went to the printer is kept."
    slips: tuple[str, ...] = ()
    "Deliveries, as QUEUE-ID/NUMBER, that this one is the document of, in their order."


@dataclass(frozen=True, slots=True)
class MessageHistory:
    """A message, apart from its bytes, with some or all of its deliveries."""

    message: Message
    has_body: bool
    "False when its bytes were removed some days after it was settled."
    deliveries: tuple[DeliveryHistory, ...]


def message_history(place: Place, queue_id: str) -> MessageHistory | None:
    """A message with its deliveries and their attempts; None when there is none of that queue id."""
    with reading(place) as connection:
        return _history(connection, queue_id)


def trace(place: Place, name: str, limit: int) -> list[MessageHistory]:
    """The messages that go by a name, the oldest first: the newest `limit` of them.

    `name` is a queue id, a Message-ID (with or without its angle brackets), or an address: then only the deliveries to
    it are told of, or all of a message that came from it. It reads the whole spool, but for a queue id.
    """
    with reading(place) as connection:
        by_id = _history(connection, name.upper())
        if by_id is not None:
            return [by_id]
        recipient = or_(deliveries.c.recipient == name, func.lower(deliveries.c.recipient) == func.lower(name))
        to_it = select(deliveries.c.queue_id, deliveries.c.number).where(recipient)
        found: dict[str, list[int] | None] = {}
        for queue_id, number in connection.execute(to_it.order_by(deliveries.c.queue_id.desc()).limit(limit)):
            numbers = found.setdefault(queue_id, [])
            assert numbers is not None
            numbers.append(number)
        bare = name.removeprefix("<").removesuffix(">")
        whole = select(messages.c.queue_id).where(
            messages.c.message_id.in_([name, f"<{bare}>"])
            | (messages.c.reverse_path == name)
            | (func.lower(messages.c.reverse_path) == func.lower(name))
        )
        for queue_id in connection.execute(whole.order_by(messages.c.queue_id.desc()).limit(limit)).scalars():
            found[queue_id] = None
        histories = [_history(connection, queue_id, found[queue_id]) for queue_id in sorted(found)[-limit:]]
        return [history for history in histories if history is not None]


def stored(place: Place, queue_id: str) -> tuple[Message, bytes | None] | None:
    """A message with its bytes as they stand in the spool, whether they are those accepted or not (None: gone).

    None when there is no such message.
    """
    with reading(place) as connection:
        message = _message(connection, queue_id)
        if message is None:
            return None
        return message, stored_body(connection, queue_id)


def _message(connection: Connection, queue_id: str) -> Message | None:
    row = connection.execute(select(messages).where(messages.c.queue_id == queue_id)).one_or_none()
    return Message(**{name: getattr(row, name) for name in MESSAGE_COLUMNS}) if row is not None else None


def _history(connection: Connection, queue_id: str, numbers: Sequence[int] | None = None) -> MessageHistory | None:
    message = _message(connection, queue_id)
    if message is None:
        return None
    return MessageHistory(message, has_body(connection, queue_id), tuple(_deliveries(connection, queue_id, numbers)))


def _deliveries(connection: Connection, queue_id: str, numbers: Sequence[int] | None) -> Iterator[DeliveryHistory]:
    same = (print_jobs.c.queue_id == deliveries.c.queue_id) & (print_jobs.c.number == deliveries.c.number)
    query = (
        select(*LINE, deliveries.c.begun_at, papers.c.made_at.label("kept_since"), *JOB_COLUMNS)
        .join_from(deliveries, messages)
        .outerjoin(print_jobs, same)
        .outerjoin(papers, (papers.c.queue_id == deliveries.c.queue_id) & (papers.c.number == deliveries.c.number))
        .where(deliveries.c.queue_id == queue_id)
        .order_by(deliveries.c.number)
    )
    if numbers is not None:
        query = query.where(deliveries.c.number.in_(numbers))
    for row in connection.execute(query).all():
        line = DeliveryLine(*row[: len(LINE)])
        yield DeliveryHistory(
            line,
            tuple(_attempts(connection, line, row.begun_at)),
            tuple(_orders(connection, line.key)),
            tuple(_dsns(connection, line.key)),
            job_of(row),
            tuple(_duplicates(connection, line.key)),
            row.kept_since is not None,
            tuple(_slips(connection, line)) if line.is_bundle else (),
        )


def _attempts(connection: Connection, line: DeliveryLine, begun_at: float | None) -> Iterator[AttemptLine]:
    columns = [attempts.c[name] for name in ("attempt", "started_at", "ended_at", "outcome", "reply", "reason")]
    query = select(*columns).where(attempts.c.queue_id == line.queue_id, attempts.c.number == line.number)
    last = 0
    for row in connection.execute(query.order_by(attempts.c.attempt)):
        attempt = AttemptLine(*row)
        last = attempt.number
        yield attempt
    if begun_at is not None and line.attempts > last:
        yield AttemptLine(line.attempts, begun_at, None, "", "", "")  # it runs, or was cut off


def _orders(connection: Connection, key: Key) -> Iterator[OrderLine]:
    columns = [orders.c[name] for name in ("at", "verb", "who", "was", "why")]
    query = select(*columns).where(orders.c.queue_id == key[0], orders.c.number == key[1])
    for row in connection.execute(query.order_by(orders.c.at)):
        yield OrderLine(*row)


def _duplicates(connection: Connection, key: Key) -> Iterator[str]:
    same = deliveries.c.duplicate_of == f"{key[0]}/{key[1]}"
    query = select(deliveries.c.queue_id, deliveries.c.number).where(same, text("duplicate_of <> ''"))
    for queue_id, number in connection.execute(query.order_by(deliveries.c.queue_id, deliveries.c.number)):
        yield f"{queue_id}/{number}"


def _slips(connection: Connection, line: DeliveryLine) -> Iterator[str]:
    query = select(deliveries.c.queue_id, deliveries.c.number).where(is_in(f"{line.queue_id}/{line.number}"))
    for queue_id, number in connection.execute(query.order_by(deliveries.c.place)):
        yield f"{queue_id}/{number}"


def _dsns(connection: Connection, key: Key) -> Iterator[DsnLine]:
    query = (
        select(deliveries.c.queue_id, deliveries.c.recipient, deliveries.c.state)
        .join_from(messages, deliveries)
        .where(messages.c.about == f"{key[0]}/{key[1]}", text("about <> ''"))  # the words of the index
    )
    for row in connection.execute(query.order_by(deliveries.c.queue_id)):
        yield DsnLine(*row)
