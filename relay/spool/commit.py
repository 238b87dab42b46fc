"""Group commit: everything that waits to be written at a moment shares one transaction and one fsync.

A unit of work is a function of a connection. It must be re-runnable: it reads and writes the database and nothing else.
Promises: a future of `submit` is done only after the commit that holds its work; a unit that raises harms no other;
what fails leaves nothing behind. After a disk error nothing is acknowledged until the whole log was written once more
and synced: a second fsync of the same pages may say yes to what was lost. After a lost connection it is found out
whether the commit was done, and only then done again.
Known limit: what failed to be synced may be there all the same after a crash, whole, though its sender was told no.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, func
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.exc import SQLAlchemyError

from relay.errors import RelayError, SpoolAway, SpoolError
from relay.spool.engine import (
    checkpoint,
    disk_failed,
    in_words,
    may_be_run_again,
    no_room,
    write_log_anew,
    write_pages_anew,
)
from relay.spool.schema import commits

T = TypeVar("T")
Work = Callable[[Connection], T]

MAX_GROUP = 128
"""Units in one transaction at the most."""

MAX_GROUP_SIZE = 16 * 1024 * 1024
"""Bytes in one transaction, beyond which no further unit joins it."""

LARGE = 1024 * 1024
"""Bytes from which on a unit has a transaction of its own, between two of those that are small: what it writes takes
long, and nobody else is to wait for more than one of them.
"""

LINGER = 0.01
"""Seconds for which work that nobody waits for may wait for a commit that it can share."""

CHECKPOINT_AFTER = 8 * 1024 * 1024
"""Bytes written to SQLite's log after which they are moved into the database file."""

ROWS = 8 * 1024
"""What the rows of a unit are reckoned at, besides its body."""

PATIENCE = 30.0
"""Seconds for which a database server may be away before what waits for it is told so."""

IDLE = 5.0
"""Seconds without a word from us after which the server gives up our transaction: a machine that fell asleep, or off
the network, within one would keep its locks, and keep the others from taking over its work.
"""


_SERVER_CLOCK = func.extract("epoch", func.clock_timestamp())
"""Marks of all nodes have one clock, or one that is ahead would remove those of the others."""


@dataclass(frozen=True, slots=True)
class _Unit:
    work: Work[Any]
    size: int
    future: asyncio.Future[Any]


@dataclass(slots=True)
class _Group:
    """Units that are committed together. `mark` names the commit on a server, also when it is run again."""

    units: list[_Unit]
    mark: str
    results: list[Any] | None = None
    "What the units gave in the last run that came as far as the commit."


