"""How many slips a second, at what cost and in how much memory: slip-relay's pool beside three others, in one run.

    python -m bench.slips [--quick] [--slips N]

500 slips (`bench.slip_pages`: three of five are request slips on A4, the rest mixed scripts and receipts) go through
one rendering child of the real pool, and the same pages through `HTML(string=...).write_pdf()`, a warm headless
Chromium (`.ci/setup-bench` installs it; left out where it is not) and PlutoPrint. They take turns slip by slip, so that
whatever else the machine does disturbs all alike. *CPU* is user and system time of all processes of a renderer, the
mean of a kind of slip. Memory is taken after 50 slips and after the last. Then a hundred more go through two of each
at a time.

Last, how long a slip takes from the end of its DATA to an idle printer, with mail and CUPS in it (`bench.at_printer`).
Ends with an error when a renderer gives no PDF, or a slip does not come to the printer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bench import at_printer
from bench.chromium import find_chromium
from bench.contenders import Browser, Job, Meter, Plain, Pool, Renderer, memory

MIX = ("request", "scripts", "request", "receipt", "request")
"""The kinds of the slips, over and over, ROW of each."""
ROW = 10
MEMORY_AFTER = 50
PLAIN, CHROMIUM, PLUTOPRINT = "plain WeasyPrint", "Chromium", "PlutoPrint"
MOST_OF_PLAIN, MOST_OF_CHROMIUM = 0.7, 1.0
"""What a typical slip may cost, as a part of theirs."""


@dataclass(slots=True)
class Found:
    """What was measured of one renderer: for each slip, and on the whole."""

    cpu_ms: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    per_second_of_two: float = 0.0
    early: tuple[float, float] = (0.0, 0.0)
    late: tuple[float, float] = (0.0, 0.0)


def kind_of(number: int) -> str:
    """The kind of a slip of the run."""
    return MIX[number // ROW % len(MIX)]


def kinds() -> dict[str, Callable[[], Renderer]]:
    """How each renderer is made, by name."""
    found: dict[str, Callable[[], Renderer]] = {
        Pool.name: Pool,
        PLAIN: lambda: Plain("weasyprint", PLAIN),
        CHROMIUM: Browser,
        PLUTOPRINT: lambda: Plain("plutoprint", PLUTOPRINT),
    }
    if find_chromium() is None:
        print("Chromium is not installed (.ci/setup-bench does that): measured without it", file=sys.stderr)
        del found[CHROMIUM]
    return found


async def measure(slips: int) -> dict[str, Found]:
    """One of each, slip by slip in turn, then two of each."""
    renderers = {name: make() for name, make in kinds().items()}
    found = {name: Found() for name in renderers}
    try:
        for renderer in renderers.values():
            await renderer.start()
            for kind in MIX:
                await _render(renderer, Job.of(kind, 10**6))  # warm, not counted
        await _turns(renderers, found, slips)
    finally:
        await asyncio.gather(*(renderer.stop() for renderer in renderers.values()))
    for name in found:
        found[name].per_second_of_two = await _two_at_a_time(name, slips // 5)
    return found


async def _turns(renderers: dict[str, Renderer], found: dict[str, Found], slips: int) -> None:
    names = list(renderers)
    meters = {name: Meter(renderer) for name, renderer in renderers.items()}
    used = {name: meter.seconds() for name, meter in meters.items()}
    for number in range(slips):
        job = Job.of(kind_of(number), number)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].seconds.append(await _render(renderers[name], job))
        for name, meter in meters.items():  # after all had their turn: with what each had still to clear up
            before, used[name] = used[name], meter.seconds()
            found[name].cpu_ms.append((used[name] - before) * 1000)
        if number + 1 in (MEMORY_AFTER, slips):
            for name, meter in meters.items():
                size = memory(renderers[name])
                found[name].early, found[name].late = (found[name].early if found[name].early[0] else size), size
                meter.look()
                used[name] = meter.seconds()


async def _render(renderer: Renderer, job: Job) -> float:
    """Seconds that a slip takes by the clock."""
    began = time.monotonic()
    if not (await renderer.pdf(job)).startswith(b"%PDF-"):
        raise RuntimeError(f"{renderer.name} gave no PDF")
    return time.monotonic() - began


async def _two_at_a_time(name: str, slips: int) -> float:
    """Slips a second of two renderers; slip-relay's are the two children of one pool."""
    pair: list[Renderer] = [Pool(children=2)] if name == Pool.name else [kinds()[name]() for _ in range(2)]
    jobs = [Job.of(kind_of(n), 2 * 10**6 + n) for n in range(slips)]

    async def lane(renderer: Renderer, waiting: Iterator[Job]) -> None:
        for job in waiting:
            await _render(renderer, job)

    try:
        for renderer in pair:
            await renderer.start()
        for part in (jobs[:10], jobs):  # warm at first, and then in earnest
            began, waiting = time.monotonic(), iter(part)
            await asyncio.gather(lane(pair[0], waiting), lane(pair[-1], waiting))
        return slips / (time.monotonic() - began)
    finally:
        await asyncio.gather(*(renderer.stop() for renderer in pair))


