"""Connections to the database, set up so that a commit means: it is on disk.

SQLite: write-ahead log with `synchronous=FULL`, so that each commit syncs the log; one connection writes and
checkpoints, readers are read-only; a lock file beside the database keeps a second service away from it. PostgreSQL: no
session state that a pooler would break, and a server that answers nothing is given up after some seconds.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool, StaticPool

from relay.config.settings import Spool
from relay.errors import StartError
from relay.spool.prepared import by_driver

_PRAGMAS = (
    "auto_vacuum=INCREMENTAL",  # counts for a new file only; that what is removed makes the file smaller
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "busy_timeout=10000",
    "wal_autocheckpoint=0",  # the writer does it by itself, so that a failed one does not look like a failed commit
    "journal_size_limit=67108864",  # what a large transaction made of the log is cut off at the log's next beginning
)
_SERVER = {
    "prepare_threshold": None,
    "connect_timeout": 5,
    "application_name": "slip-relay",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
_PIECE = 1024 * 1024
_SQLITE_IOERR = 10
_SQLITE_FULL = 13
_RERUN = ("08", "40", "57P", "53", "25006")
"""SQLSTATE classes after which the same transaction may do: connection, serialisation, shutdown, no room, standby."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a spool is. `path` is None on a server."""

    url: URL
    path: Path | None

    @classmethod
    def of(cls, spool: Spool) -> Place:
        """The place that the configuration names."""
        if spool.path is not None:
            return cls.file(spool.path)
        url = make_url(spool.url)
        return cls(url.set(password=spool.password.reveal()) if spool.password else url, None)

    @classmethod
    def file(cls, path: Path) -> Place:
        """A spool in an SQLite file."""
        return cls(URL.create("sqlite", database=str(path)), path)

    def __str__(self) -> str:
        return str(self.path) if self.path is not None else self.url.render_as_string(hide_password=True)


def writing_engine(place: Place) -> Engine:
    """The engine that writes: a single connection, used by one thread at a time. Whoever has it has the lock too."""
    path = place.path
    if path is None:
        return create_engine(
            place.url, hide_parameters=True, pool_size=1, max_overflow=1, pool_pre_ping=True, connect_args=_SERVER
        )
    engine = create_engine(
        place.url,
        poolclass=StaticPool,
        hide_parameters=True,  # errors get into the log, parameters are patrons' addresses
        connect_args={"check_same_thread": False, "timeout": 10},
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: object) -> None:
        write_log_anew(path)  # a service before this one may have ended with a sync that failed
        connection.isolation_level = None  # we say BEGIN ourselves, not the driver
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        by_driver(connection, "BEGIN IMMEDIATE")

    return engine


def reading_engine(place: Place) -> Engine:
    """An engine that does not write, for questions beside the writer."""
    if place.path is None:
        return create_engine(place.url, hide_parameters=True, pool_size=4, pool_pre_ping=True, connect_args=_SERVER)
    return create_engine(
        URL.create("sqlite", database=f"file:{quote(str(place.path))}", query={"mode": "ro", "uri": "true"}),
        poolclass=QueuePool,
        hide_parameters=True,
        pool_size=4,
        connect_args={"check_same_thread": False, "timeout": 10},
    )


def checkpoint(engine: Engine) -> bool:
    """Moves what stands in SQLite's log into the database file.

    True when all was moved, and synced. False when somebody was reading what would have been overwritten: then a part
    may have been moved, and is not synced. Raises sqlite3.Error.
    """
    busy, frames, moved = _raw(engine, "PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return not busy and frames == moved


def write_log_anew(path: Path) -> None:
    """Writes the bytes of the log beside an SQLite file once more, and syncs them. Raises OSError.

    After a sync that failed they can be read, but may not be on the disk, and another sync would not write them. Nobody
    else may be writing. (The locks of SQLite are on other files: closing this one drops none.)
    """
    try:
        log = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        end = 0
        while piece := os.pread(log, _PIECE, end):
            end += os.pwrite(log, piece, end)
        os.fsync(log)
    finally:
        os.close(log)


def write_pages_anew(engine: Engine) -> None:
    """Writes every page of an SQLite database to its log, and syncs that. Raises sqlite3.Error."""
    _raw(engine, "VACUUM")


def _raw(engine: Engine, statement: str) -> sqlite3.Cursor:
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        return raw.execute(statement)


def disk_failed(error: BaseException) -> bool:
    """Whether the disk under SQLite failed a write or a sync: what it holds of the last ones is not known."""
    code = getattr(getattr(error, "orig", None) or error, "sqlite_errorcode", None)
    return isinstance(code, int) and code & 0xFF == _SQLITE_IOERR


def no_room(error: BaseException) -> bool:
    """Whether the disk under SQLite is full; what it holds is known."""
    return getattr(getattr(error, "orig", None) or error, "sqlite_errorcode", None) == _SQLITE_FULL


def may_be_run_again(error: BaseException) -> bool:
    """Whether a server was lost or gave way, so that the same transaction may succeed a moment later."""
    if not isinstance(error, DBAPIError) or isinstance(error.orig, sqlite3.Error):
        return False
    state = getattr(error.orig, "sqlstate", None)
    return error.connection_invalidated or state is None or str(state).startswith(_RERUN)


def in_words(error: BaseException) -> str:
    """What the database said, without SQL and parameters."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


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
