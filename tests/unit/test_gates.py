"""A printer's gate: slips of a closed printer wait in the spool, in order, and go when it opens, each once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from sqlalchemy import text

from relay.bounces.notify import Notifier
from relay.config.settings import Config, Spool
from relay.delivery.attempt import Attempts
from relay.delivery.gates import Gate
from relay.delivery.runner import Runner
from relay.errors import SpoolError
from relay.mail.queue_id import new_queue_id
from relay.maillog import MailLog
from relay.routing.calendar import Calendar
from relay.spool import claims as spool_claims
from relay.spool import orders
from relay.spool.bundles import Bundled
from relay.spool.engine import Place, writing_engine
from relay.spool.orders import Order, Verb, Way
from relay.spool.queries import DeliveryLine, list_deliveries
from relay.spool.records import Delivery, Key, Outcome, State
from relay.spool.store import Store
from relay.transports import Limits
from tests.accepted import new_message
from tests.harness.postgres import Postgres
from tests.harness.waiting import until

pytestmark = pytest.mark.asyncio

CONTENT = b"From: a@lib.example\r\n\r\nx\r\n"
DESK = "print:desk"
HOUR = 3600.0
UTC_ZONE = ZoneInfo("UTC")


class Clock:
    """The time of this machine, and what the test adds to it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Paper:
    """What came out: slips by their key, and `announced` batches."""

    limits = Limits(total=1, per_destination=1)

    def __init__(self) -> None:
        self.out: list[Key | str] = []
        self.works = asyncio.Event()
        self.works.set()
        self.shut_for: float | None = None
        self.asked = 0

    @property
    def slips(self) -> list[Key]:
        return [each for each in self.out if not isinstance(each, str)]

    async def deliver(self, delivery: Delivery, content: bytes) -> Outcome:
        self.asked += 1
        await self.works.wait()
        if self.shut_for is not None:
            return Outcome(State.DEFERRED, "CUPS is away", shut_for=self.shut_for)
        self.out.append(delivery.key)
        return Outcome(State.DELIVERED)

    def interrupt(self) -> None:
        pass

    async def close(self) -> None:
        pass


class Backwards:
    """Binds batches of a size, the youngest first, and writes down that it announced them."""

    def __init__(self, paper: Paper, size: int, merges: int = 1) -> None:
        """`merges` is how many slips come out as one document."""
        self.paper = paper
        self.size = size
        self.merges = merges
        self.fails = False

    async def bind(self, slips: Sequence[Delivery]) -> list[list[Delivery]]:
        if self.fails:
            self.fails = False
            raise RuntimeError("a bug in a binder")
        turned = sorted(slips, key=lambda slip: slip.key, reverse=True)
        return [turned[start : start + self.size] for start in range(0, len(turned), self.size)]

    def groups(self, batch: Sequence[Delivery]) -> list[list[Delivery]]:
        return [list(batch[start : start + self.merges]) for start in range(0, len(batch), self.merges)]

    async def announce(self, batch: Sequence[Delivery]) -> None:
        self.paper.out.append(f"batch of {len(batch)}")


