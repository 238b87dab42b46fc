"""The runner, with a real spool and ways out that the test opens and shuts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from relay.bounces.notify import Notifier
from relay.config.settings import Config, Spool
from relay.delivery.attempt import Attempts
from relay.delivery.clock import ClockWatch
from relay.delivery.runner import BATCH, Runner
from relay.mail import queue_id
from relay.maillog import MailLog
from relay.spool.engine import Place
from relay.spool.queries import DeliveryLine, list_deliveries
from relay.spool.records import Delivery, Key, Outcome, State
from relay.spool.store import Store
from relay.transports import Limits
from tests.accepted import new_message
from tests.harness.postgres import Postgres
from tests.harness.waiting import until

pytestmark = pytest.mark.asyncio

CONTENT = b"From: a@lib.example\r\n\r\nx\r\n"


class Gate:
    """A way out that lets deliveries through while it is open, and writes down their order."""

    def __init__(self, concurrency: int = 1) -> None:
        self.limits = Limits(concurrency, concurrency, backoff_first=0.05, backoff_longest=0.2)
        self.open = asyncio.Event()
        self.passed: list[Key] = []
        self.faults = 0
        self.shut_for: float | None = None

    async def deliver(self, delivery: Delivery, content: bytes) -> Outcome:
        await self.open.wait()
        if self.faults:
            self.faults -= 1
            raise RuntimeError("a bug in a transport")
        if self.shut_for is not None:
            return Outcome(State.DEFERRED, "CUPS can't be reached from here", shut_for=self.shut_for)
        self.passed.append(delivery.key)
        return Outcome(State.DELIVERED)

    def interrupt(self) -> None:
        pass

    async def close(self) -> None:
        pass


class Bench:
    """A store and a runner with two routes, `slow` and `quick`."""

    def __init__(self, config: Config, place: Place, slow: Limits | None = None) -> None:
        self.place = place
        self.store = Store(place)
        self.gates = {"slow": Gate(), "quick": Gate(concurrency=5)}
        self.gates["slow"].limits = slow or self.gates["slow"].limits
        attempts = Attempts(config, self.store, self.gates, Notifier(config), MailLog())
        self.runner = Runner(self.store, attempts, self.gates, MailLog())

    async def accept(self, *routes: str, institution: str = "demo", **times: float) -> None:
        """As intake does it."""
        new = new_message(CONTENT, *((f"{number}@b.example", route) for number, route in enumerate(routes)), **times)
        new = replace(new, message=replace(new.message, institution=institution))
        retry_at = self.runner.reserve(new.deliveries)
        held = await self.store.accept(new, retry_at)
        if retry_at is None:
            self.runner.leave(new.deliveries)
        else:
            self.runner.hand_over(held, CONTENT)

    def lines(self) -> list[DeliveryLine]:
        return list_deliveries(self.place)

    @property
    def held(self) -> int:
        return len(self.runner._held)


@pytest_asyncio.fixture
async def bench(place: Place, make_config: Callable[..., Config]) -> AsyncIterator[Bench]:
    config = make_config(delivery={"retry_first": 0.05, "retry_longest": 0.1})
    bench = Bench(config, place)
    bench.store.open()
    running = asyncio.create_task(bench.runner.run())
    yield bench
    for gate in bench.gates.values():
        gate.open.set()
    await bench.runner.stop(timeout=5)
    await running
    await asyncio.to_thread(bench.store.close)


async def test_a_route_that_stands_still_holds_up_no_other_and_memory_stays_bounded(bench: Bench) -> None:
    total = 300
    for _ in range(total):
        await bench.accept("slow")
    bench.gates["quick"].open.set()
    await bench.accept("quick")
    await until(lambda: bench.gates["quick"].passed, "the quick one to overtake")
    assert bench.held <= BATCH + 20
    bench.gates["slow"].open.set()
    await until(lambda: len(bench.gates["slow"].passed) == total, "all of the slow ones", seconds=30)
    assert bench.gates["slow"].passed == sorted(bench.gates["slow"].passed), "in order of arrival"
    await until(lambda: bench.held == 0, "nothing to be held any more")


async def test_what_was_accepted_while_others_wait_does_not_overtake_them(bench: Bench) -> None:
    bench.gates["slow"].open.set()
    for _ in range(20):
        await asyncio.gather(*(bench.accept("slow") for _ in range(10)))
    await until(lambda: len(bench.gates["slow"].passed) == 200, "all of them", seconds=30)
    assert bench.gates["slow"].passed == sorted(bench.gates["slow"].passed)


async def test_a_bug_in_a_transport_defers_and_loses_nothing(bench: Bench) -> None:
    bench.gates["quick"].faults = 2
    bench.gates["quick"].open.set()
    await bench.accept("quick")
    await until(lambda: bench.gates["quick"].passed, "the third attempt")
    line = bench.lines()[0]
    await until(lambda: bench.lines()[0].state == "delivered", "its end")
    assert bench.lines()[0].attempts == 3
    assert "bug" not in line.reason, "the text of an error may quote the mail"


async def test_mail_of_a_route_that_the_configuration_lost_waits(bench: Bench) -> None:
    await bench.accept("gone")
    await until(lambda: bench.lines()[0].state == "deferred", "it to be put off")
    assert "has no route 'gone' any more" in bench.lines()[0].reason


async def test_mail_of_an_institution_that_the_configuration_lost_waits(bench: Bench) -> None:
    bench.gates["quick"].open.set()
    await bench.accept("quick", institution="gone")
    await until(lambda: bench.lines()[0].state == "deferred", "it to be put off")
    assert "has no institution 'gone' any more" in bench.lines()[0].reason
    assert not bench.gates["quick"].passed


async def test_what_waits_when_the_clock_is_set_back_is_not_kept_until_it_has_caught_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    monkeypatch.setattr(queue_id, "_clock", queue_id._Clock())  # the other tests keep theirs
    with monkeypatch.context() as fast:
        fast.setattr(time, "time", lambda: now() + 7200)
        bench.runner._clock = ClockWatch(lambda: time.time())
        for _ in range(30):
            await bench.accept("slow")
        assert bench.held < 30, "some wait in the spool"
    bench.gates["slow"].open.set()
    await until(lambda: len(bench.gates["slow"].passed) == 30, "all of them", seconds=30)
    assert bench.gates["slow"].passed == sorted(bench.gates["slow"].passed), "in order of arrival"


async def test_what_one_node_has_to_put_off_another_one_delivers_in_order(
    postgres: Postgres, make_config: Callable[..., Config]
) -> None:
    config = make_config(delivery={"retry_first": 0.05, "retry_longest": 0.1})
    place = Place.of(Spool(url=postgres.create_database()))
    cut_off, other = (Bench(config, place, Limits(1, 1, by_one_node=True)) for _ in range(2))
    for bench in (cut_off, other):
        bench.gates["slow"].open.set()
    cut_off.gates["slow"].shut_for = 30.0
    async with started(cut_off):
        for _ in range(5):
            await cut_off.accept("slow")
        await until(lambda: "from here" in cut_off.lines()[0].reason, "it to be tried")
        async with started(other):
            await until(lambda: len(other.gates["slow"].passed) == 5, "the other node to deliver them")
            assert other.gates["slow"].passed == [line.key for line in other.lines()]
            await other.accept("slow")
            await until(lambda: len(other.gates["slow"].passed) == 6, "what came later")


async def test_what_a_node_claims_while_it_is_cut_off_keeps_no_other_one_from_delivering(
    postgres: Postgres, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place.of(Spool(url=postgres.create_database()))
    cut_off, other = (Bench(make_config(), place, Limits(1, 1, by_one_node=True)) for _ in range(2))
    other.gates["slow"].open.set()
    cut_off.gates["slow"].shut_for = 60.0
    claims: list[int] = []
    claim = cut_off.store.claim

    async def claim_slowly(*what: Any) -> tuple[list[Delivery], frozenset[str]]:
        found = await claim(*what)
        if found[0]:
            claims.append(len(found[0]))
        if len(claims) == 2:
            await until(lambda: cut_off.runner._lanes["slow"].is_shut, "the first one to be put off")
        return found

    monkeypatch.setattr(cut_off.store, "claim", claim_slowly)
    async with started(cut_off):
        await cut_off.accept("slow")
        await until(lambda: cut_off.lines()[0].state == "active", "the first one to be tried")
        await cut_off.accept("slow")
        await until(lambda: claims == [1, 1], "the second one to be claimed")
        cut_off.gates["slow"].open.set()
        async with started(other):
            await until(lambda: len(other.gates["slow"].passed) == 2, "the other node to deliver them")


@contextlib.asynccontextmanager
async def started(bench: Bench) -> AsyncIterator[None]:
    """A node at work."""
    bench.store.open()
    running = asyncio.create_task(bench.runner.run())
    yield
    await bench.runner.stop(timeout=5)
    await running
    await asyncio.to_thread(bench.store.close)
