"""The spool's contract (design, "The durability contract"), as one class.

Does: accepts, claims, records attempts, settles, and gives bodies back.
Promises: each call returns after its commit; a write of a worker carries the fence (owner and attempt number) and
raises LeaseLost where it does not match; states follow one another only as `records.TRANSITIONS` allows.
Refuses: to run beside another writer of the same SQLite file.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, Update, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from relay.errors import LeaseLost, SpoolError, StartError
from relay.mail.status import printable
from relay.spool import migrations
from relay.spool.commit import GroupCommit
from relay.spool.engine import SpoolLock, reading_engine, writing_engine
from relay.spool.records import OPEN, TRANSITIONS, Delivery, Message, Outcome, PrintJob, State
from relay.spool.schema import attempts, bodies, deliveries, messages, print_jobs

_MESSAGE_COLUMNS = tuple(column.name for column in messages.c)

LEASE = 300.0
"""Seconds for which a claim holds without being renewed."""


class Store:
    """The spool of one node."""

    def __init__(self, path: Path, node: str, min_free: int = 0) -> None:
        """`min_free` is the space in bytes that accepting mail leaves on the disk, for settling what is there."""
        self._path = path
        self._min_free = min_free
        self._node = node
        self._lock = SpoolLock(path)
        self._writer = writing_engine(path)
        self._reader = reading_engine(path)
        self._commits = GroupCommit(self._writer)

    def open(self) -> None:
        """Takes the lock, brings the schema up to date, takes back what an earlier life of this node left unfinished.

        Raises StartError when the spool can't be used.
        """
        self._lock.take()
        try:
            with self._writer.begin() as connection:
                migrations.upgrade(connection)
                connection.execute(_reclaim())
        except (SQLAlchemyError, migrations.NewerSchema) as error:
            self._lock.drop()
            raise StartError(f"the spool {self._path} can't be used: {getattr(error, 'orig', error)}") from error
        self._commits.start()

    def close(self) -> None:
        """Commits what waits, gives leases back and closes the database."""
        self._commits.stop()
        # On a full disk this fails; the next start takes the leases back all the same.
        with contextlib.suppress(SQLAlchemyError), self._writer.begin() as connection:
            connection.execute(_reclaim())
        self._writer.dispose()
        self._reader.dispose()
        self._lock.drop()

    def has_room(self, size: int) -> bool:
        """Whether a message of `size` bytes fits on the disk: it is written to the log first, then to the database."""
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize - 2 * size >= self._min_free

    async def accept(
        self, message: Message, content: bytes, routes: Sequence[tuple[str, str]], *, claim: bool
    ) -> list[Delivery]:
        """Keeps a message and a delivery for each (recipient, route); from here on it is ours.

        With `claim` this node holds the deliveries, and gets them back to work on; otherwise the list is empty.
        """
        return await self._commits.submit(lambda c: self._insert(c, message, content, routes, claim))

    async def claim(self, limit: int, except_routes: Collection[str] = ()) -> list[Delivery]:
        """Up to `limit` deliveries that are due and that nobody holds, the oldest first; this node holds them now."""
        return await self._commits.submit(lambda c: self._claim(c, limit, sorted(except_routes)))

    async def begin(self, delivery: Delivery, retry_at: float) -> Delivery:
        """Records that an attempt begins, and when the next one is due should this one never end."""
        return await self._commits.submit(lambda c: self._begin(c, delivery, retry_at))

    async def record_job(self, delivery: Delivery, job: PrintJob) -> Delivery:
        """Keeps what is known of the delivery's print job."""
        return await self._commits.submit(lambda c: self._record_job(c, delivery, job))

    async def forget_job(self, delivery: Delivery) -> Delivery:
        """Drops the print job of a delivery, for it is certain that nothing of it comes onto paper."""
        return await self._commits.submit(lambda c: self._forget_job(c, delivery))

    async def pending(self, delivery: Delivery, reason: str) -> Delivery:
        """Records that the document is with CUPS whole, and what it waits for there ("" for nothing special)."""
        return await self._commits.submit(lambda c: self._pending(c, delivery, reason))

    async def settle(self, delivery: Delivery, outcome: Outcome, retry_at: float) -> None:
        """Records how the attempt ended and lets go of the delivery. `retry_at` counts when it is deferred."""
        await self._commits.submit(lambda c: self._settle(c, delivery, outcome, retry_at, keep=False))

    async def put_off(self, delivery: Delivery, outcome: Outcome, retry_at: float) -> Delivery:
        """Records that the attempt was put off, and keeps hold of the delivery; gives it as it is now."""
        return await self._commits.submit(lambda c: self._put_off(c, delivery, outcome, retry_at))

    async def renew(self, ids: Collection[int]) -> None:
        """Prolongs the leases of this node on these deliveries."""
        held, until = sorted(ids), time.time() + LEASE
        await self._commits.submit(
            lambda c: (
                c.execute(
                    update(deliveries)
                    .where(deliveries.c.id.in_(held), deliveries.c.lease_owner == self._node)
                    .values(lease_until=until)
                ).rowcount
            )
        )

    async def release(self, held: Sequence[Delivery]) -> None:
        """Lets go of deliveries that no attempt was begun for."""
        ids = [delivery.id for delivery in held]
        await self._commits.submit(
            lambda c: (
                c.execute(
                    update(deliveries)
                    .where(deliveries.c.id.in_(ids), deliveries.c.lease_owner == self._node)
                    .values(lease_owner=None, lease_until=0.0)
                ).rowcount
            )
        )

    async def content(self, message: Message) -> bytes:
        """The bytes of a message. Raises SpoolError when they are not those that were accepted."""
        return await asyncio.to_thread(self._content, message)

    def _content(self, message: Message) -> bytes:
        with self._reader.connect() as connection:
            content = connection.execute(
                select(bodies.c.content).where(bodies.c.queue_id == message.queue_id)
            ).scalar_one_or_none()
        if content is None or hashlib.sha256(content).hexdigest() != message.sha256:
            raise SpoolError("the stored bytes are not those that were accepted")
        return bytes(content)

    def _insert(
        self,
        connection: Connection,
        message: Message,
        content: bytes,
        routes: Sequence[tuple[str, str]],
        claim: bool,
    ) -> list[Delivery]:
        now = time.time()
        connection.execute(insert(messages), {name: getattr(message, name) for name in _MESSAGE_COLUMNS})
        connection.execute(insert(bodies), {"queue_id": message.queue_id, "content": content})
        held = []
        for number, (recipient, route) in enumerate(routes):
            row: dict[str, Any] = {
                "queue_id": message.queue_id,
                "number": number,
                "recipient": recipient,
                "route": route,
                "state": State.QUEUED.value,
                "next_attempt_at": now,
                "lease_owner": self._node if claim else None,
                "lease_until": now + LEASE if claim else 0.0,
            }
            key = connection.execute(insert(deliveries), row).inserted_primary_key
            if claim and key is not None:
                held.append(Delivery(key[0], message, number, recipient, route, State.QUEUED, 0, now))
        return held

    def _claim(self, connection: Connection, limit: int, except_routes: list[str]) -> list[Delivery]:
        now = time.time()
        due = connection.execute(
            _joined()
            .where(
                deliveries.c.state.in_([state.value for state in OPEN]),
                deliveries.c.next_attempt_at <= now,
                deliveries.c.lease_until <= now,
                deliveries.c.route.not_in(except_routes),
            )
            .order_by(deliveries.c.next_attempt_at, deliveries.c.id)
            .limit(limit)
        ).all()
        connection.execute(
            update(deliveries)
            .where(deliveries.c.id.in_([row.id for row in due]))
            .values(lease_owner=self._node, lease_until=now + LEASE)
        )
        return [_delivery(row) for row in due]

    def _begin(self, connection: Connection, delivery: Delivery, retry_at: float) -> Delivery:
        number = delivery.attempts + 1
        self._write(connection, delivery, State.ACTIVE, attempts=number, next_attempt_at=retry_at, reason="")
        connection.execute(insert(attempts), {"delivery_id": delivery.id, "number": number, "started_at": time.time()})
        return replace(delivery, state=State.ACTIVE, attempts=number, next_attempt_at=retry_at)

    def _record_job(self, connection: Connection, delivery: Delivery, job: PrintJob) -> Delivery:
        self._hold_fence(connection, delivery)
        values = {"name": job.name, "queue": job.queue, "job_id": job.job_id, "sent": job.sent}
        known = connection.execute(update(print_jobs).where(print_jobs.c.delivery_id == delivery.id).values(values))
        if known.rowcount == 0:
            connection.execute(insert(print_jobs), {"delivery_id": delivery.id, **values})
        return replace(delivery, job=job)

    def _forget_job(self, connection: Connection, delivery: Delivery) -> Delivery:
        self._hold_fence(connection, delivery)
        connection.execute(print_jobs.delete().where(print_jobs.c.delivery_id == delivery.id))
        return replace(delivery, job=None)

    def _pending(self, connection: Connection, delivery: Delivery, reason: str) -> Delivery:
        self._write(connection, delivery, State.PENDING, reason=printable(reason))
        return replace(delivery, state=State.PENDING)

    def _put_off(self, connection: Connection, delivery: Delivery, outcome: Outcome, retry_at: float) -> Delivery:
        self._settle(connection, delivery, outcome, retry_at, keep=True)
        return _delivery(connection.execute(_joined().where(deliveries.c.id == delivery.id)).one())

    def _settle(
        self, connection: Connection, delivery: Delivery, outcome: Outcome, retry_at: float, *, keep: bool
    ) -> None:
        now = time.time()
        ended = outcome.state not in OPEN
        reason = printable("; ".join([outcome.reason, *outcome.notes] if outcome.reason else outcome.notes), 2000)
        self._write(
            connection,
            delivery,
            outcome.state,
            reason=reason,
            evidence=outcome.evidence,
            next_attempt_at=now if ended else retry_at,
            settled_at=now if ended else None,
            lease_owner=self._node if keep else None,
            lease_until=now + LEASE if keep else 0.0,
        )
        connection.execute(
            update(attempts)
            .where(attempts.c.delivery_id == delivery.id, attempts.c.number == delivery.attempts)
            .values(ended_at=now, outcome=outcome.state.value, reply=str(outcome.reply or ""), reason=reason)
        )

    def _hold_fence(self, connection: Connection, delivery: Delivery) -> None:
        """Raises LeaseLost unless the delivery is still this worker's."""
        self._write(connection, delivery, State.ACTIVE)

    def _write(self, connection: Connection, delivery: Delivery, state: State, **values: Any) -> None:
        """Changes a delivery behind its fence, along `TRANSITIONS`."""
        before = [known.value for known in State if known is state or state in TRANSITIONS[known]]
        changed = connection.execute(
            update(deliveries)
            .where(
                deliveries.c.id == delivery.id,
                deliveries.c.lease_owner == self._node,
                deliveries.c.attempts == delivery.attempts,
                deliveries.c.state.in_(before),
            )
            .values(state=state.value, **values)
        )
        if changed.rowcount != 1:
            raise LeaseLost(f"delivery {delivery.message.queue_id}/{delivery.number} is not held by this node any more")


