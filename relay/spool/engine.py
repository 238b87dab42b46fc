"""Connections to the database, set up so that a commit means: it is on disk.

SQLite: write-ahead log with `synchronous=FULL`, so that each commit syncs the log; one connection writes, readers are
read-only. A lock file beside the database keeps a second service away from it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool, StaticPool

from relay.errors import StartError

_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000")


def writing_engine(path: Path) -> Engine:
    """The engine that writes: a single connection, used by one thread at a time. Transactions lock at once."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=StaticPool,
        hide_parameters=True,  # errors get into the log, parameters are patrons' addresses
        connect_args={"check_same_thread": False, "timeout": 10},
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, not the driver
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reading_engine(path: Path) -> Engine:
    """An engine that can't write, for questions beside the running service."""
    return create_engine(
        URL.create("sqlite", database=f"file:{quote(str(path))}", query={"mode": "ro", "uri": "true"}),
        poolclass=QueuePool,
        hide_parameters=True,
        pool_size=4,
        connect_args={"check_same_thread": False, "timeout": 10},
    )


class SpoolLock:
    """The right to write to a spool file, held from `take` to `drop`; the kernel drops it when the process dies."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._file: int | None = None

    def take(self) -> None:
        """Takes the lock. Raises StartError when the folder can't be written or another service has the lock."""
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(
                f"the spool folder {self._path.parent} can't be used: {error.strerror}; "
                "it must exist and be writable by the service"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            self._file = None
            raise StartError(f"another slip-relay is using the spool {self._path.with_suffix('')}") from None

    def drop(self) -> None:
        """Gives the lock back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
