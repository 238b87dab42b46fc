"""The service's side of rendering: warm children, one slip at a time each.

Does: keeps `settings.children` processes of `relay.slips.child`; hands each slip, and each letter that the rules ask
about, to a free one; kills one that takes
longer than `settings.timeout`; replaces it; recycles a child after RECYCLE slips, once its successor is warm.
Promises: a letter that hangs, crashes or fills the memory ends as RendererDied and harms no other slip. A child that
died before it had read the slip is nobody's fault: the slip goes to the next one. A cancelled `render` leaves nothing
behind. `start` answers when the processes exist, not when they are warm.
Refuses: to start children for ever: after START_TRIES that never got ready it says so (RendererUnavailable).
Known limits: slips wait for a child in order of arrival; `stop` cancels those that still wait or render.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import relay
from relay.config.pictures import Pictures
from relay.config.printers import Rendering
from relay.config.profiles import Profile
from relay.errors import RendererDied, RenderError, RendererUnavailable
from relay.slips import facts, frames
from relay.slips.facts import Facts, Wanted
from relay.slips.slip import Occasion, Slip

T = TypeVar("T")

RECYCLE = 500
START_TRIES = 3
START_TIMEOUT = 60.0

# The service's environment holds secrets (`Secret.env`); a child gets only what fonts and Python need.
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "XDG_CACHE_HOME", "XDG_DATA_DIRS")
_KEPT_PREFIX = "FONTCONFIG_"


class _Lost(Exception):
    """A child ended before it had read the request."""


class _Child:
    """One rendering process. It may read the operator's files in `folders`; `sandbox` lists what it gave up, once it is
    ready.
    """

    __slots__ = ("folders", "process", "sandbox", "slips", "successor")

    def __init__(self, process: Process, folders: frozenset[str]) -> None:
        self.process = process
        self.folders = folders
        self.slips = 0
        self.sandbox: tuple[str, ...] = ()
        self.successor: asyncio.Task[_Child] | None = None

    async def ready(self) -> None:
        """Wait until it can work."""
        assert self.process.stdout
        header, _ = await frames.receive(self.process.stdout)
        self.sandbox = tuple(str(step) for step in header.get("sandbox", ()))

    async def ask(self, request: dict[str, Any], message: bytes, read: Callable[[dict[str, Any], bytes], T]) -> T:
        """Have one request answered. Whatever is raised but RenderError, the child is no good any more."""
        assert self.process.stdin
        assert self.process.stdout
        try:
            if self.process.returncode is not None:
                raise EOFError
            self.process.stdin.write(frames.pack(request, message))
            await self.process.stdin.drain()
            await frames.receive(self.process.stdout)  # "began"
        except (EOFError, OSError) as error:
            raise _Lost from error
        header, body = await frames.receive(self.process.stdout)
        if "error" in header:
            text = str(header["error"])[:500]
            raise RendererDied(text) if header.get("died") else RenderError(text)
        return read(header, body)

    def kill(self) -> None:
        """End it now."""
        if self.process.stdin:
            self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


class RenderPool:
    """Rendering for the service. `start` it in the event loop that it is used in; `stop` it there."""

    def __init__(
        self,
        settings: Rendering,
        pictures: Pictures | None = None,
        want: Callable[[Iterable[str]], None] | None = None,
    ) -> None:
        """`want` hears which allowed pictures on other servers a slip has asked for, once it is rendered."""
        self._settings = settings
        self._pictures = pictures or Pictures()
        self._want = want
        self._free: asyncio.Queue[asyncio.Task[_Child]] = asyncio.Queue()
        self._processes: set[_Child] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._folders: frozenset[str] = frozenset()
        self._stopping = False

    async def start(self) -> None:
        """Start the children. They get warm while the service goes on; `render` waits for them."""
        for _ in range(self._settings.children):
            self._free.put_nowait(self._launch(await self._spawn()))

    async def render(self, message: bytes, profile: Profile, occasion: Occasion | None = None) -> Slip:
        """The slip of a message on the paper of a profile. Raises RenderError; RendererDied when a child had to end."""
        request = {
            "profile": profile.model_dump(mode="json"),
            "occasion": frames.occasion_header(occasion or Occasion()),
            "pictures": self._pictures.model_dump(mode="json"),
        }
        slip = await self._ask(request, message, frames.slip_from, _own_folders(profile, self._pictures))
        if slip.wanted and self._want is not None:
            self._want(slip.wanted)
        return slip

    async def mark(self, pdf: bytes, text: str, profile: Profile) -> Slip:
        """A PDF that was rendered for that profile, with a line of text on it. Raises as `render` does."""
        request = {"mark": text, "profile": profile.model_dump(mode="json")}
        return await self._ask(request, pdf, frames.slip_from)

    async def stack(self, pdfs: Sequence[bytes], profile: Profile) -> Slip:
        """Slips of a profile, rendered on strips or on its sheets, as one document. Raises as `render` does."""
        request = {"stack": [len(pdf) for pdf in pdfs], "profile": profile.model_dump(mode="json")}
        return await self._ask(request, b"".join(pdfs), frames.slip_from)

    async def describe(self, message: bytes, wanted: Wanted) -> Facts:
        """What the rules want to know of the letter of a message. Raises as `render` does."""
        return await self._ask(facts.question(wanted), message, lambda header, _: facts.facts_from(header, wanted))

    async def _ask(
        self,
        request: dict[str, Any],
        message: bytes,
        read: Callable[[dict[str, Any], bytes], T],
        needed: frozenset[str] = frozenset(),
    ) -> T:
        task = asyncio.current_task()
        assert task is not None
        if self._stopping:
            raise asyncio.CancelledError
        self._tasks.add(task)
        try:
            for _ in range(START_TRIES):
                with contextlib.suppress(_Lost):
                    return await self._ask_once(request, message, read, needed)
            raise RendererUnavailable("the rendering process does not start on this machine; see the service's log")
        finally:
            self._tasks.discard(task)

    async def stop(self) -> None:
        """End the children, and cancel whoever still waits for them."""
        self._stopping = True
        for task in self._others():
            task.cancel()
        await asyncio.gather(*self._others(), return_exceptions=True)
        # What was cancelled may have left burials behind; they end by themselves.
        children = list(self._processes)
        for child in children:
            child.kill()
        for child in children:
            await child.process.wait()
        await asyncio.gather(*self._others(), return_exceptions=True)
        self._processes.clear()

    async def _ask_once(
        self,
        request: dict[str, Any],
        message: bytes,
        read: Callable[[dict[str, Any], bytes], T],
        needed: frozenset[str],
    ) -> T:
        self._folders |= needed
        seat = await self._free.get()
        try:
            child = await asyncio.shield(seat)
            if not needed <= child.folders:  # a child can't be given more than it started with
                seat, outgrown = self._launch(), child
                self._retire(outgrown)
                child = await asyncio.shield(seat)
                child.successor = outgrown.successor
        except asyncio.CancelledError:
            self._give_back(seat)
            raise
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self._give_back(self._launch())
            raise _Lost from error
        try:
            async with asyncio.timeout(self._settings.timeout):
                answer = await child.ask(request, message, read)
        except RendererDied:
            self._replace(child)
            raise
        except RenderError:
            self._release(child, seat)
            raise
        except TimeoutError:
            self._replace(child)
            raise RendererDied(f"the slip took longer than {self._settings.timeout:g} s to render") from None
        except (EOFError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self._replace(child)
            raise RendererDied("the rendering process ended in the middle of the slip") from error
        except BaseException:  # _Lost, or we were cancelled: an answer may still be on its way, so not this child again
            self._replace(child)
            raise
        self._release(child, seat)
        return answer

    def _release(self, child: _Child, seat: asyncio.Task[_Child]) -> None:
        """The child is free again, unless it has served long enough and its successor is warm."""
        child.slips += 1
        if child.slips >= RECYCLE and child.successor is None:
            child.successor = self._launch()
        successor = child.successor
        if successor is not None and successor.done():
            child.successor = None
            if not successor.cancelled() and successor.exception() is None:
                self._retire(child)
                seat = successor
        self._give_back(seat)

    def _replace(self, child: _Child) -> None:
        """The child is no good: another takes its seat."""
        self._retire(child)
        seat, child.successor = child.successor, None
        if not self._stopping:
            self._give_back(seat or self._launch())

    def _retire(self, child: _Child) -> None:
        child.kill()
        self._keep(asyncio.create_task(self._bury(child)))

    async def _bury(self, child: _Child) -> None:
        await child.process.wait()
        self._processes.discard(child)

    def _give_back(self, seat: asyncio.Task[_Child]) -> None:
        self._free.put_nowait(seat)

    def _launch(self, child: _Child | None = None) -> asyncio.Task[_Child]:
        """A task that ends with a child that is ready."""
        task = asyncio.create_task(self._warm(child))
        self._keep(task)
        return task

    def _others(self) -> list[asyncio.Task[Any]]:
        return [task for task in self._tasks if task is not asyncio.current_task()]

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # it was seen: whoever renders next hears of it from the seat

    async def _warm(self, child: _Child | None) -> _Child:
        child = child or await self._spawn()
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await child.ready()
        except BaseException:
            self._retire(child)
            raise
        return child

    async def _spawn(self) -> _Child:
        settings = self._settings
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # the working directory is nobody's module path
            "-m",
            "relay.slips.child",
            str(os.getpid()),
            str(int(settings.memory)),
            str(settings.max_pages),
            *sorted(self._folders),
            stdin=PIPE,
            stdout=PIPE,
            stderr=None,  # until it is warm, so that a missing library is seen in the log; then it is silent
            env=_environment(),
        )
        child = _Child(process, self._folders)
        self._processes.add(child)
        return child


def _own_folders(profile: Profile, pictures: Pictures) -> frozenset[str]:
    """Where the operator's template and style sheet lie, and the copies of pictures, once there are any."""
    files = [Path(profile.template)] if "/" in profile.template else []
    files += [profile.stylesheet] if profile.stylesheet is not None else []
    found = {str(folder) for file in files for folder in (file.parent.resolve(), file.resolve().parent)}
    if pictures.folder is not None and pictures.folder.is_dir():
        found.add(str(pictures.folder.resolve()))
    return frozenset(found)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIX)}
    package = Path(relay.__file__).resolve().parent.parent
    return {**kept, "PYTHONPATH": str(package), "PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "2"}
