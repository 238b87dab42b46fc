"""Moving a spool: everything in it is copied into an empty one, as a rule on the other engine, and read back.

Does: brings both to the newest schema, streams the tables with a few rows or bodies in memory, compares count and
digest of each table in both spools, and lets go of what the source's service still held.
Promises: every row and every byte is the same in both, or it raises. All of it is one transaction of the target: a
copy that fails, or is cut off, leaves it empty, and can simply be run again. No message changes in the source. A body
that is corrupt already is copied as it is, and named.
Refuses: a spool that a service is using, and a target that has messages. No service can begin while it runs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import psycopg
from sqlalchemy import Boolean, Connection, Double, Integer, LargeBinary, String, Table, insert, select, text
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from relay.errors import SpoolError, StartError
from relay.spool import leases, migrations
from relay.spool.digests import ROWS, Passage, count
from relay.spool.engine import Place, SpoolLock, in_words, writing_engine
from relay.spool.schema import bodies, body_parts, commits, messages, metadata, nodes, papers

TABLES = tuple(table for table in metadata.sorted_tables if table not in (nodes, commits))
"""What is copied: all but who is alive, and marks of the commits of a server. Those that are referred to come first."""

LOCK_TIMEOUT = 10
"""Seconds to wait on a server for whoever is just using the spool."""

Progress = Callable[[int, int], None]
"""Is told how many steps are done, and of how many: each row is read, written and read back in two."""

_UNDEFINED_TABLE, _LOCK_NOT_AVAILABLE = "42P01", "55P03"
"""SQLSTATEs."""

_SERVER_TYPES = {Boolean: "bool", Double: "float8", Integer: "int4", LargeBinary: "bytea", String: "text"}


@dataclass(frozen=True, slots=True)
class Copied:
    """A table that is the same in both spools."""

    table: str
    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was copied. `corrupt` names the messages whose bodies were not those accepted, before and now."""

    tables: tuple[Copied, ...]
    corrupt: tuple[str, ...]


def copy(source: Place, target: Place, progress: Progress = lambda done, of: None) -> Report:
    """Copies a spool into an empty one.

    Raises StartError when one of them can't be used or is in use, SpoolError when the copy failed or is not the same;
    then the target is as empty as it was.
    """
    if source.url == target.url:
        raise StartError(f"{source} is the spool to copy from; a copy needs another place to go to")
    with contextlib.ExitStack() as stack:
        for place in (source, target):
            if place.path is not None:
                _lock(place, stack, must_exist=place is source)
        came_from = stack.enter_context(_opened_source(source))
        goes_to = stack.enter_context(_opened_target(target))
        step = _Steps(progress, 2 * count(came_from, TABLES))
        tables: list[Copied] = []
        corrupt: list[str] = []
        for table in TABLES:
            there, here = Passage(came_from, table), Passage(goes_to, table)
            _put(goes_to, table, _read(source, there, step))
            for _ in _read(target, here, step):
                pass
            if (there.rows, there.digest) != (here.rows, here.digest):
                raise SpoolError(
                    f"the copy of the table {table.name} is not the same: {there.rows} rows in {source} (digest "
                    f"{there.digest}), {here.rows} in {target} (digest {here.digest}); nothing was kept of it"
                )
            tables.append(Copied(table.name, there.rows, there.digest))
            corrupt += there.corrupt
        leases.alone(goes_to)  # what the old service held waits again
    return Report(tuple(tables), tuple(corrupt))


class _Steps:
    """Tells of progress now and then."""

    def __init__(self, progress: Progress, of: int) -> None:
        self._progress = progress
        self._of = of
        self._done = 0

    def __call__(self) -> None:
        self._done += 1
        if self._done % 100 == 0 or self._done == self._of:
            self._progress(self._done, self._of)


def _lock(place: Place, stack: contextlib.ExitStack, *, must_exist: bool) -> None:
    """Keeps the service away from a spool in a file, and a file of another user's from being left in its way."""
    assert place.path is not None
    try:
        exists = place.path.exists()
        if must_exist and not exists:
            raise StartError(f"there is no spool at {place}")
        owned = place.path if exists else place.path.parent
        if owned.exists() and owned.stat().st_uid != os.geteuid():
            raise StartError(f"{owned} belongs to another user; run this as the user that runs the service")
    except OSError as error:
        raise StartError(f"the spool {place} can't be used: {error.strerror}") from None
    lock = SpoolLock(place.path)
    lock.take()
    stack.callback(lock.drop)


