"""The renderers that `bench.slips` measures, each warm and in processes of its own, and what these cost.

slip-relay is the real pool: messages in, with reading, sanitising, sandbox and frames. The others get the finished page
and do nothing but render it. Memory and processor time are those of their processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.chromium import Chromium
from bench.slip_pages import page_of, profile_of, slip
from relay.config.printers import Rendering
from relay.config.profiles import Profile
from relay.slips import frames
from relay.slips import pool as pool_module
from relay.slips.pool import RenderPool

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Job:
    """One slip, as the message and as the page in it."""

    message: bytes
    page: str
    profile: Profile

    @classmethod
    def of(cls, kind: str, number: int) -> Job:
        """The slip of that kind and number."""
        message, profile = slip(kind, number), profile_of(kind)
        return cls(message, page_of(message, profile), profile)


class Renderer(Protocol):
    """One warm renderer."""

    name: str

    async def start(self) -> None:
        """Starts it."""
        ...

    async def pdf(self, job: Job) -> bytes:
        """The slip as PDF."""
        ...

    def processes(self) -> list[int]:
        """Ids of its first processes; what they started counts as well."""
        ...

    async def stop(self) -> None:
        """Ends it."""
        ...


class Pool:
    """slip-relay's pool of rendering children."""

    name = "slip-relay"

    def __init__(self, children: int = 1) -> None:
        # The same child from the first slip to the last: a new one after 500 would hide that it grows.
        pool_module.RECYCLE = sys.maxsize
        self._pool = RenderPool(Rendering(children=children))

    async def start(self) -> None:
        """Starts the children; the first slips wait until they are warm."""
        await self._pool.start()

    async def pdf(self, job: Job) -> bytes:
        """Through the pool, as the printer's transport does it."""
        return (await self._pool.render(job.message, job.profile)).pdf

    def processes(self) -> list[int]:
        """The children of this process that render."""
        own = str(os.getpid())
        return [pid for pid, parent, line in _processes() if parent == own and b"relay.slips.child" in line]

    async def stop(self) -> None:
        """Ends the children."""
        await self._pool.stop()


class Plain:
    """A library as it comes, in a child of ours (`bench.plain`)."""

    def __init__(self, library: str, name: str) -> None:
        self.name = name
        self._library = library
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Starts the child."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.plain", self._library), stdin=PIPE, stdout=PIPE
        )

    async def pdf(self, job: Job) -> bytes:
        """One page after the other."""
        assert self._process.stdin
        assert self._process.stdout
        async with self._turn:
            self._process.stdin.write(frames.pack({}, job.page.encode()))
            await self._process.stdin.drain()
            return (await frames.receive(self._process.stdout))[1]

    def processes(self) -> list[int]:
        """The child."""
        return [self._process.pid]

    async def stop(self) -> None:
        """Ends the child."""
        assert self._process.stdin
        self._process.stdin.close()
        await self._process.wait()


class Browser:
    """Headless Chromium with one page."""

    name = "Chromium"

    def __init__(self) -> None:
        self._chromium = Chromium()
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Starts the browser."""
        await self._chromium.start()

    async def pdf(self, job: Job) -> bytes:
        """One page after the other."""
        async with self._turn:
            return await self._chromium.pdf(job.page)

    def processes(self) -> list[int]:
        """The browser."""
        return [self._chromium.pid]

    async def stop(self) -> None:
        """Ends the browser."""
        await self._chromium.stop()


class Meter:
    """What one renderer uses of the processor. Look again when its lasting processes may have changed.

    Processes that come and go with a page, as Chromium's do, are counted when they have ended, by their parents.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self.look()

    def look(self) -> None:
        """Find its processes."""
        self._processes = sorted(_tree(self._renderer.processes()))

    def seconds(self) -> float:
        """User and system time of all its processes so far, of threads and children that ended too."""
        used = 0.0
        for pid in self._processes:
            with contextlib.suppress(OSError):  # it has ended
                status = Path(f"/proc/{pid}/stat").read_text()
                ended = status[status.rindex(")") + 2 :].split()[13:15]  # proc(5): cutime and cstime
                # clock_getcpuclockid(3): the clock of another process, to the nanosecond where stat counts ticks.
                used += time.clock_gettime(~pid << 3 | 2) + sum(map(int, ended)) / _TICKS
        return used


def memory(renderer: Renderer) -> tuple[float, float]:
    """RSS and PSS in MiB of all its processes: the first counts what they share several times, the second once."""
    rss = pss = 0
    for pid in _tree(renderer.processes()):
        sizes = Path(f"/proc/{pid}/smaps_rollup").read_text()
        rss += int(re.findall(r"^Rss: +(\d+)", sizes, re.MULTILINE)[0])
        pss += int(re.findall(r"^Pss: +(\d+)", sizes, re.MULTILINE)[0])
    return rss / 1024, pss / 1024


def _tree(roots: Iterable[int]) -> set[int]:
    """These processes and all below them."""
    parents = {pid: int(parent) for pid, parent, _ in _processes()}
    found = set(roots)
    for pid in parents:
        above: int | None = pid
        while above is not None and above not in found:
            above = parents.get(above)
        if above is not None:
            found.add(pid)
    return found


def _processes() -> list[tuple[int, str, bytes]]:
    """Id, parent's id and command line of all processes."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                status = Path(f"/proc/{entry}/stat").read_text()
                line = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue  # it ended just now
            found.append((int(entry), status[status.rindex(")") + 2 :].split()[1], line))
    return found