class Bench:
    """Services one after the other, or two at a time, on one spool with one printer."""

    def __init__(self, config: Config, place: Place) -> None:
        self.config = config
        self.place = place
        self.clock = Clock()
        self.paper = Paper()
        self._nodes: list[tuple[Runner, Store, asyncio.Task[None]]] = []

    async def start(self, calendar: Calendar, binder: Backwards | None = None) -> Runner:
        store = Store(self.place, lease=2.0)
        await asyncio.to_thread(store.open)
        ways: dict[str, Any] = {DESK: self.paper}
        attempts = Attempts(self.config, store, ways, Notifier(self.config), MailLog())
        runner = Runner(store, attempts, ways, MailLog(), {DESK: Gate(calendar, binder, self.clock)})
        self._nodes.append((runner, store, asyncio.create_task(runner.run())))
        return runner

    async def stop(self) -> None:
        for runner, store, running in self._nodes:
            await runner.stop(timeout=5)
            await running
            await asyncio.to_thread(store.close)
        self._nodes.clear()

    async def stop_abruptly(self) -> None:
        """Ends the service with whatever it is at."""
        for runner, store, running in self._nodes:
            await runner.stop(timeout=0)
            await running
            await asyncio.to_thread(store.close)
        self._nodes.clear()

    async def accept(self, times: int = 1) -> list[Key]:
        """As intake does it, one after the other; gives the keys."""
        keys = []
        for number in range(times):
            runner, store, _ = self._nodes[number % len(self._nodes)]
            new = new_message(CONTENT, ("desk@print.lib.example", DESK))
            retry_at = runner.reserve(new.deliveries)
            held = await store.accept(new, retry_at)
            if retry_at is None:
                runner.leave(new.deliveries)
            else:
                runner.hand_over(held, CONTENT)
            keys.append((new.message.queue_id, 0))
        return keys

    async def order(self, verb: Verb, key: Key) -> None:
        runner, store, _ = self._nodes[0]
        order = Order(verb, "somebody", time.time())
        result = await store.write(lambda c: orders.carry_out(c, order, [key], lambda *_: Way(DESK, DESK)))
        assert not result.refused
        runner.reopen()

    def set_clock(self, ahead: float) -> None:
        """Sets the clock so many seconds ahead of the real one, and has the runners look at it."""
        self.clock.ahead = ahead
        for runner, _, _ in self._nodes:
            runner._wake.set()

    async def ticks(self) -> None:
        """Waits until the runner has looked for work twice: whatever goes now would have been begun."""
        runner, store, _ = self._nodes[0]
        looks = 0
        claim = store.claim

        async def counted(*args: Any, **more: Any) -> Any:
            nonlocal looks
            looks += 1
            runner._wake.set()
            return await claim(*args, **more)

        store.claim = counted  # type: ignore[method-assign]
        runner._wake.set()
        await until(lambda: looks >= 2, "two looks")
        store.claim = claim  # type: ignore[method-assign]

    def lines(self) -> list[DeliveryLine]:
        return list_deliveries(self.place, limit=10_000)

    @property
    def held(self) -> int:
        return sum(len(runner._held) for runner, _, _ in self._nodes)


@pytest_asyncio.fixture
async def bench(place: Place, make_config: Callable[..., Config]) -> AsyncIterator[Bench]:
    bench = Bench(make_config(delivery={"retry_first": 0.05, "retry_longest": 0.1}), place)
    yield bench
    bench.paper.works.set()
    await bench.stop()


def opens_in(hours: float, length: float = 2.0) -> Calendar:
    """Open once a week, for some hours, beginning so many hours from now; in whole minutes."""
    begins = datetime.now(UTC) + timedelta(hours=hours)
    minute = begins.hour * 60 + begins.minute
    week: list[tuple[tuple[int, int], ...]] = [()] * 7
    week[begins.weekday()] = ((minute, minute + int(length * 60)),)
    return Calendar(tuple(week), zone=UTC_ZONE)


def releases_in(*hours: float) -> Calendar:
    times = [datetime.now(UTC) + timedelta(hours=each) for each in hours]
    return Calendar(release_at=[each.hour * 60 + each.minute for each in times], zone=UTC_ZONE)


async def test_slips_of_a_closed_printer_wait_in_the_spool_and_go_in_order_when_it_opens(bench: Bench) -> None:
    await bench.start(opens_in(3))
    keys = await bench.accept(60)
    await bench.ticks()
    assert bench.paper.slips == []
    assert bench.held == 0, "they wait in the spool, not in memory"
    assert {line.state for line in bench.lines()} == {"queued"}
    bench.set_clock(3.5 * HOUR)
    await until(lambda: len(bench.paper.slips) == 60, "all of them", seconds=30)
    assert bench.paper.slips == keys
    assert await bench.accept(3) == (await _after(bench, 63))[60:]


async def _after(bench: Bench, count: int) -> list[Key]:
    await until(lambda: len(bench.paper.slips) == count, f"{count} slips")
    return bench.paper.slips


async def test_when_it_closes_the_rest_waits_and_keeps_its_order_over_a_restart(bench: Bench) -> None:
    calendar = opens_in(-1, 2)
    await bench.start(calendar)
    await bench.ticks()
    bench.paper.works.clear()
    keys = await bench.accept(30)
    bench.set_clock(2 * HOUR)
    await bench.ticks()
    bench.paper.works.set()
    await until(lambda: bench.held == 0, "nothing to be held")
    begun = len(bench.paper.slips)
    assert bench.paper.slips == keys[:begun]
    assert begun == 1, "what was begun is ended"
    await bench.stop()
    await bench.start(calendar)
    keys += await bench.accept(5)
    await bench.ticks()
    assert len(bench.paper.slips) == 1
    bench.set_clock(7 * 24 * HOUR)
    assert await _after(bench, 35) == keys


