"""What an attempt that was cut off leaves behind, and how the next one goes on: with a real CUPS and a real spool.

Each test puts spool and CUPS into the state of a crash at one step of printing, then lets the next attempt run.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from relay.config.load import load
from relay.config.profiles import Profile
from relay.errors import JobUnknown
from relay.maillog import MailLog
from relay.printing.cups import CupsServer
from relay.printing.jobs import JobEnd, job_options
from relay.slips.pool import RenderPool
from relay.spool.engine import Place
from relay.spool.records import Delivery, Outcome, PrintJob, State
from relay.spool.store import Store
from relay.transports.printer import PrinterTransport
from tests.accepted import new_message
from tests.harness import samples
from tests.harness.playground import Playground
from tests.harness.printers import VirtualPrinter
from tests.harness.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLIP = samples.request_slip(recipient="a5@print.lib.example")
A5 = job_options(Profile(name="a5", paper="A5", margin_mm=8.0), (148, 210), 1)


class Desk:
    """A printer's transport with its neighbours, and no service around them."""

    def __init__(self, playground: Playground, store: Store, renderer: RenderPool) -> None:
        config = load(playground.institution.config)
        self.playground = playground
        self.store = store
        self.cups = CupsServer(config.cups)
        self.renderer = renderer
        self.printer: VirtualPrinter = playground.printers["a5"]
        self.transport = PrinterTransport(config.printer("a5"), config, store, renderer, self.cups, MailLog())
        self.profile = config.profile("a5")

    async def cut_off(self, job: PrintJob | None) -> Delivery:
        """A delivery whose attempt ended in a crash, with the job that was recorded by then."""
        new = new_message(SLIP, ("a5@print.lib.example", "print:a5"))
        delivery = (await self.store.accept(new, (None,)))[0]
        delivery = await self.store.begin(delivery, time.time())
        return await self.store.record_job(delivery, job) if job else delivery

    async def next_attempt(self, delivery: Delivery) -> Outcome:
        """What the attempt after the restart makes of it."""
        return await self.transport.deliver(await self.store.begin(delivery, time.time()), SLIP)

    async def pdf(self) -> bytes:
        return (await self.renderer.render(SLIP, self.profile)).pdf


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    folder: Path = tmp_path_factory.mktemp("resume")
    async with Playground(folder / "all", start_appliance=False) as playground:
        # What it has done is on the disk at once, so that it still knows it when it comes back.
        await playground.cupsd.restart_with("DirtyCleanInterval 0")
        store = Store(Place.file(folder / "spool.db"))
        store.open()
        desk = Desk(playground, store, RenderPool(load(playground.institution.config).rendering))
        await desk.renderer.start()
        yield desk
        await desk.renderer.stop()
        store.close()


async def test_crash_before_the_job_was_created(desk: Desk) -> None:
    before = len(desk.printer.papers())
    delivery = await desk.cut_off(PrintJob("slip-never-created", "a5"))
    outcome = await desk.next_attempt(delivery)
    assert (outcome.state, outcome.evidence) == (State.DELIVERED, "device-confirmed")
    assert len(desk.printer.papers()) == before + 1
    assert "slip-never-created" not in desk.printer.job_names()


async def test_crash_after_the_job_was_created_before_its_id_was_committed(desk: Desk) -> None:
    before = len(desk.printer.papers())
    delivery = await desk.cut_off(PrintJob("slip-created", "a5"))
    job_id = await desk.cups.create_job("a5", "slip-created", A5)
    outcome = await desk.next_attempt(delivery)
    assert outcome.state is State.DELIVERED
    assert (await desk.cups.job(job_id, "slip-created")).end is JobEnd.CANCELLED
    assert len(desk.printer.papers()) == before + 1


