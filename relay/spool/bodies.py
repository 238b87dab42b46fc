"""The bytes of messages in the database: the first part in `bodies`, what is more in `body_parts`.

Only one part is in memory at a time, unless somebody wants the whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from io import BytesIO

from sqlalchemy import Connection, bindparam, insert, select

from relay.errors import CorruptBody
from relay.spool.contents import PART, Content, parts
from relay.spool.prepared import Prepared
from relay.spool.records import Message
from relay.spool.schema import bodies, body_parts

_PUT_FIRST, _PUT_MORE = Prepared(insert(bodies)), Prepared(insert(body_parts))
_FIRST = Prepared(select(bodies.c.content).where(bodies.c.queue_id == bindparam("of", required=False)))
_MORE = Prepared(
    select(body_parts.c.content)
    .where(body_parts.c.queue_id == bindparam("of", required=False))
    .where(body_parts.c.part == bindparam("number", required=False))
)


def put_body(connection: Connection, queue_id: str, content: Content) -> None:
    """Keeps the bytes of a message."""
    for number, part in enumerate(parts(content)):
        if number == 0:
            _PUT_FIRST.run(connection, {"queue_id": queue_id, "content": part})
        else:
            _PUT_MORE.run(connection, {"queue_id": queue_id, "part": number, "content": part})


def has_body(connection: Connection, queue_id: str) -> bool:
    """Whether the bytes of a message are still in the spool."""
    return connection.execute(select(bodies.c.queue_id).where(bodies.c.queue_id == queue_id)).first() is not None


def stored_body(connection: Connection, queue_id: str) -> bytes | None:
    """The bytes of a message as they are stored; None when they are gone."""
    first = _FIRST.value(connection, {"of": queue_id})
    if first is None or len(first) != PART:
        return None if first is None else bytes(first)
    whole = BytesIO()  # gives its bytes away without another copy
    whole.write(first)
    for part in further_parts(connection, queue_id, first):
        whole.write(part)
    return whole.getvalue()


def further_parts(connection: Connection, queue_id: str, first: bytes) -> Iterator[bytes]:
    """The parts of a body after its first one, as they are stored."""
    part, number = first, 0
    # Only what is as long as a part goes on: a body from before there were parts is in one piece, however long.
    while len(part) == PART:
        number += 1
        found = _MORE.value(connection, {"of": queue_id, "number": number})
        if found is None:
            return
        part = bytes(found)
        yield part


def verified(message: Message, content: bytes | None) -> bytes:
    """The bytes of a message, if they are those that were accepted; else raises CorruptBody."""
    if content is None:
        raise CorruptBody("the bytes of the message are not in the spool any more")
    if hashlib.sha256(content).hexdigest() != message.sha256:
        raise CorruptBody("the stored bytes are not those that were accepted")
    return content
