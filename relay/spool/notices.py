"""What people were told of and is not over, kept with the e-mail that told it.

Promises: that something was told, or is over, is one transaction with the acceptance of the e-mail that says so; of
several nodes that find the same thing out, one writes and the others change nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, select

from relay.spool.engine import Place
from relay.spool.queries import reading
from relay.spool.records import NewMessage
from relay.spool.schema import notices
from relay.spool.writes import put_message, upsert


@dataclass(frozen=True, slots=True)
class Told:
    """Something that was told. Times are seconds since the epoch."""

    key: str
    "What it is about, as in `printer:main-desk:trouble`."
    since: float
    "Since when it was so."
    told_at: float


def told(place: Place) -> dict[str, Told]:
    """All that was told and is not over, by key. Raises SpoolError when the spool can't be read."""
    with reading(place) as connection:
        return {row.key: Told(row.key, row.since, row.told_at) for row in connection.execute(select(notices))}


def tell(connection: Connection, new: Told, letter: NewMessage | None) -> bool:
    """Keeps that something is told, and accepts the letter that does; False when it was told already."""
    put = upsert(connection)(notices).values(asdict(new)).on_conflict_do_nothing().returning(notices.c.key)
    return _with_letter(connection, connection.execute(put).first() is not None, letter)


def end(connection: Connection, known: Told, letter: NewMessage | None) -> bool:
    """Forgets what was told, and accepts the letter that says it is over; False when another node did it."""
    gone = delete(notices).where(notices.c.key == known.key, notices.c.told_at == known.told_at)
    return _with_letter(connection, connection.execute(gone).rowcount == 1, letter)


def _with_letter(connection: Connection, is_ours: bool, letter: NewMessage | None) -> bool:
    if is_ours and letter is not None:
        put_message(connection, letter, None, ())
    return is_ours
