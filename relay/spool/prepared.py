"""Statements that are put into words once, and then run by the driver: for those that every message needs.

Building a statement and looking its text up takes SQLAlchemy ten times as long as the database takes to run it. These
are written with SQLAlchemy all the same, so that both engines get them in their own words.
Known limit: values go to the driver as they are, without the conversions of column types.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.expression import ClauseElement


class Prepared:
    """One statement. Its parameters are the columns of an insert, or what `bindparam` names."""

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._words: dict[str, _Words] = {}

    def run(self, connection: Connection, *rows: Mapping[str, Any]) -> int:
        """Runs it once for each row of values, which has one for each parameter; how many rows that wrote."""
        words = self._words.get(connection.dialect.name)
        if words is None:
            words = self._words[connection.dialect.name] = _Words(self._statement, connection)
        arguments = [words.arguments(row) for row in rows]
        return by_driver(connection, words.text, arguments[0] if len(rows) == 1 else arguments)


def by_driver(connection: Connection, text: str, arguments: Any = ()) -> int:
    """Runs a text with a tuple or mapping of values, or with a list of them; how many rows it wrote.

    What goes wrong is a DBAPIError. SQLite's driver is asked directly, which halves the cost of a short statement.
    """
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        return connection.exec_driver_sql(text, arguments or None).rowcount
    try:
        if isinstance(arguments, list):
            return driver.executemany(text, arguments).rowcount
        return driver.execute(text, arguments).rowcount
    except sqlite3.Error as error:
        raise DBAPIError.instance(text, None, error, sqlite3.Error, hide_parameters=True) from error


class _Words:
    """A statement in the words of one engine."""

    def __init__(self, statement: ClauseElement, connection: Connection) -> None:
        compiled: Any = statement.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
        self.text = str(compiled)
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
        self._in_order = itemgetter(*compiled.positiontup) if compiled.positional else None

    def arguments(self, values: Mapping[str, Any]) -> Any:
        """The values as the driver takes them."""
        named = {**self._fixed, **values}
        return self._in_order(named) if self._in_order is not None else named
