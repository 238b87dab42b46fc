"""`kill -9` of cupsd, of the appliance and of both, at any moment of printing: no slip is lost.

What is on paper twice can only be what CUPS began again by itself when it came back (README, known limits): it is
counted, and told with `-s`.
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


async def test_killed_while_it_prints_nothing_is_lost_and_we_print_nothing_twice(desk: Story) -> None:
    tally = await rounds(desk, len(VICTIMS))
    print(f"\n{tally}")
    assert tally.lost == [], tally
    assert "appliance" not in tally.twice.values(), tally
    assert tally.states["held"] == tally.states["failed"] == 0, tally


@pytest.mark.prove
async def test_killed_two_hundred_times_while_it_prints(desk: Story, capsys: pytest.CaptureFixture[str]) -> None:
    tally = await rounds(desk, 201)
    with capsys.disabled():
        print(f"\n{tally}")
    assert tally.lost == [], tally
    assert "appliance" not in tally.twice.values(), tally
    assert tally.states["held"] == tally.states["failed"] == 0, tally


@pytest.mark.prove
async def test_killed_with_a_cups_that_writes_down_what_it_does_every_half_minute(
    desk: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    """As CUPS comes: killed, it has forgotten the jobs of the last seconds, and does not begin them again."""
    await desk.playground.cupsd.restart_with("DirtyCleanInterval 30")
    tally = await rounds(desk, 60)
    with capsys.disabled():
        print(f"\n{tally}")
    assert tally.lost == [], tally
    assert "appliance" not in tally.twice.values(), tally
    assert tally.states["held"] == tally.states["failed"] == 0, tally
