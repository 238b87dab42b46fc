"""A weekend, from Friday afternoon to Monday noon: slips arrive, printers are out of order for hours, most are closed.

The clock is moved by the test (it is the night in which summer time ends); within its stretches everything is real. On
Monday every slip lies in its tray once, in order of arrival, and none came while its desk was closed.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from tests.harness.waiting import until
from tests.harness.weekend import ZONE, Desk, Weekend
from tests.harness.weekend_account import Scales, account, most, unfinished

pytestmark = pytest.mark.asyncio(loop_scope="session")

STACKS, BRANCH, HALL, SHELF = (
    Desk("stacks", weekdays=(8, 18)),
    Desk("branch", weekdays=(9, 17)),
    Desk("hall"),
    Desk("shelf", "a4", weekdays=(8, 18), has_batches=True),
)
FEW = (STACKS, BRANCH, HALL, SHELF)
ALL = (
    *FEW,
    Desk("main", weekdays=(8, 18), saturday=(10, 14)),
    Desk("law", "a4", weekdays=(8, 18), releases=(10, 12)),
    Desk("night", weekdays=(8, 18), at_night=True),
    Desk("lending", "receipt80", weekdays=(8, 18), saturday=(10, 14)),
)
"""Of these are out of order: stacks (no paper), branch (switched off), hall (paused in CUPS)."""

FRIDAY = datetime(2027, 10, 29, 16, 30, tzinfo=ZONE)
SETTLED = 300
"""Documents on paper after which a service has what it needs."""
SERVICE_GROWS = 16.0
"""MiB that it may have more at the end than in the next few hundred."""
CHILDREN_GROW = 1.5
"""How many times as much its children may have: they are replaced now and then, and one is there twice for a moment."""
SATURDAY, SUNDAY, MONDAY = 1, 2, 3


async def over_the_weekend(weekend: Weekend, slips: int, *, crashes: bool = False) -> None:
    """From Friday afternoon to Monday noon; returns when all is printed."""

    async def arrive(hundredths: int) -> None:
        await weekend.hand_in(len(weekend.desks) * round(slips * hundredths / 100 / len(weekend.desks)))

    async def crash(node: int) -> None:
        if crashes:
            await weekend.nodes[node].kill()

    async def comes_back(node: int) -> None:
        if crashes:
            await weekend.nodes[node].start()
            await weekend.taken_over()

    printers, cupsd = weekend.printers, weekend.cupsd
    # Friday, all are open.
    before = weekend.papers()
    await arrive(15)
    await weekend.prints("stacks", "branch", "hall", than=before)
    await printers["stacks"].fault("media-empty")
    weekend.shows(0, 16, 59, 58)
    await arrive(5)
    await weekend.shows_at_least(17, 0, 2)  # the branch closes
    await until(lambda: weekend.is_idle("branch"), "the branch to have printed what it had begun", seconds=30)
    await printers["branch"].fault("offline")
    weekend.shows(0, 17, 59, 58)
    await weekend.shows_at_least(18, 0, 2)
    await arrive(10)
    # The night to Saturday.
    weekend.shows(SATURDAY, 1)
    await cupsd.command("cupsdisable", "hall")
    await arrive(15)
    weekend.shows(SATURDAY, 10, 30)
    await crash(0)
    await arrive(15)
    await comes_back(0)
    weekend.shows(SATURDAY, 14, 0, 0)
    # Sunday: 02:30 is shown twice.
    weekend.shows(SUNDAY, 2, 30)
    await arrive(10)
    weekend.shows(SUNDAY, 20)
    before = weekend.papers()
    await cupsd.command("cupsenable", "hall")
    await weekend.prints("hall", than=before)
    await arrive(15)
    # Monday.
    weekend.shows(MONDAY, 7, 59, 58)
    before = weekend.papers()
    await arrive(5)
    await weekend.shows_at_least(8, 0, 0)
    await weekend.prints("shelf", more=2, than=before)
    await crash(-1)
    await arrive(5)
    await comes_back(-1)
    weekend.shows(MONDAY, 9, 30)
    await printers["stacks"].mend()
    await arrive(5)
    weekend.shows(MONDAY, 10, 30)
    await printers["branch"].mend()
    weekend.shows(MONDAY, 12, 0, 1)
    left = partial(unfinished, weekend)
    await until(lambda: not left(), lambda: f"{left()} slips to end; {weekend.said()}", seconds=2 * slips, every=2.0)


async def test_what_came_over_the_weekend_lies_in_the_tray_on_monday_though_nodes_died(tmp_path: Path) -> None:
    """The short form: four desks, two nodes, each of which dies once and comes back."""
    async with Weekend(tmp_path, FEW, shows=FRIDAY, nodes=2) as weekend:
        await over_the_weekend(weekend, 40, crashes=True)
        found = account(weekend)
    assert found.faults == [], found.faults
    assert found.papers == len(weekend.slips)
    assert found.separators >= 1


@pytest.mark.prove
@pytest.mark.parametrize("nodes", [0, 2], ids=["one node", "two nodes"])
async def test_two_thousand_slips_over_the_weekend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nodes: int
) -> None:
    began = time.monotonic()
    async with Weekend(tmp_path, ALL, shows=FRIDAY, nodes=nodes) as weekend, Scales(weekend) as scales:
        await over_the_weekend(weekend, 2000, crashes=nodes > 1)
        found = account(weekend)
    with capsys.disabled():
        print(f"\n{found}; {time.monotonic() - began:.0f} s")
        for what, weights in (("service", scales.service), ("children", scales.children)):
            print(f"{what}, MiB:", [(papers, round(weight)) for papers, weight in weights[:: len(weights) // 40]])
    assert found.faults == [], found.faults
    assert found.papers == len(weekend.slips) == 2000
    # A node that was killed begins anew.
    warm = SETTLED + (scales.killed_at if nodes > 1 else 0)
    assert most(scales.service, 1600, 9999) < most(scales.service, warm, warm + 300) + SERVICE_GROWS
    assert most(scales.children, 1600, 9999) < most(scales.children, warm, warm + 300) * CHILDREN_GROW


@pytest.mark.prove
async def test_a_clock_that_is_set_back_by_two_hours_keeps_no_slip_waiting(tmp_path: Path) -> None:
    async with Weekend(tmp_path, (HALL,), shows=FRIDAY) as weekend:
        await weekend.printers["hall"].fault("media-empty")
        await weekend.hand_in(14)  # more than the appliance has in its hands: some wait in the spool
        weekend.clock.set(FRIDAY - timedelta(hours=2))
        log = weekend.nodes[0].log
        await until(lambda: "event=clock-set seconds=-7" in log.read_text(encoding="utf-8"), "the step to be seen")
        await weekend.hand_in(3)
        await weekend.printers["hall"].mend()
        await until(lambda: not unfinished(weekend), weekend.said, seconds=120, every=0.5)
        found = account(weekend)
    assert found.faults == [], found.faults
    assert found.papers == 17