async def test_crash_after_the_id_was_committed_before_the_document_was_sent(desk: Desk) -> None:
    before = len(desk.printer.papers())
    job_id = await desk.cups.create_job("a5", "slip-empty", A5)
    outcome = await desk.next_attempt(await desk.cut_off(PrintJob("slip-empty", "a5", job_id)))
    assert outcome.state is State.DELIVERED
    assert (await desk.cups.job(job_id, "slip-empty")).end is JobEnd.CANCELLED
    assert len(desk.printer.papers()) == before + 1


async def test_a_document_that_comes_after_the_slip_was_taken_over_is_not_printed(desk: Desk) -> None:
    """The node that created the job was not dead but late, as a machine that was suspended."""
    before = len(desk.printer.papers())
    job_id = await desk.cups.create_job("a5", "slip-late", A5)
    outcome = await desk.next_attempt(await desk.cut_off(PrintJob("slip-late", "a5", job_id)))
    await desk.cups.send_document("a5", job_id, "slip-late", await desk.pdf())
    last = await desk.cups.create_job("a5", "slip-behind-it", A5)
    await desk.cups.send_document("a5", last, "slip-behind-it", await desk.pdf())
    await desk.printer.wait_for_papers(before + 2)
    assert outcome.state is State.DELIVERED
    assert "slip-late" not in desk.printer.job_names()
    assert not (await desk.cups.job(job_id, "slip-late")).began


async def test_a_crash_between_cancelling_an_empty_job_and_recording_that(desk: Desk) -> None:
    before = len(desk.printer.papers())
    job_id = await desk.cups.create_job("a5", "slip-cancelled", A5)
    await desk.cups.cancel_job(job_id, "slip-cancelled")
    outcome = await desk.next_attempt(await desk.cut_off(PrintJob("slip-cancelled", "a5", job_id)))
    assert outcome.state is State.DELIVERED
    assert len(desk.printer.papers()) == before + 1


async def test_an_empty_job_that_cups_keeps_over_its_own_restart_does_not_block_the_printer(desk: Desk) -> None:
    """CUPS forgets that such a job waits for its document, and would hold it for ever."""
    before = len(desk.printer.papers())
    empty = await desk.cups.create_job("a5", "slip-kept-empty", A5)
    lost = await desk.cups.create_job("a5", "slip-lost-document", A5)
    await desk.playground.cupsd.kill()
    await desk.playground.cupsd.start()
    outcome = await desk.next_attempt(await desk.cut_off(PrintJob("slip-kept-empty", "a5", empty)))
    assert outcome.state is State.DELIVERED
    assert len(desk.printer.papers()) == before + 1
    outcome = await desk.next_attempt(await desk.cut_off(PrintJob("slip-lost-document", "a5", lost, sent=True)))
    assert outcome.state is State.UNCERTAIN
    assert outcome.reason.startswith(f"CUPS has lost the document of the print job {lost}: ")


async def test_crash_after_the_document_was_sent_before_that_was_committed(desk: Desk) -> None:
    before = len(desk.printer.papers())
    job_id = await desk.cups.create_job("a5", "slip-sent", A5)
    await desk.cups.send_document("a5", job_id, "slip-sent", await desk.pdf())
    outcome = await desk.next_attempt(await desk.cut_off(PrintJob("slip-sent", "a5", job_id)))
    assert outcome.reason == f"the printer completed it (job {job_id} of CUPS)"
    assert len(desk.printer.papers()) == before + 1


async def test_crash_after_the_slip_was_on_paper(desk: Desk) -> None:
    before = len(desk.printer.papers())
    job_id = await desk.cups.create_job("a5", "slip-printed", A5)
    await desk.cups.send_document("a5", job_id, "slip-printed", await desk.pdf())
    await desk.printer.wait_for_papers(before + 1)
    outcome = await desk.next_attempt(await desk.cut_off(PrintJob("slip-printed", "a5", job_id, sent=True)))
    assert outcome.state is State.DELIVERED
    assert len(desk.printer.papers()) == before + 1


