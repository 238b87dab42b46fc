"""Printers that misbehave: for each row of the README's table a fault is made, slips keep arriving, and it is mended.

Each time every slip is on paper once, in the order in which they arrived. What it took is printed as a table (`-s`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.harness import samples
from tests.harness.playground import Playground
from tests.harness.waiting import until
from tests.journeys.story import Story

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRINTER = "a5"
ENDS = ("delivered", "uncertain", "held", "failed")
Act = Callable[[Story], Awaitable[object]]


@dataclass(frozen=True)
class Row:
    """A fault: how it is made and mended, and what the queue says of the first slip meanwhile."""

    make: Act
    mend: Act
    says: str
    while_printing: bool = False
    "Whether it is made when the first slip is at the printer already."
    may_be_uncertain: bool = False
    "Whether nobody can know what became of that one: then a person is asked."


def printer_says(fault: str) -> Row:
    return Row(lambda story: story.printers[PRINTER].fault(fault), lambda story: story.printers[PRINTER].mend(), fault)


def cups(*command: str) -> Act:
    return lambda story: story.playground.cupsd.command(*command)


async def hang(story: Story) -> None:
    story.printers[PRINTER].hang()


async def go_on(story: Story) -> None:
    story.printers[PRINTER].go_on()


async def delete_queue(story: Story) -> None:
    await story.playground.cupsd.lpadmin("-x", PRINTER)


async def make_queue(story: Story) -> None:
    await story.playground.cupsd.add_queue(PRINTER, story.printers[PRINTER].device_uri)


async def stop_cups(story: Story) -> None:
    await story.playground.cupsd.stop()


async def start_cups(story: Story) -> None:
    await story.playground.cupsd.start()


async def restart_cups(story: Story) -> None:
    await stop_cups(story)
    await start_cups(story)


async def hang_cups(story: Story) -> None:
    os.kill(story.playground.cupsd.pid, signal.SIGSTOP)


async def cups_goes_on(story: Story) -> None:
    os.kill(story.playground.cupsd.pid, signal.SIGCONT)


async def nothing(story: Story) -> None:
    pass


ROWS = {
    "out of paper": printer_says("media-empty"),
    "jam": printer_says("media-jam"),
    "cover open": printer_says("cover-open"),
    "switched off": Row(
        lambda story: story.printers[PRINTER].fault("offline"), lambda story: story.printers[PRINTER].mend(), ""
    ),
    "switched off in the middle": Row(
        lambda story: story.printers[PRINTER].fault("offline"),
        lambda story: story.printers[PRINTER].mend(),
        "",
        while_printing=True,
        may_be_uncertain=True,
    ),
    "hangs": Row(hang, go_on, ""),
    "slow": Row(lambda story: story.printers[PRINTER].fault("slow 4"), nothing, ""),
    "paused in CUPS by a person": Row(cups("cupsdisable", PRINTER), cups("cupsenable", PRINTER), "aused"),
    "rejects jobs": Row(cups("cupsreject", PRINTER), cups("cupsaccept", PRINTER), "not accepting jobs"),
    "queue deleted": Row(delete_queue, make_queue, "has no queue 'a5'"),
    "CUPS stopped": Row(stop_cups, start_cups, "can't be reached"),
    "CUPS restarted in the middle": Row(restart_cups, nothing, "", while_printing=True),
    "CUPS hangs": Row(hang_cups, cups_goes_on, "did not answer"),
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
    await row.make(desk)
    try:
        numbers += [await slip(desk) for _ in range(2)]
        await until(lambda: row.says in desk.deliveries(numbers[0])[0].reason, f"word of {row.says!r}", seconds=20)
        numbers.append(await slip(desk))
    finally:
        await row.mend(desk)
        mended = time.monotonic()
        if row.while_printing:
            await printer.mend()
    try:
        await until(lambda: all(line.state in ENDS for line in desk.deliveries(*numbers)), "all to end", seconds=90)
    finally:
        await printer.mend()
    print(f"\n{fault:32} all printed {time.monotonic() - mended:5.1f} s after it was mended")
    lines = desk.deliveries(*numbers)
    uncertain = [line.queue_id for line in lines if line.state == "uncertain"]
    assert not uncertain or (row.may_be_uncertain and uncertain == numbers[:1])
    assert {line.state for line in lines if line.queue_id not in uncertain} == {"delivered"}
    came = in_order(desk, before)
    assert [number for number in came if number not in uncertain] == [each for each in numbers if each not in uncertain]
    assert len(came) == len(set(came))
