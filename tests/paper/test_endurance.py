"""Many slips of many kinds through the pool: memory does not grow, neither the service's nor the children's.

`make prove` sends ENDURANCE_SLIPS (20,000 unless the environment says otherwise): about an hour on two cores.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import cycle, islice, pairwise
from pathlib import Path

import pytest

from relay.config.printers import Rendering
from relay.config.profiles import BUILT_IN_PROFILES, Profile
from relay.errors import RendererDied, RenderError
from relay.slips import pool as pool_module
from relay.slips.pool import RenderPool
from relay.slips.render import Renderer
from tests.harness import samples
from tests.unit.slips.letters import letter

GROWTH = 1.10
ROUNDS = 8
STEP = 256 * 1024
"""What a round of 15 slips may leave behind in a renderer, in bytes: RECYCLE slips are then 8 MiB."""
TO = "desk@lib.example"
A4, A5, LETTER, RECEIPT = BUILT_IN_PROFILES[:4]
DEADLY = letter("<p style='margin-left: calc(0px / 0)'>x</p>")
"""The layout fails on it, and its child ends."""


def kinds() -> list[tuple[Callable[[int], bytes], Profile]]:
    """What a desk prints, in many scripts, on many papers; the number makes each a slip of its own."""

    def item(number: int, title: str) -> samples.Item:
        return samples.Item(title=f"{title}, volume {number}", barcode=f"SB-{number:08d}")

    titles = (
        "A history of tiled stoves",
        "תולדות התנורים",
        "تاريخ المواقد",
        "古い暖炉の歴史",
        "Ιστορία",
        "История печей",
    )
    made: list[tuple[Callable[[int], bytes], Profile]] = [
        (lambda n: samples.loan_receipt(TO, items=1 + n % 12), RECEIPT),
        (lambda n: letter(f"<p>Plain {n}</p>" + "<p>more text</p>" * (n % 60)), A5),
        (lambda n: letter(f"<img src='cid:gone{n}'><p>not there</p>"), LETTER),
    ]
    for title, profile in zip(titles, cycle((A4, RECEIPT, A5, LETTER)), strict=False):
        made.append((lambda n, title=title: samples.request_slip(TO, item=item(n, title)), profile))  # type: ignore[misc]
        made.append((lambda n, title=title: samples.transit_slip(TO, item=item(n, title)), profile))  # type: ignore[misc]
    return made


def slips(count: int, deadly_every: int) -> Iterator[tuple[bytes, Profile]]:
    """That many slips; now and then one that its child does not survive, and one that is refused."""
    for number, (make, profile) in enumerate(islice(cycle(kinds()), count)):
        if number % deadly_every == deadly_every - 1:
            yield DEADLY, A4
        elif number % 97 == 96:
            yield letter("<div>" * 5000), A4
        else:
            yield make(number), profile


def own_memory() -> int:
    """Private and shared memory of this process that is in use, in bytes (PSS)."""
    gc.collect()
    return proportional(os.getpid())


def proportional(pid: int) -> int:
    """The proportional set size of a process, in bytes; 0 when it has gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0)


async def endure(count: int, first: int, deadly_every: int) -> tuple[list[int], list[int]]:
    """Memory of the service, and of its largest child, measured over and over from the `first` slip on."""
    pool = RenderPool(Rendering(children=2))
    await pool.start()
    service: list[int] = []
    children: list[int] = []
    every = max(10, (count - first) // 60)
    waiting = slips(count, deadly_every)
    done = refused = died = 0

    async def work() -> None:
        nonlocal done, refused, died
        for message, profile in waiting:
            try:
                slip = await pool.render(message, profile)
                assert slip.pages >= 1
            except RendererDied:
                died += 1
            except RenderError:
                refused += 1
            done += 1
            if done >= first and done % every == 0:
                service.append(own_memory())
                children.append(max(proportional(child.process.pid) for child in pool._processes))

    try:
        await asyncio.gather(work(), work())
    finally:
        await pool.stop()
    assert done == count
    assert died == count // deadly_every
    assert refused >= count // 97 - died
    return service, children


def assert_level(first: float, last: float, sizes: list[int]) -> None:
    """No growth, but for GROWTH."""
    assert last <= first * GROWTH, f"{first / 2**20:.0f} MiB became {last / 2**20:.0f} MiB: {sizes}"


def assert_service_is_level(sizes: list[int]) -> None:
    """The service goes on for ever: what it is in the end it was in the beginning."""
    fifth = max(3, len(sizes) // 5)
    assert_level(statistics.median(sizes[:fifth]), statistics.median(sizes[-fifth:]), sizes)


def assert_children_are_level(sizes: list[int]) -> None:
    """A child is small when it starts and larger when it is replaced: the largest ones are compared."""
    half = len(sizes) // 2
    assert_level(max(sizes[:half]), max(sizes[half:]), sizes)


@pytest.mark.asyncio
async def test_memory_of_the_service_stays_level_over_several_generations_of_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_module, "RECYCLE", 20)
    service, _ = await endure(120, first=40, deadly_every=60)
    assert_service_is_level(service)


def print_heap_after_each_round() -> None:
    """In a process of its own with PYTHONMALLOC=malloc: print the bytes that malloc has given out, round by round."""

    class Mallinfo(ctypes.Structure):
        names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
        _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Mallinfo
    renderer = Renderer(max_pages=50)
    for start in range(0, ROUNDS * len(kinds()), len(kinds())):
        for number, (make, profile) in enumerate(kinds(), start):
            renderer.render(make(number), profile)
        gc.collect()
        heap = mallinfo()
        print(heap.uordblks + heap.hblkhd, flush=True)  # in use on the heap, and mapped by itself


def test_a_renderer_does_not_keep_memory_of_its_slips() -> None:
    """What it holds is counted, not the size of its process: that makes jumps when the heap gets holes."""
    run = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import print_heap_after_each_round as run; run()"],
        env={**os.environ, "PYTHONMALLOC": "malloc"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    sizes = [int(line) for line in run.stdout.split()]
    assert len(sizes) == ROUNDS
    assert min(sizes) > 2**24, "less than the libraries alone have: not counted"
    steps = [after - before for before, after in pairwise(sizes)]
    assert statistics.median(steps[2:]) <= STEP, f"grew by {steps} bytes"


@pytest.mark.prove
@pytest.mark.asyncio
async def test_memory_does_not_grow_over_20_000_slips() -> None:
    count = int(os.environ.get("ENDURANCE_SLIPS", "20000"))
    service, children = await endure(count, first=1000, deadly_every=1000)
    print(f"service: {service[0] / 2**20:.0f} to {max(service) / 2**20:.0f}, then {service[-1] / 2**20:.0f} MiB;")
    print(f"children: {children[0] / 2**20:.0f} to {max(children) / 2**20:.0f}, then {children[-1] / 2**20:.0f} MiB")
    assert_service_is_level(service)
    assert_children_are_level(children)
