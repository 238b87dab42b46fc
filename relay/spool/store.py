"""The spool's contract (design, "The durability contract"), as one class.

Does: accepts, claims, records attempts, settles, and gives bodies back; `writes` has what each of these writes.
Promises: each call returns after its commit; a write of a worker carries the fence (owner and attempt number) and
raises LeaseLost where it does not match; states follow one another only as `records.TRANSITIONS` allows.
Refuses: to run beside another writer of the same SQLite file, and on a server that answers before it has synced.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from relay.errors import CorruptBody, LeaseLost, SpoolError, StartError
from relay.spool import bundles, claims, leases, migrations, sorting, writes
from relay.spool.bodies import stored_body, verified
from relay.spool.bundles import Bundled
from relay.spool.commit import GroupCommit, T, Work
from relay.spool.contents import SMALL
from relay.spool.duplicates import Again, begin_bundle, begin_job, paper_of
from relay.spool.engine import Place, SpoolLock, in_words, reading_engine, writing_engine
from relay.spool.records import (
    Delivery,
    Key,
    Message,
    NewMessage,
    Onward,
    Outcome,
    Paper,
    PrintJob,
    Sameness,
    Twin,
)
from relay.spool.schema import deliveries

LEASE = 60.0
"""Seconds without a sign of life after which a node is taken for dead, when nothing else is said."""


_ONE_MIGRATES = 0x736C6970
"""Names a lock of PostgreSQL, held while a node brings the schema up to date; others that start meanwhile wait."""


class Store:
    """The spool as one node sees it. Each start of the service is a new node, with a name of its own."""

    def __init__(self, place: Place, *, min_free: int = 0, lease: float = LEASE) -> None:
        """`min_free` is the space in bytes that accepting mail leaves on the disk, for settling what is there."""
        self.place = place
        self.lease = lease
        self.node = f"{socket.gethostname()[:40]}-{secrets.token_hex(6)}"
        self._min_free = min_free
        self._lock = SpoolLock(place.path) if place.path is not None else None
        self._writer = writing_engine(place)
        self._reader = reading_engine(place)
        self._commits = GroupCommit(self._writer)
        self._strangers: set[Key] = set()
        self._in_time = False

    def open(self) -> None:
        """Takes the lock, brings the schema up to date, takes over what dead nodes left unfinished.

        Raises StartError when the spool can't be used.
        """
        if self._lock is not None:
            self._lock.take()
        try:
            with self._writer.begin() as connection:
                if self._lock is None:
                    _check_server(connection)
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({_ONE_MIGRATES})"))
                migrations.upgrade(connection)
            with self._writer.begin() as connection:
                leases.alone(connection) if self._lock is not None else leases.take_over(connection)
                leases.sign_in(connection, self.node, self.lease)
            if self.place.path is not None:
                _sync_folder(self.place.path.parent)
        except (SQLAlchemyError, migrations.NewerSchema, OSError) as error:
            self._drop()
            raise StartError(f"the spool {self.place} can't be used: {in_words(error)}") from error
        except StartError:
            self._drop()
            raise
        self._commits.start()

    def close(self) -> None:
        """Commits what waits, gives leases back and closes the database."""
        self._commits.stop()
        # On a full disk, or without its server, this fails; then the leases end by themselves.
        with contextlib.suppress(SQLAlchemyError), self._writer.begin() as connection:
            leases.sign_out(connection, self.node)
        self._drop()

    def _drop(self) -> None:
        self._writer.dispose()
        self._reader.dispose()
        if self._lock is not None:
            self._lock.drop()

    @property
    def is_shared(self) -> bool:
        """Whether other nodes may be at work with it."""
        return self._lock is None

    def has_room(self, size: int) -> bool:
        """Whether a message of `size` bytes fits on the disk: it is written to the log first, then to the database."""
        if self.place.path is None:
            return True
        try:
            disk = os.statvfs(self.place.path.parent)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize - 2 * size >= self._min_free

    def accept(self, new: NewMessage, retry_at: Sequence[float | None] | None) -> asyncio.Future[list[Delivery]]:
        """Keeps a message; when the future is done it is ours.

        Without `retry_at` its deliveries wait for whoever claims them first, and the list is empty. With it this node
        holds them: one that has a time there begins its first attempt in the same transaction, and the time is when
        it is due again should the attempt never end.
        """

        def keep(connection: Connection) -> list[Delivery]:
            if retry_at is None:
                writes.put_message(connection, new, None, ())
                return []
            writes.put_message(connection, new, self.node, retry_at)
            return writes.held_at_once(new, retry_at)

        return self._commits.post(keep, new.message.size)

    async def claim(
        self,
        limit: int,
        room: Mapping[str, int] | None = None,
        until: Mapping[str, float] | None = None,
        alone: Collection[str] = (),
    ) -> tuple[list[Delivery], frozenset[str]]:
        """Up to `limit` deliveries that are due and that nobody holds, the oldest of each destination first; this node
        holds them now. Of a destination in `room` no more than it says; of one in `until` only what was due by then; of
        one in `alone` nothing while another node holds some. With them the destinations that have more.
        """
        if not await asyncio.to_thread(self._has_come, deliveries.c.due_at, until or {}, alone):
            return [], frozenset()
        return await self.write(lambda c: claims.claim(c, self.node, limit, room or {}, until or {}, alone))

    async def waiting_since(self, moments: Mapping[str, float]) -> frozenset[str]:
        """Those of some destinations for which something waits that arrived before the moment given."""
        if not moments:
            return frozenset()
        return await asyncio.to_thread(self._read, lambda c: claims.waiting_since(c, moments))

    async def claim_batch(self, destination: str, moment: float, limit: int) -> list[Delivery]:
        """Up to `limit` deliveries of a destination that wait and arrived before a moment, in order of arrival; this
        node holds them now. None while another node has some of that destination.
        """
        return await self.write(lambda c: claims.claim_batch(c, self.node, destination, moment, limit))

    async def bundle(self, slips: Sequence[Delivery]) -> Bundled:
        """Makes one document of slips of a printer that this node holds; it holds the document now."""
        return await self.write(lambda c: bundles.bundle(c, self.node, slips))

    async def part(self, bundle: Delivery, leaving: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Records that slips leave a bundle before it has a print job, and what became of each."""
        await self.write(lambda c: bundles.part(c, self.node, bundle, leaving))

    async def members(self, bundle: str) -> list[Delivery]:
        """The slips of a bundle, in the order in which they are printed. Raises SpoolError when it can't be read."""
        return await asyncio.to_thread(self._read, lambda c: bundles.members(c, bundle))

    async def claim_overdue(self, limit: int) -> list[Delivery]:
        """Up to `limit` deliveries that wait and are late (`warn_at`) or to be given up (`expires_at`)."""
        if not await asyncio.to_thread(self._has_come, deliveries.c.deadline):
            return []
        return await self.write(lambda c: claims.claim_overdue(c, self.node, limit))

    def _has_come(
        self, when: Column[Any], until: Mapping[str, float] | None = None, alone: Collection[str] = ()
    ) -> bool:
        """Whether the first of these times has come, for a destination that is not to wait. Asked beside the writer: on
        a server each commit is a sync of its own, and a node that has nothing to do would make one every second.
        """
        now = time.time()
        try:
            with self._reader.connect() as connection:
                first = connection.execute(select(func.min(when)).where(when.is_not(None))).scalar_one()
                if first is None or first > now:
                    return False
                if not until and not (alone and self.is_shared):
                    return True
                return bool(claims.due(connection, now, until or {}, self.node, alone))
        except SQLAlchemyError:
            return True  # the writer finds out what is wrong, and waits for a server that is away

    async def clock_set_back(self, seconds: float) -> int:
        """The clock was set back by so much: nothing waits longer for that; how many deliveries it was about."""
        return await self.write(lambda c: claims.set_back(c, seconds))

    async def begin(self, delivery: Delivery, retry_at: float) -> Delivery:
        """Records that an attempt begins, and when the next one is due should this one never end."""
        return await self.write(lambda c: writes.begin(c, self.node, delivery, retry_at))

    async def begin_and_read(self, delivery: Delivery, retry_at: float) -> tuple[Delivery, bytes | None]:
        """As `begin`. The bytes of a small message come with it, which is cheaper than asking for them; None where
        `content` has to be asked.
        """

        def work(connection: Connection) -> tuple[Delivery, bytes | None]:
            begun = writes.begin(connection, self.node, delivery, retry_at)
            return begun, stored_body(connection, delivery.message.queue_id)

        if delivery.message.size > SMALL:
            return await self.begin(delivery, retry_at), None
        try:
            begun, content = await self.write(work)
        except LeaseLost:
            raise
        except SpoolError:  # perhaps it is the bytes that can't be read: that is not to keep the attempt from beginning
            return await self.begin(delivery, retry_at), None
        with contextlib.suppress(CorruptBody):
            return begun, verified(delivery.message, content)
        return begun, None

    async def begin_job(self, delivery: Delivery, job: PrintJob, paper: Paper, sameness: Sameness) -> Delivery | Twin:
        """Keeps the name of a print job that is about to be created, what the slip says and its PDF; or keeps nothing
        and gives the delivery that is the same slip.
        """
        size = len(paper.pdf or b"")
        return await self.write(lambda c: begin_job(c, self.node, delivery, job, paper, sameness), size)

    async def begin_bundle(
        self,
        bundle: Delivery,
        job: PrintJob,
        paper: Paper,
        slips: Sequence[tuple[Delivery, Paper]],
        sameness: Sameness,
    ) -> Delivery | list[tuple[Delivery, Twin]]:
        """As `begin_job` for a bundle and its slips; or gives those that are the same as another delivery."""
        size = len(paper.pdf or b"")
        return await self.write(lambda c: begin_bundle(c, self.node, bundle, job, paper, slips, sameness), size)

    async def paper(self, key: Key) -> Paper | None:
        """The paper that a delivery became; None when it is not kept. Raises SpoolError when it can't be read."""
        return await asyncio.to_thread(self._read, lambda c: paper_of(c, key))

    async def record_job(self, delivery: Delivery, job: PrintJob) -> Delivery:
        """Keeps what is known of the delivery's print job."""
        return await self.write(lambda c: writes.record_job(c, self.node, delivery, job))

    async def forget_job(self, delivery: Delivery) -> Delivery:
        """Drops the print job of a delivery, for it is certain that nothing of it comes onto paper."""
        return await self.write(lambda c: writes.forget_job(c, self.node, delivery))

    async def pending(self, delivery: Delivery, reason: str) -> Delivery:
        """Records that the document is with CUPS whole, and what it waits for there ("" for nothing special)."""
        return await self.write(lambda c: writes.pending(c, self.node, delivery, reason))

    async def settle(
        self, delivery: Delivery, outcome: Outcome, retry_at: float, followups: Sequence[NewMessage] = ()
    ) -> None:
        """Records how the attempt ended, accepts what follows from it (a DSN) in the same transaction, and lets go of
        the delivery. `retry_at` counts when it is deferred.
        """
        ended_at = time.time()  # now, and not when there is a commit for it

        def work(connection: Connection) -> None:
            writes.settle(connection, self.node, delivery, outcome, ended_at, retry_at, followups, keep=False)

        # Nobody waits for it: where one message comes after the other it shares the commit of the next one.
        await self._commits.post(work, sum(len(new.content) for new in followups), urgent=False)

    async def sort(self, delivery: Delivery, outcome: Outcome, onward: Onward) -> list[Again]:
        """Records what the rules made of a delivery whose letter they have read: where it goes on, and what is added to
        its message, in one transaction; and lets go of it. Gives the slips that came a second time, and go nowhere.
        """
        return await self.write(lambda c: sorting.sort(c, self.node, delivery, outcome, onward))

    async def put_off(self, delivery: Delivery, outcome: Outcome, retry_at: float) -> Delivery:
        """Records that the attempt was put off, and keeps hold of the delivery; gives it as it is now."""
        now = time.time()
        return await self.write(lambda c: writes.settle(c, self.node, delivery, outcome, now, retry_at, (), keep=True))

    async def give_up(self, delivery: Delivery, reason: str, followups: Sequence[NewMessage] = ()) -> None:
        """Ends a delivery as expired that waited too long, with what follows from it."""
        await self.write(lambda c: writes.give_up(c, self.node, delivery, reason, followups))

    async def warned(self, delivery: Delivery, followups: Sequence[NewMessage] = ()) -> None:
        """Accepts the message that tells of a delay, and lets the delivery wait on."""
        await self.write(lambda c: writes.warned(c, self.node, delivery, followups))

    async def first_lease_end(self) -> float | None:
        """Seconds until the first lease of another node ends, negative when it has; None when there is no other."""
        if self._lock is not None:
            return None
        return await asyncio.to_thread(self._read, lambda c: leases.first_end(c, self.node))

    async def take_over(self) -> int:
        """Takes over what dead nodes hold; how many deliveries became free. None while this node does not renew in
        time itself.
        """

        def work(connection: Connection) -> int:
            return leases.take_over(connection) if leases.is_alive(connection, self.node) else 0

        return await self.write(work) if self._in_time else 0

    async def renew(self, held: Collection[Key]) -> int:
        """Shows that this node lives, and takes over what dead nodes hold; how many deliveries became free.

        `held` is what this node works on. What bears its name beyond that, twice in a row, was left behind by a
        commit whose answer was lost: it is let go of.
        """
        known = set(held)

        def renew(connection: Connection) -> tuple[bool, int, set[Key]]:
            in_time = leases.sign_in(connection, self.node, self.lease)
            leases.forget_marks(connection)
            freed = leases.take_over(connection) if in_time else 0
            strangers = leases.held_keys(connection, self.node) - known
            lost = strangers & self._strangers
            leases.let_go_of(connection, self.node, lost)
            return in_time, freed + len(lost), strangers - lost

        self._in_time, freed, self._strangers = await self.write(renew)
        return freed

    async def release(self, held: Sequence[Delivery], *, in_order: bool = False) -> None:
        """Lets go of deliveries that no attempt was begun for; `in_order` keeps the places of those put off."""
        await self.write(lambda c: writes.release(c, self.node, held, in_order=in_order))

    async def write(self, work: Work[T], size: int = 0) -> T:
        """Commits a unit of work of this package's own; for the modules beside this one."""
        return await self._commits.submit(work, size)

    async def content(self, message: Message) -> bytes:
        """The bytes of a message. Raises SpoolError when they can't be read, CorruptBody when they are not those that
        were accepted.
        """
        return await asyncio.to_thread(self._content, message)

    def _content(self, message: Message) -> bytes:
        return verified(message, self._read(lambda c: stored_body(c, message.queue_id)))

    def _read(self, question: Work[T]) -> T:
        """Asks beside the writer, in a thread of its own. Raises SpoolError when the spool can't be read."""
        try:
            with self._reader.connect() as connection:
                return question(connection)
        except SQLAlchemyError as error:
            raise SpoolError(f"the spool could not be read: {in_words(error)}") from error


def _check_server(connection: Connection) -> None:
    """Raises StartError on a server that would answer without having synced, or after a sync that has failed."""
    for setting, needed in (("fsync", "on"), ("synchronous_commit", "on"), ("data_sync_retry", "off")):
        value = connection.execute(text(f"SHOW {setting}")).scalar_one()
        if value in ("on", "off") and value != needed:
            raise StartError(
                f"the database server has {setting} = {value} and would lose mail that was answered with 250: "
                f"set it to {needed}"
            )


def _sync_folder(folder: Path) -> None:
    """Makes the names of new files in a folder last."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