@contextlib.contextmanager
def _opened_source(place: Place) -> Iterator[Connection]:
    """A transaction that sees one moment of a spool that no service is using, or can begin to use."""
    with _transaction(place, "copied from", isolation="REPEATABLE READ") as connection:
        if place.path is None:
            try:
                connection.execute(
                    text("LOCK TABLE nodes IN SHARE MODE")
                )  # first of all: the moment is that of the lock
            except ProgrammingError as error:
                if _sqlstate(error) != _UNDEFINED_TABLE:
                    raise
                raise StartError(f"there is no spool at {place}: the database has no tables of slip-relay") from None
        migrations.upgrade(connection)
        _nobody_alive(connection, place)
        yield connection


@contextlib.contextmanager
def _opened_target(place: Place) -> Iterator[Connection]:
    """A transaction on an empty spool, which is made, that no service is using, or can begin to use."""
    with _transaction(place, "copied to", isolation="READ COMMITTED") as connection:
        migrations.upgrade(connection)
        if place.path is None:
            connection.execute(text("LOCK TABLE nodes IN EXCLUSIVE MODE"))
        _nobody_alive(connection, place)
        if connection.execute(select(messages.c.queue_id).limit(1)).first() is not None:
            raise StartError(f"the spool {place} has messages; a copy needs an empty one")
        yield connection


@contextlib.contextmanager
def _transaction(place: Place, purpose: str, *, isolation: str) -> Iterator[Connection]:
    """A transaction that is committed at the end; what goes wrong in it with the database is an error of ours."""
    engine = writing_engine(place)
    try:
        if place.path is None:
            engine = engine.execution_options(isolation_level=isolation)
        with engine.begin() as connection:
            if place.path is None:
                connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'"))
            yield connection
    except migrations.NewerSchema as error:
        raise StartError(f"the spool {place} can't be {purpose}: {error}") from error
    except (SQLAlchemyError, psycopg.Error) as error:
        if _sqlstate(error) == _LOCK_NOT_AVAILABLE:
            raise StartError(f"the spool {place} is in use; stop what uses it, then run this again") from error
        raise SpoolError(f"the spool {place} can't be {purpose}: {in_words(error)}") from error
    finally:
        engine.dispose()


def _sqlstate(error: BaseException) -> str | None:
    return getattr(getattr(error, "orig", None) or error, "sqlstate", None)


def _nobody_alive(connection: Connection, place: Place) -> None:
    """On a server: raises StartError while a service is using the spool. In a file it would have the lock."""
    if place.path is None and (name := leases.somebody(connection)) is not None:
        raise StartError(
            f"a service ({name}) is using the spool {place}; stop it, or wait for its lease to end when it died"
        )


def _read(place: Place, passage: Passage, step: _Steps) -> Iterator[tuple[Any, ...]]:
    try:
        for row in passage:
            step()
            yield row
    except (SQLAlchemyError, psycopg.Error) as error:
        raise SpoolError(f"the spool {place} can't be read: {in_words(error)}") from error


def _put(target: Connection, table: Table, rows: Iterator[tuple[Any, ...]]) -> None:
    (_put_into_file if target.dialect.name == "sqlite" else _put_into_server)(target, table, rows)


def _put_into_file(target: Connection, table: Table, rows: Iterator[tuple[Any, ...]]) -> None:
    names = [column.name for column in table.c]
    at_once = 1 if table in (bodies, body_parts, papers) else ROWS
    while batch := list(islice(rows, at_once)):
        target.execute(insert(table), [dict(zip(names, row, strict=True)) for row in batch])


def _put_into_server(target: Connection, table: Table, rows: Iterator[tuple[Any, ...]]) -> None:
    """With COPY, which takes rows as they come and answers once."""
    names = ", ".join(column.name for column in table.c)
    types = [_server_type(column.type) for column in table.c]
    connection = target.connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    with connection.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)
    target.execute(text(f"ANALYZE {table.name}"))  # so that a server knows how to read it, now and later


def _server_type(kind: object) -> str:
    return next(name for known, name in _SERVER_TYPES.items() if isinstance(kind, known))