async def test_a_slip_that_was_put_off_at_closing_time_keeps_its_place(bench: Bench) -> None:
    await bench.start(opens_in(-1, 2))
    await bench.ticks()
    bench.paper.works.clear()
    bench.paper.shut_for = 0.2
    keys = await bench.accept(5)
    bench.set_clock(2 * HOUR)
    await bench.ticks()
    bench.paper.works.set()
    await until(lambda: bench.held == 0, "nothing to be held")
    assert bench.paper.asked == 1
    bench.paper.shut_for = None
    await bench.ticks()
    assert bench.paper.slips == [], "nobody tries at night"
    bench.set_clock(7 * 24 * HOUR)
    assert await _after(bench, 5) == keys


@pytest.mark.parametrize("verb", [Verb.RETRY, Verb.RELEASE])
async def test_what_a_person_lets_go_is_printed_though_it_is_closed(bench: Bench, verb: Verb) -> None:
    await bench.start(opens_in(3))
    keys = await bench.accept(5)
    if verb is Verb.RELEASE:
        await bench.order(Verb.HOLD, keys[3])
    await bench.order(verb, keys[3])
    assert await _after(bench, 1) == [keys[3]]
    await bench.ticks()
    assert len(bench.paper.slips) == 1
    bench.set_clock(3.5 * HOUR)
    assert await _after(bench, 5) == [keys[3], *keys[:3], keys[4]]


async def test_a_slip_that_was_cut_off_goes_on_though_it_is_closed(bench: Bench) -> None:
    calendar = opens_in(-1, 2)
    await bench.start(calendar)
    await bench.ticks()
    bench.paper.works.clear()
    keys = await bench.accept(3)
    await until(lambda: bench.paper.asked == 1, "the first to be begun")
    await bench.stop_abruptly()
    bench.paper.works.set()
    bench.set_clock(2 * HOUR)
    await bench.start(calendar)
    assert await _after(bench, 1) == keys[:1]
    await bench.ticks()
    assert len(bench.paper.slips) == 1


async def test_a_gate_goes_by_the_clock_also_when_it_is_set_back() -> None:
    clock = Clock()
    gate = Gate(opens_in(1, 1), clock=clock)
    assert gate.is_closed, "until it is looked at"
    states = []
    for ahead in (0.0, 1.5, 2.5, 1.5, 0.0, 1.5):
        clock.ahead = ahead * HOUR
        gate.look()
        states.append(gate.is_closed)
    assert states == [True, False, True, False, True, False]


async def test_a_release_lets_out_what_waited_then_and_nothing_that_came_later(bench: Bench) -> None:
    await bench.start(releases_in(1, 4))
    first = await bench.accept(15)
    await bench.ticks()
    assert bench.paper.slips == []
    bench.set_clock(1.5 * HOUR)
    assert await _after(bench, 15) == first
    await bench.stop()
    bench.set_clock(0.0)
    await bench.start(releases_in(-1, 4))
    later = await bench.accept(5)
    await bench.ticks()
    assert len(bench.paper.slips) == 15, "the release was an hour before they came"
    bench.set_clock(4.5 * HOUR)
    assert await _after(bench, 20) == [*first, *later]


async def test_a_batch_is_what_waited_and_each_part_of_it_is_announced(bench: Bench) -> None:
    await bench.start(opens_in(3), Backwards(bench.paper, 4))
    keys = await bench.accept(10)
    await bench.ticks()
    bench.set_clock(3.5 * HOUR)
    await until(lambda: len(bench.paper.slips) == 10, "all of them")
    turned = keys[::-1]
    assert bench.paper.out == ["batch of 4", *turned[:4], "batch of 4", *turned[4:8], "batch of 2", *turned[8:]]
    await until(lambda: bench.held == 0, "nothing to be held")


async def test_what_arrives_during_a_batch_comes_after_it_without_a_separator(bench: Bench) -> None:
    await bench.start(opens_in(3))
    await bench.accept(6)
    await bench.stop()
    _older(bench.place, HOUR)
    waited = [line.key for line in bench.lines()]
    bench.paper.works.clear()
    await bench.start(opens_in(-0.1), Backwards(bench.paper, 10))
    await until(lambda: bench.paper.asked == 1, "the batch to begin")
    later = await bench.accept(3)
    bench.paper.works.set()
    await _after(bench, 9)
    assert bench.paper.out == ["batch of 6", *waited[::-1], *later]


