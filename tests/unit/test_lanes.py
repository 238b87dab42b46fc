"""Lanes: a destination in trouble costs one attempt at a time and delays nobody else; limits and times are kept."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from relay.bounces.notify import Notifier
from relay.config.settings import Config
from relay.delivery.attempt import Attempts
from relay.delivery.lanes import LOST_IN_A_ROW, Lane, Route
from relay.delivery.runner import Runner
from relay.maillog import MailLog
from relay.spool.engine import Place
from relay.spool.queries import DeliveryLine, list_deliveries
from relay.spool.records import Delivery, NewDelivery, NewMessage, Outcome, State
from relay.spool.store import Store
from relay.transports import Limits
from tests.accepted import accepted
from tests.harness.waiting import until

pytestmark = pytest.mark.asyncio

CONTENT = b"From: a@lib.example\r\nMessage-ID: <1@lib.example>\r\n\r\nx\r\n"


class World:
    """A way out to many domains, by a list of those that are dead; counts what runs at the same time."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.dead: set[str] = set()
        self.takes = 0.0
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.asked: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.began: list[float] = []
        self.on_deliver: Callable[[], None] = lambda: None

    async def deliver(self, delivery: Delivery, content: bytes) -> Outcome:
        domain = delivery.recipient.rpartition("@")[2]
        self.began.append(time.monotonic())
        self.on_deliver()
        self.asked[domain] += 1
        for name in (domain, "all"):
            self.running[name] += 1
            self.most[name] = max(self.most[name], self.running[name])
        await asyncio.sleep(self.takes)
        await self.goes_on.wait()
        self.running.subtract((domain, "all"))
        if domain in self.dead:
            return Outcome(State.DEFERRED, f"{domain} can't be reached", trouble="unreachable")
        self.taken[domain] += 1
        return Outcome(State.DELIVERED)

    def interrupt(self) -> None:
        pass

    async def close(self) -> None:
        pass


class Bench:
    """A runner with the one route `default`, into a world."""

    def __init__(self, config: Config, place: Place, limits: Limits) -> None:
        self.store = Store(place)
        self.world = World(limits)
        ways = {"default": self.world}
        attempts = Attempts(config, self.store, ways, Notifier(config), MailLog())
        self.runner = Runner(self.store, attempts, ways, MailLog())
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.store.open()
        self._running = asyncio.create_task(self.runner.run())

    async def stop(self) -> None:
        assert self._running is not None
        await self.runner.stop(timeout=5)
        await self._running
        await asyncio.to_thread(self.store.close)

    async def accept(self, domain: str, times: int = 1, **wishes: float) -> None:
        """As intake does it, one after the other."""
        for _ in range(times):
            way = NewDelivery(f"patron@{domain}", "default", f"default@{domain}", **wishes)  # type: ignore[arg-type]
            new = NewMessage(accepted(CONTENT), CONTENT, (way,))
            retry_at = self.runner.reserve(new.deliveries)
            held = await self.store.accept(new, retry_at)
            if retry_at is None:
                self.runner.leave(new.deliveries)
            else:
                self.runner.hand_over(held, CONTENT)

    def lines(self, domain: str) -> list[DeliveryLine]:
        return [line for line in list_deliveries(self.store.place) if line.recipient.endswith(f"@{domain}")]

    def states(self, domain: str) -> Counter[str]:
        return Counter(line.state for line in self.lines(domain))


@pytest_asyncio.fixture
async def start(place: Place, make_config: Callable[..., Config]) -> AsyncIterator[Callable[[Limits], Bench]]:
    """Makes the bench for some limits; it is started by the test and ended here."""
    benches: list[Bench] = []

    def make(limits: Limits) -> Bench:
        config = make_config(delivery={"retry_first": 0.05, "retry_longest": 0.1})
        benches.append(Bench(config, place, limits))
        return benches[-1]

    yield make
    for bench in benches:
        await bench.stop()


async def test_a_dead_destination_is_asked_by_one_delivery_while_others_go_out(
    start: Callable[[Limits], Bench],
) -> None:
    bench = start(Limits(total=4, per_destination=4, backoff_first=30.0, backoff_longest=60.0))
    await bench.start()
    bench.world.dead.add("dead.example")
    await bench.accept("dead.example", 50)
    await bench.accept("good.example", 50)
    await until(lambda: bench.world.taken["good.example"] == 50, "all of the good ones")
    assert bench.world.asked["dead.example"] == 1
    assert bench.states("dead.example") == {"deferred": 1, "queued": 49}


async def test_a_destination_that_answers_again_gets_a_probe_and_then_the_rest_in_order(
    start: Callable[[Limits], Bench],
) -> None:
    bench = start(Limits(total=10, per_destination=5, backoff_first=0.2, backoff_longest=0.4))
    await bench.start()
    bench.world.dead.add("dead.example")
    await bench.accept("dead.example", 30)
    await until(lambda: bench.world.asked["dead.example"] >= 3, "some probes")
    assert bench.world.most["dead.example"] == 1
    bench.world.dead.clear()
    await until(lambda: bench.world.taken["dead.example"] == 30, "all of them")
    await until(lambda: bench.states("dead.example") == {"delivered": 30}, "their ends")


