"""Slips of one document: what the spool promises of a bundle and of the slips that are in it, on both engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import pytest_asyncio
from sqlalchemy import Connection, select, text, update

from relay.config.settings import Config
from relay.control.ways import Ways
from relay.errors import LeaseLost, OrderError, SpoolError
from relay.spool import bundles, orders
from relay.spool.engine import Place
from relay.spool.histories import DeliveryHistory, message_history
from relay.spool.orders import Order, Result, Verb, Way
from relay.spool.queries import DeliveryLine, keys_of, list_deliveries, slips_of
from relay.spool.records import (
    Delivery,
    Key,
    NewDelivery,
    NewMessage,
    Onward,
    Outcome,
    Paper,
    PrintJob,
    Sameness,
    State,
    Twin,
)
from relay.spool.schema import deliveries, print_jobs, slips
from relay.spool.standing import standings
from relay.spool.store import Store
from tests.accepted import new_message

pytestmark = pytest.mark.asyncio

CONTENT = b"From: a@lib.example\r\n\r\nhello\r\n"
DESK = "print:desk"
WAY = ("desk@print.lib.example", DESK)
PAPER = Paper("desk", "", "a4", 2, 210.0, 297.0, b"%PDF-1.7 all of them")
SAME = Sameness()


@pytest_asyncio.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = Store(place)
    store.open()
    yield store
    await asyncio.to_thread(store.close)


def arriving(message_id: str = "") -> NewMessage:
    new = new_message(CONTENT, WAY, merge=True)
    return replace(new, message=replace(new.message, message_id=message_id))


async def waiting(store: Store, count: int = 3) -> list[Delivery]:
    """Slips that this node has claimed as a batch."""
    for number in range(count):
        await store.accept(arriving(f"<{number}@alma.example>"), None)
    return await store.claim_batch(DESK, time.time() + 1, 200)


async def bundled(store: Store, count: int = 3) -> bundles.Bundled:
    return await store.bundle(await waiting(store, count))


async def begun(store: Store, bundle: Delivery) -> Delivery:
    return await store.begin(bundle, time.time() + 60)


def paper(slip: Delivery, content: str = "") -> Paper:
    return Paper("desk", content or slip.message.queue_id.rjust(64, "0"), "a4", 1, 210.0, 90.0, None)


async def begin_job(store: Store, bundle: Delivery, members: list[Delivery]) -> Delivery | list[tuple[Delivery, Twin]]:
    job = PrintJob(f"slip-{bundle}-{bundle.attempts}", "desk")
    return await store.begin_bundle(bundle, job, PAPER, [(slip, paper(slip)) for slip in members], SAME)


async def with_cups(store: Store, bundle: Delivery) -> Delivery:
    """A bundle whose job is followed."""
    job = await begin_job(store, await begun(store, bundle), await store.members(str(bundle)))
    assert isinstance(job, Delivery)
    assert job.job is not None
    return await store.pending(await store.record_job(job, replace(job.job, job_id=7, sent=True)), "")


def line(store: Store, delivery: Delivery) -> DeliveryLine:
    return next(line for line in list_deliveries(store.place) if line.key == delivery.key)


def lines(store: Store, made: bundles.Bundled) -> list[DeliveryLine]:
    return [line(store, slip) for slip in made.slips]


def history(store: Store, delivery: Delivery) -> DeliveryHistory:
    found = message_history(store.place, delivery.message.queue_id)
    assert found is not None
    return found.deliveries[delivery.number]


async def say(store: Store, verb: Verb, *keys: Key) -> Result:
    order = Order(verb, "anna", time.time(), "so be it")
    return await store.write(lambda c: orders.carry_out(c, order, keys, lambda delivery, verb: Way(DESK, DESK)))


async def test_slips_become_one_delivery_of_the_message_that_came_first(store: Store) -> None:
    held = await waiting(store)
    made = await store.bundle([held[2], held[0], held[1]])  # sorted by their letters
    bundle = made.bundle
    assert bundle.key == (held[0].message.queue_id, 1)
    assert [each.key for each in made.slips] == [held[2].key, held[0].key, held[1].key]
    found = line(store, bundle)
    assert (found.state, found.route, found.notify, found.is_bundle, found.merge) == (
        "queued",
        DESK,
        "NEVER",
        True,
        False,
    )
    assert {(each.state, each.bundle, each.is_bundle, each.attempts) for each in lines(store, made)} == {
        ("pending", str(bundle), False, 1)
    }
    assert await store.members(str(bundle)) == list(made.slips)
    assert history(store, bundle).slips == tuple(str(slip) for slip in made.slips)
    assert history(store, made.slips[0]).slips == ()
    # Nobody ever claims them, and nothing is said of them when it is late.
    assert await store.claim(100) == ([], frozenset())
    assert await store.claim_batch(DESK, time.time() + 1, 200) == []
    # A message's name means its own slips, and not those of others that are printed with them.
    queue_id = bundle.message.queue_id
    assert keys_of(store.place, queue_id) == [(queue_id, 0), (queue_id, 1)]
    assert keys_of(store.place, queue_id, bundles=False) == [(queue_id, 0)]
    assert slips_of(store.place, queue_id, "print:") == [(queue_id, 0)]


async def test_a_making_that_fails_half_way_has_not_happened(store: Store) -> None:
    held = await waiting(store)

    def half(connection: Connection) -> None:
        bundles.bundle(connection, store.node, held)
        connection.execute(text("SELECT * FROM nowhere"))

    with pytest.raises(SpoolError):
        await store.write(half)
    assert [(each.state, each.bundle) for each in list_deliveries(store.place)] == [("queued", "")] * 3
    assert len((await store.bundle(held)).slips) == 3


async def test_what_an_operator_took_away_is_left_out(store: Store) -> None:
    held = await waiting(store)
    assert (await say(store, Verb.HOLD, held[1].key)).refused == []
    made = await store.bundle(held)
    assert [slip.key for slip in made.slips] == [held[0].key, held[2].key]
    assert (line(store, held[1]).state, line(store, held[1]).bundle) == ("held", "")


async def test_one_slip_is_no_bundle(store: Store) -> None:
    held = await waiting(store, 2)
    await say(store, Verb.CANCEL, held[0].key)
    with pytest.raises(LeaseLost):
        await store.bundle(held)
    found = line(store, held[1])
    assert (found.state, found.bundle, found.attempts) == ("queued", "", 0)
    await store.begin(held[1], 0)  # it goes by itself


async def test_a_node_that_dies_leaves_a_bundle_that_has_its_slips(store: Store, place: Place) -> None:
    made = await bundled(store)
    await store.write(
        lambda c: c.execute(
            update(deliveries).values(lease_owner=None, due_at=0.0).where(deliveries.c.lease_owner.is_not(None))
        )
    )
    claimed = await store.claim_batch(DESK, time.time() + 1, 200)
    assert [each.key for each in claimed] == [made.bundle.key]
    assert claimed[0].is_bundle
    assert [each.key for each in await store.members(str(claimed[0]))] == [slip.key for slip in made.slips]


@pytest.mark.parametrize("state", [State.DELIVERED, State.CANCELLED])
async def test_what_becomes_of_the_bundle_becomes_of_its_slips(store: Store, state: State) -> None:
    made = await bundled(store)
    bundle = await with_cups(store, made.bundle)
    await store.settle(bundle, Outcome(state, "the end", evidence="device-confirmed"), 0)
    ended = line(store, bundle).settled_at
    assert ended is not None
    for slip in made.slips:
        found = line(store, slip)
        assert (found.state, found.evidence, found.bundle) == (state.value, "device-confirmed", str(bundle))
        assert found.reason == f"in the bundle {bundle}: the end"
        assert found.settled_at == ended
        assert [(each.number, each.outcome, each.reason) for each in history(store, slip).attempts] == [
            (1, state.value, f"in the bundle {bundle}: the end")
        ]


async def test_a_late_worker_settles_neither_bundle_nor_slips(store: Store) -> None:
    made = await bundled(store)
    bundle = await with_cups(store, made.bundle)
    late = replace(bundle, attempts=bundle.attempts - 1)
    with pytest.raises(LeaseLost):
        await store.settle(late, Outcome(State.DELIVERED, "the end"), 0)
    assert {each.state for each in [line(store, bundle), *lines(store, made)]} == {"pending"}


@pytest.mark.parametrize("state", [State.HELD, State.UNCERTAIN, State.DEFERRED])
async def test_while_it_is_not_at_its_end_its_slips_are_in_it(store: Store, state: State) -> None:
    made = await bundled(store)
    await store.settle(await with_cups(store, made.bundle), Outcome(state, "a jam"), time.time() + 900)
    assert line(store, made.bundle).state == state.value
    assert {(each.state, each.bundle) for each in lines(store, made)} == {("pending", str(made.bundle))}


async def test_slips_leave_it_each_with_its_own_outcome(store: Store) -> None:
    made = await bundled(store, 4)
    bundle = await begun(store, made.bundle)
    leaving = [
        (made.slips[0], Outcome(State.HELD, "can't be rendered: no ink")),
        (made.slips[1], Outcome(State.CANCELLED, "the same", evidence="duplicate", duplicate_of="X/0")),
        (made.slips[3], Outcome(State.DEFERRED, "no room")),
    ]
    await store.part(bundle, leaving)
    found = lines(store, made)
    assert [(each.state, each.reason, each.bundle) for each in found] == [
        ("held", "can't be rendered: no ink", ""),
        ("cancelled", "the same", ""),
        ("pending", made.slips[2].reason, str(bundle)),
        ("deferred", "no room", ""),
    ]
    assert (found[1].evidence, found[1].duplicate_of) == ("duplicate", "X/0")
    assert [each.settled_at is None for each in found] == [False, False, True, True]
    assert [each.outcome for each in history(store, made.slips[3]).attempts] == ["deferred"]
    assert [slip.key for slip in await store.members(str(bundle))] == [made.slips[2].key]
    # What had no room comes with the next batch, and may be in a bundle again.
    again = await store.claim_batch(DESK, time.time() + 1, 200)
    assert [slip.key for slip in again] == [made.slips[3].key]
    assert again[0].merge
    # None of them can leave twice, and nobody else's slips can leave.
    with pytest.raises(LeaseLost):
        await store.part(bundle, leaving[2:])
    with pytest.raises(LeaseLost):
        await store.part(replace(bundle, attempts=7), [(made.slips[2], Outcome(State.HELD, "x"))])
    assert line(store, made.slips[2]).state == "pending"


async def test_the_job_begins_with_the_slips_that_the_spool_has_in_it(store: Store) -> None:
    made = await bundled(store)
    bundle = await begun(store, made.bundle)
    members = await store.members(str(bundle))
    with pytest.raises(LeaseLost):
        await begin_job(store, bundle, members[:2])
    assert await store.write(lambda c: c.execute(select(print_jobs)).all()) == []
    job = await begin_job(store, bundle, members)
    assert isinstance(job, Delivery)
    kept = await store.paper(bundle.key)
    assert kept is not None
    assert (kept.pdf, kept.pages) == (PAPER.pdf, 2)
    rows = await store.write(lambda c: c.execute(select(slips).order_by(slips.c.queue_id)).all())
    assert [(row.queue_id, row.number, row.printer) for row in rows] == [(*slip.key, "desk") for slip in members]


async def test_a_slip_that_was_printed_in_a_bundle_is_known_when_it_comes_again(store: Store) -> None:
    made = await bundled(store)
    await store.settle(await with_cups(store, made.bundle), Outcome(State.DELIVERED, "printed"), 0)
    again = (await store.accept(arriving("<1@alma.example>"), [time.time() + 60]))[0]
    its = paper(made.slips[1])
    twin = await store.begin_job(again, PrintJob("slip-again", "desk"), its, SAME)
    assert twin == Twin(made.slips[1].key, is_printed=True, by="message-id")


async def test_of_two_that_are_the_same_one_leaves_the_bundle(store: Store) -> None:
    """The client heard no 250 and said it again, and both waited over the night."""
    await store.accept(arriving("<0@alma.example>"), None)
    made = await bundled(store, 2)
    assert len(made.slips) == 3
    bundle = await begun(store, made.bundle)
    members = await store.members(str(bundle))
    job = PrintJob("slip-x", "desk")
    papers = [(slip, paper(slip, "c" * 64)) for slip in members]
    twins = await store.begin_bundle(bundle, job, PAPER, papers, SAME)
    assert twins == [(members[1], Twin(members[0].key, is_printed=False, by="message-id"))]
    assert await store.write(lambda c: c.execute(select(print_jobs)).all()) == []
    await store.part(bundle, [(members[1], Outcome(State.DEFERRED, f"waits for {members[0]}"))])
    kept = [each for each in papers if each[0].key != members[1].key]
    begun_job = await store.begin_bundle(bundle, job, PAPER, kept, SAME)
    assert isinstance(begun_job, Delivery)
    await store.settle(begun_job, Outcome(State.DELIVERED, "printed"), 0)
    (second,) = await store.claim_batch(DESK, time.time() + 1, 200)
    second = await store.begin(second, 0)
    twin = await store.begin_job(second, PrintJob("slip-y", "desk"), papers[1][1], SAME)
    assert twin == Twin(members[0].key, is_printed=True, by="message-id")


@pytest.mark.parametrize("state", [State.HELD, State.UNCERTAIN, State.DEFERRED])
async def test_a_bundle_that_waits_for_a_person_keeps_no_other_from_being_printed(store: Store, state: State) -> None:
    made = await bundled(store)
    await store.settle(await with_cups(store, made.bundle), Outcome(state, "why"), time.time() + 900)
    other = (await store.accept(arriving("<1@alma.example>"), [time.time() + 60]))[0]
    began = await store.begin_job(other, PrintJob("slip-o", "desk"), paper(made.slips[1]), SAME)
    if state is State.DEFERRED:  # it is printed soon
        assert began == Twin(made.slips[1].key, is_printed=False, by="message-id")
        return
    assert isinstance(began, Delivery)
    await store.settle(began, Outcome(State.DELIVERED, "printed"), 0)
    if state is State.HELD:  # and if it is released then, without that slip
        await say(store, Verb.RELEASE, made.bundle.key)
        (again,), _ = await store.claim(10)
        again = await begun(store, again)
        twins = await begin_job(store, again, await store.members(str(again)))
        assert isinstance(twins, list)
        assert [(slip.key, twin.key, twin.is_printed) for slip, twin in twins] == [(made.slips[1].key, other.key, True)]


async def test_an_order_on_a_slip_names_the_bundle(store: Store) -> None:
    made = await bundled(store)
    for verb in Verb:
        result = await say(store, verb, made.slips[0].key)
        assert result.done == []
        assert f"the bundle {made.bundle}: name that one" in result.refused[0].why
    assert line(store, made.slips[0]).state == "pending"


async def test_an_order_on_the_bundle_is_one_on_its_slips(store: Store) -> None:
    made = await bundled(store)
    assert (await say(store, Verb.HOLD, made.bundle.key)).refused == []
    assert [line(store, made.bundle).state, *(each.state for each in lines(store, made))] == ["held", *["pending"] * 3]
    assert (await say(store, Verb.RELEASE, made.bundle.key)).refused == []
    (claimed,), _ = await store.claim(10)
    assert claimed.key == made.bundle.key
    await store.release([claimed])
    assert (await say(store, Verb.CANCEL, made.bundle.key)).refused == []
    for slip in made.slips:
        found = line(store, slip)
        assert (found.state, found.bundle) == ("cancelled", str(made.bundle))
        assert found.reason == f"in the bundle {made.bundle}: cancelled by anna: so be it"
        assert [(order.verb, order.who, order.was) for order in history(store, slip).orders] == [
            ("cancel", "anna", "pending")
        ]


async def test_a_person_who_finds_the_uncertain_sheets_settles_all_of_them(store: Store) -> None:
    made = await bundled(store)
    await store.settle(await with_cups(store, made.bundle), Outcome(State.UNCERTAIN, "CUPS is gone"), 0)
    assert (await say(store, Verb.PRINTED, made.bundle.key)).refused == []
    assert {(each.state, each.evidence) for each in lines(store, made)} == {("delivered", "operator-confirmed")}
    assert {line(store, made.bundle).settled_at} == {each.settled_at for each in lines(store, made)}


async def test_a_person_who_has_it_printed_again_gets_all_of_it(store: Store) -> None:
    """Whatever else there is that is the same: that is what the order says."""
    made = await bundled(store)
    await store.settle(await with_cups(store, made.bundle), Outcome(State.UNCERTAIN, "CUPS is gone"), 0)
    other = (await store.accept(arriving("<1@alma.example>"), [time.time() + 60]))[0]
    its = paper(made.slips[1])
    assert isinstance(await store.begin_job(other, PrintJob("slip-o", "desk"), its, SAME), Delivery)
    await say(store, Verb.RELEASE, made.bundle.key)
    (again,), _ = await store.claim(10)
    again = await begun(store, again)
    assert isinstance(await begin_job(store, again, await store.members(str(again))), Delivery)


async def test_another_printer_that_stands_in_gets_the_slips_as_well(store: Store) -> None:
    made = await bundled(store)
    bundle = await begun(store, made.bundle)
    way = NewDelivery(bundle.recipient, "print:office", "print:office", moved_from="desk")
    await store.sort(bundle, Outcome(State.QUEUED, "moved"), Onward(way, at_once=True))
    assert {(each.route, each.state) for each in lines(store, made)} == {("print:office", "pending")}
    assert {each.moved_from for each in await store.members(str(bundle))} == {"desk"}
    (claimed,), _ = await store.claim(10)
    assert (claimed.key, claimed.route, claimed.is_bundle) == (bundle.key, "print:office", True)


async def test_a_printer_s_standing_is_that_of_the_bundle(store: Store) -> None:
    made = await bundled(store)
    bundle = await with_cups(store, made.bundle)
    await store.settle(bundle, Outcome(State.DEFERRED, "out of paper"), time.time() + 900)
    standing = (await asyncio.to_thread(standings, store.place, [DESK]))[DESK]
    assert standing.tried_since is not None
    assert (standing.reason, standing.for_a_person) == ("out of paper", 0)


async def test_a_bundle_whose_printer_is_gone_is_no_letter_of_its_first_message(
    store: Store, make_config: Callable[..., Config]
) -> None:
    made = await bundled(store)
    gone = replace(made.bundle, route="print:gone")
    with pytest.raises(OrderError, match="no route print:gone any more: put it back, or cancel the bundle"):
        Ways(make_config())(gone, Verb.RELEASE)