def _reclaim() -> Update:
    """Everything that is held becomes due, before what waits: on SQLite nobody else can be at work on it."""
    return (
        update(deliveries)
        .where(deliveries.c.lease_owner.is_not(None))
        .values(lease_owner=None, lease_until=0.0, next_attempt_at=0.0)
    )


def _joined() -> Select[Any]:
    return (
        select(
            deliveries,
            *(column for column in messages.c if column.name != "queue_id"),
            print_jobs.c.name.label("job_name"),
            print_jobs.c.queue.label("job_queue"),
            print_jobs.c.job_id,
            print_jobs.c.sent.label("job_sent"),
        )
        .join_from(deliveries, messages, deliveries.c.queue_id == messages.c.queue_id)
        .outerjoin(print_jobs, print_jobs.c.delivery_id == deliveries.c.id)
    )


def _delivery(row: Row[Any]) -> Delivery:
    message = Message(**{name: getattr(row, name) for name in _MESSAGE_COLUMNS})
    job = PrintJob(row.job_name, row.job_queue, row.job_id, row.job_sent) if row.job_name is not None else None
    return Delivery(
        row.id,
        message,
        row.number,
        row.recipient,
        row.route,
        State(row.state),
        row.attempts,
        row.next_attempt_at,
        job,
    )
