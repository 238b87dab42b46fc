"""A slip that comes twice and is printed once, and one that a person has printed once more: with a real printer."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pypdf
import pytest
import pytest_asyncio

from relay.config.load import load
from relay.control.client import metrics_of
from tests.harness import paper_checks, samples
from tests.harness.appliance import command
from tests.harness.playground import Playground
from tests.harness.printers import VirtualPrinter
from tests.harness.waiting import until
from tests.journeys.story import Story

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXTRA: dict[str, Any] = {
    "institutions": [
        {"name": "law", "domains": ["law.example"], "envelope_from": "alma-bounces@law.example", "next_hop": "default"}
    ],
    "printers": [
        {
            "name": "careful",
            "institution": "demo",
            "mailboxes": ["careful@print.lib.example"],
            "queue": "laser",
            "profile": "a4",
            "duplicates": {"content": "10m"},
            "mark_reprints": False,
        },
        {
            "name": "law-desk",
            "institution": "law",
            "mailboxes": ["desk@print.law.example"],
            "queue": "laser",
            "profile": "a4",
        },
    ],
}


class Desk(Story):
    """A playground, and somebody at its command line."""

    async def say(self, *arguments: str) -> tuple[int, str, str]:
        """Runs a command of slip-relay; gives its exit code, what it printed and what it complained of."""
        first = 2 if arguments[0] == "queue" else 1
        child = await asyncio.create_subprocess_exec(
            *command(),
            *arguments[:first],
            "-c",
            str(self.playground.institution.config),
            *arguments[first:],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, complaint = await child.communicate()
        assert child.returncode is not None
        assert b"Traceback" not in complaint, complaint.decode()
        return child.returncode, output.decode(), complaint.decode()

    async def reprint(self, *arguments: str) -> str:
        """Orders a reprint that is done; gives the id of the new delivery."""
        code, output, complaint = await self.say("reprint", *arguments, "--json")
        assert code == 0, complaint
        (done,) = json.loads(output)["done"]
        return str(done["reprint"])

    async def ended(self, delivery: str, state: str = "delivered") -> str:
        """Waits until a delivery is in a state; gives its reason."""
        queue_id, _, number = delivery.partition("/")

        def reasons() -> list[str]:
            lines = self.deliveries(queue_id)
            return [line.reason for line in lines if line.number == int(number or 0) and line.state == state]

        await until(reasons, lambda: f"{delivery} to be {state}; {self.deliveries(queue_id)}", seconds=60)
        return reasons()[0]

    async def printed(self, printer: str, message: bytes | None = None) -> str:
        """A slip that was printed; its queue id."""
        mailbox = self.mailbox(printer)
        number = await self.submit(message or samples.request_slip(recipient=mailbox), mailbox)
        await self.settled(number)
        return number

    def metrics(self) -> str:
        return metrics_of(load(self.playground.institution.config))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    async with Playground(tmp_path_factory.mktemp("reprints") / "all", extra=EXTRA) as playground:
        yield Desk(playground)


def text_of(paper: Path) -> str:
    return " ".join(" ".join(page.extract_text() or "" for page in pypdf.PdfReader(paper).pages).split())


def scanned(paper: Path) -> set[str]:
    """The barcodes that a scanner reads from a paper."""
    return {
        value for page in paper_checks.rasters(paper.read_bytes(), 300) for value in paper_checks.read_by_zbar(page)
    }


async def next_paper(printer: VirtualPrinter, before: int) -> Path:
    """The one paper that came out since."""
    papers = (await printer.wait_for_papers(before + 1))[before:]
    assert len(papers) == 1
    return papers[0]


# --- duplicates


async def test_a_message_that_is_handed_in_twice_is_printed_once(desk: Desk) -> None:
    printer = desk.printers["laser"]
    before, mailbox = len(printer.papers()), desk.mailbox("laser")
    message = samples.request_slip(recipient=mailbox)
    first = await desk.printed("laser", message)
    second = await desk.submit(b"Received: by another path\r\n" + message, mailbox)
    reason = await desk.ended(second, "cancelled")
    assert reason == f"the same slip as {first}/0, which is printed once: it came in again"
    assert len(printer.papers()) == before + 1
    (line,) = desk.deliveries(second)
    assert (line.evidence, line.duplicate_of) == ("duplicate", f"{first}/0")
    log = desk.appliance.log.read_text(encoding="utf-8")
    assert f"event=duplicate id={second} delivery=0 printer=laser of={first}/0 by=message-id" in log
    assert 'slip_relay_duplicates_total{by="message-id",printer="laser"}' in await asyncio.to_thread(desk.metrics)
    assert f"came again as {second}/0, which was not printed" in (await desk.say("queue", "show", first))[1]
    shown = (await desk.say("queue", "show", second))[1]
    assert f"a duplicate of {first}/0, and no paper of its own" in shown
    assert "(duplicate)" in (await desk.say("queue", "list", "--state", "cancelled"))[1]


async def test_of_two_that_come_at_once_one_is_printed(desk: Desk) -> None:
    printer, mailbox = desk.printers["a5"], desk.mailbox("a5")
    before = len(printer.papers())
    message = samples.request_slip(recipient=mailbox)
    numbers = await asyncio.gather(*(desk.submit(message, mailbox) for _ in range(3)))

    def states() -> list[str]:
        return sorted(line.state for line in desk.deliveries(*numbers))

    await until(lambda: states() == ["cancelled", "cancelled", "delivered"], lambda: f"an end; {states()}", seconds=90)
    assert len(printer.papers()) == before + 1


async def test_a_slip_whose_first_copy_never_came_onto_paper_is_printed(desk: Desk) -> None:
    cupsd, printer, mailbox = desk.playground.cupsd, desk.printers["laser"], desk.mailbox("laser")
    before, message = len(printer.papers()), samples.request_slip(recipient=mailbox)
    await cupsd.command("cupsdisable", "laser")
    first = await desk.submit(message, mailbox)
    await until(lambda: desk.deliveries(first)[0].state == "pending", "the slip to be with CUPS")
    await cupsd.command("cancel", "-a", "laser")
    await desk.ended(first, "held")
    await cupsd.command("cupsenable", "laser")
    second = await desk.submit(message, mailbox)
    await desk.settled(second)
    assert len(printer.papers()) == before + 1
    assert (await desk.say("queue", "release", first))[0] == 0
    assert (await desk.ended(first, "cancelled")).startswith(f"the same slip as {second}/0")
    assert len(printer.papers()) == before + 1


async def test_the_same_content_is_printed_again_unless_the_printer_says_otherwise(desk: Desk) -> None:
    printer = desk.printers["laser"]
    before = len(printer.papers())
    for _ in range(2):  # as a desk does that prints a slip again in Alma
        await desk.printed("laser")
    assert len(printer.papers()) == before + 2
    first = await desk.printed("careful")
    mailbox = desk.mailbox("careful")
    second = await desk.submit(samples.request_slip(recipient=mailbox), mailbox)
    reason = await desk.ended(second, "cancelled")
    assert reason == f"the same slip as {first}/0, which is printed once: another message with the same content"
    other = samples.request_slip(recipient=mailbox, item=samples.invented_items(2)[1])
    await desk.printed("careful", other)
    assert len(printer.papers()) == before + 4


# --- reprints


async def test_a_reprint_is_what_was_printed_and_says_so(desk: Desk) -> None:
    printer = desk.printers["laser"]
    before = len(printer.papers())
    number = await desk.printed("laser")
    first = text_of(await next_paper(printer, before))
    made = await desk.reprint(number, "--reason", "the first one got wet")
    assert made == f"{number}/1"
    reason = await desk.ended(made)
    assert f"a reprint of {number}/0, from the PDF that was kept" in reason
    again = await next_paper(printer, before + 1)
    text = text_of(again)
    assert "REPRINT 20" in text
    assert set(first.split()) < set(text.split())
    assert scanned(again) == scanned(printer.papers()[before])
    assert len(scanned(again)) == 2
    log = desk.appliance.log.read_text(encoding="utf-8")
    assert f"event=reprint id={number} delivery=1 printer=laser of={number}/0 source=kept" in log
    shown = (await desk.say("queue", "show", number))[1]
    assert f"delivery {number}/1, a marked reprint of {number}/0" in shown
    assert "said: reprint (it was delivered): the first one got wet" in shown
    assert "what went to the printer is kept as a PDF" in shown


async def test_a_reprint_without_a_mark_is_the_same_paper(desk: Desk) -> None:
    printer = desk.printers["receipt"]
    before = len(printer.papers())
    number = await desk.printed("receipt")
    await desk.ended(await desk.reprint(f"{number}/0", "--no-mark"))
    one, other = (await printer.wait_for_papers(before + 2))[before:]
    assert text_of(one) == text_of(other)
    await desk.ended(await desk.reprint(f"{number}/0", "--mark"))
    marked = (await printer.wait_for_papers(before + 3))[before + 2]
    assert text_of(marked).replace(text_of(one), "").strip().startswith("REPRINT 20")
    sizes = [pypdf.PdfReader(paper).pages[0].mediabox for paper in (one, marked)]
    assert sizes[0].width == sizes[1].width
    assert 11 < float(sizes[1].height - sizes[0].height) / 72 * 25.4 < 13, "a roll is longer by the strip"


async def test_a_reprint_on_another_printer_is_laid_out_for_it(desk: Desk) -> None:
    number = await desk.printed("laser")
    small = desk.printers["a5"]
    before = len(small.papers())
    reason = await desk.ended(await desk.reprint(number, "--printer", "a5"))
    assert f"a reprint of {number}/0, rendered again" in reason
    paper = await next_paper(small, before)
    assert "rendered again" in text_of(paper)
    assert round(float(pypdf.PdfReader(paper).pages[0].mediabox.width) / 72 * 25.4) == 148


async def test_a_duplicate_can_be_printed_by_order(desk: Desk) -> None:
    printer, mailbox = desk.printers["laser"], desk.mailbox("laser")
    message = samples.request_slip(recipient=mailbox)
    await desk.printed("laser", message)
    second = await desk.submit(message, mailbox)
    await desk.ended(second, "cancelled")
    before = len(printer.papers())
    await desk.ended(await desk.reprint(second))
    await next_paper(printer, before)


async def test_several_slips_in_one_order(desk: Desk) -> None:
    printer = desk.printers["laser"]
    numbers = [
        await desk.printed("careful", samples.transit_slip(recipient=desk.mailbox("careful"), item=item))
        for item in samples.invented_items(2)
    ]
    before = len(printer.papers())
    code, output, _ = await desk.say("reprint", *numbers)
    assert code == 0
    assert output.splitlines() == [f"{n}/0 is printed once more as {n}/1, by print:careful" for n in numbers]
    for number in numbers:
        await desk.ended(f"{number}/1")
    papers = (await printer.wait_for_papers(before + 2))[before:]
    assert not any("REPRINT" in text_of(paper) for paper in papers), "this printer marks none"


async def test_what_can_not_be_printed_once_more_is_said(desk: Desk) -> None:
    slip = await desk.printed("laser")
    letter = await desk.submit(samples.patron_letter(recipient="anna@patron.example"), "anna@patron.example")
    await desk.settled(letter)
    for arguments, complaint in (
        (("0000000000000",), "there is no message 0000000000000 in the spool"),
        ((f"{slip}/7",), f"there is no delivery {slip}/7 in the spool"),
        ((f"{slip}/x",), "is not QUEUE-ID/NUMBER"),
        ((letter,), f"the message {letter} has no slip"),
        ((f"{letter}/0",), f"{letter}/0 is not printed once more: it is no slip: it goes by default"),
        ((slip, "--printer", "lazer"), "there is no printer 'lazer'; there are: "),
        ((slip, "--printer", "law-desk"), "the printer law-desk is that of law, and the slip is demo's"),
    ):
        code, _, said = await desk.say("reprint", *arguments)
        assert code in (1, 2)
        assert complaint in said
    assert len(desk.deliveries(slip)) == 1


async def test_after_a_restart_and_without_its_pdf_a_reprint_is_rendered_again(desk: Desk) -> None:
    printer = desk.printers["laser"]
    number = await desk.printed("laser")
    before = len(printer.papers())
    await desk.appliance.stop(seconds=40)
    made = await desk.reprint(number)  # without a service it is recorded, and printed after the start
    await desk.appliance.start()
    desk.appliance.supervise()
    assert "from the PDF that was kept" in await desk.ended(made)
    await next_paper(printer, before)
    with sqlite3.connect(desk.playground.institution.spool) as spool:
        spool.execute("DELETE FROM papers")
    spool.close()
    made = await desk.reprint(number)
    assert "rendered again: no PDF of it is kept for this profile" in await desk.ended(made)
    paper = (await printer.wait_for_papers(before + 2))[before + 1]
    assert "rendered again" in text_of(paper)


async def test_killed_while_it_reprints_there_is_one_paper(desk: Desk) -> None:
    printer = desk.printers["laser"]
    number = await desk.printed("laser")
    before = len(printer.papers())
    await printer.fault("media-empty")
    made = await desk.reprint(number)
    await until(lambda: desk.deliveries(number)[1].state == "pending", "the reprint to be with CUPS")
    starts = desk.appliance.starts
    await desk.appliance.kill()
    await desk.appliance.restarted(starts)
    await printer.mend()
    await desk.ended(made)
    await next_paper(printer, before)
