"""The same slip twice: by what it is known, which first one counts, and two that begin at the same moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from sqlalchemy import event, select, text, update

from relay.config.settings import Spool
from relay.errors import LeaseLost
from relay.mail.queue_id import new_queue_id
from relay.spool import orders
from relay.spool.engine import Place
from relay.spool.histories import message_history
from relay.spool.orders import Order, Verb, Way
from relay.spool.queries import list_deliveries
from relay.spool.records import OPEN, Delivery, NewMessage, Outcome, Paper, PrintJob, Sameness, State, Twin
from relay.spool.schema import deliveries, papers, print_jobs, slips
from relay.spool.store import Store
from tests.accepted import new_message
from tests.harness.postgres import Postgres

pytestmark = pytest.mark.asyncio

CONTENT = b"From: a@lib.example\r\n\r\nhello\r\n"
WAY = ("desk@print.lib.example", "print:desk")
PAPER = Paper("desk", "c" * 64, "a4", 1, 210.0, 297.0, b"%PDF-1.7 slip")
BY_MESSAGE_ID = Sameness()
BY_CONTENT = Sameness(content=600.0)


@pytest_asyncio.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = Store(place)
    store.open()
    yield store
    await asyncio.to_thread(store.close)


def arrived(*, message_id: str = "<1@alma.example>", ago: float = 0.0, way: tuple[str, str] = WAY) -> NewMessage:
    new = new_message(CONTENT, way)
    at = time.time() - ago
    return replace(new, message=replace(new.message, message_id=message_id, queue_id=new_queue_id(at), received_at=at))


async def begun(store: Store, new: NewMessage) -> Delivery:
    """A delivery of a new message whose first attempt runs."""
    return (await store.accept(new, (time.time() + 60,)))[0]


async def begin_job(
    store: Store, delivery: Delivery, paper: Paper = PAPER, sameness: Sameness = BY_MESSAGE_ID
) -> Delivery | Twin:
    job = PrintJob(f"slip-{delivery}-{delivery.attempts}", "desk")
    return await store.begin_job(delivery, job, paper, sameness)


async def printed(store: Store, new: NewMessage, state: State = State.DELIVERED) -> Delivery:
    """A slip whose job began, and that ended in a state."""
    delivery = await begin_job(store, await begun(store, new))
    assert isinstance(delivery, Delivery)
    await store.settle(delivery, Outcome(state, "so it ended", evidence="spooler-confirmed"), time.time() + 900)
    return delivery


async def test_a_job_begins_with_its_name_what_it_says_and_its_pdf_in_one_transaction(store: Store) -> None:
    delivery = await begin_job(store, await begun(store, arrived()))
    assert isinstance(delivery, Delivery)
    assert delivery.job == PrintJob(f"slip-{delivery}-1", "desk")
    assert await store.paper(delivery.key) == replace(PAPER, printer="", content="")
    rows = await store.write(lambda c: c.execute(select(slips)).all())
    assert [(row.printer, row.content, len(row.identity)) for row in rows] == [("desk", "c" * 64, 64)]


async def test_a_pdf_that_is_not_to_be_kept_is_not(store: Store) -> None:
    delivery = await begin_job(store, await begun(store, arrived()), replace(PAPER, pdf=None))
    assert isinstance(delivery, Delivery)
    assert await store.paper(delivery.key) is None


async def test_a_message_that_is_handed_in_again_is_known_by_its_message_id(store: Store) -> None:
    first = await printed(store, arrived(ago=80 * 86400))
    second = await begun(store, arrived())
    twin = await begin_job(store, second)
    assert twin == Twin(first.key, is_printed=True, by="message-id")
    assert await store.write(lambda c: len(c.execute(select(print_jobs)).all())) == 1
    assert await store.paper(second.key) is None
    outcome = Outcome(State.CANCELLED, "the same", evidence="duplicate", duplicate_of=str(twin))
    await store.settle(second, outcome, 0)
    line = next(line for line in list_deliveries(store.place) if line.key == second.key)
    assert (line.state, line.evidence, line.duplicate_of) == ("cancelled", "duplicate", str(first))
    history = message_history(store.place, first.message.queue_id)
    assert history is not None
    assert (history.deliveries[0].duplicates, history.deliveries[0].has_paper) == ((str(second),), True)


@pytest.mark.parametrize(
    ("other", "paper"),
    [
        (arrived(message_id="<2@alma.example>"), PAPER),
        (arrived(way=("desk2@print.lib.example", "print:desk")), PAPER),
        (arrived(), replace(PAPER, content="d" * 64)),
    ],
    ids=["another Message-ID", "another mailbox", "another content under the same Message-ID"],
)
async def test_what_differs_is_printed(store: Store, other: NewMessage, paper: Paper) -> None:
    await printed(store, arrived())
    assert isinstance(await begin_job(store, await begun(store, other), paper), Delivery)


async def test_the_case_of_a_mailbox_s_domain_makes_no_other_slip_of_it(store: Store) -> None:
    await printed(store, arrived())
    assert isinstance(await begin_job(store, await begun(store, arrived(way=("desk@PRINT.lib.example", WAY[1])))), Twin)


async def test_a_slip_that_another_printer_stood_in_for_is_known_again(store: Store) -> None:
    first = await printed(store, arrived())
    found = await begin_job(store, await begun(store, arrived()), replace(PAPER, printer="stand-in"))
    assert found == Twin(first.key, is_printed=True, by="message-id")


async def test_a_copy_by_rule_is_another_slip_than_the_one_sent_elsewhere(store: Store) -> None:
    await printed(store, arrived())
    copy = replace(await begun(store, arrived()), copy_of=0)
    assert isinstance(await begin_job(store, copy), Delivery)


async def test_slips_without_a_message_id_are_each_printed(store: Store) -> None:
    for _ in range(2):
        await printed(store, arrived(message_id=""))


async def test_both_kinds_can_be_switched_off(store: Store) -> None:
    await printed(store, arrived())
    again = await begun(store, arrived())
    assert isinstance(await begin_job(store, again, sameness=Sameness(message_id=False)), Delivery)


@pytest.mark.parametrize(("ago", "is_same"), [(1.0, True), (590.0, True), (700.0, False)])
async def test_the_same_content_counts_within_its_window(store: Store, ago: float, is_same: bool) -> None:
    first = await printed(store, arrived(message_id="<2@alma.example>", ago=ago))
    found = await begin_job(store, await begun(store, arrived()), sameness=BY_CONTENT)
    assert found == Twin(first.key, is_printed=True, by="content") if is_same else isinstance(found, Delivery)


async def test_the_same_content_in_another_message_counts_only_where_it_was_said(store: Store) -> None:
    await printed(store, arrived(message_id="<2@alma.example>"))
    assert isinstance(await begin_job(store, await begun(store, arrived())), Delivery)


@pytest.mark.parametrize("state", State)
async def test_only_what_is_printed_or_under_way_stands_in_for_another(store: Store, state: State) -> None:
    first = await printed(store, arrived())
    of_it = deliveries.c.queue_id == first.message.queue_id
    await store.write(lambda c: c.execute(update(deliveries).where(of_it).values(state=state.value)))
    found = await begin_job(store, await begun(store, arrived()))
    if state is State.DELIVERED or state in OPEN:
        assert found == Twin(first.key, is_printed=state is State.DELIVERED, by="message-id")
    else:
        assert isinstance(found, Delivery), "a slip that is not on paper must not keep another from it"


async def test_of_two_that_wait_for_one_another_one_is_printed(store: Store) -> None:
    first = await printed(store, arrived(), State.DEFERRED)
    second = await begun(store, arrived())
    assert isinstance(await begin_job(store, second), Twin)
    assert await store.paper(second.key) is None
    (claimed,) = [each for each in await due(store, first) if each.key == first.key]
    assert isinstance(await begin_job(store, await store.begin(claimed, time.time() + 60)), Delivery)


async def due(store: Store, *which: Delivery) -> list[Delivery]:
    for delivery in which:
        of_it = deliveries.c.queue_id == delivery.message.queue_id
        await store.write(lambda c, of_it=of_it: c.execute(update(deliveries).where(of_it).values(due_at=0.0)))  # type: ignore[misc]
    return (await store.claim(10))[0]


async def test_the_first_one_released_after_the_second_was_printed_is_the_duplicate(store: Store) -> None:
    first = await printed(store, arrived(), State.HELD)
    second = await printed(store, arrived())
    await release(store, first)
    (claimed,) = await due(store)
    twin = await begin_job(store, await store.begin(claimed, time.time() + 60))
    assert twin == Twin(second.key, is_printed=True, by="message-id")


async def test_an_uncertain_slip_that_a_person_has_printed_again_is_printed_again(store: Store) -> None:
    first = await printed(store, arrived(), State.UNCERTAIN)
    await printed(store, arrived())
    await release(store, first)
    (claimed,) = await due(store)
    assert isinstance(await begin_job(store, await store.begin(claimed, time.time() + 60)), Delivery)


async def release(store: Store, delivery: Delivery) -> None:
    order = Order(Verb.RELEASE, "anna", time.time())
    way = Way(WAY[1], WAY[1])
    result = await store.write(lambda c: orders.carry_out(c, order, [delivery.key], lambda d, v: way))
    assert len(result.done) == 1


async def test_deliveries_of_one_message_are_no_duplicates_of_each_other(store: Store) -> None:
    new = new_message(CONTENT, WAY, WAY)
    one, other = await store.accept(new, (time.time() + 60, time.time() + 60))
    for delivery in (one, other):
        assert isinstance(await begin_job(store, delivery, sameness=BY_CONTENT), Delivery)


async def test_an_attempt_that_begins_anew_is_no_duplicate_of_itself(store: Store) -> None:
    delivery = await begin_job(store, await begun(store, arrived()))
    assert isinstance(delivery, Delivery)
    delivery = await begin_job(store, await store.forget_job(delivery), replace(PAPER, pdf=b"%PDF-2"), BY_CONTENT)
    assert isinstance(delivery, Delivery)
    kept = await store.paper(delivery.key)
    assert kept is not None
    assert kept.pdf == b"%PDF-2", "what is printed is kept, and not what was before"
    delivery = await begin_job(store, await store.forget_job(delivery), replace(PAPER, pdf=None))
    assert isinstance(delivery, Delivery)
    assert await store.paper(delivery.key) is None, "nor is what is not to be kept"


async def test_a_worker_that_lost_its_lease_begins_no_job(store: Store) -> None:
    delivery = await begun(store, arrived())
    with pytest.raises(LeaseLost):
        await begin_job(store, replace(delivery, attempts=7))
    assert await store.write(lambda c: (c.execute(select(slips)).all(), c.execute(select(papers)).all())) == ([], [])


async def test_a_late_worker_that_finds_a_duplicate_takes_nothing_back(store: Store) -> None:
    first = await printed(store, arrived())
    second = await begin_job(store, await begun(store, arrived()), sameness=Sameness(message_id=False))
    assert isinstance(second, Delivery)
    with pytest.raises(LeaseLost):
        await begin_job(store, replace(second, attempts=0))
    kept = await store.write(lambda c: c.execute(select(slips.c.queue_id)).scalars().all())
    assert set(kept) == {first.message.queue_id, second.message.queue_id}
    assert await store.paper(second.key) is not None


async def test_of_two_nodes_that_begin_the_same_slip_at_once_one_does(postgres: Postgres) -> None:
    place = Place.of(Spool(url=postgres.create_database()))
    nodes = [Store(place), Store(place)]
    for node in nodes:
        node.open()
    try:
        for _ in range(20):
            both = [await begun(node, arrived(message_id=f"<{time.time()}@x>")) for node in nodes]
            same = both[0].message.message_id
            both = [replace(each, message=replace(each.message, message_id=same)) for each in both]
            found = await asyncio.gather(*(begin_job(node, each) for node, each in zip(nodes, both, strict=True)))
            assert sorted(isinstance(each, Twin) for each in found) == [False, True]
    finally:
        for node in nodes:
            await asyncio.to_thread(node.close)


async def test_the_look_up_goes_along_an_index(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store(Place.file(tmp_path_factory.mktemp("plan") / "spool.db"))
    store.open()
    asked: list[tuple[str, object]] = []
    event.listen(
        store._writer, "before_cursor_execute", lambda c, cursor, words, values, *_: asked.append((words, values))
    )
    await begin_job(store, await begun(store, arrived()), sameness=BY_CONTENT)
    look_ups = [(words, values) for words, values in asked if "JOIN deliveries" in words and "slips" in words]
    assert len(look_ups) == 2
    for words, values in look_ups:
        plan = await store.write(
            lambda c, words=words, values=values: [  # type: ignore[misc]
                row[-1] for row in c.exec_driver_sql(f"EXPLAIN QUERY PLAN {words}", values)
            ]
        )
        assert any("USING INDEX ix_slips_" in step for step in plan), plan
        assert not any(step.startswith("SCAN") for step in plan), plan
    await asyncio.to_thread(store.close)


async def test_yesterday_s_code_can_write_into_today_s_tables(store: Store) -> None:
    await begun(store, arrived())
    columns = "queue_id, number, recipient, route, destination, notify, orcpt, state, reason, evidence, attempts"
    await store.write(
        lambda c: c.execute(
            text(
                f"INSERT INTO deliveries ({columns}, next_attempt_at) SELECT queue_id, 1, recipient, route, "
                "destination, notify, orcpt, state, reason, evidence, attempts, next_attempt_at FROM deliveries"
            )
        )
    )
    line = list_deliveries(store.place)[-1]
    assert (line.number, line.reprint_of, line.marked, line.duplicate_of) == (1, None, False, "")
