"""The fence of every write, where leases ran out though nobody died: a server that was away, a machine that slept."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import Connection

from relay.bounces.notify import Notifier
from relay.config.settings import Config, Spool
from relay.delivery import runner
from relay.delivery.attempt import Attempts
from relay.errors import LeaseLost
from relay.maillog import MailLog
from relay.spool import claims, commit, writes
from relay.spool.engine import Place
from relay.spool.histories import message_history
from relay.spool.records import Delivery, NewMessage, Outcome, State
from relay.spool.store import Store
from relay.transports import Limits
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


async def test_after_the_server_was_away_for_longer_than_a_lease_nodes_that_live_keep_their_work(
    postgres: Postgres,
) -> None:
    place = Place.of(Spool(url=postgres.create_database()))
    first, second = Store(place, lease=0.5), Store(place, lease=0.5)
    first.open()
    second.open()
    running = (await first.accept(new_message(b"mail", ("a@patron.example", "default")), (time.time() + 60,)))[0]
    await asyncio.sleep(0.6)  # both leases run out by the clock of the server
    assert await second.renew(()) == 0, "it was away itself"
    await first.settle(running, Outcome(State.DELIVERED), 0)
    dead = (await first.accept(new_message(b"mail", ("a@patron.example", "default")), (time.time() + 60,)))[0]
    freed = 0
    while not freed:
        await asyncio.sleep(0.05)
        freed = await second.renew(())
    assert freed == 1, "now it has shown that the server is there, and the other has not"
    with pytest.raises(LeaseLost):
        await first.settle(dead, Outcome(State.DELIVERED), 0)
    for node in (first, second):
        await asyncio.to_thread(node.close)


async def test_the_others_know_when_a_lease_ends_and_take_over_then(postgres: Postgres) -> None:
    place = Place.of(Spool(url=postgres.create_database()))
    dead, heir = Store(place, lease=1.0), Store(place, lease=30)
    heir.open()
    assert await heir.first_lease_end() is None, "it is alone"
    dead.open()
    held = (await dead.accept(new_message(b"mail", ("a@patron.example", "default")), (time.time() + 60,)))[0]
    assert await heir.renew(()) == 0
    ends = await heir.first_lease_end()
    assert ends is not None
    assert 0 < ends <= 1
    assert await heir.take_over() == 0, "the lease still holds"
    await asyncio.sleep(ends + 0.01)  # by the clock of the server
    assert (await heir.first_lease_end() or 0) < 0
    assert await heir.take_over() == 1
    assert [each.key for each in (await heir.claim(10))[0]] == [held.key]
    assert await heir.first_lease_end() is None
    for node in (dead, heir):
        await asyncio.to_thread(node.close)


async def test_a_node_that_was_away_itself_takes_nothing_over_before_it_has_renewed_in_time(postgres: Postgres) -> None:
    place = Place.of(Spool(url=postgres.create_database()))
    first, second = Store(place, lease=0.5), Store(place, lease=0.5)
    first.open()
    second.open()
    await first.accept(new_message(b"mail", ("a@patron.example", "default")), (time.time() + 60,))
    await second.renew(())
    await asyncio.sleep(0.6)  # both leases run out by the clock of the server
    assert await second.take_over() == 0, "its own lease has run out"
    assert await second.renew(()) == 0
    assert await second.take_over() == 0, "the other may be as late as it was"
    await second.renew(())
    assert await second.take_over() + await second.renew(()) == 0, "the renewal had taken over already"
    assert len((await second.claim(10))[0]) == 1
    for node in (first, second):
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
    claims.hold(connection, node, [held])


async def test_nodes_that_start_at_the_same_moment_make_the_schema_once(postgres: Postgres) -> None:
    place = Place.of(Spool(url=postgres.create_database()))
    nodes = [Store(place) for _ in range(4)]
    await asyncio.gather(*(asyncio.to_thread(node.open) for node in nodes))
    await asyncio.gather(*(asyncio.to_thread(node.close) for node in nodes))


class Shut:
    """A way out that nothing leaves by."""

    limits = Limits(1, 1)

    async def deliver(self, delivery: Delivery, content: bytes) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    def interrupt(self) -> None:
        pass

    async def close(self) -> None:
        pass


class SlowToTell(Attempts):
    """As with a busy disk: each late letter takes its time."""

    told = 0

    async def overdue(self, delivery: Delivery) -> tuple[NewMessage, ...]:
        await asyncio.sleep(0.05)
        followups = await super().overdue(delivery)
        self.told += 1
        return followups


async def test_a_node_shows_that_it_lives_while_it_tells_of_many_late_letters(
    postgres: Postgres, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LOOK_FOR_LATE", 0.0)
    place = Place.of(Spool(url=postgres.create_database()))
    busy, other = Store(place, lease=2), Store(place, lease=60)
    busy.open()
    other.open()
    late = {"warn_at": time.time() - 1, "expires_at": time.time() + 600}
    for _ in range(runner.BATCH + 70):
        await busy.accept(new_message(b"From: a@lib.example\r\n\r\nx\r\n", ("a@b.example", "shut"), **late), None)
    config, ways = make_config(), {"shut": Shut()}
    attempts = SlowToTell(config, busy, ways, Notifier(config), MailLog())
    work = runner.Runner(busy, attempts, ways, MailLog())
    await busy.renew(())  # accepting took its time
    running = asyncio.create_task(work.run())
    freed = 0
    while attempts.told < 60:
        freed += await other.renew(())
        await asyncio.sleep(0.1)
    assert freed == 0
    await work.stop(0)
    await running
    for node in (busy, other):
        await asyncio.to_thread(node.close)
