"""The durability contract, sentence by sentence."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from relay.errors import LeaseLost, SpoolError, StartError
from relay.mail.status import Reply
from relay.spool.commit import GroupCommit
from relay.spool.engine import writing_engine
from relay.spool.queries import list_deliveries
from relay.spool.records import FINAL, TRANSITIONS, Delivery, Message, Outcome, PrintJob, State
from relay.spool.schema import metadata
from relay.spool.store import Store
from tests.accepted import accepted

CONTENT = b"From: a@lib.example\r\n\r\nhello\r\n"
ROUTES = [("reader@patron.example", "default"), ("desk@print.lib.example", "print:desk")]

pytestmark = pytest.mark.asyncio


def message() -> Message:
    return accepted(CONTENT)


def as_a_crash_leaves_it(folder: Path) -> Path:
    """A copy of the spool with nothing closed and nothing checkpointed."""
    copy = folder / "copy"
    copy.mkdir()
    for file in folder.glob("spool.db*"):
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "spool.db", "node-a")
    store.open()
    yield store
    await asyncio.to_thread(store.close)


async def accept(store: Store, *, claim: bool = True) -> list[Delivery]:
    return await store.accept(message(), CONTENT, ROUTES, claim=claim)


async def test_what_was_accepted_is_there_after_the_process_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path / "spool.db", "node-a")
    store.open()
    await accept(store)
    copy = as_a_crash_leaves_it(tmp_path)
    store.close()
    after = Store(copy / "spool.db", "node-a")
    after.open()
    claimed = await after.claim(10)
    assert [(each.recipient, each.route, each.state) for each in claimed] == [
        (recipient, route, State.QUEUED) for recipient, route in ROUTES
    ]
    assert await after.content(claimed[0].message) == CONTENT
    after.close()


async def test_what_is_held_is_not_claimed_again(store: Store) -> None:
    held = await accept(store)
    assert len(held) == 2
    assert await store.claim(10) == []
    await store.release(held)
    assert [each.id for each in await store.claim(10)] == [each.id for each in held]


async def test_unclaimed_deliveries_come_oldest_first(store: Store) -> None:
    for _ in range(3):
        assert await accept(store, claim=False) == []
    first = await store.claim(4)
    rest = await store.claim(10)
    ids = [each.id for each in [*first, *rest]]
    assert ids == sorted(ids)
    assert len(first) == 4
    assert len(rest) == 2


async def test_the_attempt_is_recorded_with_the_time_of_the_next_one(store: Store) -> None:
    held = await accept(store)
    begun = await store.begin(held[0], time.time() + 60)
    assert (begun.state, begun.attempts) == (State.ACTIVE, 1)
    line = list_deliveries(store._path)[0]
    assert (line.state, line.attempts) == ("active", 1)
    assert line.next_attempt_at > time.time() + 50


async def test_a_worker_that_lost_its_lease_changes_nothing(store: Store) -> None:
    delivery = (await accept(store))[0]
    newer = await store.begin(delivery, time.time() + 60)
    with pytest.raises(LeaseLost):
        await store.settle(delivery, Outcome(State.DELIVERED), 0)
    with pytest.raises(LeaseLost):
        await store.begin(delivery, 0)
    await store.settle(newer, Outcome(State.DEFERRED, "later"), time.time() + 60)
    with pytest.raises(LeaseLost):
        await store.settle(newer, Outcome(State.DELIVERED), 0)
    assert list_deliveries(store._path)[0].state == "deferred"


async def test_a_deferred_delivery_is_due_at_its_time(store: Store) -> None:
    first, second = [await store.begin(each, time.time() + 60) for each in await accept(store)]
    await store.settle(first, Outcome(State.DEFERRED, "later"), time.time() + 60)
    await store.settle(second, Outcome(State.DEFERRED, "now"), time.time() - 1)
    claimed = await store.claim(10)
    assert [each.id for each in claimed] == [second.id]
    assert claimed[0].attempts == 1


async def test_final_states_stay(store: Store) -> None:
    delivery = await store.begin((await accept(store))[0], 0)
    await store.settle(delivery, Outcome(State.FAILED, "no"), 0)
    assert all(TRANSITIONS[state] == frozenset() for state in FINAL)
    assert [each.state for each in await store.claim(10)] == []
    assert {line.state for line in list_deliveries(store._path)} == {"failed", "queued"}


async def test_a_state_that_may_not_follow_is_refused(store: Store) -> None:
    delivery = (await accept(store))[0]
    with pytest.raises(LeaseLost):
        await store.pending(delivery, "")  # queued can't become pending without an attempt
    assert list_deliveries(store._path)[0].state == "queued"


async def test_a_print_job_survives_with_its_delivery(store: Store, tmp_path: Path) -> None:
    delivery = await store.begin((await accept(store))[1], time.time() + 60)
    delivery = await store.record_job(delivery, PrintJob("slip-x", "desk"))
    delivery = await store.record_job(delivery, PrintJob("slip-x", "desk", 17, sent=True))
    delivery = await store.pending(delivery, "")
    await asyncio.to_thread(store.close)
    after = Store(tmp_path / "spool.db", "node-a")
    after.open()
    claimed = {each.number: each for each in await after.claim(10)}
    assert claimed[1].job == PrintJob("slip-x", "desk", 17, sent=True)
    assert claimed[1].state is State.PENDING
    again = await after.begin(claimed[1], time.time() + 60)
    assert (await after.forget_job(again)).job is None
    after.close()
    store.open()


async def test_bytes_that_changed_on_disk_are_not_given_out(store: Store) -> None:
    delivery = (await accept(store))[0]
    await store._commits.submit(lambda c: c.execute(text("UPDATE bodies SET content = x'00'")).rowcount)
    with pytest.raises(SpoolError, match="not those that were accepted"):
        await store.content(delivery.message)


async def test_two_services_can_t_share_a_spool_file(store: Store) -> None:
    with pytest.raises(StartError, match="another slip-relay is using the spool"):
        Store(store._path, "node-b").open()


async def test_a_spool_in_no_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"the spool folder .*nowhere can't be used"):
        Store(tmp_path / "nowhere" / "spool.db", "n").open()


async def test_a_spool_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StartError, match="can't be used: file is not a database"):
        Store(tmp_path / "spool.db", "n").open()


async def test_a_spool_of_a_newer_version_is_a_clear_error(store: Store) -> None:
    await store._commits.submit(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")).rowcount)
    await asyncio.to_thread(store.close)
    with pytest.raises(StartError, match="it was made by a newer slip-relay"):
        store.open()
    store._writer.dispose()


@pytest.mark.parametrize("name", ["a b", "50%", "what?", "n#1"])
async def test_a_spool_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    store = Store(tmp_path / name / "spool.db", "node")
    store.open()
    held = await accept(store)
    assert await store.content(held[0].message) == CONTENT
    assert len(list_deliveries(tmp_path / name / "spool.db")) == 2
    await asyncio.to_thread(store.close)


async def test_no_text_from_outside_can_keep_a_delivery_from_being_settled(store: Store) -> None:
    delivery = await store.begin((await accept(store))[0], 0)
    reply = Reply.parse(550, "5.1.1 Empf\udce4nger\x1b[31m unbekannt\x00")
    await store.settle(delivery, Outcome(State.FAILED, f"refused: {reply}\ud800", reply), 0)
    line = list_deliveries(store._path)[0]
    assert (line.state, line.reason) == ("failed", "refused: 550 5.1.1 Empf?nger?[31m unbekannt??")


async def test_errors_of_the_database_do_not_quote_the_mail(store: Store) -> None:
    def broken(connection: Connection) -> None:
        connection.execute(text("INSERT INTO nowhere VALUES (:a)"), {"a": "MARIA@PATRON.EXAMPLE".lower()})

    with pytest.raises(SpoolError) as error:
        await store._commits.submit(broken)
    assert "maria@patron" not in "".join(traceback.format_exception(error.value))


async def test_migrations_and_schema_give_the_same_database(store: Store) -> None:
    with store._writer.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


async def test_what_waits_together_shares_one_commit(tmp_path: Path) -> None:
    engine = writing_engine(tmp_path / "x.db")
    commits = GroupCommit(engine)
    transactions: list[object] = []

    def work(connection: Connection) -> int:
        transactions.append(connection)
        return len(transactions)

    waiting = [asyncio.ensure_future(commits.submit(work)) for _ in range(50)]
    await asyncio.sleep(0)
    commits.start()
    assert await asyncio.gather(*waiting) == list(range(1, 51))
    assert len(set(map(id, transactions))) == 1
    commits.stop()
    engine.dispose()


async def test_a_unit_that_fails_harms_no_other(store: Store) -> None:
    good, twice = message(), message()

    results = await asyncio.gather(
        store.accept(good, CONTENT, ROUTES, claim=False),
        store.accept(twice, CONTENT, ROUTES, claim=False),
        store.accept(replace(twice, source="b"), CONTENT, ROUTES, claim=False),
        return_exceptions=True,
    )
    assert [isinstance(result, SpoolError) for result in results] == [False, False, True]
    assert len(list_deliveries(store._path)) == 4
