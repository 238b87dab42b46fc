"""What an operator says of a delivery, and what the spool makes of it: on both engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy import insert, select, update

from relay.errors import LeaseLost, OrderError
from relay.spool import orders
from relay.spool.engine import Place
from relay.spool.histories import message_history
from relay.spool.orders import FROM, SEEN_BY_PERSON, TO, Order, Result, Verb, Way
from relay.spool.queries import DeliveryLine, list_deliveries
from relay.spool.records import AT_ONCE, FINAL, TRANSITIONS, Delivery, Outcome, PrintJob, State
from relay.spool.schema import deliveries, print_jobs
from relay.spool.store import Store
from tests.accepted import new_message

pytestmark = pytest.mark.asyncio

CONTENT = b"From: a@lib.example\r\n\r\nhello\r\n"
NEW_WAY = Way("elsewhere", "elsewhere@b.example", warn_at=111.0, expires_at=222.0)


class Bench:
    """A spool with one delivery in it, and somebody who gives orders."""

    def __init__(self, place: Place) -> None:
        self.store = Store(place)
        self.store.open()

    async def put(self, state: State, *, job: PrintJob | None = None, with_a_node: bool = False) -> Delivery:
        """A delivery in a state, as the service would have left it."""
        new = new_message(CONTENT, ("desk@print.lib.example", "print:desk"), expires_at=time.time() - 1)
        delivery = (await self.store.accept(new, (None,)))[0]
        open_states = (State.QUEUED, State.ACTIVE, State.DEFERRED, State.PENDING)
        waits = state in open_states and not with_a_node
        values = {
            "state": state.value,
            "attempts": 0 if state is State.QUEUED else 1,
            "lease_owner": self.store.node if with_a_node else None,
            "due_at": time.time() + 900 if waits else None,
            "deadline": delivery.expires_at if waits else None,
            "settled_at": None if state in open_states else time.time(),
            "reason": "as it was",
        }
        of_it = deliveries.c.queue_id == delivery.message.queue_id
        await self.store.write(lambda c: c.execute(update(deliveries).where(of_it).values(values)))
        if job is not None:
            row = {"queue_id": delivery.message.queue_id, "number": 0, "name": job.name, "queue": job.queue}
            row |= {"job_id": job.job_id, "sent": job.sent}
            await self.store.write(lambda c: c.execute(insert(print_jobs), row))
        return delivery

    async def say(self, verb: Verb, *said: Delivery, why: str = "", only: frozenset[State] | None = None) -> Result:
        order = Order(verb, "anna", time.time(), why, only)
        keys = [delivery.key for delivery in said]
        return await self.store.write(lambda c: orders.carry_out(c, order, keys, lambda delivery, verb: NEW_WAY))

    def line(self, delivery: Delivery) -> DeliveryLine:
        return next(line for line in list_deliveries(self.store.place) if line.key == delivery.key)

    async def columns(self, delivery: Delivery, *names: str) -> tuple[object, ...]:
        query = select(*(deliveries.c[name] for name in names)).where(
            deliveries.c.queue_id == delivery.message.queue_id
        )
        return tuple(await self.store.write(lambda c: c.execute(query).one()))


@pytest_asyncio.fixture
async def bench(place: Place) -> AsyncIterator[Bench]:
    bench = Bench(place)
    yield bench
    await asyncio.to_thread(bench.store.close)


async def test_orders_go_only_where_the_table_of_transitions_leads() -> None:
    for verb, states in FROM.items():
        assert not states & FINAL
        for state in states:
            assert verb not in TO or TO[verb] in TRANSITIONS[state], (verb, state)


@pytest.mark.parametrize("verb", Verb)
async def test_an_order_in_each_state(bench: Bench, verb: Verb) -> None:
    for state in State:
        delivery = await bench.put(state)
        result = await bench.say(verb, delivery)
        line = bench.line(delivery)
        if state in FROM[verb]:
            assert [(done.key, done.was) for done in result.done] == [(delivery.key, state)]
            assert line.state == result.done[0].now == TO.get(verb, state)
            history = message_history(bench.store.place, delivery.message.queue_id)
            assert history is not None
            assert [(each.verb, each.who, each.was) for each in history.deliveries[0].orders] == [(verb, "anna", state)]
        else:
            assert result.done == []
            assert result.refused[0].why, "a refusal says why"
            assert (line.state, line.reason) == (state, "as it was")


async def test_what_is_held_waits_for_nothing_and_comes_back_only_by_a_release(bench: Bench) -> None:
    delivery = await bench.put(State.DEFERRED)
    await bench.say(Verb.HOLD, delivery, why="wrong address\x1b[2J?")
    assert bench.line(delivery).reason == "held by anna: wrong address?[2J?"
    assert await bench.columns(delivery, "due_at", "deadline", "lease_owner") == (None, None, None)
    assert await bench.store.claim(10) == ([], frozenset())
    assert await bench.store.claim_overdue(10) == []
    await bench.say(Verb.RELEASE, delivery)
    (claimed,), _ = await bench.store.claim(10)
    assert (claimed.key, claimed.state, claimed.attempts) == (delivery.key, State.QUEUED, 1)
    assert (claimed.route, claimed.destination) == (NEW_WAY.route, NEW_WAY.destination)
    assert (claimed.warn_at, claimed.expires_at) == (111.0, 222.0)
    assert bench.line(delivery).settled_at is None


async def test_a_retry_is_due_at_once_and_does_not_expire_at_once(bench: Bench) -> None:
    delivery = await bench.put(State.DEFERRED)
    await bench.say(Verb.RETRY, delivery)
    assert await bench.columns(delivery, "due_at", "deadline", "expires_at") == (AT_ONCE, 111.0, 222.0)
    assert bench.line(delivery).reason == "as it was", "why it was put off is still worth knowing"


async def test_what_waits_with_a_node_is_taken_away_from_it(bench: Bench) -> None:
    for verb in (Verb.HOLD, Verb.CANCEL, Verb.RETRY):
        delivery = await bench.put(State.QUEUED, with_a_node=True)
        assert len((await bench.say(verb, delivery)).done) == 1
        with pytest.raises(LeaseLost):
            await bench.store.begin(delivery, time.time() + 60)


async def test_what_is_being_tried_is_left_alone(bench: Bench) -> None:
    delivery = await bench.put(State.QUEUED, with_a_node=True)
    begun = await bench.store.begin(delivery, time.time() + 60)
    for verb in Verb:
        refused = (await bench.say(verb, delivery)).refused
        assert refused[0].why == "an attempt is running; try again in a moment"
    await bench.store.settle(begun, Outcome(State.DELIVERED), 0)
    assert (await bench.say(Verb.CANCEL, delivery)).refused[0].why == "it is delivered already"


@pytest.mark.parametrize("state", [State.ACTIVE, State.DEFERRED, State.PENDING])
async def test_a_slip_that_cups_may_have_is_neither_held_nor_cancelled(bench: Bench, state: State) -> None:
    delivery = await bench.put(state, job=PrintJob("slip-1", "desk_queue", 17, sent=True))
    for verb in (Verb.HOLD, Verb.CANCEL):
        why = (await bench.say(verb, delivery)).refused[0].why
        assert why.startswith("it is with CUPS (job 17 of the queue desk_queue): cancel it there")
        assert bench.line(delivery).state == state


async def test_a_job_without_a_number_never_got_its_document_and_keeps_nobody(bench: Bench) -> None:
    delivery = await bench.put(State.DEFERRED, job=PrintJob("slip-1", "desk_queue"))
    await bench.say(Verb.HOLD, delivery)
    assert bench.line(delivery).state == "held"
    assert await bench.store.write(lambda c: c.execute(select(print_jobs)).all()) == []


@pytest.mark.parametrize("state", [State.HELD, State.UNCERTAIN])
async def test_a_released_slip_begins_anew_for_its_old_job_is_over(bench: Bench, state: State) -> None:
    delivery = await bench.put(state, job=PrintJob("slip-1", "desk_queue", 17, sent=True))
    await bench.say(Verb.RELEASE, delivery)
    (claimed,), _ = await bench.store.claim(10)
    assert claimed.job is None


async def test_a_retried_slip_goes_on_with_its_job(bench: Bench) -> None:
    job = PrintJob("slip-1", "desk_queue", 17, sent=True)
    await bench.say(Verb.RETRY, await bench.put(State.DEFERRED, job=job))
    (claimed,), _ = await bench.store.claim(10)
    assert claimed.job == job, "else it would be printed twice"


async def test_a_slip_that_a_person_found_on_paper_is_delivered(bench: Bench) -> None:
    delivery = await bench.put(State.UNCERTAIN)
    await bench.say(Verb.PRINTED, delivery)
    line = bench.line(delivery)
    assert (line.state, line.evidence, line.reason) == ("delivered", SEEN_BY_PERSON, "said to be printed by anna")
    assert line.settled_at is not None


async def test_only_what_the_person_saw_is_changed(bench: Bench) -> None:
    held, uncertain = await bench.put(State.HELD), await bench.put(State.UNCERTAIN)
    result = await bench.say(Verb.RELEASE, held, uncertain, only=frozenset({State.HELD}))
    assert [done.key for done in result.done] == [held.key]
    assert [(each.key, each.why) for each in result.refused] == [(uncertain.key, "it is uncertain now")]


async def test_one_that_is_refused_or_unknown_keeps_no_other_from_being_changed(bench: Bench) -> None:
    good, bad = await bench.put(State.QUEUED), await bench.put(State.CORRUPT)
    unknown = Delivery(new_message(CONTENT).message, 7, "", "", "", State.QUEUED, 0, 0.0)
    result = await bench.say(Verb.HOLD, bad, unknown, good, good)
    assert [done.key for done in result.done] == [good.key]
    assert [each.why for each in result.refused] == [
        "it is corrupt, and only what is deferred, queued can be held",
        "there is no such delivery",
    ]


async def test_one_without_a_way_is_refused(bench: Bench) -> None:
    delivery = await bench.put(State.HELD)

    def nowhere(delivery: Delivery, verb: Verb) -> Way:
        raise OrderError("the institution is gone")

    order = Order(Verb.RELEASE, "anna", time.time())
    result = await bench.store.write(lambda c: orders.carry_out(c, order, [delivery.key], nowhere))
    assert result.refused[0].why == "the institution is gone"
    assert bench.line(delivery).state == "held"