def _older(place: Place, seconds: float) -> None:
    """Makes all that waits as if it had arrived so much earlier."""
    engine = writing_engine(place)
    with engine.begin() as connection:
        if place.path is not None:
            connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        else:
            connection.exec_driver_sql("SET session_replication_role = replica")
        old = [row[0] for row in connection.execute(text("SELECT queue_id FROM messages ORDER BY queue_id"))]
        for number, queue_id in enumerate(old):
            new = new_queue_id(time.time() - seconds + number / 1000)
            for table in ("messages", "bodies", "deliveries"):
                connection.execute(
                    text(f"UPDATE {table} SET queue_id = :new WHERE queue_id = :old"),
                    {"new": new, "old": queue_id},
                )
            due = {"due": time.time() - seconds + number / 1000, "new": new}
            connection.execute(text("UPDATE deliveries SET due_at = :due WHERE queue_id = :new"), due)
    engine.dispose()


async def test_after_a_crash_in_the_middle_of_a_batch_the_rest_is_a_batch(bench: Bench) -> None:
    calendar = releases_in(1)
    await bench.start(calendar, Backwards(bench.paper, 100))
    keys = await bench.accept(8)
    bench.paper.works.clear()
    bench.set_clock(1.5 * HOUR)
    await until(lambda: bench.paper.asked == 1, "the batch to begin")
    await bench.stop_abruptly()
    bench.paper.works.set()
    await bench.start(calendar, Backwards(bench.paper, 100))
    assert sorted(await _after(bench, 8)) == keys, "each once"
    assert [each for each in bench.paper.out if isinstance(each, str)] == ["batch of 8", "batch of 7"]


async def test_a_bug_in_a_binder_holds_up_no_slip(bench: Bench) -> None:
    binder = Backwards(bench.paper, 10)
    binder.fails = True
    await bench.start(releases_in(1), binder)
    keys = await bench.accept(5)
    bench.set_clock(1.5 * HOUR)
    assert await _after(bench, 5) == keys, "in order of arrival"


async def test_a_batch_that_is_interrupted_by_closing_time_goes_on_at_the_next_opening(bench: Bench) -> None:
    await bench.start(opens_in(3), Backwards(bench.paper, 4))
    keys = await bench.accept(10)
    bench.paper.works.clear()
    bench.set_clock(3.5 * HOUR)
    await until(lambda: bench.paper.asked == 1, "the batch to begin")
    bench.set_clock(6 * HOUR)
    await bench.ticks()
    bench.paper.works.set()
    await until(lambda: bench.held == 0, "nothing to be held")
    assert bench.paper.out == ["batch of 4", keys[9]]
    bench.set_clock(3.5 * HOUR + 7 * 24 * HOUR)
    await _after(bench, 10)
    assert bench.paper.out[2:] == ["batch of 4", *keys[8:4:-1], "batch of 4", *keys[4:0:-1], "batch of 1", keys[0]]


async def test_a_slip_of_a_batch_that_a_person_holds_is_left_out(bench: Bench) -> None:
    await bench.start(releases_in(1), Backwards(bench.paper, 10))
    keys = await bench.accept(4)
    bench.paper.works.clear()
    bench.set_clock(1.5 * HOUR)
    await until(lambda: bench.paper.asked == 1, "the batch to begin")
    await bench.order(Verb.HOLD, keys[1])
    bench.paper.works.set()
    assert await _after(bench, 3) == [keys[3], keys[2], keys[0]]
    await until(lambda: bench.held == 0, "nothing to be held")
    assert {line.key: line.state for line in bench.lines()}[keys[1]] == "held"


async def test_slips_that_share_a_document_come_out_where_the_first_of_them_stood(bench: Bench) -> None:
    await bench.start(opens_in(3), Backwards(bench.paper, 5, merges=2))
    keys = await bench.accept(8)
    await bench.ticks()
    bench.set_clock(3.5 * HOUR)
    await until(lambda: len(bench.paper.slips) == 5, "all of them")
    # A bundle hangs on the message that came first of its slips.
    bundles = [(keys[6][0], 1), (keys[4][0], 1), (keys[1][0], 1)]
    first, second, third = bundles
    assert bench.paper.out == ["batch of 5", first, second, keys[3], "batch of 3", third, keys[0]]
    await until(lambda: bench.held == 0, "nothing to be held")
    lines = {line.key: line for line in bench.lines()}
    assert {line.state for line in lines.values()} == {"delivered"}
    assert [lines[key].bundle for key in keys] == [
        "", *[f"{third[0]}/1"] * 2, "", *[f"{second[0]}/1"] * 2, *[f"{first[0]}/1"] * 2
    ]  # fmt: skip