async def test_a_probe_takes_no_more_than_itself_and_the_next_one_out_of_the_spool(
    start: Callable[[Limits], Bench],
) -> None:
    bench = start(Limits(total=10, per_destination=5, backoff_first=0.1, backoff_longest=0.1))
    held: list[int] = []
    bench.world.on_deliver = lambda: held.append(len(bench.runner._held))
    await bench.start()
    bench.world.dead.add("dead.example")
    await bench.accept("dead.example", 30)
    await until(lambda: bench.world.asked["dead.example"] >= 5, "some probes")
    assert max(held[2:]) <= 2, held


async def test_what_waits_for_a_dead_destination_expires_without_an_attempt(start: Callable[[Limits], Bench]) -> None:
    bench = start(Limits(total=4, per_destination=4, backoff_first=60.0, backoff_longest=60.0))
    await bench.start()
    bench.world.dead.add("dead.example")
    await bench.accept("dead.example")
    await until(lambda: bench.states("dead.example")["deferred"] == 1, "the probe")
    await bench.accept("dead.example", 3, expires_at=time.time() + 1)
    await until(lambda: bench.states("dead.example")["expired"] == 3, "the others to expire", seconds=20)
    assert bench.world.asked["dead.example"] == 1
    # Each of the three was told to the sender.
    await until(lambda: bench.world.taken["exlibrisgroup.example"] == 3, "three DSNs", seconds=20)


async def test_a_delay_is_told_once_and_the_delivery_waits_on(start: Callable[[Limits], Bench]) -> None:
    bench = start(Limits(total=4, per_destination=4, backoff_first=2.0, backoff_longest=2.0))
    await bench.start()
    bench.world.dead.add("dead.example")
    await bench.accept("dead.example", warn_at=time.time() + 0.5, expires_at=time.time() + 600)
    await until(lambda: bench.world.taken["exlibrisgroup.example"] == 1, "the warning", seconds=20)
    bench.world.dead.clear()
    await until(lambda: bench.states("dead.example") == {"delivered": 1}, "it to be delivered", seconds=20)
    assert bench.world.taken["exlibrisgroup.example"] == 1


async def test_one_destination_takes_no_more_than_its_share(start: Callable[[Limits], Bench]) -> None:
    bench = start(Limits(total=3, per_destination=2))
    await bench.start()
    for number in range(15):
        await bench.accept("one.example")
        await bench.accept("two.example")
        if number == 0:
            await until(lambda: bench.world.taken.total() == 2, "the probes")
            bench.world.goes_on.clear()
    await until(lambda: bench.world.running["all"] == 3, "three at the same time")
    bench.world.goes_on.set()
    await until(lambda: bench.world.taken.total() == 30, "all of them")
    assert max(bench.world.most["one.example"], bench.world.most["two.example"]) == 2
    assert bench.world.most["all"] == 3


async def test_a_rate_is_kept(start: Callable[[Limits], Bench]) -> None:
    bench = start(Limits(total=10, per_destination=10, rate=20.0))
    await bench.start()
    await bench.accept("one.example", 10)
    await until(lambda: bench.world.taken.total() == 10, "all of them")
    assert max(bench.world.began) - min(bench.world.began) >= 9 / 20 - 0.05, (
        "the last one starts 9/20 s after the first"
    )


async def test_somebody_who_knows_better_opens_a_lane(start: Callable[[Limits], Bench]) -> None:
    bench = start(Limits(total=4, per_destination=4, backoff_first=60.0, backoff_longest=60.0))
    await bench.start()
    bench.world.dead.add("dead.example")
    await bench.accept("dead.example", 5)
    await until(lambda: bench.states("dead.example")["deferred"] == 1, "the probe")
    bench.world.dead.clear()
    bench.runner.reopen()
    await until(lambda: bench.states("dead.example") == {"delivered": 5}, "all of them")


async def test_transactions_that_are_lost_in_a_row_shut_a_lane() -> None:
    lane = Lane("default", Route("default", Limits(5, 5, backoff_first=1.0, backoff_longest=8.0)), is_behind=False)
    lane.went_well()
    assert [lane.lost((f"SG{number}", 0)) for number in range(LOST_IN_A_ROW - 1)] == [None] * (LOST_IN_A_ROW - 1)
    shut_for = lane.lost(("another", 0))
    assert shut_for is not None
    assert 1.0 <= shut_for <= 1.1
    assert not lane.may_start


async def test_one_delivery_that_is_lost_again_and_again_shuts_nothing() -> None:
    lane = Lane("default", Route("default", Limits(5, 5, backoff_first=1.0, backoff_longest=8.0)), is_behind=False)
    lane.went_well()
    assert [lane.lost(("one", 0)) for _ in range(20)] == [None] * 20
    assert lane.may_start
    assert lane.lost(("two", 0)) is None
    lane.went_well()
    assert [lane.lost(("two", 0)), lane.lost(("three", 0))] == [None, None], "the count begins anew"


async def test_the_rest_of_a_lane_grows_up_to_its_longest() -> None:
    lane = Lane("default", Route("default", Limits(5, 5, backoff_first=1.0, backoff_longest=8.0)), is_behind=False)
    rests = []
    for _ in range(6):
        rest = lane.unreachable()
        assert rest is not None
        rests.append(rest)
        assert lane.unreachable() is None, "it is shut already"
        lane.is_shut = False
    for rest, expected in zip(rests, (1, 2, 4, 8, 8, 8), strict=True):
        assert expected <= rest <= expected * 1.1
