"""Which printer prints a slip: its own, one that stands in for it while it is in trouble, or one that shares its load.

Promises: only slips of which nothing has been sent anywhere move, each once for trouble; slips of a printer are decided
on one after the other, in order of arrival. A slip that is at a printer in trouble stays there, and comes out when that
is mended: nobody else could know whether it does not.
Known limit: what is busy is known of this node only.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from relay.config.printers import Printer
from relay.errors import Interrupted, PrintError
from relay.printing.trouble import Trouble

LOOK_EVERY = 0.5
"""Seconds between two looks while a slip waits for its printer or another one."""
LOOKS_GO_ON = 60.0
"""Seconds without a look after which trouble counts as new: nothing waited meanwhile."""


class Desk(Protocol):
    """A printer as others see it."""

    printer: Printer

    @property
    def is_busy(self) -> bool:
        """Whether a slip is at it, or on its way there."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether slips may come out of it now, by its own hours."""
        ...

    async def trouble(self) -> Trouble | None:
        """What keeps it from printing now."""
        ...


@dataclass(frozen=True, slots=True)
class Move:
    """Another printer that is to print a slip, and why."""

    to: Printer
    why: str
    for_trouble: bool


class StandIns:
    """The printers beside one printer."""

    def __init__(self, own: Desk, desks: Mapping[str, Desk], clock: Callable[[], float] = time.monotonic) -> None:
        """`desks` are all printers by name; it may be filled later."""
        self._own = own
        self._desks = desks
        self._clock = clock
        self._since: float | None = None
        self._looked_at = -math.inf
        self._interrupted = asyncio.Event()

    def is_well(self) -> None:
        """A slip came out of the printer: its trouble is over."""
        self._since = None

    def interrupt(self) -> None:
        """What waits here is taken up at the next start."""
        self._interrupted.set()

    async def turn(self, *, moved: bool) -> Move | None:
        """Waits until the printer is free, and gives None; or says which other one prints instead.

        `moved` when the slip has moved for trouble already. Raises PrintError when the printer can't be reached at all,
        and Interrupted.
        """
        printer = self._own.printer
        while True:
            trouble = await self._own.trouble()
            now = self._clock()
            is_new = self._since is None or now - self._looked_at > LOOKS_GO_ON
            self._since = None if trouble is None else now if is_new else self._since
            self._looked_at = now
            if trouble is not None and not moved and trouble.kind in printer.alternate_for:
                waited = now - (self._since or now)
                if waited >= printer.alternate_after and (other := await self._well(printer.alternates)) is not None:
                    return Move(other, f"{printer.name}: {trouble.words}", for_trouble=True)
            if not self._own.is_busy:
                # Paper, covers and the like are for the printer to say: one tray may be empty and another one full.
                if trouble is not None and trouble.kind in ("offline", "paused"):
                    raise PrintError(trouble.words)
                return None
            if trouble is None and (other := await self._well(printer.shares_with, idle=True)) is not None:
                return Move(other, f"{printer.name} is busy", for_trouble=False)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._interrupted.wait()
                raise Interrupted("the slip waits for its printer after the next start")

    async def _well(self, names: tuple[str, ...], *, idle: bool = False) -> Printer | None:
        """The first of some printers that is open and in no trouble."""
        for name in names:
            desk = self._desks.get(name)
            if desk is None or not desk.is_open or (idle and desk.is_busy):
                continue
            if await desk.trouble() is None:
                return desk.printer
        return None