async def test_after_a_crash_each_bundle_has_its_slips_still(bench: Bench) -> None:
    calendar = releases_in(1)
    await bench.start(calendar, Backwards(bench.paper, 100, merges=3))
    await bench.accept(9)
    bench.paper.works.clear()
    bench.set_clock(1.5 * HOUR)
    await until(lambda: bench.paper.asked == 1, "the batch to begin")
    await bench.stop_abruptly()
    bench.paper.works.set()
    await bench.start(calendar, Backwards(bench.paper, 100, merges=1))
    await until(lambda: len(bench.paper.slips) == 3, "all of them")
    lines = bench.lines()
    assert sorted(bench.paper.slips) == sorted(line.key for line in lines if line.is_bundle), "each once"
    await until(lambda: {line.state for line in bench.lines()} == {"delivered"}, "all to be settled")
    assert all(line.is_bundle or line.bundle for line in lines)


async def test_a_bundle_that_a_person_holds_is_left_out_with_its_slips(bench: Bench) -> None:
    await bench.start(releases_in(1), Backwards(bench.paper, 10, merges=2))
    keys = await bench.accept(4)
    bench.paper.works.clear()
    bench.set_clock(1.5 * HOUR)
    await until(lambda: bench.paper.asked == 1, "the batch to begin")
    waiting = (keys[0][0], 1)
    await bench.order(Verb.HOLD, waiting)
    bench.paper.works.set()
    assert await _after(bench, 1) == [(keys[2][0], 1)]
    await until(lambda: bench.held == 0, "nothing to be held")
    assert [line.state for line in bench.lines()] == [
        "pending",
        "held",
        "pending",
        "delivered",
        "delivered",
        "delivered",
    ]
    await bench.order(Verb.RELEASE, waiting)
    await until(lambda: {line.state for line in bench.lines()} == {"delivered"}, "all of them")
    assert bench.paper.slips[1:] == [waiting]


@pytest.mark.parametrize("is_made", [False, True], ids=["not made", "made, and the answer lost"])
async def test_slips_go_out_although_their_bundle_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, is_made: bool
) -> None:
    made = Store.bundle

    async def fails(self: Store, slips: Sequence[Delivery]) -> Bundled:
        if is_made:
            await made(self, slips)
        monkeypatch.undo()
        raise SpoolError("no answer")

    await bench.start(releases_in(1), Backwards(bench.paper, 10, merges=4))
    keys = await bench.accept(4)
    monkeypatch.setattr(Store, "bundle", fails)
    bench.set_clock(1.5 * HOUR)
    await until(lambda: {line.state for line in bench.lines()} == {"delivered"}, "all of them", seconds=20)
    assert bench.paper.slips == ([(keys[0][0], 1)] if is_made else keys[::-1]), "each once"


async def test_of_two_nodes_one_has_the_batch(postgres: Postgres, make_config: Callable[..., Config]) -> None:
    bench = Bench(make_config(), Place.of(Spool(url=postgres.create_database())))
    try:
        calendar = releases_in(1)
        binder = Backwards(bench.paper, 1000)
        await bench.start(calendar, binder)
        await bench.start(calendar, binder)
        keys = await bench.accept(40)
        bench.set_clock(1.5 * HOUR)
        await until(lambda: len(bench.paper.slips) == 40, "all of them", seconds=30)
        assert bench.paper.out == ["batch of 40", *keys[::-1]]
    finally:
        await bench.stop()


async def test_two_thousand_slips_wait_without_memory_and_without_commits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.start(opens_in(3))
    await asyncio.gather(*(bench.accept(20) for _ in range(100)))
    assert bench.held == 0
    claims = 0

    def counted(*args: Any) -> Any:
        nonlocal claims
        claims += 1
        return claim(*args)

    claim = spool_claims.claim
    monkeypatch.setattr(spool_claims, "claim", counted)
    await bench.ticks()
    assert claims == 0, "looking for work writes nothing while it is closed"
    bench.set_clock(3.5 * HOUR)
    await until(lambda: bench.paper.slips, "the first")
    assert claims > 0
