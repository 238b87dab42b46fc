"""Notices and the spool, on both engines: what they are decided by, and that what is told is told once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import insert, update

from relay.bounces.own_mail import SOURCE
from relay.config.settings import Config
from relay.errors import SpoolError
from relay.mail.queue_id import new_queue_id
from relay.maillog import MailLog
from relay.notices.post import Post
from relay.spool import notices
from relay.spool.engine import Place
from relay.spool.notices import Told
from relay.spool.queries import list_deliveries
from relay.spool.records import Delivery, NewMessage, Onward, Outcome, PrintJob, State
from relay.spool.schema import attempts, orders
from relay.spool.standing import LastMail, Standing, standings
from relay.spool.store import Store
from tests.accepted import new_message
from tests.harness.waiting import until

ROUTE = "print:desk"
TO_DESK = ("desk@print.lib.example", ROUTE)
Make = Callable[..., Config]

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = Store(place)
    store.open()
    yield store
    await asyncio.to_thread(store.close)


def slip(age: float = 0.0, *, institution: str = "demo", source: str = "alma") -> NewMessage:
    """A message for the desk that was received some seconds ago."""
    new = new_message(b"a slip", TO_DESK)
    at = time.time() - age
    message = replace(new.message, queue_id=new_queue_id(at), received_at=at, institution=institution, source=source)
    return replace(new, message=message)


async def under_way(store: Store, age: float = 0.0) -> Delivery:
    """A slip that was received some seconds ago, and whose first attempt began now."""
    return (await store.accept(slip(age), (time.time() + 60,)))[0]


def standing(store: Store) -> Standing:
    return standings(store.place, [ROUTE])[ROUTE]


def letters(store: Store) -> list[str]:
    return [line.queue_id for line in list_deliveries(store.place) if line.recipient == "it@lib.example"]


# --- how the slips stand


async def test_nothing_stands_still_where_there_is_nothing(store: Store) -> None:
    assert standing(store) == Standing()
    assert standings(store.place, []) == {}


async def test_what_waits_and_what_is_at_the_printer(store: Store) -> None:
    begun = time.time()
    delivery = await under_way(store, age=500)
    await store.accept(slip(100), None)
    await store.accept(new_message(b"a letter", ("reader@patron.example", "default")), None)
    seen = standing(store)
    assert (seen.open, seen.reason, seen.for_a_person) == (2, "", 0)
    assert seen.oldest_at == pytest.approx(begun - 500, abs=5)
    assert seen.tried_since == pytest.approx(begun, abs=5)
    delivery = await store.record_job(delivery, PrintJob(f"slip-{delivery}", "desk", 7, sent=True))
    await store.pending(delivery, "the printer says media-empty")
    assert standing(store).reason == "the printer says media-empty"


async def test_it_is_tried_since_its_first_attempt_and_its_reason_stays(store: Store) -> None:
    delivery = await under_way(store)
    delivery = await store.put_off(delivery, Outcome(State.DEFERRED, "CUPS can't be reached"), time.time())
    await store.write(lambda c: c.execute(update(attempts).values(started_at=1000.0)))  # that was long ago
    for _ in range(3):
        delivery = await store.begin(delivery, time.time() + 60)
        seen = standing(store)
        assert (seen.tried_since, seen.reason) == (1000.0, "CUPS can't be reached")
        delivery = await store.put_off(delivery, Outcome(State.DEFERRED, "CUPS can't be reached"), time.time())
    delivery = await store.begin(delivery, time.time() + 60)
    await store.settle(delivery, Outcome(State.DELIVERED), 0)
    assert standing(store) == Standing()


async def test_a_restart_while_the_job_is_followed_does_not_begin_the_time_anew(place: Place) -> None:
    store = Store(place)
    store.open()
    delivery = await under_way(store)
    delivery = await store.record_job(delivery, PrintJob(f"slip-{delivery}", "desk", 7, sent=True, sent_at=1000.0))
    await store.pending(delivery, "the printer says media-empty")
    await asyncio.to_thread(store.close)
    store = Store(place)
    store.open()
    ((again,), _) = await store.claim(10)
    assert again.attempts == 1
    await store.begin(again, time.time() + 60)
    assert standing(store).tried_since == 1000.0
    await asyncio.to_thread(store.close)


async def test_only_waiting_behind_others_is_not_being_tried(store: Store) -> None:
    await store.accept(slip(5000), None)
    seen = standing(store)
    assert (seen.open, seen.tried_since) == (1, None)


async def test_having_been_sorted_is_not_being_tried(store: Store) -> None:
    new = new_message(b"a slip", ("desk@print.lib.example", "sort:demo"))
    (delivery,) = await store.accept(new, (time.time() + 60,))
    way = replace(new.deliveries[0], route=ROUTE, destination=ROUTE)
    await store.sort(delivery, Outcome(State.QUEUED, "the rule r"), Onward(way))
    assert standing(store).tried_since is None
    sorted_at = time.time()
    ((again,), _) = await store.claim(10)
    await store.begin(again, time.time() + 60)
    tried_since = standing(store).tried_since
    assert tried_since is not None
    assert tried_since >= sorted_at


async def test_a_person_s_order_begins_the_time_anew(store: Store) -> None:
    delivery = await under_way(store)
    at = time.time() + 40
    row = {"queue_id": delivery.message.queue_id, "number": 0, "at": at, "verb": "release", "who": "ada", "was": "held"}
    await store.write(lambda c: c.execute(insert(orders), row))
    seen = standing(store)
    assert (seen.tried_since, seen.oldest_at) == (at, at)


@pytest.mark.parametrize("state", [State.HELD, State.UNCERTAIN])
async def test_what_waits_for_a_person_does_so_since_it_was_settled(store: Store, state: State) -> None:
    delivery = await under_way(store, age=5000)
    before = time.time()
    await store.settle(delivery, Outcome(state, "look"), 0)
    seen = standing(store)
    assert (seen.open, seen.for_a_person) == (0, 1)
    assert seen.for_a_person_since == pytest.approx(before, abs=5)


# --- when mail last came


async def test_when_mail_last_came(store: Store) -> None:
    for new in (slip(9000), slip(5000), slip(10, source=SOURCE), slip(7000, institution="law")):
        await store.accept(new, None)
    last = LastMail(store.place, ["demo", "law", "new"], SOURCE)
    now = time.time()
    assert last.look() == {"demo": pytest.approx(now - 5000, abs=5), "law": pytest.approx(now - 7000, abs=5)}
    await store.accept(slip(3, institution="law"), None)
    assert last.look() == {"demo": pytest.approx(now - 5000, abs=5), "law": pytest.approx(now - 3, abs=5)}


async def test_the_walk_back_goes_through_windows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.spool.standing.WINDOW", 2)
    for age in range(1, 8):
        await store.accept(slip(age), None)
    await store.accept(slip(8000, institution="law"), None)
    assert LastMail(store.place, ["demo", "law"], SOURCE).look().keys() == {"demo", "law"}
    monkeypatch.setattr("relay.spool.standing.MOST", 4)
    assert LastMail(store.place, ["demo", "law"], SOURCE).look().keys() == {"demo"}


# --- told once


def letter() -> NewMessage:
    return new_message(b"From: a@lib.example\r\n\r\nhello\r\n", ("it@lib.example", "default"))


async def test_what_is_told_and_the_letter_are_there_together_or_not_at_all(store: Store) -> None:
    told = Told("printer:desk:trouble", 1.0, 2.0)
    good = letter()
    taken = replace(letter(), message=replace(letter().message, queue_id=good.message.queue_id))
    await store.accept(good, None)
    with pytest.raises(SpoolError):
        await store.write(lambda c: notices.tell(c, told, taken))
    assert notices.told(store.place) == {}
    new = letter()
    assert await store.write(lambda c: notices.tell(c, told, new))
    assert notices.told(store.place) == {told.key: told}
    assert not await store.write(lambda c: notices.tell(c, replace(told, told_at=3.0), letter()))
    assert letters(store) == [good.message.queue_id, new.message.queue_id]
    with pytest.raises(SpoolError):
        await store.write(lambda c: notices.end(c, told, taken))
    assert notices.told(store.place) == {told.key: told}
    over = letter()
    assert await store.write(lambda c: notices.end(c, told, over))
    assert not await store.write(lambda c: notices.end(c, told, letter()))
    assert notices.told(store.place) == {}
    assert letters(store) == [good.message.queue_id, new.message.queue_id, over.message.queue_id]


@pytest.fixture
def config(make_config: Make, tree: dict[str, Any]) -> Config:
    institutions = [tree["institutions"][0] | {"notify": "it@lib.example"}]
    return make_config(institutions=institutions, notices={"trouble_after": 0.001})


async def test_from_trouble_to_its_end(store: Store, config: Config) -> None:
    maillog = MailLog()
    post = Post(config, store, maillog)
    await post.look()
    assert letters(store) == []
    delivery = await under_way(store)
    delivery = await store.put_off(delivery, Outcome(State.DEFERRED, "CUPS can't be reached"), time.time())
    for _ in range(3):
        await post.look()
    assert len(letters(store)) == 1
    text = maillog.metrics.text()
    assert 'slip_relay_printer_trouble{printer="desk"} 1.0' in text
    assert 'slip_relay_open_slips{printer="desk"} 1.0' in text
    assert 'slip_relay_notices_total{kind="trouble",what="told"} 1.0' in text
    assert 'slip_relay_seconds_since_mail{institution="demo"}' in text
    delivery = await store.begin(delivery, time.time() + 60)
    await store.settle(delivery, Outcome(State.DELIVERED), 0)
    for _ in range(4):
        await post.look()
    assert len(letters(store)) == 2
    assert 'slip_relay_printer_trouble{printer="desk"} 0.0' in maillog.metrics.text()
    # The runner finds the letters as it finds any mail, with the null reverse-path.
    claimed, _ = await store.claim(10)
    assert {(each.recipient, each.message.reverse_path) for each in claimed} == {("it@lib.example", None)}


async def test_without_a_mailbox_it_is_counted_once_all_the_same(store: Store, make_config: Make) -> None:
    maillog = MailLog()
    post = Post(make_config(notices={"trouble_after": 0.001}), store, maillog)
    await under_way(store)
    for _ in range(3):
        await post.look()
    assert 'slip_relay_notices_total{kind="trouble",what="told"} 1.0' in maillog.metrics.text()
    assert len(list_deliveries(store.place)) == 1


async def test_two_nodes_tell_once(store: Store, config: Config) -> None:
    """On a server two services at the same time; on a file, which has one, the same service after a restart."""
    other = Store(store.place) if store.place.path is None else None
    if other is not None:
        other.open()
    nodes = [Post(config, store, MailLog()), Post(config, other or store, MailLog())]
    delivery = await under_way(store)
    for _ in range(3):
        await asyncio.gather(*(node.look() for node in nodes))
    assert len(letters(store)) == 1
    await store.settle(delivery, Outcome(State.DELIVERED), 0)
    await store.write(lambda c: None)  # a settled delivery is committed with what comes next
    for _ in range(4):
        await asyncio.gather(*(node.look() for node in nodes))
    assert len(letters(store)) == 2
    assert notices.told(store.place) == {}
    if other is not None:
        await asyncio.to_thread(other.close)


async def test_a_spool_that_is_away_is_logged_and_looking_goes_on(tmp_path: Path, make_config: Make) -> None:
    file, away = tmp_path / "spool.db", tmp_path / "away.db"
    store = Store(Place.file(file))
    store.open()
    await under_way(store)
    maillog = MailLog()
    post = Post(make_config(notices={"look_every": 0.2, "trouble_after": 0.001}), store, maillog)
    stop = asyncio.Event()
    file.rename(away)
    task = asyncio.create_task(post.run(stop))
    await until(lambda: "slip_relay_faults_total 2.0" in maillog.metrics.text(), "two looks that fail")
    away.rename(file)
    told = 'slip_relay_notices_total{kind="trouble",what="told"} 1.0'
    await until(lambda: told in maillog.metrics.text(), "a look that does not")
    stop.set()
    await asyncio.wait_for(task, 20)
    await asyncio.to_thread(store.close)
