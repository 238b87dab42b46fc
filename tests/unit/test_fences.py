"""The fence of every write, where leases ran out though nobody died: a server that was away, a machine that slept."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial

import pytest
from sqlalchemy import Connection

from relay.config.settings import Spool
from relay.spool import commit, writes
from relay.spool.engine import Place
from relay.spool.histories import message_history
from relay.spool.records import Delivery, Outcome, State
from relay.spool.store import Store
from tests.accepted import new_message
from tests.harness.postgres import Postgres

pytestmark = pytest.mark.asyncio


async def test_an_attempt_that_was_taken_for_cut_off_can_still_be_settled_by_the_node_that_holds_it_again(
    postgres: Postgres,
) -> None:
    place = Place.of(Spool(url=postgres.create_database()))
    late, other = Store(place, lease=0.2), Store(place, lease=30)
    late.open()
    other.open()
    running = (await late.accept(new_message(b"mail", ("a@patron.example", "default")), (time.time() + 60,)))[0]
    await asyncio.sleep(0.3)  # the lease runs out by the clock of the server
    assert await other.renew(()) == 1
    await late.renew([running.key])
    assert [each.key for each in (await late.claim(10))[0]] == [running.key]
    await late.settle(running, Outcome(State.DELIVERED, "taken"), 0)
    history = message_history(place, running.message.queue_id)
    assert history is not None
    assert [(each.number, each.outcome, each.reason) for each in history.deliveries[0].attempts] == [
        (1, "delivered", "taken")
    ]
    for node in (late, other):
        await asyncio.to_thread(node.close)


async def test_a_node_that_falls_asleep_within_a_transaction_holds_nobody_up(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "IDLE", 0.3)
    place = Place.of(Spool(url=postgres.create_database()))
    sleeper, other = Store(place), Store(place)
    sleeper.open()
    other.open()
    held = (await sleeper.accept(new_message(b"mail", ("a@patron.example", "default")), (None,)))[0]
    runs = []
    asleep, awake = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work(connection: Connection) -> int:
        writes.release(connection, sleeper.node, [held])
        runs.append(1)
        if len(runs) == 1:
            loop.call_soon_threadsafe(asleep.set)
            awake.wait(30)
        return len(runs)

    writing = asyncio.create_task(sleeper.write(work))
    await asyncio.wait_for(asleep.wait(), 10)
    await asyncio.wait_for(other.write(partial(take_anyway, held=held, node=other.node)), 10)
    awake.set()
    assert await writing == 2, "the transaction that was given up is run again"
    for node in (sleeper, other):
        await asyncio.to_thread(node.close)


def take_anyway(connection: Connection, *, held: Delivery, node: str) -> None:
    """Gives a delivery to a node, whoever holds it: waits for the lock of whoever is just writing it."""
    writes.hold(connection, node, [held])


async def test_nodes_that_start_at_the_same_moment_make_the_schema_once(postgres: Postgres) -> None:
    place = Place.of(Spool(url=postgres.create_database()))
    nodes = [Store(place) for _ in range(4)]
    await asyncio.gather(*(asyncio.to_thread(node.open) for node in nodes))
    await asyncio.gather(*(asyncio.to_thread(node.close) for node in nodes))
