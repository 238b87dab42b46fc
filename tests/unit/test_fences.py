"""The fence of every write, where leases ran out though nobody died: a server that was away, a machine that slept."""

from __future__ import annotations

import asyncio
import time

import pytest

from relay.config.settings import Spool
from relay.spool.engine import Place
from relay.spool.histories import message_history
from relay.spool.records import Outcome, State
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


async def test_nodes_that_start_at_the_same_moment_make_the_schema_once(postgres: Postgres) -> None:
    place = Place.of(Spool(url=postgres.create_database()))
    nodes = [Store(place) for _ in range(4)]
    await asyncio.gather(*(asyncio.to_thread(node.open) for node in nodes))
    await asyncio.gather(*(asyncio.to_thread(node.close) for node in nodes))
