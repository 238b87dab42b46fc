"""Group commit: everything that waits to be written at a moment shares one transaction and one fsync.

A unit of work is a function of a connection. It must be re-runnable: it reads and writes the database and nothing else.
Promises: a future of `submit` is done only after the commit that holds its work; a unit that raises harms no other;
what fails leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from relay.errors import RelayError, SpoolError

T = TypeVar("T")
Work = Callable[[Connection], T]

MAX_GROUP = 128
"""Units in one transaction at the most: one of 25 MB messages must not take for ever."""


@dataclass(frozen=True, slots=True)
class _Unit:
    work: Work[Any]
    future: asyncio.Future[Any]


class GroupCommit:
    """The one writer of a spool: a thread that commits what waits, in order of arrival."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._thread.start()

    async def submit(self, work: Work[T]) -> T:
        """Runs a unit of work and returns its result once it is committed.

        Raises what the unit raised when that is an error of ours, else SpoolError. A caller that is cancelled may
        find its work committed all the same.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.put(_Unit(work, future))
        return await future

    def stop(self) -> None:
        """Commits what waits, then ends the thread."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        open_for_more = True
        while open_for_more:
            group, open_for_more = self._take()
            if group:
                self._commit(group)

    def _take(self) -> tuple[list[_Unit], bool]:
        group: list[_Unit] = []
        unit = self._waiting.get()
        while unit is not None:
            group.append(unit)
            if len(group) == MAX_GROUP:
                return group, True
            try:
                unit = self._waiting.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _commit(self, group: list[_Unit]) -> None:
        try:
            with self._engine.begin() as connection:
                results = [unit.work(connection) for unit in group]
        except Exception as error:
            if len(group) > 1:  # one of them spoiled it: each on its own, so that only that one fails
                for unit in group:
                    self._commit([unit])
            else:
                _tell(group[0].future, None, _as_ours(error))
        else:
            for unit, result in zip(group, results, strict=True):
                _tell(unit.future, result, None)


def _as_ours(error: Exception) -> Exception:
    if isinstance(error, RelayError):
        return error
    cause = error.orig if isinstance(error, SQLAlchemyError) and hasattr(error, "orig") else error
    ours = SpoolError(f"the spool could not write: {cause}")
    ours.__cause__ = error
    return ours


def _tell(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    def settle() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        future.get_loop().call_soon_threadsafe(settle)
