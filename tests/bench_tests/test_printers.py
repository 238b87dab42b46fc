"""A private CUPS prints on a virtual printer, and each fault does what it says."""

from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import pypdf
import pytest
import pytest_asyncio

from tests.harness.cupsd import CommandFailed, Cupsd
from tests.harness.media import OFFICE_LASER, RECEIPT_ROLL, Media
from tests.harness.printers import Bus, VirtualPrinter
from tests.harness.waiting import free_ports, until

MM = 72 / 25.4


class Bench:
    """One CUPS, one printer, one queue."""

    def __init__(self, cupsd: Cupsd, printer: VirtualPrinter, folder: Path) -> None:
        self.cupsd = cupsd
        self.printer = printer
        self._folder = folder

    async def print(self, width: float, height: float, *, size: str | None = None) -> str:
        """Print an empty page of that size in mm; gives the job's name in CUPS."""
        out = BytesIO()
        writer = pypdf.PdfWriter()
        writer.add_blank_page(width * MM, height * MM)
        writer.write(out)
        document = self._folder / "page.pdf"
        document.write_bytes(out.getvalue())
        answer = await self.cupsd.command(
            "lp", "-d", self.printer.name, "-o", f"PageSize={size or f'Custom.{width:g}x{height:g}mm'}",
            "-o", "print-scaling=none", str(document),
        )  # fmt: skip
        return answer.split()[3]

    async def until_shown(self, reason: str) -> None:
        """Wait until CUPS shows a state of the printer."""

        async def is_shown() -> bool:
            return reason in await self.cupsd.command("lpstat", "-l", "-p", self.printer.name)

        await until(is_shown, f"CUPS to show {reason}", every=0.1)

    async def until_gone(self, job: str) -> None:
        """Wait until CUPS has done with a job."""

        async def gone() -> bool:
            return job not in await self.cupsd.command("lpstat", "-o", self.printer.name)

        await until(gone, f"CUPS to end {job}", seconds=15.0, every=0.1)


@pytest_asyncio.fixture(params=[pytest.param(RECEIPT_ROLL, id="roll")])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    first = free_ports(2)
    media: Media = request.param
    async with Bus() as bus, Cupsd(first) as cupsd:
        async with VirtualPrinter("roll", media, first + 1, tmp_path / "printer", bus) as printer:
            await cupsd.add_queue(printer.name, printer.device_uri)
            yield Bench(cupsd, printer, tmp_path)
        folder = cupsd.folder
    assert not folder.exists()


def _size(paper: Path) -> tuple[float, float]:
    box = pypdf.PdfReader(paper).pages[0].mediabox
    return round(float(box.width) / MM, 1), round(float(box.height) / MM, 1)


@pytest.mark.asyncio
@pytest.mark.parametrize("bench", [pytest.param(OFFICE_LASER, id="laser")], indirect=True)
async def test_named_papers_keep_their_size(bench: Bench) -> None:
    await bench.print(210, 297, size="A4")
    await bench.print(148, 210, size="A5")
    papers = await bench.printer.wait_for_papers(2)
    assert [_size(paper) for paper in papers] == [(210.0, 297.0), (148.0, 210.0)]
    assert bench.printer.job_names() == ["page.pdf", "page.pdf"]


@pytest.mark.asyncio
async def test_a_roll_takes_any_length_and_names_sort_across_restarts(bench: Bench) -> None:
    await bench.print(80, 140)
    await bench.printer.wait_for_papers(1)
    await bench.printer.fault("offline")
    await bench.printer.mend()
    await bench.print(80, 1234.5)
    papers = await bench.printer.wait_for_papers(2)
    assert [paper.name for paper in papers] == ["000001-job1.pdf", "000002-job1.pdf"]
    assert [_size(paper) for paper in papers] == [(80.0, 140.0), (80.0, 1234.5)]


@pytest.mark.asyncio
async def test_out_of_paper_waits_until_mended(bench: Bench) -> None:
    await bench.printer.fault("media-empty")
    job = await bench.print(80, 60)
    await bench.until_shown("media-empty")
    assert bench.printer.papers() == []
    await bench.printer.mend()
    await bench.printer.wait_for_papers(1)
    await bench.until_gone(job)


@pytest.mark.asyncio
async def test_what_is_aborted_or_cancelled_is_not_on_paper(bench: Bench) -> None:
    await bench.printer.fault("abort")
    await bench.until_gone(await bench.print(80, 60))
    await bench.printer.fault("media-empty")
    job = await bench.print(80, 70)
    await bench.until_shown("media-empty")  # CUPS cancels at the printer only once it follows the job there
    await bench.cupsd.command("cancel", job)
    await bench.until_gone(job)
    log = bench.printer.folder / "log"
    await until(lambda: log.read_text().count("exited with status") == 2, "the printer to end both jobs")
    await bench.printer.mend()
    assert bench.printer.papers() == []


@pytest.mark.asyncio
async def test_switched_off_in_the_middle_prints_nothing_then_goes_on(bench: Bench) -> None:
    await bench.printer.fault("slow 60")
    await bench.print(80, 60)
    await until(lambda: any((bench.printer.folder / "spool").iterdir()), "the job to reach the printer")
    await bench.printer.fault("offline")
    assert not bench.printer.is_on
    assert bench.printer.papers() == []
    await bench.printer.mend()
    await bench.print(80, 90)
    papers = await bench.printer.wait_for_papers(1, seconds=40.0)
    assert _size(papers[-1]) == (80.0, 90.0)


@pytest.mark.asyncio
async def test_slow_takes_its_time(bench: Bench) -> None:
    await bench.printer.fault("slow 0.5")
    await bench.print(80, 60)
    await until(lambda: any((bench.printer.folder / "spool").iterdir()), "the job to reach the printer")
    assert bench.printer.papers() == []
    await bench.printer.wait_for_papers(1)


@pytest.mark.asyncio
async def test_queues_and_jobs_survive_a_crash_of_cups(bench: Bench) -> None:
    await bench.cupsd.restart_with("DirtyCleanInterval 0")
    await bench.cupsd.command("cupsdisable", "roll")
    job = await bench.print(80, 60)
    await bench.cupsd.kill()
    with pytest.raises(CommandFailed):
        await bench.cupsd.command("lpstat", "-o")
    await bench.cupsd.start()
    assert job in await bench.cupsd.command("lpstat", "-o", "roll")
    await bench.cupsd.command("cupsenable", "roll")
    await bench.printer.wait_for_papers(1)
