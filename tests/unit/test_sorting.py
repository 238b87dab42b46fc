"""What the rules made of a delivery is one transaction behind the fence, on either engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from sqlalchemy import Connection, select, text, update

from relay.errors import LeaseLost, SpoolError
from relay.spool import sorting, writes
from relay.spool.engine import Place
from relay.spool.histories import message_history
from relay.spool.queries import list_deliveries
from relay.spool.records import AT_ONCE, Delivery, NewDelivery, Onward, Outcome, State
from relay.spool.schema import deliveries
from relay.spool.store import Store
from tests.accepted import new_message

pytestmark = pytest.mark.asyncio

CONTENT = b"From: a@lib.example\r\n\r\nhello\r\n"
SORT = "sort:demo"


@pytest_asyncio.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = Store(place)
    store.open()
    yield store
    await asyncio.to_thread(store.close)


async def begun(store: Store, *routes: str) -> list[Delivery]:
    ways = [(f"desk{number}@print.lib.example", route) for number, route in enumerate(routes or (SORT,))]
    return await store.accept(new_message(CONTENT, *ways), [time.time() + 60] * len(ways))


def way(delivery: Delivery, route: str, **more: object) -> NewDelivery:
    return replace(NewDelivery(delivery.recipient, route, route), **more)  # type: ignore[arg-type]


def copy(delivery: Delivery, recipient: str, route: str) -> NewDelivery:
    return NewDelivery(recipient, route, route, notify="NEVER", copy_of=delivery.number)


def outcome(onward: Onward) -> Outcome:
    state = State.DELIVERED if onward.way is None else State.QUEUED
    return Outcome(state, "sorted by the rule r", notes=("a note",), onward=onward)


async def sort(store: Store, delivery: Delivery, onward: Onward) -> None:
    await store.sort(delivery, outcome(onward), onward)


def mailed(delivery: Delivery, address: str = "p@eprint.example") -> NewDelivery:
    return replace(copy(delivery, address, "default"), once_at="branch")


async def stood(store: Store, *deliveries_: Delivery) -> list[tuple[str, str, str]]:
    """State, evidence and twin of what was added to the messages of deliveries."""
    lines = await asyncio.to_thread(list_deliveries, store.place)
    names = [each.message.queue_id for each in deliveries_]
    added = [line for line in lines if line.queue_id in names and line.number > 0]
    return [(line.state, line.evidence, line.duplicate_of) for line in added]


async def test_a_slip_goes_to_a_printer_s_address_once(store: Store) -> None:
    """The same message, byte for byte, with its Message-ID, handed in twice; and what only looks like it."""
    new = new_message(CONTENT, ("desk@print.lib.example", SORT))

    async def again(**changed: object) -> Delivery:
        queue_id = new_message(b"").message.queue_id
        message = replace(new.message, queue_id=queue_id, **changed)  # type: ignore[arg-type]
        (delivery,) = await store.accept(replace(new, message=message), [time.time() + 60])
        return delivery

    first, second = await again(), await again()
    both = Onward(None, (mailed(first), mailed(first, "q@eprint.example")))
    assert await store.sort(first, outcome(both), both) == []
    only = Onward(None, (mailed(second),))
    (found,) = await store.sort(second, outcome(only), only)
    assert (found.number, found.printer, found.of) == (1, "branch", f"{first.message.queue_id}/1")
    assert await stood(store, first) == [("queued", "", "")] * 2
    assert await stood(store, second) == [("cancelled", "duplicate", f"{first}"[:-1] + "1")]

    for changed in ({"message_id": "<other@x>"}, {"message_id": ""}, {"sha256": "0" * 64}):
        other = await again(**changed)
        assert await store.sort(other, outcome(only), Onward(None, (mailed(other),))) == []
    elsewhere = await again()
    assert await store.sort(elsewhere, outcome(only), Onward(None, (mailed(elsewhere, "r@eprint.example"),))) == []


async def test_a_slip_that_did_not_reach_the_address_keeps_no_other_back(store: Store) -> None:
    new = new_message(CONTENT, ("desk@print.lib.example", SORT))
    (first,) = await store.accept(new, [time.time() + 60])
    onward = Onward(None, (mailed(first),))
    await store.sort(first, outcome(onward), onward)
    await store.write(
        lambda c: c.execute(update(deliveries).where(deliveries.c.number == 1).values(state=State.FAILED.value))
    )
    message = replace(new.message, queue_id=new_message(b"").message.queue_id)
    (second,) = await store.accept(replace(new, message=message), [time.time() + 60])
    assert await store.sort(second, outcome(onward), onward) == []
    assert await stood(store, second) == [("queued", "", "")]


async def test_a_sorted_delivery_waits_for_its_new_way_with_all_that_the_rule_said(store: Store) -> None:
    delivery = (await begun(store))[0]
    expires = time.time() + 1000
    onward = Onward(way(delivery, "print:desk", profile="a5", copies=3, warn_at=expires - 1, expires_at=expires))
    await sort(store, delivery, onward)
    claimed, _ = await store.claim(10)
    assert [(each.key, each.state, each.route, each.destination) for each in claimed] == [
        (delivery.key, State.QUEUED, "print:desk", "print:desk")
    ]
    assert (claimed[0].profile, claimed[0].copies, claimed[0].attempts) == ("a5", 3, 1)
    assert (claimed[0].warn_at, claimed[0].expires_at) == (expires - 1, expires)
    history = message_history(store.place, delivery.message.queue_id)
    assert history is not None
    assert [(each.number, each.outcome, each.reason) for each in history.deliveries[0].attempts] == [
        (1, "queued", "sorted by the rule r; a note")
    ]


async def test_copies_are_further_deliveries_of_the_message(store: Store) -> None:
    first, second = await begun(store, SORT, "default")
    more = (copy(first, "law@print.lib.example", "print:law"), copy(first, "boss@lib.example", "default"))
    await sort(store, first, Onward(way(first, "print:desk"), more))
    lines = list_deliveries(store.place)
    assert [(line.number, line.recipient, line.route, line.state, line.notify) for line in lines] == [
        (0, first.recipient, "print:desk", "queued", ""),
        (1, second.recipient, "default", "active", ""),
        (2, "law@print.lib.example", "print:law", "queued", "NEVER"),
        (3, "boss@lib.example", "default", "queued", "NEVER"),
    ]
    claimed, _ = await store.claim(10)
    assert {each.number: each.copy_of for each in claimed} == {0: None, 2: 0, 3: 0}
    assert await store.content(claimed[0].message) == CONTENT


async def test_what_is_forwarded_ends_and_others_go_in_its_stead(store: Store) -> None:
    delivery = (await begun(store))[0]
    await sort(store, delivery, Onward(None, (copy(delivery, "a@lib.example", "default"),)))
    assert [(line.number, line.state, line.route) for line in list_deliveries(store.place)] == [
        (0, "delivered", SORT),
        (1, "queued", "default"),
    ]
    assert [each.number for each in (await store.claim(10))[0]] == [1]


async def test_sorting_again_adds_nothing_twice(store: Store) -> None:
    delivery = (await begun(store))[0]
    more = (copy(delivery, "law@print.lib.example", "print:law"), copy(delivery, "law@print.lib.example", "print:law"))
    await sort(store, delivery, Onward(way(delivery, SORT), more))
    again = next(each for each in (await store.claim(10))[0] if each.number == 0)
    again = await store.begin(again, time.time() + 60)
    await sort(store, again, Onward(way(again, "print:desk"), (*more, copy(again, "x@lib.example", "default"))))
    assert [(line.number, line.route) for line in list_deliveries(store.place)] == [
        (0, "print:desk"),
        (1, "print:law"),
        (2, "default"),
    ]


async def test_who_lost_the_lease_sorts_nothing(store: Store) -> None:
    delivery = (await begun(store))[0]
    await sort(store, delivery, Onward(way(delivery, "print:desk")))
    with pytest.raises(LeaseLost):
        await sort(store, delivery, Onward(way(delivery, "discard"), (copy(delivery, "x@lib.example", "default"),)))
    assert [(line.number, line.route) for line in list_deliveries(store.place)] == [(0, "print:desk")]


async def test_what_waits_without_an_attempt_is_not_sorted(store: Store) -> None:
    delivery = (await store.accept(new_message(CONTENT, ("desk@print.lib.example", SORT)), (None,)))[0]
    await sort(store, delivery, Onward(way(delivery, "print:desk")))  # the fence of a queued one is its owner
    assert list_deliveries(store.place)[0].attempts == 0


async def test_a_sorting_that_fails_half_way_has_not_happened(store: Store) -> None:
    delivery = (await begun(store))[0]
    onward = Onward(way(delivery, "print:desk"), (copy(delivery, "law@print.lib.example", "print:law"),))

    def half(connection: Connection) -> None:
        sorting.sort(connection, store.node, delivery, outcome(onward), onward)
        connection.execute(text("SELECT * FROM nowhere"))

    with pytest.raises(SpoolError):
        await store.write(half)
    assert [(line.number, line.route, line.state) for line in list_deliveries(store.place)] == [(0, SORT, "active")]
    await sort(store, delivery, onward)
    assert [(line.number, line.route) for line in list_deliveries(store.place)] == [(0, "print:desk"), (1, "print:law")]


async def test_what_was_sorted_is_claimed_in_the_order_of_arrival(store: Store) -> None:
    held = [(await begun(store))[0] for _ in range(3)]
    await begun(store, "print:other")
    direct = new_message(CONTENT, ("desk@print.lib.example", "print:desk"))
    await store.accept(direct, None)
    for delivery in reversed(held):
        await sort(store, delivery, Onward(way(delivery, "print:desk")))
    claimed, _ = await store.claim(10)
    assert [each.key for each in claimed] == [*(each.key for each in held), (direct.message.queue_id, 0)]


async def test_what_a_person_let_go_is_due_though_its_printer_is_closed(store: Store) -> None:
    first, second = (await begun(store))[0], (await begun(store))[0]
    await sort(store, first, Onward(way(first, "print:desk")))
    await sort(store, second, Onward(way(second, "print:desk"), at_once=True))
    claimed, _ = await store.claim(10, until={"print:desk": AT_ONCE})
    assert [each.key for each in claimed] == [second.key]


async def test_a_crash_before_the_commit_leaves_it_to_be_sorted(place: Place) -> None:
    first = Store(place, lease=0.01)
    first.open()
    delivery = (await first.accept(new_message(CONTENT, ("d@print.lib.example", SORT)), (time.time() + 60,)))[0]
    first._commits.stop()  # as a killed process leaves it: its lease stands, and nothing was given back
    first._drop()
    after = Store(place)
    await asyncio.sleep(0.05)  # the lease runs out by the clock of the server
    after.open()
    claimed, _ = await after.claim(10)
    assert [(each.key, each.route, each.attempts) for each in claimed] == [(delivery.key, SORT, 1)]
    await asyncio.to_thread(after.close)


async def test_rows_of_yesterdays_code_have_defaults(store: Store) -> None:
    new = new_message(CONTENT, ("desk@print.lib.example", "print:desk"))
    await store.accept(new, None)

    def as_before(connection: Connection) -> None:
        row = dict(writes._row(new.message.queue_id, 1, new.deliveries[0]))
        for name in ("profile", "copies", "copy_of"):
            del row[name]
        row |= {"state": "queued", "attempts": 0, "next_attempt_at": 0.0}
        connection.execute(deliveries.insert().values(**row))

    await store.write(as_before)
    query = select(deliveries.c.profile, deliveries.c.copies, deliveries.c.copy_of).where(deliveries.c.number == 1)
    assert await store.write(lambda c: tuple(c.execute(query).one())) == ("", 0, None)
