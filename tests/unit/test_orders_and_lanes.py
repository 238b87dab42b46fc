"""Orders about what the runner has in its lanes: the worker loses it, and what the spool says counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from relay.config.settings import Config
from relay.spool import orders
from relay.spool.engine import Place
from relay.spool.orders import Order, Verb, Way
from relay.spool.records import Key
from tests.harness.waiting import until
from tests.unit.test_runner import Bench

pytestmark = pytest.mark.asyncio


class Desk:
    """The runner's bench, with the lane of the route `slow` full and its one place taken."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.slow = bench.gates["slow"]
        self.quick = bench.gates["quick"]

    async def fill(self) -> list[Key]:
        for _ in range(5):
            await self.bench.accept("slow")
        await until(lambda: [line.state for line in self.bench.lines()] == ["active"] + ["queued"] * 4, "it to stand")
        return [line.key for line in self.bench.lines()]

    async def say(self, verb: Verb, key: Key, *, route: str = "slow") -> None:
        order = Order(verb, "anna", time.time())
        await self.bench.store.write(lambda c: orders.carry_out(c, order, [key], lambda *_: Way(route, route)))
        self.bench.runner.reopen()

    def states(self) -> dict[Key, str]:
        return {line.key: line.state for line in self.bench.lines()}


@pytest_asyncio.fixture
async def desk(place: Place, make_config: Callable[..., Config]) -> AsyncIterator[Desk]:
    bench = Bench(make_config(delivery={"retry_first": 0.05, "retry_longest": 0.1}), place)
    bench.store.open()
    running = asyncio.create_task(bench.runner.run())
    yield Desk(bench)
    for gate in bench.gates.values():
        gate.open.set()
    await bench.runner.stop(timeout=5)
    await running
    await asyncio.to_thread(bench.store.close)


async def test_what_waits_in_a_lane_can_be_held_and_cancelled(desk: Desk) -> None:
    first, held, cancelled, *rest = await desk.fill()
    await desk.say(Verb.HOLD, held)
    await desk.say(Verb.CANCEL, cancelled)
    desk.slow.open.set()
    await until(lambda: desk.bench.held == 0, "the lane to be empty")
    assert desk.slow.passed == [first, *rest]
    assert (desk.states()[held], desk.states()[cancelled]) == ("held", "cancelled")


async def test_what_is_released_again_goes_the_way_that_the_order_says(desk: Desk) -> None:
    first, again, *rest = await desk.fill()
    desk.quick.open.set()
    await desk.say(Verb.HOLD, again)
    await desk.say(Verb.RELEASE, again, route="quick")
    await until(lambda: desk.quick.passed == [again], "it to go the other way")
    desk.slow.open.set()
    await until(lambda: desk.bench.held == 0, "the lane to be empty")
    assert desk.slow.passed == [first, *rest], "it is not tried by its old way too"


async def test_what_waits_in_a_lane_and_is_retried_goes_once(desk: Desk) -> None:
    keys = await desk.fill()
    for key in keys[1:]:
        await desk.say(Verb.RETRY, key)
    desk.slow.open.set()
    await until(lambda: set(desk.states().values()) == {"delivered"}, "all of them")
    assert desk.slow.passed == keys
