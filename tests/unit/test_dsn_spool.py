"""A DSN and what it tells of are one transaction: the spool has both or neither (the durability contract, 3)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
import pytest_asyncio
from sqlalchemy import text

from relay.bounces.notify import Notifier
from relay.config.settings import Config
from relay.errors import LeaseLost, SpoolError
from relay.mail.status import Reply
from relay.spool.engine import Place
from relay.spool.histories import message_history
from relay.spool.queries import list_deliveries
from relay.spool.records import Delivery, NewMessage, Outcome, State
from relay.spool.store import Store
from tests.accepted import new_message

CONTENT = b"From: a@lib.example\r\n\r\nhello\r\n"
REFUSED = Outcome(State.FAILED, "no", Reply(550, "5.1.1", "no"), remote_host="mx.patron.example")
LATE = Outcome(State.EXPIRED, "not delivered in time")

pytestmark = pytest.mark.asyncio

Ending = Callable[[Store, Delivery, list[NewMessage]], Awaitable[None]]


async def settle(store: Store, delivery: Delivery, followups: list[NewMessage]) -> None:
    await store.settle(delivery, REFUSED, 0, followups)


async def give_up(store: Store, delivery: Delivery, followups: list[NewMessage]) -> None:
    await store.give_up(delivery, LATE.reason, followups)


async def warn(store: Store, delivery: Delivery, followups: list[NewMessage]) -> None:
    await store.warned(delivery, followups)


@pytest_asyncio.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = Store(place)
    store.open()
    yield store
    await asyncio.to_thread(store.close)


async def overdue(store: Store, *, begun: bool) -> Delivery:
    """A delivery whose sender is to be told something, held by this node."""
    times = {"warn_at": time.time() - 2, "expires_at": time.time() - 1}
    new = new_message(CONTENT, ("reader@patron.example", "default"), **times)
    if begun:
        return (await store.accept(new, (time.time() + 60,)))[0]
    await store.accept(new, None)
    return (await store.claim_overdue(10))[0]


def state_of(store: Store, delivery: Delivery) -> str:
    history = message_history(store.place, delivery.message.queue_id)
    assert history is not None
    return history.deliveries[0].line.state


def dsns(store: Store) -> list[str]:
    return [line.queue_id for line in list_deliveries(store.place) if line.recipient == "alma@exlibrisgroup.example"]


@pytest.mark.parametrize(("end", "state"), [(settle, "failed"), (give_up, "expired"), (warn, "queued")])
async def test_both_are_there(store: Store, make_config: Callable[..., Config], end: Ending, state: str) -> None:
    delivery = await overdue(store, begun=end is settle)
    notifier = Notifier(make_config())
    if end is warn:
        dsn = notifier.late(delivery, CONTENT)
    else:
        dsn = notifier.about(delivery, REFUSED if end is settle else LATE, CONTENT)
    assert dsn is not None
    await end(store, delivery, [dsn])
    assert state_of(store, delivery) == state
    assert dsns(store) == [dsn.message.queue_id]
    claimed = {each.message.queue_id: each for each in (await store.claim(10))[0]}[dsn.message.queue_id]
    assert (claimed.message, claimed.notify, claimed.warn_at) == (dsn.message, "NEVER", None)
    assert claimed.expires_at == pytest.approx(dsn.deliveries[0].expires_at)
    assert await store.content(claimed.message) == dsn.content
    assert notifier.about(claimed, REFUSED, dsn.content) is None


@pytest.mark.parametrize(("end", "state"), [(settle, "active"), (give_up, "queued"), (warn, "queued")])
async def test_neither_is_there_when_the_dsn_can_t_be_kept(store: Store, end: Ending, state: str) -> None:
    delivery = await overdue(store, begun=end is settle)
    good = new_message(CONTENT, ("alma@exlibrisgroup.example", "default"))
    broken = replace(good, message=delivery.message)  # a queue id that is there already
    with pytest.raises(SpoolError):
        await end(store, delivery, [good, broken])
    assert state_of(store, delivery) == state
    assert dsns(store) == []
    assert await unsettled(store, delivery)
    await end(store, delivery, [good])  # it still holds the delivery, and can say it again
    assert dsns(store) == [good.message.queue_id]


@pytest.mark.parametrize("end", [settle, give_up, warn])
async def test_neither_is_there_when_the_lease_is_lost(store: Store, end: Ending) -> None:
    delivery = await overdue(store, begun=end is settle)
    before = state_of(store, delivery)
    dsn = new_message(CONTENT, ("alma@exlibrisgroup.example", "default"))
    with pytest.raises(LeaseLost):
        await end(store, replace(delivery, attempts=7), [dsn])
    assert (state_of(store, delivery), dsns(store)) == (before, [])


async def test_a_warning_is_given_once(store: Store) -> None:
    new = new_message(
        CONTENT, ("reader@patron.example", "default"), warn_at=time.time() - 2, expires_at=time.time() + 600
    )
    await store.accept(new, None)
    (delivery,) = await store.claim_overdue(10)
    await store.warned(delivery, [new_message(CONTENT, ("alma@exlibrisgroup.example", "default"))])
    assert await store.claim_overdue(10) == []
    assert {each.message.queue_id for each in (await store.claim(10))[0]} >= {delivery.message.queue_id}


async def unsettled(store: Store, delivery: Delivery) -> bool:
    """Whether nothing of an ending is left in the rows of a delivery, nor an attempt that ended."""
    query = text("SELECT settled_at FROM deliveries WHERE queue_id = :id")
    ended = text("SELECT count(*) FROM attempts WHERE queue_id = :id")
    values = {"id": delivery.message.queue_id}
    return await store.write(
        lambda c: c.execute(query, values).scalar_one() is None and c.execute(ended, values).scalar_one() == 0
    )
