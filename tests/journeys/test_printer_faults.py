"""Printers that misbehave: for each row of the table in docs/printing.md a fault is made, and mended as slips arrive.

Each time every slip is on paper once, in the order in which they arrived. What it took is printed as a table (`-s`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio

from relay.config.printers import Cups
from relay.errors import PrintError
from relay.printing.cups import CupsServer
from tests.harness import samples
from tests.harness.playground import Playground
from tests.harness.waiting import until
from tests.journeys.story import Story

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRINTER = "a5"
ENDS = ("delivered", "uncertain", "held", "failed")
Fault = Callable[[Story], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Row:
    """A fault, which lasts for the length of a `with` block, and what the queue says of the first slip meanwhile."""

    fault: Fault
    says: str = ""
    while_printing: bool = False
    "Whether it is made when the first slip is at the printer already."
    may_be_twice: bool = False
    "Whether CUPS may have begun that one again before it was taken from it (docs/limits.md)."
    may_be_uncertain: bool = False
    "Whether nobody can know what became of that one: then a person is asked."


def of_printer(what: str) -> Fault:
    """What the printer itself can have."""

    @asynccontextmanager
    async def fault(story: Story) -> AsyncIterator[None]:
        await story.printers[PRINTER].fault(what)
        yield
        await story.printers[PRINTER].mend()

    return fault


def of_cups(make: str, mend: str) -> Fault:
    """What a command of CUPS does to the queue, and what undoes it."""

    @asynccontextmanager
    async def fault(story: Story) -> AsyncIterator[None]:
        await story.playground.cupsd.command(make, PRINTER)
        yield
        await story.playground.cupsd.command(mend, PRINTER)

    return fault


@asynccontextmanager
async def slow(story: Story) -> AsyncIterator[None]:
    """It stays slow while all is printed."""
    await story.printers[PRINTER].fault("slow 3")
    yield


@asynccontextmanager
async def hangs(story: Story) -> AsyncIterator[None]:
    story.printers[PRINTER].hang()
    yield
    story.printers[PRINTER].go_on()


@asynccontextmanager
async def stopped_by_cups(story: Story) -> AsyncIterator[None]:
    """The error policy that CUPS has for most queues made by hand, and a printer that is switched off."""
    cupsd, printer = story.playground.cupsd, story.printers[PRINTER]
    await cupsd.lpadmin("-p", PRINTER, "-o", "printer-error-policy=stop-printer")
    await printer.fault("offline")
    yield
    await printer.mend()
    log = story.appliance.log
    await until(lambda: f"event=queue-resumed printer={PRINTER}" in log.read_text(), "the queue to go on", seconds=30)
    await cupsd.lpadmin("-p", PRINTER, "-o", "printer-error-policy=retry-job")


@asynccontextmanager
async def wants_password(story: Story) -> AsyncIterator[None]:
    """Another printer at the same address, one that lets nobody print without a password; then the first again."""
    cupsd, printer = story.playground.cupsd, story.printers[PRINTER]
    await printer.fault("offline")
    async with await asyncio.start_server(refuse, "localhost", printer.port):
        yield
    await printer.mend()
    await cupsd.lpadmin("-p", PRINTER, "-o", "auth-info-required=none")
    for line in (await cupsd.command("lpstat", "-o", PRINTER)).splitlines():
        await cupsd.command("lp", "-i", line.split()[0], "-H", "resume")


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="p"\r\nContent-Length: 0\r\n\r\n')
    writer.close()


@asynccontextmanager
async def queue_is_deleted(story: Story) -> AsyncIterator[None]:
    await story.playground.cupsd.lpadmin("-x", PRINTER)
    yield
    await story.playground.cupsd.add_queue(PRINTER, story.printers[PRINTER].device_uri)


@asynccontextmanager
async def cups_is_stopped(story: Story) -> AsyncIterator[None]:
    await story.playground.cupsd.stop()
    yield
    await story.playground.cupsd.start()


@asynccontextmanager
async def cups_restarts(story: Story) -> AsyncIterator[None]:
    await story.playground.cupsd.stop()
    await story.playground.cupsd.start()
    yield


@asynccontextmanager
async def cups_hangs(story: Story) -> AsyncIterator[None]:
    os.kill(story.playground.cupsd.pid, signal.SIGSTOP)
    yield
    os.kill(story.playground.cupsd.pid, signal.SIGCONT)


@asynccontextmanager
async def five_hundred_jobs(story: Story) -> AsyncIterator[None]:
    """So many as CUPS takes by default, all of other people, and none of them ends."""
    await story.playground.cupsd.restart_with("MaxJobs 500")
    others = CupsServer(Cups(server=story.playground.cupsd.address, username="others"))
    held = {"job-hold-until": "indefinite"}
    jobs: list[int] = []
    with contextlib.suppress(PrintError):  # there may be one or two of before
        while len(jobs) < 500:
            jobs.append(await others.create_job("laser", "theirs", held))
    yield
    await others.ask(lambda cups: [cups.cancelJob(job) for job in jobs])


ROWS = {
    "out of paper": Row(of_printer("media-empty"), "media-empty"),
    "jam": Row(of_printer("media-jam"), "media-jam"),
    "cover open": Row(of_printer("cover-open"), "cover-open"),
    "switched off": Row(of_printer("offline")),
    "switched off in the middle": Row(of_printer("offline"), while_printing=True, may_be_uncertain=True),
    "hangs": Row(hangs),
    "slow": Row(slow),
    "paused in CUPS by a person": Row(of_cups("cupsdisable", "cupsenable"), "the queue is paused in CUPS"),
    "paused by a person in the middle": Row(
        of_cups("cupsdisable", "cupsenable"), "the queue is paused in CUPS", while_printing=True
    ),
    "paused by CUPS itself": Row(stopped_by_cups, "the queue is paused in CUPS"),
    "wants a password": Row(wants_password, "wants a user name and password"),
    "rejects jobs": Row(of_cups("cupsreject", "cupsaccept"), "not accepting jobs"),
    "queue deleted": Row(queue_is_deleted, "has no queue 'a5'"),
    "CUPS stopped": Row(cups_is_stopped, "can't be reached"),
    "CUPS restarted in the middle": Row(cups_restarts, while_printing=True, may_be_twice=True),
    "CUPS hangs": Row(cups_hangs, "did not answer"),
    "500 jobs of others": Row(five_hundred_jobs, "Too many active jobs"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    extra = {"cups": {"timeout": "2s"}}
    async with Playground(tmp_path_factory.mktemp("faults") / "all", extra=extra) as playground:
        yield Story(playground)


async def slip(story: Story) -> str:
    return await story.submit(samples.request_slip(recipient=story.mailbox(PRINTER)), story.mailbox(PRINTER))


def in_order(story: Story, before: int) -> list[str]:
    """Queue ids of what came onto paper since then, in order."""
    return [name.split("-")[1] for name in story.printers[PRINTER].job_names()[before:]]


@pytest.mark.parametrize("fault", ROWS)
async def test_every_slip_comes_out_once_and_in_order(desk: Story, fault: str) -> None:
    row, printer = ROWS[fault], desk.printers[PRINTER]
    before = len(printer.job_names())
    numbers = []
    if row.while_printing:
        await printer.fault("slow 2")
        numbers.append(await slip(desk))
        await until(lambda: desk.deliveries(numbers[0])[0].state == "pending", "the first slip to be with CUPS")
    async with row.fault(desk):
        numbers += [await slip(desk) for _ in range(2)]
        await until(lambda: row.says in desk.deliveries(numbers[0])[0].reason, f"word of {row.says!r}", seconds=20)
        numbers.append(await slip(desk))
    mended = time.monotonic()
    if row.while_printing:
        await printer.mend()
    await until(lambda: all(line.state in ENDS for line in desk.deliveries(*numbers)), "all to end", seconds=90)
    await printer.mend()
    print(f"\n{fault:32} all printed {time.monotonic() - mended:5.1f} s after it was mended")
    lines = desk.deliveries(*numbers)
    uncertain = [line.queue_id for line in lines if line.state == "uncertain"]
    assert not uncertain or (row.may_be_uncertain and uncertain == numbers[:1])
    assert {line.state for line in lines if line.queue_id not in uncertain} == {"delivered"}
    came = in_order(desk, before)
    if row.may_be_twice and came[:2] == numbers[:1] * 2:
        print(f"{fault:32} the first slip is on paper twice")
        del came[0]
    assert [number for number in came if number not in uncertain] == [each for each in numbers if each not in uncertain]
    assert len(came) == len(set(came))


async def test_the_service_starts_without_cups(desk: Story) -> None:
    cupsd, printer = desk.playground.cupsd, desk.printers[PRINTER]
    before = len(printer.job_names())
    await desk.appliance.stop()
    await cupsd.stop()
    await desk.appliance.start()
    desk.appliance.supervise()
    assert "event=cups-away" in desk.appliance.log.read_text()
    letter = await desk.submit(samples.patron_letter("reader@patron.example"), "reader@patron.example")
    await desk.settled(letter)
    number = await slip(desk)
    await until(lambda: "can't be reached" in desk.deliveries(number)[0].reason, "the slip to wait")
    await cupsd.start()
    await desk.settled(number)
    assert in_order(desk, before) == [number]
