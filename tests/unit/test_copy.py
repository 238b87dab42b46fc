"""A spool moves as a whole or not at all."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, insert, select, text, update

from relay.config.settings import Spool
from relay.errors import CorruptBody, SpoolError, StartError
from relay.mail.status import Reply
from relay.spool import digests
from relay.spool.copy import TABLES, copy
from relay.spool.digests import check_bodies
from relay.spool.engine import Place, writing_engine
from relay.spool.records import Message, Outcome, Paper, PrintJob, Sameness, State
from relay.spool.schema import bodies, deliveries, messages, notices, orders
from relay.spool.store import Store
from tests.accepted import new_message
from tests.harness.postgres import Postgres

WAYS = [("reader@patron.example", "default"), ("desk@print.lib.example", "print:desk")]
ENDS = [("sqlite", "postgresql"), ("postgresql", "sqlite"), ("sqlite", "sqlite"), ("postgresql", "postgresql")]
NewPlace = Callable[[str], Place]


@pytest.fixture
def new_place(tmp_path: Path, request: pytest.FixtureRequest) -> NewPlace:
    """Empty spools by the name of the engine."""

    def make(engine: str) -> Place:
        if engine == "sqlite":
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            folder.mkdir()
            return Place.file(folder / "spool.db")
        postgres: Postgres = request.getfixturevalue("postgres")
        return Place.of(Spool(url=postgres.create_database()))

    return make


@pytest.fixture(params=ENDS, ids=" to ".join)
def ends(request: pytest.FixtureRequest, new_place: NewPlace) -> tuple[Place, Place]:
    """Two empty spools."""
    came_from, goes_to = request.param
    return new_place(came_from), new_place(goes_to)


@pytest.fixture
def source(new_place: NewPlace) -> Place:
    """A spool in a file, with a life behind it."""
    place = new_place("sqlite")
    asyncio.run(fill(place))
    return place


@pytest.fixture(params=["postgresql", "sqlite"])
def target(request: pytest.FixtureRequest, new_place: NewPlace) -> Place:
    """An empty spool that a service has used once."""
    place = new_place(request.param)
    store = Store(place)
    store.open()
    store.close()
    return place


async def fill(place: Place) -> list[Message]:
    """Something of everything: put off, printed, held, cut off, with all kinds of bytes; and an order."""
    store = Store(place)
    store.open()
    kept = []
    for content in (b"", bytes(range(256)) * 40, "Grüße, 你好\r\n".encode(), os.urandom(3_000_000)):
        new = new_message(content, *WAYS, warn_at=time.time() + 0.1, expires_at=time.time() + 1e6)
        kept.append(new.message)
        letter, slip = await store.accept(new, (time.time() + 60, time.time() + 60))
        paper = Paper("desk", f"{len(kept):064x}", "a4", 1, 210.0, 297.0, b"%PDF-" + os.urandom(50_000))
        await store.begin_job(slip, PrintJob(f"slip-{slip}", "desk"), paper, Sameness())
        await store.record_job(slip, PrintJob(f"slip-{slip}", "desk", 7, sent=True))
        reply = Reply.parse(450, "4.2.1 später, \x00 bitte")
        await store.settle(letter, Outcome(State.DEFERRED, "not now", reply=reply), time.time() + 0.5)
    held = new_message(b"held", WAYS[0])
    (delivery,) = await store.accept(held, (time.time(),))
    await store.settle(delivery, Outcome(State.HELD, "a person decides", notes=("ümläut",)), 0.0)
    await store.write(lambda c: c.execute(insert(notices), {"key": "printer:desk:held", "since": 1.5, "told_at": 2.5}))
    row = {"queue_id": held.message.queue_id, "number": 0, "at": time.time()}
    await store.write(lambda c: c.execute(insert(orders), {**row, "verb": "hold", "who": "ada", "was": "queued"}))
    for _ in range(30):
        await store.accept(new_message(b"short", *WAYS), None)
    await asyncio.to_thread(store._commits.stop)  # as a crash leaves it: the leases are not given back
    store._drop()
    if place.path is None:
        ask(place, lambda c: c.execute(text("UPDATE nodes SET lease_until = 0")))
    return [*kept, held.message]


def ask(place: Place, question: Callable[[Connection], Any]) -> Any:
    engine: Engine = writing_engine(place)
    try:
        with engine.begin() as connection:
            return question(connection)
    finally:
        engine.dispose()


def everything(place: Place) -> dict[str, set[tuple[Any, ...]]]:
    def read(connection: Connection) -> dict[str, set[tuple[Any, ...]]]:
        return {table.name: {tuple(row) for row in connection.execute(select(table))} for table in TABLES}

    return dict(ask(place, read))


def is_empty(place: Place) -> bool:
    return bool(ask(place, lambda c: c.execute(select(func.count()).select_from(messages)).scalar_one() == 0))


def test_everything_is_copied_and_goes_on(ends: tuple[Place, Place]) -> None:
    came_from, goes_to = ends
    kept = asyncio.run(fill(came_from))
    before = everything(came_from)
    seen: list[tuple[int, int]] = []
    report = copy(came_from, goes_to, lambda done, of: seen.append((done, of)))
    after = everything(goes_to)
    assert everything(came_from) == before
    assert {name for name in before if before[name] != after[name]} <= {"deliveries", "attempts"}
    assert {copied.table: copied.rows for copied in report.tables} == {name: len(rows) for name, rows in before.items()}
    assert report.corrupt == ()
    assert seen[-1] == (2 * sum(map(len, before.values())),) * 2
    asyncio.run(_goes_on(goes_to, kept))


async def _goes_on(place: Place, kept: list[Message]) -> None:
    store = Store(place)
    store.open()
    for message in kept:
        assert len(await store.content(message)) == message.size
    claimed, left = await store.claim(1000)
    by_state = {state: [each for each in claimed if each.state is state] for state in State}
    assert left == frozenset()
    assert len(by_state[State.ACTIVE]) == 4  # slips whose attempt was cut off, with their print jobs
    assert all(each.job is not None and each.job.job_id == 7 for each in by_state[State.ACTIVE])
    assert len(by_state[State.QUEUED]) == 60
    assert not by_state[State.HELD]
    await asyncio.to_thread(store.close)


def test_digests_are_those_of_the_rows_whatever_the_engine(source: Place, new_place: NewPlace) -> None:
    over_there, and_back = new_place("postgresql"), new_place("sqlite")
    there = {copied.table: copied for copied in copy(source, over_there).tables}
    back = {copied.table: copied for copied in copy(over_there, and_back).tables}
    for name in (
        "messages",
        "bodies",
        "print_jobs",
        "orders",
        "slips",
        "papers",
    ):  # in the others leases were let go of
        assert there[name] == back[name]
    assert len({copied.digest for copied in there.values()}) == len(there)


def test_a_body_that_is_corrupt_is_copied_and_named(source: Place, target: Place) -> None:
    broken = ask(source, lambda c: c.execute(select(messages.c.queue_id).where(messages.c.size == 4)).scalar_one())
    ask(source, lambda c: c.execute(update(bodies).where(bodies.c.queue_id == broken).values(content=b"hel-")))
    assert check_bodies(source) == (35, [broken])
    assert copy(source, target).corrupt == (broken,)
    assert check_bodies(target) == (35, [broken])
    store = Store(target)
    with pytest.raises(CorruptBody, match="not those that were accepted"):
        store._content(
            ask(target, lambda c: Message(**c.execute(select(messages).where(messages.c.size == 4)).one()._mapping))
        )
    store._drop()


def test_a_copy_that_is_not_the_same_is_not_kept(source: Place, target: Place) -> None:
    if target.path is None:
        ask(target, lambda c: c.execute(text(_SPOILING_FUNCTION)))
        trigger = "BEFORE INSERT ON deliveries FOR EACH ROW EXECUTE FUNCTION spoil()"
    else:
        trigger = (
            "AFTER INSERT ON deliveries BEGIN UPDATE deliveries SET recipient = 'x@y.example' WHERE number = 1; END"
        )
    ask(target, lambda c: c.execute(text(f"CREATE TRIGGER spoils {trigger}")))
    with pytest.raises(SpoolError, match=r"the copy of the table deliveries is not the same: 69 rows in .* 69 in"):
        copy(source, target)
    assert is_empty(target)
    ask(target, lambda c: c.execute(text("DROP TRIGGER spoils" + (" ON deliveries" if target.path is None else ""))))
    copy(source, target)
    assert not is_empty(target)


_SPOILING_FUNCTION = """
    CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.recipient := 'x@y.example'; RETURN NEW; END $$
