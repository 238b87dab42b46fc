"""A spool with a long backlog: deferred deliveries that are not yet due, made in bulk.

Each is a message of its own with a small body and one attempt behind it. Two in five wait for one large destination,
the rest for two hundred others; they came in over two days, come due over two hours from an hour on, and expire in
days. The oldest hundred wait for the large destination, the next hundred for a hundred of the others.
"""

from __future__ import annotations

import hashlib
import random
from itertools import islice
from typing import Any

from sqlalchemy import insert

from relay.mail.queue_id import new_queue_id
from relay.spool.engine import Place, writing_engine
from relay.spool.schema import attempts, bodies, deliveries, messages
from relay.spool.store import Store

ROUTE = "world"
OTHERS = 200
BIG = "large.example"
BODY = b"From: circulation@lib.example\r\nSubject: Courtesy Letter\r\n\r\n" + b"Your loan is due soon.\r\n" * 12
DAY = 86400.0
_AT_ONCE = 5000

Row = dict[str, Any]


def _destination(number: int, chance: random.Random) -> str:
    other = number if number < 200 else chance.randrange(OTHERS)
    is_big = number < 100 or (number >= 200 and chance.random() < 0.4)
    return f"{ROUTE}@{BIG if is_big else f'domain{other % OTHERS:03}.example'}"


def fill(place: Place, rows: int, now: float) -> None:
    """Puts so many deferred deliveries into an empty spool, and makes the spool first."""
    store = Store(place)
    store.open()
    store.close()
    engine = writing_engine(place)
    chance = random.Random(7)  # noqa: S311 - the same backlog each time
    made = (_one(number, rows, now, chance) for number in range(rows))
    try:
        while batch := list(islice(made, _AT_ONCE)):
            with engine.begin() as connection:
                for place_of, table in enumerate((messages, bodies, deliveries, attempts)):
                    connection.execute(insert(table), [each[place_of] for each in batch])
    finally:
        engine.dispose()


def _one(number: int, rows: int, now: float, chance: random.Random) -> tuple[Row, Row, Row, Row]:
    received = now - 2 * DAY + number * (2 * DAY / rows)
    queue_id = new_queue_id(received)
    due = now + 3600 + chance.random() * 7200
    message = {
        "queue_id": queue_id,
        "institution": "demo",
        "source": "alma",
        "reverse_path": "alma@exlibrisgroup.example",
        "smtputf8": False,
        "eight_bit": False,
        "ret": "",
        "envid": "",
        "received_at": received,
        "client": "127.0.0.1",
        "helo": "app02.eu07.example",
        "protocol": "ESMTPS",
        "message_id": f"<{number}.JavaMail.urm@app02.eu07>",
        "size": len(BODY),
        "sha256": _BODY_DIGEST,
        "about": "",
    }
    waits = _destination(number, chance)
    delivery = {
        "queue_id": queue_id,
        "number": 0,
        "recipient": f"reader{number}@{waits.partition('@')[2]}",
        "route": ROUTE,
        "destination": waits,
        "notify": "",
        "orcpt": "",
        "state": "deferred",
        "reason": "the next hop said 450 4.2.1 mailbox busy",
        "evidence": "",
        "attempts": 1,
        "begun_at": received,
        "next_attempt_at": due,
        "warn_at": None,
        "expires_at": now + 3 * DAY + chance.random() * DAY,
        "settled_at": None,
        "lease_owner": None,
        "due_at": due,
    }
    delivery["deadline"] = delivery["expires_at"]
    attempt = {
        "queue_id": queue_id,
        "number": 0,
        "attempt": 1,
        "started_at": received,
        "ended_at": received + 1.5,
        "outcome": "deferred",
        "reply": "450 4.2.1 mailbox busy",
        "reason": "the next hop said 450 4.2.1 mailbox busy",
    }
    return message, {"queue_id": queue_id, "content": BODY}, delivery, attempt


_BODY_DIGEST = hashlib.sha256(BODY).hexdigest()
