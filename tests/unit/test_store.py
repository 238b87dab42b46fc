"""The durability contract, sentence by sentence."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, PoolProxiedConnection, text, update
from sqlalchemy.exc import DBAPIError

from relay.config.settings import Spool
from relay.errors import LeaseLost, SpoolError, StartError
from relay.mail.status import Reply
from relay.spool.commit import LARGE, GroupCommit
from relay.spool.engine import Place
from relay.spool.histories import message_history
from relay.spool.queries import list_deliveries
from relay.spool.records import FINAL, TRANSITIONS, Delivery, Message, Outcome, PrintJob, State
from relay.spool.schema import bodies, metadata
from relay.spool.store import Store
from tests.accepted import accepted, new_message
from tests.harness.postgres import Postgres
from tests.harness.waiting import free_ports, until

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
async def store(place: Place) -> AsyncIterator[Store]:
    store = Store(place)
    store.open()
    yield store
    await asyncio.to_thread(store.close)


async def accept(store: Store, *, claim: bool = True) -> list[Delivery]:
    return await store.accept(new_message(CONTENT, *ROUTES), (None, None) if claim else None)


async def claim(store: Store, limit: int = 10) -> list[Delivery]:
    return (await store.claim(limit))[0]


async def test_what_was_accepted_is_there_after_the_process_is_gone(tmp_path: Path) -> None:
    store = Store(Place.file(tmp_path / "spool.db"))
    store.open()
    await accept(store)
    copy = as_a_crash_leaves_it(tmp_path)
    store.close()
    after = Store(Place.file(copy / "spool.db"))
    after.open()
    claimed = await claim(after)
    assert [(each.recipient, each.route, each.state) for each in claimed] == [
        (recipient, route, State.QUEUED) for recipient, route in ROUTES
    ]
    assert await after.content(claimed[0].message) == CONTENT
    after.close()


async def test_what_is_held_is_not_claimed_again(store: Store) -> None:
    held = await accept(store)
    assert len(held) == 2
    assert await claim(store) == []
    await store.release(held)
    assert [each.key for each in await claim(store)] == [each.key for each in held]


async def test_unclaimed_deliveries_come_oldest_first_of_each_destination(store: Store) -> None:
    for _ in range(15):
        assert await accept(store, claim=False) == []
    first, left = await store.claim(24)
    rest, none_left = await store.claim(100)
    assert (len(first), len(rest)) == (24, 6)
    assert left == {"default", "print:desk"}
    assert not none_left
    for route in ("default", "print:desk"):
        keys = [each.key for each in [*first, *rest] if each.route == route]
        assert keys == sorted(keys)
        assert len(keys) == 15


async def test_destinations_that_are_excepted_are_passed_over(store: Store) -> None:
    await accept(store, claim=False)
    claimed, left = await store.claim(10, {"default": 0})
    assert [each.destination for each in claimed] == ["print:desk"]
    assert left == frozenset()


async def test_the_first_attempt_may_begin_as_the_message_is_accepted(store: Store) -> None:
    later = time.time() + 60
    begun, held = await store.accept(new_message(CONTENT, *ROUTES), (later, None))
    assert (begun.state, begun.attempts, begun.next_attempt_at) == (State.ACTIVE, 1, later)
    assert (held.state, held.attempts) == (State.QUEUED, 0)
    lines = {line.recipient: line for line in list_deliveries(store.place)}
    assert lines[begun.recipient].state == "active"
    await store.settle(begun, Outcome(State.DELIVERED), 0)
    assert (await store.begin(held, later)).attempts == 1


async def test_the_attempt_is_recorded_with_the_time_of_the_next_one(store: Store) -> None:
    held = await accept(store)
    begun = await store.begin(held[0], time.time() + 60)
    assert (begun.state, begun.attempts) == (State.ACTIVE, 1)
    line = list_deliveries(store.place)[0]
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
    assert list_deliveries(store.place)[0].state == "deferred"


async def test_a_deferred_delivery_is_due_at_its_time(store: Store) -> None:
    first, second = [await store.begin(each, time.time() + 60) for each in await accept(store)]
    await store.settle(first, Outcome(State.DEFERRED, "later"), time.time() + 60)
    await store.settle(second, Outcome(State.DEFERRED, "now"), time.time() - 1)
    claimed = await claim(store)
    assert [each.key for each in claimed] == [second.key]
    assert claimed[0].attempts == 1


async def test_final_states_stay(store: Store) -> None:
    delivery = await store.begin((await accept(store))[0], 0)
    await store.settle(delivery, Outcome(State.FAILED, "no"), 0)
    assert all(TRANSITIONS[state] == frozenset() for state in FINAL)
    assert [each.state for each in await claim(store)] == []
    assert {line.state for line in list_deliveries(store.place)} == {"failed", "queued"}


async def test_a_state_that_may_not_follow_is_refused(store: Store) -> None:
    delivery = (await accept(store))[0]
    with pytest.raises(LeaseLost):
        await store.pending(delivery, "")  # queued can't become pending without an attempt
    assert list_deliveries(store.place)[0].state == "queued"


async def test_a_print_job_survives_with_its_delivery(store: Store, tmp_path: Path) -> None:
    delivery = await store.begin((await accept(store))[1], time.time() + 60)
    delivery = await store.record_job(delivery, PrintJob("slip-x", "desk"))
    delivery = await store.record_job(delivery, PrintJob("slip-x", "desk", 17, sent=True))
    delivery = await store.pending(delivery, "")
    await asyncio.to_thread(store.close)
    after = Store(store.place)
    after.open()
    claimed = {each.number: each for each in await claim(after)}
    assert claimed[1].job == PrintJob("slip-x", "desk", 17, sent=True)
    assert claimed[1].state is State.PENDING
    again = await after.begin(claimed[1], time.time() + 60)
    assert (await after.forget_job(again)).job is None
    after.close()
    store.open()


async def test_bytes_that_changed_on_disk_are_not_given_out(store: Store) -> None:
    delivery = (await accept(store))[0]
    await store.write(lambda c: c.execute(update(bodies).values(content=b"0")).rowcount)
    with pytest.raises(SpoolError, match="not those that were accepted"):
        await store.content(delivery.message)


async def test_two_services_can_t_share_a_spool_file(tmp_path: Path) -> None:
    store = Store(Place.file(tmp_path / "spool.db"))
    store.open()
    with pytest.raises(StartError, match="another slip-relay is using the spool"):
        Store(store.place).open()
    await asyncio.to_thread(store.close)


async def test_a_spool_in_no_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"the spool folder .*nowhere can't be used"):
        Store(Place.file(tmp_path / "nowhere" / "spool.db")).open()


async def test_a_spool_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StartError, match="can't be used: file is not a database"):
        Store(Place.file(tmp_path / "spool.db")).open()


async def test_a_spool_of_a_newer_version_is_a_clear_error(store: Store) -> None:
    await store.write(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")).rowcount)
    await asyncio.to_thread(store.close)
    with pytest.raises(StartError, match="it was made by a newer slip-relay"):
        store.open()
    store._writer.dispose()


@pytest.mark.parametrize("name", ["a b", "50%", "what?", "n#1"])
async def test_a_spool_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    store = Store(Place.file(tmp_path / name / "spool.db"))
    store.open()
    held = await accept(store)
    assert await store.content(held[0].message) == CONTENT
    assert len(list_deliveries(store.place)) == 2
    await asyncio.to_thread(store.close)


async def test_no_text_from_outside_can_keep_a_delivery_from_being_settled(store: Store) -> None:
    delivery = await store.begin((await accept(store))[0], 0)
    reply = Reply.parse(550, "5.1.1 Empf\udce4nger\x1b[31m unbekannt\x00")
    await store.settle(delivery, Outcome(State.FAILED, f"refused: {reply}\ud800", reply), 0)
    line = list_deliveries(store.place)[0]
    assert (line.state, line.reason) == ("failed", "refused: 550 5.1.1 Empf?nger?[31m unbekannt??")


async def test_errors_of_the_database_do_not_quote_the_mail(store: Store) -> None:
    def broken(connection: Connection) -> None:
        connection.execute(text("INSERT INTO nowhere VALUES (:a)"), {"a": "MARIA@PATRON.EXAMPLE".lower()})

    with pytest.raises(SpoolError) as error:
        await store.write(broken)
    assert "maria@patron" not in "".join(traceback.format_exception(error.value))


async def test_migrations_and_schema_give_the_same_database(store: Store) -> None:
    with store._writer.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


async def test_what_waits_together_shares_one_commit(store: Store) -> None:
    commits = GroupCommit(store._writer)
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


async def test_nobody_waits_for_more_than_one_large_unit(store: Store) -> None:
    """Each has a transaction of its own, and what is small goes between two of them."""
    commits = GroupCommit(store._writer)
    loop = asyncio.get_running_loop()
    transactions: list[tuple[object, list[str]]] = []
    late: list[asyncio.Future[None]] = []

    def work(name: str) -> Callable[[Connection], None]:
        def note(connection: Connection) -> None:
            transaction = connection.get_transaction()
            if not transactions or transactions[-1][0] is not transaction:
                transactions.append((transaction, []))
            transactions[-1][1].append(name)
            if name == "A":  # while it is written, something small comes
                asyncio.run_coroutine_threadsafe(come_late(), loop).result(5)

        return note

    async def come_late() -> None:
        late.append(commits.post(work("late"), 10))

    waiting = [commits.post(work(name), LARGE if name.isupper() else 10) for name in "AbCdEf"]
    commits.start()
    await asyncio.gather(*waiting)
    await asyncio.gather(*late)
    commits.stop()
    assert [names for _, names in transactions] == [["b", "d", "f"], ["A"], ["late"], ["C"], ["E"]]


async def test_what_waits_is_done_before_the_end(store: Store) -> None:
    commits = GroupCommit(store._writer)
    waiting = [commits.post(lambda c: None, size) for size in (LARGE, 10, LARGE, LARGE)]
    commits.start()
    await asyncio.to_thread(commits.stop)
    await asyncio.wait_for(asyncio.gather(*waiting), 5)


async def test_a_unit_that_fails_harms_no_other(store: Store) -> None:
    good, twice = new_message(CONTENT, *ROUTES), new_message(CONTENT, *ROUTES)
    results = await asyncio.gather(
        store.accept(good, None),
        store.accept(twice, None),
        store.accept(replace(twice, content=b"another"), None),
        return_exceptions=True,
    )
    assert [isinstance(result, SpoolError) for result in results] == [False, False, True]
    assert len(list_deliveries(store.place)) == 4


async def test_a_dsn_and_the_final_state_are_one_transaction(store: Store) -> None:
    delivery = await store.begin((await accept(store))[0], time.time() + 60)
    dsn = new_message(CONTENT, ("alma@exlibrisgroup.example", "default"))
    with pytest.raises(LeaseLost):
        await store.settle(replace(delivery, attempts=7), Outcome(State.FAILED, "no"), 0, [dsn])
    assert len(list_deliveries(store.place)) == 2, "a worker that lost its lease sends no DSN either"
    await store.settle(delivery, Outcome(State.FAILED, "no"), 0, [dsn])
    assert [line.state for line in list_deliveries(store.place) if line.route == "default"] == ["failed", "queued"]
    broken = await store.begin((await claim(store))[0], time.time() + 60)
    with pytest.raises(SpoolError):
        await store.settle(broken, Outcome(State.FAILED, "no"), 0, [dsn])  # the same queue id again
    assert [line.state for line in list_deliveries(store.place) if line.route == "default"] == ["failed", "active"]


# --- several nodes


async def test_a_node_with_nothing_to_do_commits_nothing(postgres: Postgres) -> None:
    """Each look wrote a mark and waited for a sync, once a second."""
    store = Store(Place.of(Spool(url=postgres.create_database())))
    store.open()

    def marks() -> int:
        with postgres.connect(str(store.place.url.database)) as other:
            return len(other.execute("SELECT id FROM commits").fetchall())

    (put_off, _) = await accept(store)
    put_off = await store.begin(put_off, time.time() + 60)
    await store.settle(put_off, Outcome(State.DEFERRED, "later"), time.time() + 60)
    before = marks()
    assert await store.claim(10) == ([], frozenset())
    assert await store.claim_overdue(10) == []
    assert marks() == before
    await asyncio.to_thread(store.close)


async def test_several_nodes_take_each_delivery_once(postgres: Postgres) -> None:
    place = Place.of(Spool(url=postgres.create_database()))
    nodes = [Store(place), Store(place), Store(place)]
    for node in nodes:
        node.open()
    for _ in range(60):
        await nodes[0].accept(new_message(CONTENT, *ROUTES), None)

    async def take(node: Store) -> list[Delivery]:
        taken = []
        while claimed := (await node.claim(10))[0]:
            taken += claimed
        return taken

    taken = await asyncio.gather(*map(take, nodes))
    keys = [each.key for some in taken for each in some]
    assert len(keys) == 120
    assert len(set(keys)) == 120
    assert sum(bool(some) for some in taken) > 1
    for node in nodes:
        await asyncio.to_thread(node.close)


async def test_a_dead_node_s_work_is_taken_over_and_its_ghost_changes_nothing(postgres: Postgres) -> None:
    place = Place.of(Spool(url=postgres.create_database()))
    dead, heir = Store(place, lease=2), Store(place, lease=30)
    dead.open()
    heir.open()
    ghost = await dead.begin((await accept(dead))[0], time.time() + 60)
    await heir.renew(())
    assert await claim(heir) == [], "its lease still holds"
    await asyncio.sleep(2.1)  # the lease runs out by the clock of the server
    assert await heir.renew(()) == 2
    taken = {each.key: each for each in await claim(heir)}
    assert taken[ghost.key].attempts == 1
    attempt = message_history(place, ghost.message.queue_id)
    assert attempt is not None
    assert attempt.deliveries[0].attempts[0].reason == "cut off"
    for write in (dead.settle(ghost, Outcome(State.DELIVERED), 0), dead.record_job(ghost, PrintJob("x", "desk"))):
        with pytest.raises(LeaseLost):
            await write
    again = await heir.begin(taken[ghost.key], time.time() + 60)
    assert again.attempts == 2
    await heir.settle(again, Outcome(State.DELIVERED), 0)
    await asyncio.to_thread(dead.close)
    assert {line.state for line in list_deliveries(place)} == {"delivered", "queued"}
    await asyncio.to_thread(heir.close)


async def test_a_node_that_was_taken_for_dead_comes_back(postgres: Postgres) -> None:
    place = Place.of(Spool(url=postgres.create_database()))
    late, other = Store(place, lease=0.2), Store(place, lease=30)
    late.open()
    other.open()
    await asyncio.sleep(0.3)
    await other.renew(())
    held = await accept(late)  # it does not know yet
    assert await other.renew(()) == 2, "what bears a name that is not signed in is free"
    await late.renew([each.key for each in held])
    with pytest.raises(LeaseLost):
        await late.begin(held[0], 0)
    assert len(await claim(late)) == 2
    for node in (late, other):
        await asyncio.to_thread(node.close)


async def test_what_a_lost_answer_left_in_this_node_s_name_is_let_go_of(store: Store) -> None:
    held = await accept(store)
    known = [held[0].key]
    assert await store.renew(known) == 0, "it may just be on its way to the worker"
    assert await store.renew(known) == 1
    assert [each.key for each in await claim(store)] == [held[1].key]


async def test_a_closing_node_lets_go_of_what_it_holds(place: Place) -> None:
    first = Store(place)
    first.open()
    await accept(first)
    await asyncio.to_thread(first.close)
    second = Store(place)
    second.open()
    assert len(await claim(second)) == 2
    await asyncio.to_thread(second.close)


# --- a server that goes away


async def test_a_server_that_is_restarted_loses_no_commit_and_repeats_none(tmp_path: Path) -> None:
    async with Postgres() as server:
        store = Store(Place.of(Spool(url=server.create_database())))
        store.open()
        accepted: list[str] = []

        async def keep_accepting() -> None:
            while len(accepted) < 400:
                new = new_message(CONTENT, *ROUTES)
                await store.accept(new, None)
                accepted.append(new.message.queue_id)

        workers = [asyncio.create_task(keep_accepting()) for _ in range(8)]
        await until(lambda: len(accepted) > 50, "some work")
        await server.kill()
        await server.start()
        await until(lambda: len(accepted) > 200, "more work")
        await server.restart("immediate")
        await asyncio.gather(*workers)
        lines = list_deliveries(store.place, limit=10_000)
        assert {line.queue_id for line in lines} == set(accepted), "nothing lost, and nothing but what was answered"
        assert len(lines) == 2 * len(accepted)
        await asyncio.to_thread(store.close)


async def test_the_answer_to_a_commit_that_was_lost_is_found_out(postgres: Postgres) -> None:
    store = Store(Place.of(Spool(url=postgres.create_database())))
    store.open()
    lost: list[bool] = []
    dialect = store._writer.dialect
    commit = dialect.do_commit

    def commit_and_lose(dbapi_connection: PoolProxiedConnection) -> None:
        commit(dbapi_connection)
        if not lost:
            lost.append(True)
            raise DBAPIError("COMMIT", {}, psycopg.OperationalError("the answer was lost"), connection_invalidated=True)

    dialect.do_commit = commit_and_lose  # type: ignore[method-assign]
    await accept(store, claim=False)
    assert lost
    assert len(list_deliveries(store.place)) == 2
    await asyncio.to_thread(store.close)


async def test_a_server_that_does_not_sync_is_refused(postgres: Postgres) -> None:
    url = postgres.create_database("careless")
    with postgres.connect() as connection:
        connection.execute("ALTER DATABASE careless SET synchronous_commit = off")
    with pytest.raises(StartError, match="synchronous_commit = off and would lose mail"):
        Store(Place.of(Spool(url=url))).open()


async def test_a_server_that_is_not_there_is_a_clear_error() -> None:
    with pytest.raises(StartError, match=r"can't be used: .*(refused|failed)"):
        Store(Place.of(Spool(url=f"postgresql+psycopg://relay@127.0.0.1:{free_ports(1)}/spool"))).open()
