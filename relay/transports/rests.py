"""Targets that could not be reached, and are put behind the others for a while.

Promises: none is left out, so that mail goes out where only one that rests is left. When a rest is over one mail tries
the target; the others wait for what comes of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from relay.transports.targets import Target

MOST = 1000
"""Targets that are remembered at the most, before those are forgotten whose rest is long over."""


@dataclass(slots=True)
class _Rest:
    until: float
    wait: float
    is_tried: bool = False
    "Whether one mail is trying the target."


class Rests:
    """Those of one next hop."""

    def __init__(self, first: float, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        """A target rests for `first` seconds, and twice as long after each further failure, up to `longest`."""
        self._first = first
        self._longest = longest
        self._clock = clock
        self._resting: dict[Target, _Rest] = {}

    def in_order(self, targets: Sequence[Target]) -> list[Target]:
        """The targets as they are to be tried: those that rest come last."""
        if not self._resting:
            return list(targets)
        now = self._clock()
        ready: list[Target] = []
        behind: list[Target] = []
        for target in targets:
            rest = self._resting.get(target)
            if rest is None:
                ready.append(target)
            elif rest.until > now:
                behind.append(target)
            else:
                if not ready:  # this mail tries it; for all others it rests on
                    rest.until, rest.is_tried = now + rest.wait, True
                ready.append(target)
        return ready + behind

    def failed(self, target: Target) -> None:
        """It could not be reached."""
        now, rest = self._clock(), self._resting.get(target)
        if rest is not None and rest.until > now and not rest.is_tried:
            return  # several mails saw the same
        wait = self._first if rest is None else min(2 * rest.wait, self._longest)
        self._resting[target] = _Rest(now + wait, wait)
        if len(self._resting) > MOST:
            self._resting = {each: rest for each, rest in self._resting.items() if rest.until + self._longest > now}

    def reached(self, target: Target) -> None:
        """It answered."""
        if self._resting:
            self._resting.pop(target, None)
