"""What stands in the file of a spool, read by SQLite alone.

    python -m tests.harness.spool_file FILE

prints it as JSON, the letters in hexadecimal: for a file that only another process can see.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

Row = tuple[str, str, str, bytes]
"""Queue id, recipient, state and letter of a delivery."""


def rows(path: Path) -> list[Row]:
    """All deliveries. Raises sqlite3.Error when the file can't be read."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        bodies = stored_bodies(database)
        found = database.execute("SELECT queue_id, recipient, state FROM deliveries")
        return [(number, recipient, state, bodies[number]) for number, recipient, state in found if number in bodies]


def stored_bodies(database: sqlite3.Connection) -> dict[str, bytes]:
    """The bytes of each message, whole, by its queue id."""
    found = {number: bytes(content) for number, content in database.execute("SELECT queue_id, content FROM bodies")}
    for number, content in database.execute("SELECT queue_id, content FROM body_parts ORDER BY queue_id, part"):
        found[number] += content
    return found


if __name__ == "__main__":
    print(json.dumps([[*row[:3], row[3].hex()] for row in rows(Path(sys.argv[1]))]))
