"""What a profile asks of the printer arrives at the device, through a real CUPS and its driverless queues."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pypdf
import pytest
import pytest_asyncio

from relay.config.printers import Cups
from relay.config.profiles import Profile
from relay.printing.cups import CupsServer
from relay.printing.jobs import job_options
from relay.slips.render import Renderer
from tests.harness.cupsd import Cupsd
from tests.harness.media import OFFICE_LASER, RECEIPT_ROLL
from tests.harness.printers import Bus, VirtualPrinter
from tests.harness.waiting import free_ports

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = b"Content-Type: text/html\r\n\r\n<p>hello</p>"
TWO_PAGES = PAGE + b"<p style='page-break-before:always'>again</p>"


class Room:
    """A CUPS with a laser and a roll."""

    def __init__(self, cups: CupsServer, laser: VirtualPrinter, roll: VirtualPrinter) -> None:
        self._cups = cups
        self._renderer = Renderer()
        self.laser = laser
        self.roll = roll

    async def print(
        self, printer: VirtualPrinter, message: bytes, paper: str, **settings: Any
    ) -> tuple[dict[str, str], Path]:
        """The IPP attributes that arrived with the slip, and its document."""
        profile = Profile.model_validate({"name": "p", "paper": paper, "margin_mm": 4, **settings})
        slip = self._renderer.render(message, profile)
        options = job_options(profile, (slip.width_mm, slip.height_mm), slip.pages)
        before = len(printer.papers())
        job = await self._cups.create_job(printer.name, "slip", options)
        await self._cups.send_document(printer.name, job, "slip", slip.pdf)
        arrived = (await printer.wait_for_papers(before + 1))[before]
        return printer.asked(arrived), arrived


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def room(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Room]:
    folder, first = tmp_path_factory.mktemp("room"), free_ports(3)
    async with (
        Bus() as bus,
        Cupsd(first) as cupsd,
        VirtualPrinter("laser", OFFICE_LASER, first + 1, folder / "laser", bus) as laser,
        VirtualPrinter("roll", RECEIPT_ROLL, first + 2, folder / "roll", bus) as roll,
    ):
        for printer in (laser, roll):
            await cupsd.add_queue(printer.name, printer.device_uri)
        yield Room(CupsServer(Cups(server=cupsd.address)), laser, roll)


async def test_size_sides_tray_copies_and_colour(room: Room) -> None:
    asked, paper = await room.print(
        room.laser, TWO_PAGES, "A4", duplex="short-edge", tray="tray-2", copies=3, monochrome=True
    )
    assert "x-dimension=21000 y-dimension=29700" in asked["IPP_MEDIA_COL"]
    assert "media-source=tray-2" in asked["IPP_MEDIA_COL"]
    assert asked["IPP_SIDES"] == "two-sided-short-edge"
    assert asked["IPP_COPIES"] == "3"
    assert asked["IPP_PRINT_COLOR_MODE"] == "monochrome"
    assert len(pypdf.PdfReader(paper).pages) == 2


async def test_a_tray_may_be_named_as_the_queue_names_it(room: Room) -> None:
    asked, _ = await room.print(room.laser, PAGE, "A5", tray="Tray2")
    assert "media-source=tray-2" in asked["IPP_MEDIA_COL"]
    assert "x-dimension=14800 y-dimension=21000" in asked["IPP_MEDIA_COL"]


async def test_a_single_page_is_not_followed_by_an_empty_one(room: Room) -> None:
    asked, paper = await room.print(room.laser, PAGE, "A4", duplex="long-edge")
    assert asked["IPP_SIDES"] == "one-sided"
    assert len(pypdf.PdfReader(paper).pages) == 1


@pytest.mark.parametrize(("paper", "size"), [("A4", (210, 297)), ("90x130mm", (90, 130))])
async def test_a_landscape_page_is_turned_onto_the_sheet(room: Room, paper: str, size: tuple[int, int]) -> None:
    asked, arrived = await room.print(room.laser, PAGE, paper, orientation="landscape")
    assert f"x-dimension={size[0] * 100} y-dimension={size[1] * 100}" in asked["IPP_MEDIA_COL"]
    page = pypdf.PdfReader(arrived).pages[0]
    width, height = float(page.mediabox.width), float(page.mediabox.height)
    if page.rotation % 180:
        width, height = height, width
    assert (width * 25.4 / 72, height * 25.4 / 72) == pytest.approx(size, abs=0.5)
    assert "hello" in page.extract_text()


@pytest.mark.parametrize(("cut", "finishings"), [("job", "trim-after-job"), ("off", "none"), (None, "none")])
async def test_a_roll_is_cut_as_the_profile_says(room: Room, cut: str | None, finishings: str) -> None:
    asked, paper = await room.print(room.roll, PAGE, "80mm", cut=cut)
    assert asked["IPP_FINISHINGS"] == finishings
    assert "x-dimension=8000 y-dimension=2500" in asked["IPP_MEDIA_COL"]
    assert float(pypdf.PdfReader(paper).pages[0].mediabox.height) * 25.4 / 72 == pytest.approx(25, abs=0.5)


async def test_options_of_one_s_own_win_and_unknown_ones_do_no_harm(room: Room) -> None:
    asked, _ = await room.print(
        room.roll, PAGE, "80mm", options={"CutMedia": "EndOfPage", "TmxPaperCut": "CutPerJob", "Nonsense": "1"}
    )
    assert asked["IPP_FINISHINGS"] == "trim-after-pages"
