"""Clean-up: bodies and history leave the spool some days after everything about a message is settled.

Does: a pass each hour. It takes off PDFs that are older than `keep_pdfs`, and the oldest of those that are too many;
the bodies of messages that were settled longer ago than `keep_bodies`; forgets messages that were settled longer ago
than `keep_history`; and gives the room in an SQLite file back to the disk.
Promises: only messages all of whose deliveries are final go; what is held, uncertain, corrupt or open stays, however
old it is. Each step is a small unit of work behind which accepting mail waits some hundredths of a second, with a pause
after it that is longer than the step. Several nodes may clean at the same time.
Known limit: a file that was made without `auto_vacuum` keeps its size; its free pages are used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, Engine, Table, delete, func, select
from sqlalchemy.exc import SQLAlchemyError

from relay.config.settings import Spool
from relay.errors import SpoolError
from relay.mail.queue_id import new_queue_id
from relay.maillog import MailLog
from relay.spool.engine import in_words, reading_engine
from relay.spool.queries import among
from relay.spool.records import FINAL, Key
from relay.spool.schema import bodies, deliveries, messages, papers
from relay.spool.store import Store

FIRST_PASS = 180.0
"""Seconds after the start of the service; the spool has better things to do then."""

EVERY = 3600.0

WINDOW = 500
"""Messages that are looked at in one question."""

STEP = 100
"""Messages that one unit of work removes at the most."""

STEP_SIZE = 8 * 1024 * 1024
"""Bytes of bodies that one unit of work removes, unless a single one is larger. SQLite overwrites what it removes."""

STEP_PAGES = 1000
"""Pages that one unit of work takes off an SQLite file."""

SPARE_PAGES = 4096
"""Free pages that stay in an SQLite file for what comes next, or a tenth of the file when that is more."""

PAUSE, PAUSE_FACTOR = 0.05, 4
"""Seconds between two steps; or so many times what the step took, when that is longer."""

_INCREMENTAL = 2
"""What `PRAGMA auto_vacuum` answers for a file that can give pages back."""


@dataclass(slots=True)
class Cleaned:
    """What a pass removed."""

    bodies: int = 0
    messages: int = 0
    pdfs: int = 0
    pages: int = 0


class Retention:
    """The clean-up of one node's spool."""

    def __init__(self, store: Store, spool: Spool, maillog: MailLog) -> None:
        self._store = store
        self._keep_bodies = spool.keep_bodies
        self._keep_history = spool.keep_history
        self._keep_pdfs = spool.pdfs_kept_for
        self._max_pdfs_size = int(spool.max_pdfs_size)
        self._maillog = maillog

    async def run(self, stop: asyncio.Event) -> None:
        """A pass now and then until `stop` is set. What goes wrong in one is logged, and the next one tries again."""
        wait = FIRST_PASS
        while not await _stopped(stop, wait):
            wait = EVERY
            try:
                cleaned = await self.clean(stop)
            except Exception as error:
                self._maillog.fault("retention", error)
                continue
            if cleaned != Cleaned():
                self._maillog.cleaned(
                    bodies=cleaned.bodies, messages=cleaned.messages, pdfs=cleaned.pdfs, pages=cleaned.pages
                )

    async def clean(self, stop: asyncio.Event | None = None) -> Cleaned:
        """One pass through the spool; ends early, between two steps, when `stop` is set. Raises SpoolError."""
        stop = stop or asyncio.Event()
        now = time.time()
        cleaned = Cleaned()
        engine = reading_engine(self._store.place)
        try:
            cleaned.pdfs = await self._remove_pdfs(engine, now - self._keep_pdfs, stop)
            cleaned.bodies = await self._remove(engine, bodies, now - self._keep_bodies, stop)
            cleaned.messages = await self._remove(engine, messages, now - self._keep_history, stop)
        except SQLAlchemyError as error:
            raise SpoolError(f"the spool could not be read: {in_words(error)}") from error
        finally:
            engine.dispose()
        if self._store.place.path is not None:
            cleaned.pages = await self._shrink(stop)
        return cleaned

    async def _remove(self, engine: Engine, table: Table, before: float, stop: asyncio.Event) -> int:
        """Goes through a table in the order of arrival, once, so that what can't go yet is looked at once."""
        removed = 0
        after: str | None = ""
        while after is not None and not stop.is_set():
            found, after = await asyncio.to_thread(_look, engine, table, after, before)
            for ids, size in _steps(found):
                started = time.monotonic()
                removed += await self._store.write(partial(_take_off, table=table, ids=ids, before=before), size)
                if await _stopped(stop, max(PAUSE, PAUSE_FACTOR * (time.monotonic() - started))):
                    break
            if not found:
                await _stopped(stop, PAUSE)
        return removed

    async def _remove_pdfs(self, engine: Engine, before: float, stop: asyncio.Event) -> int:
        """The oldest PDFs, as long as they are too old, or all of them too much. Nothing but a reprint asks for one."""
        removed = 0
        while not stop.is_set():
            keys, size = await asyncio.to_thread(_pdfs_too_many, engine, before, self._max_pdfs_size)
            if not keys:
                break
            started = time.monotonic()
            removed += await self._store.write(partial(_take_off_pdfs, keys=keys), size)
            await _stopped(stop, max(PAUSE, PAUSE_FACTOR * (time.monotonic() - started)))
        return removed

    async def _shrink(self, stop: asyncio.Event) -> int:
        """Gives pages of an SQLite file back to the disk, but for some; the next checkpoint makes the file shorter."""
        given = 0
        while pages := await self._store.write(_give_back, STEP_PAGES * 4096):
            given += pages
            if await _stopped(stop, PAUSE):
                break
        return given