class GroupCommit:
    """The one writer of a spool: a thread that commits what waits, in order of arrival."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._on_server = engine.dialect.name != "sqlite"
        self._path = Path(engine.url.database or "")
        self._waiting: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._down_since: float | None = None
        self._disk_failed = self._moved_in_part = self._pages_in_doubt = False
        self._since_checkpoint = 0
        self._connection: Connection | None = None
        self._patient: deque[_Unit] = deque()
        self._large: deque[_Unit] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._thread.start()

    async def submit(self, work: Work[T], size: int = 0) -> T:
        """As `post`, and waits. A caller that is cancelled may find its work committed all the same."""
        return await self.post(work, size)

    def post(self, work: Work[T], size: int = 0, *, urgent: bool = True) -> asyncio.Future[T]:
        """Has a unit of work done, `size` bytes large; the future has its result once it is committed.

        It raises what the unit raised when that is an error of ours, else SpoolError. Work that is not urgent waits
        for a commit that it can share, for `LINGER` at the most.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        unit = _Unit(work, size, future)
        if urgent:
            self._waiting.put(unit)
        else:
            self._patient.append(unit)
            if self._timer is None:
                self._timer = future.get_loop().call_later(LINGER, self._press)
        return future

    def _press(self) -> None:
        """What waited for company goes by itself."""
        self._timer = None
        with contextlib.suppress(IndexError):  # the writer takes from the other end
            while True:
                self._waiting.put(self._patient.popleft())

    def stop(self) -> None:
        """Commits what waits, then ends the thread."""
        if self._thread is not None:
            self._stopping.set()
            self._press()
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        open_for_more = True
        while open_for_more or self._large:
            open_for_more = self._round(open_for_more)
        self._disconnect()
        if self._disk_failed:  # SQLite moves the log as it closes, but does not know what we know
            with contextlib.suppress(sqlite3.Error, SQLAlchemyError, OSError):
                self._write_anew()

    def _round(self, open_for_more: bool) -> bool:
        """Commits what waits, and one large unit; whether there may be more. It keeps nothing in memory after that."""
        units, open_for_more = self._take(open_for_more)
        for together in (units, [self._large.popleft()] if self._large else []):
            if together:
                self._commit(self._group(together))
                self._checkpoint(sum(unit.size + ROWS for unit in together))
        return open_for_more

    def _take(self, open_for_more: bool) -> tuple[list[_Unit], bool]:
        """The small units that wait, in order, and whether there may be more; large ones are put aside."""
        units: list[_Unit] = []
        size = 0
        with contextlib.suppress(queue.Empty):
            while open_for_more and len(units) < MAX_GROUP and size < MAX_GROUP_SIZE:
                # Only when there is nothing else to do it is waited for.
                unit = self._waiting.get(block=not units and not self._large)
                if unit is None:
                    open_for_more = False
                elif unit.size >= LARGE:
                    self._large.append(unit)
                else:
                    units.append(unit)
                    size += unit.size
        if open_for_more:
            units += self._patient_ones(MAX_GROUP - len(units))
        return units, open_for_more

    def _patient_ones(self, limit: int) -> list[_Unit]:
        units: list[_Unit] = []
        with contextlib.suppress(IndexError):
            while len(units) < limit:
                units.append(self._patient.popleft())
        return units

    def _group(self, units: list[_Unit]) -> _Group:
        return _Group(units, uuid.uuid4().hex if self._on_server else "")

    def _commit(self, group: _Group) -> None:
        while True:
            try:
                results = self._transaction(group)
            except Exception as error:
                if may_be_run_again(error):
                    if self._wait_for_server():
                        continue
                elif len(group.units) > 1 and not self._disk_failed:
                    for unit in group.units:  # one of them spoiled it: each on its own, so that only that one fails
                        self._commit(self._group([unit]))
                    return
                _tell(group.units, [_as_ours(error) for _ in group.units])
                return
            self._down_since = None
            _tell(group.units, results)
            return

    def _transaction(self, group: _Group) -> list[Any]:
        try:
            if self._disk_failed:
                self._write_anew()
            if self._connection is None:
                self._connection = self._engine.connect()
            connection = self._connection
            with connection.begin():
                if self._on_server and not _put_mark(connection, group.mark):
                    assert group.results is not None, "a mark is there only after a run that came to its commit"
                    return group.results  # the commit whose answer was lost had been done
                group.results = [unit.work(connection) for unit in group.units]
            return group.results
        except Exception as error:
            self._disk_failed = self._disk_failed or disk_failed(error)
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        """The next transaction begins with a new connection; for SQLite that is the same one, rolled back."""
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None

    def _wait_for_server(self) -> bool:
        """A pause before the next try; False when the server was away for too long, or the service stops."""
        now = time.monotonic()
        self._down_since = self._down_since or now
        if now - self._down_since > PATIENCE:
            return False
        return not self._stopping.wait(min(0.05 + (now - self._down_since) / 4, 2.0))

    def _write_anew(self) -> None:
        """After a disk error: brings onto the disk what the log holds, then moves it into the database file.

        The connection stays as it is: it does not count what it failed to commit as part of the log.
        """
        write_log_anew(self._path)
        if self._pages_in_doubt:
            write_pages_anew(self._engine)
            self._pages_in_doubt = False
        self._move()
        self._disk_failed = False

    def _move(self) -> None:
        try:
            self._moved_in_part = not checkpoint(self._engine)
        except (sqlite3.Error, SQLAlchemyError) as error:
            # SQLite syncs at the end of the log only, and does not move again what it has moved without a sync.
            self._pages_in_doubt = self._pages_in_doubt or (self._moved_in_part and disk_failed(error))
            raise
        self._since_checkpoint = 0

    def _checkpoint(self, written: int) -> None:
        self._since_checkpoint += written
        if self._on_server or self._disk_failed or self._since_checkpoint < CHECKPOINT_AFTER:
            return
        try:
            self._move()
        except (sqlite3.Error, SQLAlchemyError) as error:
            self._disk_failed = not no_room(error)  # without room the log may do for a while, and it is tried again


def _put_mark(connection: Connection, mark: str) -> bool:
    """Writes the mark of a commit; False when it is there already. Waits for a transaction that is just writing it.

    The same statement sets the transaction's time limit, which ends with it.
    """
    put = postgresql_insert(commits).values(id=mark, at=_SERVER_CLOCK).on_conflict_do_nothing()
    limit = func.set_config("idle_in_transaction_session_timeout", f"{IDLE * 1000:.0f}", True)
    return connection.execute(put.returning(limit)).first() is not None


def _as_ours(error: Exception) -> Exception:
    if isinstance(error, RelayError):
        return error
    kind = SpoolAway if may_be_run_again(error) else SpoolError
    ours = kind(f"the spool could not write: {in_words(error)}")
    ours.__cause__ = error
    return ours


def _tell(units: Sequence[_Unit], results: Sequence[Any]) -> None:
    """Wakes those who wait, all at once; a result that is an exception is raised there."""

    def settle() -> None:
        for unit, result in zip(units, results, strict=True):
            if unit.future.done():
                continue
            if isinstance(result, Exception):
                unit.future.set_exception(result)
            else:
                unit.future.set_result(result)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        units[0].future.get_loop().call_soon_threadsafe(settle)
