"""Claims of a printer's slips: up to a time, and whole batches; on either engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from relay.config.settings import Spool
from relay.mail import queue_id
from relay.spool.engine import Place
from relay.spool.queries import list_deliveries
from relay.spool.records import AT_ONCE, Delivery, Key, Outcome, PrintJob, State
from relay.spool.store import Store
from tests.accepted import new_message
from tests.harness.postgres import Postgres

pytestmark = pytest.mark.asyncio

CONTENT = b"From: a@lib.example\r\n\r\nhello\r\n"
DESK, OTHER = "print:desk", "print:other"


@pytest_asyncio.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = Store(place)
    store.open()
    yield store
    await asyncio.to_thread(store.close)


async def waiting(store: Store, route: str = DESK) -> Key:
    new = new_message(CONTENT, ("desk@print.lib.example", route))
    await store.accept(new, None)
    return new.message.queue_id, 0


async def begun(store: Store) -> Delivery:
    held = await store.accept(new_message(CONTENT, ("desk@print.lib.example", DESK)), [None])
    return await store.begin(held[0], time.time() + 600)


def keys(found: list[Delivery]) -> list[Key]:
    return [delivery.key for delivery in found]


async def test_only_what_was_due_by_the_time_is_claimed_and_others_are_not_held_up(store: Store) -> None:
    first = await waiting(store)
    between = time.time()
    second, other = await waiting(store), await waiting(store, OTHER)
    assert keys((await store.claim(10, until={DESK: AT_ONCE}))[0]) == [other]
    assert await store.claim(10, until={DESK: AT_ONCE}) == ([], frozenset())
    assert keys((await store.claim(10, until={DESK: between}))[0]) == [first]
    assert keys((await store.claim(10))[0]) == [second]


async def test_a_batch_is_what_arrived_before_a_moment_in_order(store: Store) -> None:
    batch = [await waiting(store) for _ in range(5)]
    moment = time.time()
    later, other = await waiting(store), await waiting(store, OTHER)
    assert await store.waiting_since({DESK: moment, OTHER: moment}) == {DESK}
    assert keys(await store.claim_batch(DESK, moment, 3)) == batch[:3]
    assert keys(await store.claim_batch(DESK, moment, 3)) == batch[3:]
    assert await store.waiting_since({DESK: moment, OTHER: moment}) == frozenset()
    assert sorted(keys((await store.claim(10))[0])) == [later, other]


async def test_what_is_let_go_in_order_goes_before_what_came_later(store: Store) -> None:
    put_off = await begun(store)
    kept = await store.put_off(put_off, Outcome(State.DEFERRED, "CUPS is away"), 2e9)
    later = await waiting(store)
    await store.release([kept], in_order=True)
    assert keys((await store.claim(10))[0]) == [put_off.key, later]


async def test_attempts_that_were_cut_off_are_due_at_any_hour_and_what_only_waited_is_not(place: Place) -> None:
    store = Store(place)
    store.open()
    active, pending = await begun(store), await begun(store)
    pending = await store.record_job(pending, PrintJob("slip-x", "desk", 7))
    await store.pending(pending, "")
    (queued,) = await store.accept(new_message(CONTENT, ("desk@print.lib.example", DESK)), [None])
    await asyncio.to_thread(store.close)
    after = Store(place)
    after.open()
    assert keys((await after.claim(10, until={DESK: AT_ONCE}))[0]) == [active.key, pending.key]
    assert keys(await after.claim_batch(DESK, time.time(), 10)) == [queued.key], "a batch leaves the others out"
    await asyncio.to_thread(after.close)


async def test_what_belongs_to_one_node_at_a_time_is_claimed_by_no_other(postgres: Postgres) -> None:
    place = Place.of(Spool(url=postgres.create_database()))
    one, two = Store(place), Store(place)
    one.open()
    two.open()
    slips = [await waiting(one) for _ in range(3)]
    elsewhere = await waiting(one, OTHER)
    held, _ = await one.claim(10, {DESK: 1, OTHER: 0}, alone={DESK, OTHER})
    assert keys(held) == slips[:1]
    assert keys((await two.claim(10, alone={DESK, OTHER}))[0]) == [elsewhere], "the other has some of the first"
    assert keys((await one.claim(1, alone={DESK}))[0]) == slips[1:2], "who has some may have more"
    begun = [await one.begin(each, time.time() + 600) for each in held]
    await one.settle(begun[0], Outcome(State.DELIVERED), 0)
    assert await two.claim(10, alone={DESK}) == ([], frozenset()), "one of them is still there"
    await asyncio.to_thread(one.close)
    assert keys((await two.claim(10, alone={DESK}))[0]) == slips[1:], "what a node leaves behind comes first"
    await asyncio.to_thread(two.close)


async def test_two_nodes_never_have_some_of_it_at_once(postgres: Postgres) -> None:
    place = Place.of(Spool(url=postgres.create_database()))
    nodes = [Store(place), Store(place)]
    for node in nodes:
        node.open()
    slips = [await waiting(nodes[0]) for _ in range(30)]
    came: list[Key] = []
    owners: list[int] = []

    async def print_all(number: int) -> None:
        node = nodes[number]
        while len(came) < len(slips):
            for each in (await node.claim(2, alone={DESK}))[0]:
                owners.append(number)
                begun = await node.begin(each, time.time() + 600)
                came.append(each.key)
                await node.settle(begun, Outcome(State.DELIVERED), 0)
            await asyncio.sleep(0.001)

    await asyncio.wait_for(asyncio.gather(*map(print_all, range(2))), 60)
    assert came == slips
    assert set(owners) == {0, 1}, "and yet both took part"
    for node in nodes:
        await asyncio.to_thread(node.close)


async def test_a_clock_that_was_set_back_keeps_nothing_waiting_and_changes_no_order(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    monkeypatch.setattr(queue_id, "_clock", queue_id._Clock())  # the other tests keep theirs
    first = await waiting(store)
    with monkeypatch.context() as fast:
        fast.setattr(time, "time", lambda: now() + 7200)
        second, third = await waiting(store), await waiting(store)
        (again,) = await store.accept(new_message(CONTENT, ("desk@print.lib.example", DESK)), [None])
        again = await store.begin(again, 0)
        await store.settle(again, Outcome(State.DEFERRED, "later"), time.time() + 60)
    assert await store.clock_set_back(7200) == 3
    fourth = await waiting(store)
    assert fourth > third, "the names go on in order"
    assert keys((await store.claim(10))[0]) == [first, second, third, fourth]
    line = next(each for each in list_deliveries(store.place) if each.key == again.key)
    assert 50 < line.next_attempt_at - time.time() <= 60, "a rest is as long as it was"


async def test_a_batch_goes_out_at_one_node(postgres: Postgres) -> None:
    place = Place.of(Spool(url=postgres.create_database()))
    one, two = Store(place), Store(place)
    one.open()
    two.open()
    batch = [await waiting(one) for _ in range(4)]
    moment = time.time()
    first, second = await asyncio.gather(one.claim_batch(DESK, moment, 2), two.claim_batch(DESK, moment, 2))
    assert sorted([len(first), len(second)]) == [0, 2], "whoever is first has it"
    owner, late, mine = (one, two, first) if first else (two, one, second)
    assert keys(mine) == batch[:2]
    assert await late.claim_batch(DESK, moment, 2) == []
    assert keys(await owner.claim_batch(DESK, moment, 2)) == batch[2:]
    for store in (one, two):
        await asyncio.to_thread(store.close)