def _look(engine: Engine, table: Table, after: str, before: float) -> tuple[list[tuple[str, int]], str | None]:
    """Queue id and size of what may go in the next window, and where the window after it begins (None: nowhere)."""
    column = table.c.queue_id
    window = select(column).where(column > after, column < new_queue_id(before)).order_by(column).limit(WINDOW)
    with engine.connect() as connection:
        ids = connection.execute(window).scalars().all()
        free = _settled(connection, ids, before)
        sizes = select(messages.c.queue_id, messages.c.size).where(messages.c.queue_id.in_(free))
        found = sorted((queue_id, size) for queue_id, size in connection.execute(sizes)) if free else []
    return found, ids[-1] if len(ids) == WINDOW else None


def _pdfs_too_many(engine: Engine, before: float, most: int) -> tuple[list[Key], int]:
    """The PDFs that go in the next step, the oldest first, and their size in bytes. It touches no PDF."""
    oldest = select(papers.c.queue_id, papers.c.number, papers.c.made_at, papers.c.size)
    with engine.connect() as connection:
        total = connection.execute(select(func.coalesce(func.sum(papers.c.size), 0))).scalar_one()
        keys: list[Key] = []
        size = 0
        for queue_id, number, made_at, bytes_of_it in connection.execute(oldest.order_by(papers.c.made_at).limit(STEP)):
            if (made_at >= before and total - size <= most) or (keys and size + bytes_of_it > STEP_SIZE):
                break
            keys.append((queue_id, number))
            size += bytes_of_it
        return keys, size


def _take_off_pdfs(connection: Connection, keys: Sequence[Key]) -> int:
    return connection.execute(delete(papers).where(among(papers, keys))).rowcount


def _settled(connection: Connection, ids: Sequence[str], before: float) -> list[str]:
    """Those of some messages all of whose deliveries were settled for good before a time."""
    unsettled = (
        deliveries.c.state.not_in([state.value for state in FINAL])
        | deliveries.c.settled_at.is_(None)
        | (deliveries.c.settled_at >= before)
    )
    # Two lists and not a join: the keys are looked up one by one, whatever a planner may think of a million rows.
    query = select(deliveries.c.queue_id).where(deliveries.c.queue_id.in_(ids), unsettled)
    kept = set(connection.execute(query).scalars()) if ids else set()
    return [queue_id for queue_id in ids if queue_id not in kept]


def _steps(found: Sequence[tuple[str, int]]) -> Iterator[tuple[list[str], int]]:
    """Queue ids in portions of one unit of work each, with their size in bytes."""
    ids: list[str] = []
    total = 0
    for queue_id, size in found:
        if ids and (len(ids) == STEP or total + size > STEP_SIZE):
            yield ids, total
            ids, total = [], 0
        ids.append(queue_id)
        total += size
    if ids:
        yield ids, total


def _take_off(connection: Connection, table: Table, ids: Sequence[str], before: float) -> int:
    """Removes some messages, or their bodies, but for those that another node is just removing; how many.

    Nothing follows a final state (`records.TRANSITIONS`), and who adds a delivery locks the message as is done here, so
    that nobody can open one again between look and removal.
    """
    query = select(messages.c.queue_id).where(messages.c.queue_id.in_(ids)).order_by(messages.c.queue_id)
    mine = connection.execute(query.with_for_update(skip_locked=True)).scalars().all()
    free = _settled(connection, mine, before)
    return connection.execute(delete(table).where(table.c.queue_id.in_(free))).rowcount if free else 0


def _give_back(connection: Connection) -> int:
    """Takes some free pages off an SQLite file; how many."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)

    def pragma(name: str) -> int:
        return int(raw.execute(f"PRAGMA {name}").fetchone()[0])

    if pragma("auto_vacuum") != _INCREMENTAL:
        return 0
    spare = max(SPARE_PAGES, pragma("page_count") // 10)
    pages = min(pragma("freelist_count") - spare, STEP_PAGES)
    for _ in range(pages):  # one at a time, for the driver takes only the first step of a statement without rows
        raw.execute("PRAGMA incremental_vacuum(1)")
    return max(pages, 0)


async def _stopped(stop: asyncio.Event, seconds: float) -> bool:
    """Waits; True as soon as `stop` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()
