"""The clean-up beside a service that takes mail: how long accepting a message takes while old ones are removed."""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import time
from dataclasses import dataclass

from sqlalchemy import Connection, func, update

from relay.config.settings import Spool
from relay.mail.queue_id import new_queue_id
from relay.maillog import MailLog
from relay.spool.engine import Place
from relay.spool.records import Message, NewDelivery, NewMessage
from relay.spool.retention import Cleaned, Retention
from relay.spool.schema import deliveries
from relay.spool.store import Store

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class CleanedUp:
    """What was removed in so many seconds, and how long it took to accept a message (seconds): in the middle and at
    worst, before and meanwhile.
    """

    cleaned: Cleaned
    seconds: float
    median_before: float
    longest_before: float
    median_meanwhile: float
    longest_meanwhile: float


async def clean_up(place: Place, content: bytes, seconds: float) -> CleanedUp:
    """Settles every other delivery of a backlog of two days, and removes those of the older day, for so many seconds
    at most, while messages with that content are accepted one after the other.
    """
    store = Store(place)
    store.open()
    try:
        await store.write(_settle)
        before = await _accept(store, content, asyncio.create_task(asyncio.sleep(min(seconds, 10))))
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, stop.set)
        settings = Spool(url="sqlite:////spool.db", keep_bodies=DAY, keep_history=DAY)
        began = time.monotonic()
        cleaning = asyncio.create_task(Retention(store, settings, MailLog()).clean(stop))
        meanwhile = await _accept(store, content, cleaning)
        return CleanedUp(
            await cleaning,
            time.monotonic() - began,
            statistics.median(before),
            max(before),
            statistics.median(meanwhile),
            max(meanwhile),
        )
    finally:
        await asyncio.to_thread(store.close)


def _settle(connection: Connection) -> None:
    settled = {"state": "delivered", "settled_at": time.time() - 1.5 * DAY, "due_at": None, "deadline": None}
    every_other = func.substr(deliveries.c.queue_id, 13, 1).in_(list("02468ACEGJMPRTWY"))
    connection.execute(update(deliveries).where(every_other).values(settled))


async def _accept(store: Store, content: bytes, until: asyncio.Task[object]) -> list[float]:
    took = []
    while not until.done():
        message = _message(content)
        began = time.perf_counter()
        await store.accept(message, (time.time() + 60,))
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0.002)
    return took


def _message(content: bytes) -> NewMessage:
    now = time.time()
    message = Message(
        queue_id=new_queue_id(now),
        institution="demo",
        source="alma",
        reverse_path="alma@exlibrisgroup.example",
        smtputf8=False,
        eight_bit=False,
        received_at=now,
        client="127.0.0.1",
        helo="app02.eu07.example",
        protocol="ESMTP",
        message_id="<1@alma.example>",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    return NewMessage(message, content, (NewDelivery("reader@patron.example", "default", "default"),))
