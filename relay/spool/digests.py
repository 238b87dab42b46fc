"""What a spool holds, row by row, counted and digested: two spools whose digests are the same hold the same.

Promises: memory is bounded, whatever the spool holds: some thousand rows, or eight megabytes of bodies, or a few PDFs
or parts of large bodies. A digest does not depend on the engine, nor on the order in which it gives its rows.
Known limit: a large body in one piece, from before there were parts, is in memory as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, func, select
from sqlalchemy.exc import SQLAlchemyError

from relay.errors import SpoolError
from relay.spool.bodies import further_parts, has_body
from relay.spool.engine import Place, in_words, reading_engine
from relay.spool.schema import bodies, body_parts, messages, papers

ROWS = 1000
"""Rows that are read at once."""

LARGE_ROWS = 4
"""Rows with a PDF, or a part of a large body, that are read at once."""

PORTION = 8 * 1024 * 1024
"""Bytes of bodies that are read at once, unless a single one is larger."""


@dataclass(slots=True)
class Passage:
    """The rows of a table on their way past: counted and digested, and handed on.

    The digest of a row is that of its values as Python writes them, which are the same whichever engine they come from;
    a body, a part of one, or a PDF counts as its SHA-256. That of a table is the sum of its rows' digests.
    """

    connection: Connection
    table: Table
    rows: int = 0
    corrupt: list[str] = field(default_factory=list)
    "Messages whose bodies are not those that were accepted."
    _sum: int = 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for row in _bodies(self.connection) if self.table is bodies else _rows(self.connection, self.table):
            values = tuple(row)
            shown: tuple[Any, ...]
            if self.table is bodies:
                queue_id, content, accepted = values
                digest = hashlib.sha256(content)
                values, shown = (queue_id, content), (queue_id, digest.hexdigest())
                for part in further_parts(self.connection, queue_id, content):
                    digest.update(part)
                # The service may just have removed it, some of its parts were gone then.
                if digest.hexdigest() != accepted and has_body(self.connection, queue_id):
                    self.corrupt.append(queue_id)
            else:
                shown = tuple(hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value for value in row)
            self.rows += 1
            self._sum += int.from_bytes(hashlib.sha256(repr(shown).encode()).digest(), "big")
            yield values

    @property
    def digest(self) -> str:
        """The digest of what went past, as 64 hexadecimal digits."""
        return f"{self._sum % 2**256:064x}"


def count(connection: Connection, tables: Sequence[Table]) -> int:
    """How many rows some tables have together."""
    return sum(connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables)


def check_bodies(place: Place, on_body: Callable[[], None] = lambda: None) -> tuple[int, list[str]]:
    """Reads every body beside the running service: how many there are, and the messages whose bodies are not those
    that were accepted. Marks nothing.

    Raises SpoolError when the spool can't be read.
    """
    engine = reading_engine(place)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            passage = Passage(connection, bodies)
            for _ in passage:
                on_body()
            return passage.rows, passage.corrupt
    except SQLAlchemyError as error:
        raise SpoolError(f"the spool {place} can't be read: {in_words(error)}") from error
    finally:
        engine.dispose()


def _rows(connection: Connection, table: Table) -> Iterator[Sequence[Any]]:
    at_once = LARGE_ROWS if table in (papers, body_parts) else ROWS
    yield from connection.execute(select(table), execution_options={"yield_per": at_once})


def _bodies(connection: Connection) -> Iterator[Sequence[Any]]:
    """Queue id, content and the digest that was accepted, in order of arrival."""
    after = ""
    while True:
        sizes = select(bodies.c.queue_id, messages.c.size).join_from(bodies, messages)
        window = sizes.where(bodies.c.queue_id > after).order_by(bodies.c.queue_id).limit(ROWS)
        found = [(queue_id, size) for queue_id, size in connection.execute(window)]
        if not found:
            return
        for ids in _portions(found):
            query = select(bodies.c.queue_id, bodies.c.content, messages.c.sha256).join_from(bodies, messages)
            yield from connection.execute(query.where(bodies.c.queue_id.in_(ids)))
        after = found[-1][0]


def _portions(found: Sequence[tuple[str, int]]) -> Iterator[list[str]]:
    """Queue ids whose bodies may be read at once."""
    ids: list[str] = []
    total = 0
    for queue_id, size in found:
        if ids and total + size > PORTION:
            yield ids
            ids, total = [], 0
        ids.append(queue_id)
        total += size
    yield ids