def table(found: dict[str, Found]) -> str:
    """The figures side by side; a ratio is slip-relay's part of the other's."""
    lines = [f"{'':20}" + "".join(f"{name:>18}" for name in found)]

    def line(words: str, value: Callable[[Found], float], digits: int = 0) -> None:
        cells = [f"{value(one):.{digits}f}" if value(one) else "-" for one in found.values()]
        lines.append(f"{words:20}" + "".join(f"{cell:>18}" for cell in cells))

    for kind in dict.fromkeys(MIX):
        line(f"CPU ms, {kind}", lambda one, kind=kind: statistics.fmean(_of_kind(one, kind)), 1)  # type: ignore[misc]
        line("  of theirs", lambda one, kind=kind: _part(found, one, kind), 2)  # type: ignore[misc]
    line("slips/s, one", lambda one: len(one.seconds) / sum(one.seconds), 1)
    line("slips/s, two", lambda one: one.per_second_of_two, 1)
    line(f"RSS MiB, slip {MEMORY_AFTER}", lambda one: one.early[0])
    line("RSS MiB, last slip", lambda one: one.late[0])
    line(f"PSS MiB, slip {MEMORY_AFTER}", lambda one: one.early[1])
    line("PSS MiB, last slip", lambda one: one.late[1])
    return "\n".join(lines)


def _of_kind(one: Found, kind: str) -> list[float]:
    return [ms for number, ms in enumerate(one.cpu_ms) if kind_of(number) == kind]


def _part(found: dict[str, Found], other: Found, kind: str) -> float:
    """What slip-relay took for slips of a kind, as a part of what another did; 0 for slip-relay itself."""
    ours = found[Pool.name]
    return 0.0 if other is ours else sum(_of_kind(ours, kind)) / sum(_of_kind(other, kind))


def verdict(found: dict[str, Found]) -> str:
    """Whether a typical slip costs as little as it should."""
    lines = []
    for name, most in ((PLAIN, MOST_OF_PLAIN), (CHROMIUM, MOST_OF_CHROMIUM)):
        if name in found:
            part = _part(found, found[name], MIX[0])
            lines.append(
                f"a typical slip ({MIX[0]}) costs {part:.2f} of {name}: "
                + (f"within {most}" if part <= most else f"MORE than {most}")
            )
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description="slip-relay's renderer beside others")
    parser.add_argument("--quick", action="store_true", help="100 slips")
    parser.add_argument("--slips", type=int, default=500)
    options = parser.parse_args()
    slips = 100 if options.quick else options.slips
    found = asyncio.run(measure(slips))
    print(f"{slips} slips, one after the other; {os.cpu_count()} processors; means")
    print(table(found))
    print(verdict(found))
    print(at_printer.table(asyncio.run(at_printer.measure(slips // 10))))


if __name__ == "__main__":
    main()
