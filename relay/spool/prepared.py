"""Statements that are put into words once, and then run by the driver: for those that every message needs.

Building a statement and looking its text up takes SQLAlchemy ten times as long as the database takes to run it. These
are written with SQLAlchemy all the same, so that both engines get them in their own words.
Known limit: values go to the driver as they are, without the conversions of column types.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
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
        words = self._in_words_of(connection)
        arguments = [words.arguments(row) for row in rows]
        return int(by_driver(connection, words.text, arguments[0] if len(rows) == 1 else arguments).rowcount)

    def value(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        """The first value that a question gives; None when it gives no row."""
        words = self._in_words_of(connection)
        row = by_driver(connection, words.text, words.arguments(values)).fetchone()
        return None if row is None else row[0]

    def _in_words_of(self, connection: Connection) -> _Words:
        words = self._words.get(connection.dialect.name)
        if words is None:
            words = self._words[connection.dialect.name] = _Words(self._statement, connection)
        return words


def by_driver(connection: Connection, text: str, arguments: Any = ()) -> Any:
    """Runs a text with a tuple or mapping of values, or with a list of them; gives the cursor.

    What goes wrong is a DBAPIError. SQLite's driver is asked directly, which halves the cost of a short statement.
    """
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        return connection.exec_driver_sql(text, arguments or None)
    try:
        if isinstance(arguments, list):
            return driver.executemany(text, arguments)
        return driver.execute(text, arguments)
    except sqlite3.Error as error:
        raise DBAPIError.instance(text, None, error, sqlite3.Error, hide_parameters=True) from error


class _Words:
    """A statement in the words of one engine."""

    def __init__(self, statement: ClauseElement, connection: Connection) -> None:
        compiled: Any = statement.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
        self.text = str(compiled)
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
        self._names: list[str] | None = compiled.positiontup

    def arguments(self, values: Mapping[str, Any]) -> Any:
        """The values as the driver takes them."""
        named = {**self._fixed, **values}
        return named if self._names is None else tuple([named[name] for name in self._names])