"""

_CUT_OFF = """
import os, signal, sys
from pathlib import Path
from relay.config.settings import Spool
from relay.spool.copy import copy
from relay.spool.engine import Place

def die(done, of):
    if done >= 200:
        os.kill(os.getpid(), signal.SIGKILL)

copy(Place.file(Path(sys.argv[1])), Place.of(Spool(url=sys.argv[2])), die)
"""


def test_a_copy_that_was_cut_off_is_simply_run_again(source: Place, target: Place) -> None:
    url = target.url.render_as_string(hide_password=False)
    run = subprocess.run([sys.executable, "-c", _CUT_OFF, str(source.path), url], check=False)
    assert run.returncode == -signal.SIGKILL
    assert is_empty(target)
    assert len(copy(source, target).tables) == len(TABLES)
    assert everything(target)["bodies"] == everything(source)["bodies"]


def test_a_target_with_messages_is_refused(source: Place, target: Place) -> None:
    copy(source, target)
    before = everything(target)
    with pytest.raises(StartError, match="has messages; a copy needs an empty one"):
        copy(source, target)
    assert everything(target) == before


@pytest.fixture
def running() -> Iterator[Callable[[Place], None]]:
    """Runs a service, as far as the spool is concerned."""
    stores: list[Store] = []

    def run(place: Place) -> None:
        stores.append(Store(place))
        stores[-1].open()

    yield run
    for store in stores:
        store.close()


def test_a_spool_in_use_is_refused(ends: tuple[Place, Place], running: Callable[[Place], None]) -> None:
    came_from, goes_to = ends
    asyncio.run(fill(came_from))
    running(came_from)
    with pytest.raises(StartError, match=re.escape(f"is using the spool {came_from}")):
        copy(came_from, goes_to)


def test_a_target_in_use_is_refused(source: Place, target: Place, running: Callable[[Place], None]) -> None:
    running(target)
    with pytest.raises(StartError, match=re.escape(f"is using the spool {target}")):
        copy(source, target)
    assert is_empty(target) if target.path is None else True


def test_no_service_begins_on_a_server_while_its_spool_is_copied(
    source: Place, new_place: NewPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits, or is refused; here for as long as the test lets it."""
    target = new_place("postgresql")
    copy(source, target)
    third = new_place("postgresql")
    tried: list[bool] = []

    def begin_elsewhere(done: int, of: int) -> None:
        if not tried:
            for place in (target, third):
                tried.append(_may_sign_in(place))

    copy(target, third, begin_elsewhere)
    assert tried == [False, False]
    assert _may_sign_in(target)
    assert _may_sign_in(third)


