"""Printers that stand in for one in trouble, and printers that share a load."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pypdf
import pytest
import pytest_asyncio

from tests.harness import samples
from tests.harness.playground import Playground
from tests.harness.waiting import until
from tests.journeys.story import Story

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXTRA = {
    "printers": [
        {
            "name": "main",
            "institution": "demo",
            "mailboxes": ["main@print.lib.example"],
            "queue": "a5",
            "profile": "a5",
            "desk": "Main desk",
            "alternates": ["receipt", "laser"],
            "alternate_after": "1s",
            "alternate_for": ["paper", "offline"],
        },
        {
            "name": "pool",
            "institution": "demo",
            "mailboxes": ["pool@print.lib.example"],
            "queue": "a5",
            "profile": "a5",
            "shares_with": ["laser"],
        },
    ]
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    async with Playground(tmp_path_factory.mktemp("stand-ins") / "all", extra=EXTRA) as playground:
        # The first of the alternates is in trouble as well.
        await playground.cupsd.command("cupsreject", "receipt")
        yield Story(playground)


async def slips(story: Story, printer: str, count: int) -> list[str]:
    mailbox = f"{printer}@print.lib.example"
    return [await story.submit(samples.request_slip(recipient=mailbox), mailbox) for _ in range(count)]


def printed(story: Story, printer: str, numbers: list[str]) -> list[str]:
    """Which of these slips came out of a printer, in order."""
    names = [name.split("-")[1] for name in story.printers[printer].job_names()]
    return [name for name in names if name in numbers]


async def test_slips_behind_one_that_is_stuck_come_out_elsewhere_and_say_so(desk: Story) -> None:
    await desk.settled(*await slips(desk, "main", 1))  # the printer is known to answer
    a5, laser = desk.printers["a5"], desk.printers["laser"]
    before = len(laser.papers())
    await a5.fault("media-empty")
    numbers = await slips(desk, "main", 3)
    await desk.settled(*numbers[1:], seconds=40)
    papers = (await laser.wait_for_papers(before + 2))[before:]
    assert printed(desk, "laser", numbers) == numbers[1:]
    assert all("For Main desk" in (pypdf.PdfReader(paper).pages[0].extract_text() or "") for paper in papers)
    assert desk.deliveries(numbers[0])[0].state == "pending"
    assert {line.route for line in desk.deliveries(*numbers[1:])} == {"print:laser"}
    await a5.mend()
    await desk.settled(numbers[0])
    assert printed(desk, "a5", numbers) == numbers[:1]


async def test_all_slips_of_a_printer_that_is_switched_off_come_out_elsewhere_until_it_is_back(desk: Story) -> None:
    a5 = desk.printers["a5"]
    await a5.fault("offline")
    numbers = await slips(desk, "main", 3)
    lines = await desk.settled(*numbers, seconds=40)
    assert {line.route for line in lines} == {"print:laser"}
    assert printed(desk, "laser", numbers) == numbers
    await a5.mend()
    back = await slips(desk, "main", 1)
    (line,) = await desk.settled(*back, seconds=40)
    assert (line.route, printed(desk, "a5", back)) == ("print:main", back)


async def test_trouble_that_is_not_listed_moves_nothing(desk: Story) -> None:
    a5 = desk.printers["a5"]
    await a5.fault("media-jam")
    numbers = await slips(desk, "main", 2)
    await until(lambda: "media-jam" in desk.deliveries(numbers[0])[0].reason, "the jam to be seen", seconds=20)
    await a5.mend()
    lines = await desk.settled(*numbers, seconds=40)
    assert {line.route for line in lines} == {"print:main"}
    assert printed(desk, "a5", numbers) == numbers


async def test_printers_of_a_pool_share_the_load(desk: Story) -> None:
    a5 = desk.printers["a5"]
    await a5.fault("slow 3")
    numbers = await slips(desk, "pool", 6)
    try:
        await desk.settled(*numbers, seconds=60)
    finally:
        await a5.mend()
    here, there = printed(desk, "a5", numbers), printed(desk, "laser", numbers)
    assert sorted(here + there) == sorted(numbers)
    assert len(there) > len(here) > 0