async def test_a_job_that_cups_has_forgotten_is_uncertain_and_not_printed_again(desk: Desk) -> None:
    before = len(desk.printer.papers())
    for sent in (True, False):
        outcome = await desk.next_attempt(await desk.cut_off(PrintJob(f"slip-gone-{sent}", "a5", 99_999, sent=sent)))
        assert outcome.state is State.UNCERTAIN
        assert "look whether the slip is at the printer" in outcome.reason
    assert len(desk.printer.papers()) == before


async def test_an_id_that_cups_gave_to_another_job_says_nothing_of_the_slip(desk: Desk) -> None:
    """A CUPS that was killed counts on from the last job that it had written down."""
    before = len(desk.printer.papers())
    printed = await desk.cups.create_job("a5", "slip-of-another", A5)
    await desk.cups.send_document("a5", printed, "slip-of-another", await desk.pdf())
    await desk.printer.wait_for_papers(before + 1)
    waiting = await desk.cups.create_job("a5", "slip-of-another-still-empty", A5)
    for number, (job_id, sent) in enumerate(((printed, True), (waiting, True), (waiting, False))):
        job = PrintJob(f"slip-forgotten-{number}", "a5", job_id, sent=sent)
        outcome = await desk.next_attempt(await desk.cut_off(job))
        assert outcome.state is State.UNCERTAIN
    with pytest.raises(JobUnknown, match="has another one of that number"):
        await desk.cups.send_document("a5", waiting, "slip-forgotten", await desk.pdf())
    status = await desk.cups.job(waiting, "slip-of-another-still-empty")
    assert status.is_empty
    assert status.end is None
    assert len(desk.printer.papers()) == before + 1
    await desk.cups.cancel_job(waiting, "slip-of-another-still-empty")


async def test_a_queue_that_is_not_there_defers_and_says_so(desk: Desk) -> None:
    await desk.playground.cupsd.lpadmin("-x", "a5")
    outcome = await desk.next_attempt(await desk.cut_off(None))
    assert outcome.state is State.DEFERRED
    assert outcome.reason == "CUPS has no queue 'a5'"
    await desk.playground.cupsd.add_queue("a5", desk.printer.device_uri)


async def test_cups_away_defers_and_the_slip_is_printed_when_it_is_back(desk: Desk) -> None:
    before = len(desk.printer.papers())
    delivery = await desk.cut_off(None)
    await desk.playground.cupsd.stop()
    outcome = await desk.transport.deliver(delivery, SLIP)
    assert outcome.state is State.DEFERRED
    assert "can't be reached" in outcome.reason
    await desk.playground.cupsd.start()
    outcome = await desk.next_attempt(await as_claimed(desk, delivery))
    assert outcome.state is State.DELIVERED
    assert len(desk.printer.papers()) == before + 1


async def test_a_job_that_cups_gave_up_waiting_for_is_printed_anew(desk: Desk) -> None:
    before = len(desk.printer.papers())
    await desk.playground.cupsd.restart_with("MultipleOperationTimeout 1")
    job_id = await desk.cups.create_job("a5", "slip-given-up", A5)

    async def gave_up() -> bool:
        return (await desk.cups.job(job_id, "slip-given-up")).end is JobEnd.ABORTED

    await until(gave_up, "CUPS to give up waiting for the document", seconds=30)
    outcome = await desk.next_attempt(await desk.cut_off(PrintJob("slip-given-up", "a5", job_id)))
    assert outcome.state is State.DELIVERED
    assert len(desk.printer.papers()) == before + 1
    assert "slip-given-up" not in desk.printer.job_names()


async def as_claimed(desk: Desk, delivery: Delivery) -> Delivery:
    """The delivery as the spool has it now, its print job included."""
    await desk.store.settle(delivery, Outcome(State.DEFERRED, "later"), time.time() - 1)

    async def claimed() -> list[Delivery]:
        return [each for each in (await desk.store.claim(10))[0] if each.key == delivery.key]

    return (await until(claimed, "the delivery to be due"))[0]
