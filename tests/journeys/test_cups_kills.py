"""`kill -9` of cupsd, of the appliance and of both, at any moment of printing: no slip is lost, none is printed twice.

That holds with the settings of config/cupsd-snippet.conf, by which CUPS writes down once an hour what it does. As it
comes it does so every half minute, and what it had written down that it had begun it begins again by itself when it is
killed (docs/limits.md): that is counted and told.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from tests.harness import samples
from tests.harness.playground import Playground
from tests.harness.waiting import until
from tests.journeys.story import Story

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRINTERS = ("a5", "laser")
VICTIMS = ("cupsd", "appliance", "both")
ENDS = ("delivered", "uncertain", "held", "failed")
LONGEST = 3.0
"""Seconds from the submission to the kill, at the most: two slow slips take longer."""


@dataclass
class Tally:
    """What came of the slips."""

    kills: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    twice: dict[str, str] = field(default_factory=dict)
    "Slips that are on paper twice, and who was killed."

    def __str__(self) -> str:
        return f"kills {dict(self.kills)}, slips {dict(self.states)}, twice {self.twice}, lost {self.lost}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    async with Playground(tmp_path_factory.mktemp("kills") / "all") as playground:
        yield Story(playground)


async def kill(story: Story, victim: str) -> None:
    """Kills it, and has it run again."""
    cupsd, appliance = story.playground.cupsd, story.appliance
    starts = appliance.starts
    if victim != "appliance":
        await cupsd.kill()
    if victim != "cupsd":
        await appliance.kill()
    if victim != "appliance":
        await cupsd.start()
    if victim != "cupsd":
        await appliance.restarted(starts)


async def all_to_end(story: Story, numbers: list[str]) -> None:
    await until(lambda: all(line.state in ENDS for line in story.deliveries(*numbers)), "all to end", seconds=120)


async def rounds(story: Story, count: int) -> Tally:
    tally = Tally()
    for number in range(count):
        victim = VICTIMS[number % len(VICTIMS)]
        numbers = []
        for printer in PRINTERS:
            await story.printers[printer].fault("slow 1")
            box = story.mailbox(printer)
            numbers += [await story.submit(samples.request_slip(recipient=box), box) for _ in range(2)]
        await asyncio.sleep(random.uniform(0, LONGEST))
        await kill(story, victim)
        tally.kills[victim] += 1
        await all_to_end(story, numbers)
        await asyncio.sleep(2)  # for what CUPS prints by itself
        printed = Counter(name.split("-")[1] for each in PRINTERS for name in story.printers[each].job_names())
        for line in story.deliveries(*numbers):
            tally.states[line.state] += 1
            if line.state != "uncertain" and not printed[line.queue_id]:
                tally.lost.append(f"{line.queue_id} {line.state}: {line.reason}")
            if printed[line.queue_id] > 1:
                tally.twice[line.queue_id] = victim
    return tally


async def killed(desk: Story, count: int, *, written_every: int) -> Tally:
    """That many kills beside a CUPS that writes down what it does every so many seconds."""
    await desk.playground.cupsd.restart_with(f"DirtyCleanInterval {written_every}")
    tally = await rounds(desk, count)
    assert tally.lost == [], tally
    assert "appliance" not in tally.twice.values(), tally
    assert tally.states["held"] == tally.states["failed"] == 0, tally
    return tally


def told(tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{tally}")


async def test_killed_while_it_prints_nothing_is_lost_or_printed_twice(desk: Story) -> None:
    tally = await killed(desk, len(VICTIMS), written_every=3600)
    assert tally.twice == {}, tally


@pytest.mark.prove
async def test_killed_hundreds_of_times_nothing_is_lost_or_printed_twice(
    desk: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = await killed(desk, 201, written_every=3600)
    told(tally, capsys)
    assert tally.twice == {}, tally


@pytest.mark.prove
@pytest.mark.parametrize("written_every", [30, 0], ids=["as it comes", "at once"])
async def test_killed_beside_a_cups_that_writes_down_more(
    desk: Story, capsys: pytest.CaptureFixture[str], written_every: int
) -> None:
    """Told is what is on paper twice: what CUPS had written down that it had begun, it begins again."""
    told(await killed(desk, 60, written_every=written_every), capsys)
