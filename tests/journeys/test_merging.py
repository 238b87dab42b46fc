"""Short slips that waited come out on few sheets, as one job: each once, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pypdf
import pytest
import pytest_asyncio

from relay.spool.engine import Place
from relay.spool.queries import DeliveryLine, list_deliveries
from tests.harness import crash_points, paper_checks, samples
from tests.harness.appliance import Appliance, command
from tests.harness.crash_bench import ROOT
from tests.harness.playground import Playground
from tests.harness.printers import VirtualPrinter
from tests.harness.process import DiedEarly
from tests.harness.verdict import under_way
from tests.harness.waiting import until
from tests.journeys.story import Story

pytestmark = pytest.mark.asyncio(loop_scope="session")

DAY = 86400
TO, ROLL = "stacks@print.lib.example", "desk@print.lib.example"
SPARE = "spare@print.lib.example"
BLANK = b"From: a@lib.example\r\nMessage-ID: <blank@lib.example>\r\nContent-Type: text/html\r\n\r\n<p> </p>\r\n"

POINTS = (
    "claim_batch: committed",
    "bundle: written",
    "bundle: committed",
    "part: committed",
    "begin_bundle: written",
    "begin_bundle: committed",
    "create_job: answered",
    "document: half sent",
    "send_document: answered",
    "settle: written",
)
"""Where a bundle is in most doubt, in the order of its journey."""

FEW = ("part: committed", "document: half sent")


class Stacks(Story):
    """A playground whose printers wait for a time that is half a day away, and a service that can think it has come."""

    def __init__(self, playground: Playground, folder: Path) -> None:
        self._order = folder / "order"
        playground.appliance = Appliance(
            playground.institution.config,
            playground.ports.smtp,
            playground.folder / "log",
            environment={
                crash_points.ORDER: str(self._order),
                crash_points.DIARY: str(folder / "diary"),
                "PYTHONPATH": str(ROOT),
            },
            wrapper=[sys.executable, "-m", "tests.harness.crash_points"],
        )
        super().__init__(playground)

    async def start(self, *, ahead: int = 0, point: str | None = None) -> None:
        """Starts the service, a day ahead or at its time; it may be one that is to die."""
        self._order.write_text(json.dumps({"ahead": ahead, "point": point}), encoding="utf-8")
        try:
            await self.appliance.start()
        except DiedEarly:
            if self.appliance.exit_code != -signal.SIGKILL:
                raise

    async def released(self) -> None:
        """The time has come."""
        await self.appliance.stop()
        await self.start(ahead=DAY)

    async def say(self, *arguments: str) -> tuple[int, str]:
        """Runs a command of slip-relay beside the service; gives its exit code and what it said."""
        first = 2 if arguments[0] == "queue" else 1
        config = str(self.playground.institution.config)
        words = [*command(), *arguments[:first], "-c", config, *arguments[first:]]
        child = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await child.communicate()
        assert b"Traceback" not in output, output.decode()
        assert child.returncode is not None
        return child.returncode, output.decode()

    def all(self) -> list[DeliveryLine]:
        return list_deliveries(self.place)

    def bundles(self) -> list[DeliveryLine]:
        return [line for line in self.all() if line.is_bundle]

    @property
    def place(self) -> Place:
        return Place.file(self.playground.institution.spool)


@pytest_asyncio.fixture(loop_scope="session")
async def stacks(tmp_path: Path) -> AsyncIterator[Stacks]:
    release = f"{datetime.now(UTC) + timedelta(hours=12):%H:%M}"
    common: dict[str, Any] = {"institution": "demo", "release_at": [release], "time_zone": "UTC"}
    extra = {
        "delivery": {"retry_first": "0.3s", "retry_longest": "2s"},
        "printers": [
            {"name": "stacks", "mailboxes": [TO], "queue": "laser", "profile": "a4", **common},
            {
                "name": "spare",
                "mailboxes": [SPARE],
                "queue": "laser",
                "profile": "a4",
                "alternates": ["a5"],
                "alternate_after": "1s",
                **common,
            },
            {"name": "roll", "mailboxes": [ROLL], "queue": "receipt", "profile": "receipt80", **common},
        ],
        "rules": [{"name": "short-slips", "recipient": "*@print.lib.example", "merge": True}],
    }
    playground = Playground(tmp_path / "own", extra=extra, start_appliance=False)
    story = Stacks(playground, tmp_path)
    async with playground:
        await story.start()
        yield story


def slip(number: int, to: str = TO) -> bytes:
    item = samples.Item(title=f"Volume {number} of many", barcode=f"SB-{204_000 + number}")
    message_id = f"<{number}.{to}>"
    if number % 2:
        return samples.transit_slip(to, item=item, external=f"TR-{550_000 + number}", message_id=message_id)
    return samples.request_slip(to, item=item, request=f"{293_104_488_000 + number}", message_id=message_id)


def barcodes(count: int) -> Counter[str]:
    return Counter(value for n in range(count) for value in paper_checks.barcodes_in_source(slip(n)))


def scanned(paper: Path, dpi: int = 300) -> Counter[str]:
    pages = paper_checks.rasters(paper.read_bytes(), dpi)
    return Counter(value for page in pages for value in paper_checks.read_by_zbar(page))


def text_of(paper: Path) -> str:
    return " ".join("".join(page.extract_text() or "" for page in pypdf.PdfReader(paper).pages).split())


def volumes(paper: Path) -> Counter[int]:
    text = text_of(paper)
    return Counter({n: text.count(f"Volume {n} of many") for n in range(20) if f"Volume {n} of many" in text})


async def test_what_waited_is_one_job_on_few_sheets_with_each_slip_once(stacks: Stacks) -> None:
    numbers = [await stacks.submit(slip(n), TO) for n in range(12)]
    blank = await stacks.submit(BLANK, TO)
    receipts = [await stacks.submit(slip(n, ROLL), ROLL) for n in range(3)]
    assert {line.state for line in stacks.all()} == {"queued"}
    laser = stacks.printers["laser"]
    await laser.fault("media-empty")
    await stacks.released()

    # While the printer is out of paper the slips are in the bundle, and a person is told so.
    await until(lambda: "media-empty" in "".join(line.reason for line in stacks.bundles()), "the bundle to wait")
    bundle = next(line for line in stacks.bundles() if line.route == "print:stacks")
    named = f"{bundle.queue_id}/{bundle.number}"
    assert bundle.queue_id == numbers[0]
    assert {line.state for line in stacks.deliveries(*numbers)} == {"pending"}
    code, said = await stacks.say("queue", "cancel", numbers[5])
    assert code == 1
    assert f"{numbers[5]}/0 is left as it is: it is printed in one document with others, the bundle {named}" in said
    # The name of the first message means its own slip, and not the eleven others.
    code, said = await stacks.say("queue", "cancel", numbers[0])
    assert (code, said.count("is left as it is")) == (1, 1)
    await laser.mend()

    await stacks.settled(*numbers, *receipts, seconds=60)
    (paper,) = laser.papers()
    assert len(pypdf.PdfReader(paper).pages) == 6, "two of these slips fit a sheet"
    assert volumes(paper) == Counter(range(12))
    assert scanned(paper) == barcodes(12)
    assert len([name for name in laser.job_names() if name.startswith("slip-")]) == 1
    for line in stacks.deliveries(*numbers):
        assert (line.state, line.evidence) == ("delivered", "device-confirmed")
        assert line.is_bundle or line.bundle == named
    (held,) = stacks.deliveries(blank)
    assert (held.state, held.bundle) == ("held", "")
    assert "can't be rendered: nothing of the letter can be seen" in held.reason
    # On a roll it is one piece.
    (strip,) = stacks.printers["receipt"].papers()
    assert len(pypdf.PdfReader(strip).pages) == 1
    assert volumes(strip) == Counter(range(3))

    _, shown = await stacks.say("queue", "show", numbers[7])
    assert f"a slip of the bundle {named}: one document with others" in shown
    _, shown = await stacks.say("queue", "show", numbers[0])
    assert f"a bundle, one document of 12 slips: {numbers[0]}/0, {numbers[1]}/0" in shown

    # It comes again, at whatever time: it is on paper already.
    twice = await stacks.submit(slip(4), TO)
    await stacks.say("queue", "retry", twice)
    (line,) = await stacks.settled(twice, state="cancelled")
    assert line.duplicate_of == f"{numbers[4]}/0"
    # Once more: a slip of it by itself, and all of it as it was.
    await stacks.say("reprint", f"{numbers[3]}/0")
    (alone,) = set(await laser.wait_for_papers(2, seconds=30)) - {paper}
    assert volumes(alone) == Counter({3: 1})
    await stacks.say("reprint", named)
    (again,) = set(await laser.wait_for_papers(3, seconds=30)) - {paper, alone}
    assert (volumes(again), len(pypdf.PdfReader(again).pages)) == (Counter(range(12)), 6)
    assert text_of(again).count("REPRINT") == 6


@pytest.mark.parametrize("points", [FEW, pytest.param(POINTS, marks=pytest.mark.prove)], ids=["few", "all"])
async def test_killed_again_and_again_each_slip_is_on_paper_once(stacks: Stacks, points: tuple[str, ...]) -> None:
    numbers = [await stacks.submit(slip(n), TO) for n in range(4)]
    blank = await stacks.submit(BLANK, TO)
    await stacks.appliance.stop()
    for point in points:
        await stacks.start(ahead=DAY, point=point)
        await until(lambda: not stacks.appliance.alive, point, seconds=40)
        assert stacks.appliance.exit_code == -signal.SIGKILL
    await stacks.start(ahead=DAY)
    await until(lambda: under_way(stacks.place) == 0, lambda: f"all to end: {stacks.all()}", seconds=60)
    laser: VirtualPrinter = stacks.printers["laser"]
    papers = [volumes(paper) for paper in laser.papers()]
    assert sum(papers, Counter()) == Counter(range(4)), "each once, in however many documents"
    assert papers == [Counter(range(4))]
    lines = stacks.deliveries(*numbers)
    assert {(line.state, line.evidence) for line in lines} == {("delivered", "device-confirmed")}
    assert [line.is_bundle for line in lines].count(True) == 1
    assert [line.state for line in stacks.deliveries(blank)] == ["held"]


@pytest.mark.prove
async def test_a_bundle_that_is_held_is_let_go_cancelled_and_printed_as_one(stacks: Stacks) -> None:
    numbers = [await stacks.submit(slip(n), TO) for n in range(3)]
    laser = stacks.printers["laser"]
    await stacks.playground.cupsd.command("cupsreject", "laser")
    await stacks.released()
    await until(lambda: any(line.state == "deferred" for line in stacks.bundles()), "CUPS to refuse it")
    named = f"{numbers[0]}/1"
    while stacks.bundles()[0].state != "held":  # an order is not heard while an attempt runs
        _, said = await stacks.say("queue", "hold", named)
        assert "was deferred and is held" in said or "try again in a moment" in said
    assert {line.state for line in stacks.deliveries(*numbers) if not line.is_bundle} == {"pending"}
    await stacks.playground.cupsd.command("cupsaccept", "laser")
    code, said = await stacks.say("queue", "release", named)
    assert code == 0, said
    await stacks.settled(*numbers, seconds=60)
    assert [volumes(paper) for paper in laser.papers()] == [Counter(range(3))]


@pytest.mark.prove
async def test_another_printer_that_stands_in_prints_all_of_it(stacks: Stacks) -> None:
    numbers = [await stacks.submit(slip(n, SPARE), SPARE) for n in range(3)]
    await stacks.playground.cupsd.command("cupsdisable", "laser")
    await stacks.released()
    lines = await stacks.settled(*numbers, seconds=90)
    (paper,) = stacks.printers["a5"].papers()
    assert volumes(paper) == Counter(range(3))
    assert scanned(paper) == barcodes(3)
    assert text_of(paper).count("For spare") == 3
    assert {line.route for line in lines} == {"print:a5"}
    assert {line.evidence for line in lines} == {"device-confirmed"}
