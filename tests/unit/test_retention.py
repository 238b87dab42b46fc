"""What is settled leaves the spool after some days; what a person has to look at never does."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import ByteSize
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, text, update

from relay.config.settings import Spool
from relay.errors import CorruptBody
from relay.mail.queue_id import new_queue_id
from relay.maillog import MailLog
from relay.spool import retention, writes
from relay.spool.contents import PART
from relay.spool.engine import Place
from relay.spool.records import FINAL, Message, State
from relay.spool.retention import Cleaned, Retention
from relay.spool.schema import attempts, bodies, deliveries, messages, metadata, orders, papers, print_jobs, slips
from relay.spool.store import Store
from tests.accepted import new_message
from tests.harness.postgres import Postgres
from tests.harness.waiting import until

CONTENT = b"From: a@lib.example\r\n\r\nhello\r\n"
WAYS = [("reader@patron.example", "default"), ("desk@print.lib.example", "print:desk")]
DAY = 86400.0

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PAUSE", 0.0)
    monkeypatch.setattr(retention, "PAUSE_FACTOR", 0)


@pytest_asyncio.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = Store(place)
    store.open()
    yield store
    await asyncio.to_thread(store.close)


@pytest_asyncio.fixture
async def file_store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(Place.file(tmp_path / "spool.db"))
    store.open()
    yield store
    await asyncio.to_thread(store.close)


def clean_up(store: Store) -> Retention:
    settings = Spool(url="sqlite:////spool.db", keep_bodies=30 * DAY, keep_history=90 * DAY)
    return Retention(store, settings, MailLog())


async def settled(store: Store, *states: State, days: float, content: bytes = CONTENT) -> Message:
    """A message whose deliveries came into these states so long ago, with all that can hang on a delivery."""
    at = time.time() - days * DAY
    new = new_message(content, *WAYS[: len(states)])
    new = replace(new, message=replace(new.message, queue_id=new_queue_id(at), received_at=at))

    def put(connection: Connection) -> None:
        writes.put_message(connection, new, None, ())
        for number, state in enumerate(states):
            key = {"queue_id": new.message.queue_id, "number": number}
            connection.execute(
                update(deliveries)
                .where(deliveries.c.queue_id == new.message.queue_id, deliveries.c.number == number)
                .values(state=state.value, settled_at=at if state in FINAL else None)
            )
            ended = {"attempt": 1, "started_at": at, "ended_at": at, "outcome": state, "reply": "", "reason": ""}
            connection.execute(insert(attempts), {**key, **ended})
            job = {"name": f"{new.message.queue_id}-{number}", "queue": "desk", "job_id": 1, "sent": True}
            connection.execute(insert(print_jobs), {**key, **job})
            order = {"at": at, "verb": "release", "who": "somebody", "was": "held"}
            connection.execute(insert(orders), {**key, **order})
            connection.execute(insert(slips), {**key, "printer": "desk", "identity": "", "content": "0" * 64})
            put_paper(connection, new.message.queue_id, number, days=0)

    await store.write(put, len(content))
    return new.message


def put_paper(connection: Connection, queue_id: str, number: int, *, days: float, size: int = 8) -> None:
    paper = {"made_at": time.time() - days * DAY, "profile": "a4", "pages": 1, "width_mm": 210.0, "height_mm": 297.0}
    row = {"queue_id": queue_id, "number": number, **paper, "size": size, "pdf": b"x" * size}
    connection.execute(insert(papers), row)


async def counted(store: Store) -> dict[str, int]:
    """Rows of each table in which a message has rows."""

    def count(connection: Connection) -> dict[str, int]:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
            if "queue_id" in table.c
        }

    return await store.write(count)


async def ids(store: Store, column: object = messages.c.queue_id) -> set[str]:
    def read(connection: Connection) -> set[str]:
        return set(connection.execute(select(column)).scalars())  # type: ignore[call-overload]

    return await store.write(read)


async def test_bodies_go_before_the_history_does(store: Store) -> None:
    fresh = await settled(store, State.DELIVERED, State.FAILED, days=29)
    bodiless = await settled(store, State.DELIVERED, State.CANCELLED, days=31)
    await settled(store, State.EXPIRED, State.DELIVERED, days=91)
    assert await clean_up(store).clean() == Cleaned(bodies=2, messages=1)
    assert await ids(store) == {fresh.queue_id, bodiless.queue_id}
    assert await ids(store, bodies.c.queue_id) == {fresh.queue_id}
    assert await store.content(fresh) == CONTENT
    with pytest.raises(CorruptBody, match="not in the spool any more"):
        await store.content(bodiless)
    assert await clean_up(store).clean() == Cleaned()


async def test_pdfs_go_when_they_are_old_whatever_became_of_the_slip(store: Store) -> None:
    for state in (State.DELIVERED, State.HELD):
        young, old = await settled(store, state, days=1), await settled(store, state, days=1)
        at = {"made_at": time.time() - 15 * DAY}
        await store.write(lambda c, old=old, at=at: c.execute(update(papers).where(_of(old)).values(at)))  # type: ignore[misc]
        assert await clean_up(store).clean() == Cleaned(pdfs=1)
        assert young.queue_id in await ids(store, papers.c.queue_id)
        assert await store.content(old) == CONTENT, "its bytes stay"


def _of(message: Message) -> ColumnElement[bool]:
    return papers.c.queue_id == message.queue_id


async def test_the_oldest_pdfs_go_when_all_are_too_much(store: Store) -> None:
    kept = [await settled(store, State.DELIVERED, days=1) for _ in range(250)]

    def put(connection: Connection) -> None:
        connection.execute(delete(papers))
        for place, message in enumerate(kept):
            put_paper(connection, message.queue_id, 0, days=10 - place / 100, size=1000)

    await store.write(put)
    settings = Spool(url="sqlite:////spool.db", max_pdfs_size=ByteSize(40_500))
    assert (await Retention(store, settings, MailLog()).clean()).pdfs == 210
    assert await ids(store, papers.c.queue_id) == {message.queue_id for message in kept[210:]}


async def test_all_that_hangs_on_a_message_goes_with_it(store: Store) -> None:
    await settled(store, State.DELIVERED, State.FAILED, days=91, content=b"x" * 2 * PART)
    assert set((await counted(store)).values()) == {1, 2}
    await clean_up(store).clean()
    assert set((await counted(store)).values()) == {0}


@pytest.mark.parametrize("state", [state for state in State if state not in FINAL])
async def test_what_is_not_final_stays_however_old_it_is(file_store: Store, state: State) -> None:
    message = await settled(file_store, State.DELIVERED, state, days=1000)
    assert await clean_up(file_store).clean() == Cleaned()
    assert await file_store.content(message) == CONTENT


async def test_the_time_of_settling_counts_and_not_that_of_arrival(store: Store) -> None:
    message = await settled(store, State.DELIVERED, days=100)
    await store.write(lambda c: c.execute(update(deliveries).values(settled_at=time.time() - 29 * DAY)).rowcount)
    assert await clean_up(store).clean() == Cleaned()
    assert await store.content(message) == CONTENT


async def test_a_pass_looks_at_what_can_not_go_only_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "WINDOW", 4)
    monkeypatch.setattr(retention, "STEP", 2)
    kept = [(await settled(store, State.HELD, days=60)).queue_id for _ in range(9)]
    gone = [(await settled(store, State.DELIVERED, days=40)).queue_id for _ in range(7)]
    looked = 0

    def counting(*given: object) -> object:
        nonlocal looked
        looked += 1
        return look(*given)  # type: ignore[arg-type]

    look = retention._look
    monkeypatch.setattr(retention, "_look", counting)
    assert await clean_up(store).clean() == Cleaned(bodies=7)
    assert looked == 4 + 1 + 1  # five windows of bodies in all, the last one being full; and there are no old messages
    assert await ids(store, bodies.c.queue_id) == set(kept)
    assert await ids(store) == {*kept, *gone}


async def test_a_step_is_small(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(retention._steps([(str(i), 10) for i in range(250)])) == [
        ([str(i) for i in range(100)], 1000),
        ([str(i) for i in range(100, 200)], 1000),
        ([str(i) for i in range(200, 250)], 500),
    ]
    big = retention.STEP_SIZE
    assert list(retention._steps([("a", big - 1), ("b", 1), ("c", 1), ("d", 3 * big), ("e", 5)])) == [
        (["a", "b"], big),
        (["c"], 1),
        (["d"], 3 * big),
        (["e"], 5),
    ]
    assert list(retention._steps([])) == []


async def test_two_nodes_may_clean_at_the_same_time(postgres: Postgres) -> None:
    place = Place.of(Spool(url=postgres.create_database()))
    stores = [Store(place), Store(place)]
    for each in stores:
        each.open()
    try:
        for _ in range(300):
            await settled(stores[0], State.DELIVERED, days=100)
        await asyncio.gather(*(clean_up(each).clean() for each in stores))
        assert set((await counted(stores[0])).values()) == {0}
    finally:
        for each in stores:
            await asyncio.to_thread(each.close)


async def test_a_spool_file_can_shrink(file_store: Store) -> None:
    """The pragma counts only before the first table is made."""
    assert await file_store.write(lambda c: c.execute(text("PRAGMA auto_vacuum")).scalar_one()) == 2


async def test_the_file_gets_smaller_and_its_log_does_not_grow(
    file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SPARE_PAGES", 256)
    assert file_store.place.path is not None
    for _ in range(40):
        await settled(file_store, State.DELIVERED, days=40, content=os.urandom(1024 * 1024))
    keep = await settled(file_store, State.DELIVERED, days=1, content=os.urandom(1024 * 1024))

    def sizes() -> tuple[int, int]:
        path = file_store.place.path
        assert path is not None
        return path.stat().st_size, path.with_name(path.name + "-wal").stat().st_size

    before, log = sizes()
    cleaned = await clean_up(file_store).clean()
    assert cleaned.bodies == 40
    assert cleaned.pages > 9000
    after, log_after = sizes()
    assert before > 35 * 1024 * 1024
    assert after < 12 * 1024 * 1024  # the last step may not be checkpointed yet
    assert max(log, log_after) < 32 * 1024 * 1024
    await asyncio.to_thread(file_store.close)
    assert file_store.place.path.stat().st_size < 4 * 1024 * 1024
    file_store.open()
    assert len(await file_store.content(keep)) == 1024 * 1024


async def test_mail_is_accepted_while_a_pass_runs(file_store: Store) -> None:
    for _ in range(400):
        await settled(file_store, State.DELIVERED, days=100, content=CONTENT * 500)
    cleaning = asyncio.create_task(clean_up(file_store).clean())
    accepted = 0
    while not cleaning.done():
        await file_store.accept(new_message(CONTENT, WAYS[0]), None)
        accepted += 1
    assert await cleaning == Cleaned(bodies=400, messages=400)
    assert accepted > 8
    assert len(await ids(file_store)) == accepted


async def test_a_pass_ends_when_the_service_stops(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 1)
    for _ in range(20):
        await settled(file_store, State.DELIVERED, days=100)
    stop = asyncio.Event()
    stop.set()
    cleaned = await clean_up(file_store).clean(stop)
    assert cleaned == Cleaned()


async def test_passes_come_one_after_the_other_and_survive_a_fault(
    file_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retention, "FIRST_PASS", 0.0)
    monkeypatch.setattr(retention, "EVERY", 0.01)
    cleaning = clean_up(file_store)
    clean: Callable[..., object] = cleaning.clean
    passes = 0

    async def first_one_fails(stop: asyncio.Event) -> Cleaned:
        nonlocal passes
        passes += 1
        if passes == 1:
            raise ValueError("a fault of ours")
        return await clean(stop)  # type: ignore[no-any-return, misc]

    monkeypatch.setattr(cleaning, "clean", first_one_fails)
    await settled(file_store, State.DELIVERED, days=40)
    stop = asyncio.Event()
    with caplog.at_level(logging.INFO, "slip-relay"):
        running = asyncio.create_task(cleaning.run(stop))
        await until(lambda: passes > 3, "four passes", seconds=10)
        stop.set()
        await asyncio.wait_for(running, 5)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split()[0] for line in lines] == ["event=fault", "event=cleaned"]
    assert lines[1] == "event=cleaned bodies=1 messages=0"
