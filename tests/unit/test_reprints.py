"""A slip once more: the order, what it makes, and who may have what printed where."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from sqlalchemy import delete, update

from relay.config.settings import Config
from relay.control.again import again
from relay.control.desk import Desk
from relay.control.protocol import Reprint
from relay.maillog import MailLog
from relay.spool.duplicates import begin_job
from relay.spool.engine import Place
from relay.spool.histories import message_history
from relay.spool.orders import Result
from relay.spool.queries import DeliveryLine, list_deliveries, slips_of
from relay.spool.records import FINAL, Delivery, Key, Outcome, Paper, PrintJob, Sameness, State
from relay.spool.schema import bodies, deliveries
from relay.spool.store import Store
from tests.accepted import new_message

pytestmark = pytest.mark.asyncio

CONTENT = b"From: a@lib.example\r\n\r\nhello\r\n"
WAY = ("desk@print.lib.example", "print:desk")
PAPER = Paper("desk", "c" * 64, "a4", 1, 210.0, 297.0, b"%PDF-1.7 slip")


def printers() -> list[dict[str, object]]:
    common = {"queue": "q", "profile": "a4"}
    return [
        {"name": "desk", "institution": "demo", "mailboxes": ["desk@print.lib.example"], **common},
        {
            "name": "office",
            "institution": "demo",
            "mailboxes": ["office@print.lib.example"],
            "mark_reprints": False,
            **common,
        },
        {"name": "law-desk", "institution": "law", "mailboxes": ["desk@print.law.example"], **common},
    ]


class Bench:
    """A spool, and a desk that takes orders for it."""

    def __init__(self, place: Place, config: Config) -> None:
        self.store = Store(place)
        self.store.open()
        self.woken = 0
        self.desk = Desk(config, self.store, MailLog(), self._wake)

    def _wake(self) -> None:
        self.woken += 1

    async def put(self, state: State = State.DELIVERED, way: tuple[str, str] = WAY, **wishes: object) -> Delivery:
        """A delivery that ended in a state, as the service would have left it."""
        new = new_message(CONTENT, way, **wishes)
        (delivery,) = await self.store.accept(new, (time.time() + 60,))
        begun = await self.store.begin_job(delivery, PrintJob(f"slip-{delivery}", "q"), PAPER, Sameness())
        assert isinstance(begun, Delivery)
        await self.store.settle(begun, Outcome(state, "so it ended"), time.time() + 900)
        of_it = deliveries.c.queue_id == delivery.message.queue_id
        await self.store.write(lambda c: c.execute(update(deliveries).where(of_it).values(state=state.value)))
        return delivery

    async def reprint(self, *keys: Key, printer: str = "", mark: bool | None = None, why: str = "") -> Result:
        return await self.desk.carry_out(Reprint(keys, why, printer, mark), "anna")

    def lines(self, delivery: Delivery) -> list[DeliveryLine]:
        return [line for line in list_deliveries(self.store.place) if line.queue_id == delivery.message.queue_id]


@pytest_asyncio.fixture
async def bench(place: Place, make_config: Callable[..., Config]) -> AsyncIterator[Bench]:
    law = {"name": "law", "domains": ["law.example"], "envelope_from": "a@law.example", "next_hop": "default"}
    demo = {"name": "demo", "domains": ["lib.example"], "bounce_domain": "bounces.lib.example"}
    bench = Bench(place, make_config(printers=printers(), institutions=[demo, law]))
    yield bench
    await asyncio.to_thread(bench.store.close)


async def test_a_reprint_is_a_further_delivery_that_is_due_at_once(bench: Bench) -> None:
    delivery = await bench.put(profile="a5", copies=2, notify="SUCCESS", orcpt="rfc822;x")
    (done,) = (await bench.reprint(delivery.key, why="the first one got wet")).done
    assert (done.key, done.was, done.now, done.made) == (delivery.key, State.DELIVERED, State.DELIVERED, 1)
    assert bench.woken == 1, "the runner looks for it at once"
    (new,), _ = await bench.store.claim(10)
    assert (new.key, new.state, new.route, new.recipient) == (
        (delivery.message.queue_id, 1),
        State.QUEUED,
        WAY[1],
        WAY[0],
    )
    assert (new.reprint_of, new.marked, new.copy_of, new.job) == (0, True, None, None)
    assert (new.profile, new.copies, new.notify, new.orcpt) == ("a5", 2, "NEVER", "")
    history = message_history(bench.store.place, delivery.message.queue_id)
    assert history is not None
    first, second = history.deliveries
    assert (first.line.state, first.has_paper, first.orders) == ("delivered", True, ())
    (order,) = second.orders
    assert (order.verb, order.who, order.was, order.why) == ("reprint", "anna", "delivered", "the first one got wet")


async def test_each_order_is_one_reprint_and_all_of_them_are_of_the_first(bench: Bench) -> None:
    delivery = await bench.put()
    await bench.reprint(delivery.key)
    (new,), _ = await bench.store.claim(10)
    await bench.store.settle(await bench.store.begin(new, time.time() + 60), Outcome(State.DELIVERED), 0)
    await bench.reprint(new.key, mark=False)
    assert [(line.number, line.reprint_of, line.marked) for line in bench.lines(delivery)] == [
        (0, None, False),
        (1, 0, True),
        (2, 0, False),
    ]
    assert slips_of(bench.store.place, delivery.message.queue_id, "print:") == [delivery.key]


async def test_several_at_once_each_with_its_own_answer(bench: Bench) -> None:
    one, other, held = await bench.put(), await bench.put(), await bench.put(State.HELD)
    result = await bench.reprint(one.key, held.key, other.key, ("0" * 13, 0), one.key)
    assert [(done.key, done.made) for done in result.done] == [(one.key, 1), (other.key, 1)]
    assert [(each.key, each.why) for each in result.refused] == [
        (held.key, "it is held: release it, then it is printed"),
        (("0" * 13, 0), "there is no such delivery"),
    ]


@pytest.mark.parametrize("state", State)
async def test_only_what_is_settled_is_printed_once_more(bench: Bench, state: State) -> None:
    delivery = await bench.put(state)
    result = await bench.reprint(delivery.key)
    if state in FINAL:
        assert len(result.done) == 1, "also a duplicate, or what somebody cancelled: a person says so"
    else:
        assert result.refused[0].why
        assert [line.state for line in bench.lines(delivery)] == [state]


async def test_on_another_printer_of_the_same_institution_and_on_no_other(bench: Bench) -> None:
    delivery = await bench.put(profile="a5")
    await bench.reprint(delivery.key, printer="office")
    (new,), _ = await bench.store.claim(10)
    assert (new.route, new.destination, new.marked) == ("print:office", "print:office", False)
    assert new.profile == "", "what a rule chose for the paper of one printer is not for another"
    refused = (await bench.reprint(delivery.key, printer="law-desk")).refused
    assert refused[0].why == "the printer law-desk is that of law, and the slip is demo's"
    refused = (await bench.reprint(delivery.key, printer="nowhere")).refused
    assert refused[0].why == "the configuration has no printer 'nowhere'"
    assert len(bench.lines(delivery)) == 2


async def test_what_is_no_slip_or_has_no_printer_any_more_is_refused(bench: Bench) -> None:
    letter = await bench.put(way=("reader@patron.example", "default"))
    assert (await bench.reprint(letter.key)).refused[0].why == "it is no slip: it goes by default"
    gone = await bench.put(way=("old@print.lib.example", "print:old"))
    why = (await bench.reprint(gone.key)).refused[0].why
    assert why == "the configuration has no printer 'old'; name another one with --printer"
    assert len((await bench.reprint(gone.key, printer="desk")).done) == 1


async def test_without_its_bytes_there_is_no_reprint(bench: Bench) -> None:
    delivery = await bench.put()
    await bench.store.write(lambda c: c.execute(delete(bodies)))
    assert "spool.keep_bodies" in (await bench.reprint(delivery.key)).refused[0].why


async def test_a_reprint_is_no_duplicate_and_makes_none(bench: Bench) -> None:
    delivery = await bench.put()
    await bench.reprint(delivery.key)
    (new,), _ = await bench.store.claim(10)
    new = await bench.store.begin(new, time.time() + 60)
    job = PrintJob(f"slip-{new}", "q")
    sameness = Sameness(content=600.0)
    begun = await bench.store.write(lambda c: begin_job(c, bench.store.node, new, job, PAPER, sameness))
    assert isinstance(begun, Delivery)
    assert await bench.store.paper(new.key) is None, "the PDF is kept once"


async def test_the_order_is_logged_and_counted(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    delivery = await bench.put()
    with caplog.at_level("INFO", logger="slip-relay"):
        await bench.reprint(delivery.key)
    (line,) = [record.getMessage() for record in caplog.records if "event=order" in record.getMessage()]
    assert f"id={delivery.message.queue_id} delivery=0 verb=reprint who=anna" in line
    assert "made=1" in line
    assert 'slip_relay_orders_total{verb="reprint"} 1.0' in bench.desk._maillog.metrics.text()


async def test_who_orders_says_whether_it_is_marked_else_the_printer_does(make_config: Callable[..., Config]) -> None:
    law = {"name": "law", "domains": ["law.example"], "envelope_from": "a@law.example", "next_hop": "default"}
    demo = {"name": "demo", "domains": ["lib.example"], "bounce_domain": "bounces.lib.example"}
    config = make_config(printers=printers(), institutions=[demo, law])
    slip = Delivery(new_message(CONTENT, WAY).message, 0, *WAY, WAY[1], State.DELIVERED, 1, 0.0)
    assert [again(config, "", mark)(slip).marked for mark in (None, True, False)] == [True, True, False]
    assert [again(config, "office", mark)(slip).marked for mark in (None, True, False)] == [False, True, False]