def _may_sign_in(place: Place) -> bool:
    def sign_in(connection: Connection) -> bool:
        connection.execute(text("SET LOCAL lock_timeout = '50ms'"))
        connection.execute(text("INSERT INTO nodes VALUES ('new', 0)"))
        connection.execute(text("DELETE FROM nodes"))
        return True

    try:
        return bool(ask(place, sign_in))
    except Exception:
        return False


def test_a_spool_that_is_not_there_is_said_to_be_so(new_place: NewPlace, tmp_path: Path) -> None:
    absent = Place.file(tmp_path / "absent.db")
    with pytest.raises(StartError, match=r"there is no spool at .*absent\.db"):
        copy(absent, new_place("sqlite"))
    assert not absent.path or not absent.path.exists()
    empty = new_place("postgresql")
    with pytest.raises(StartError, match=r"there is no spool at .*: the database has no tables of slip-relay"):
        copy(empty, new_place("sqlite"))


def test_a_spool_is_not_copied_onto_itself(ends: tuple[Place, Place]) -> None:
    came_from = ends[0]
    asyncio.run(fill(came_from))
    with pytest.raises(StartError, match="needs another place"):
        copy(came_from, came_from)


def test_a_server_that_is_away_is_said_to_be_so(source: Place) -> None:
    with pytest.raises(SpoolError, match=r"nowhere.* can't be copied to: .*(No such file|refused)"):
        copy(source, Place.of(Spool(url="postgresql+psycopg://relay@/spool?host=/nowhere")))


def test_few_bodies_are_in_memory_at_once() -> None:
    big = digests.PORTION
    assert list(digests._portions([("a", big - 1), ("b", 1), ("c", 1), ("d", 3 * big), ("e", 5)])) == [
        ["a", "b"],
        ["c"],
        ["d"],
        ["e"],
    ]


def test_what_waits_for_nobody_is_untouched(source: Place, target: Place) -> None:
    """Only leases are let go of: what is held, settled or put off is the same row for row."""
    before, after = everything(source), {}
    copy(source, target)
    after = everything(target)
    owner = list(deliveries.c.keys()).index("lease_owner")
    free = {row for row in before["deliveries"] if row[owner] is None}
    assert len(free) == 4 + 1 + 60
    assert free <= after["deliveries"]
    assert len(before["deliveries"]) == len(after["deliveries"])
