"""Whether the machine's clock was set: what it shows now, against timers that nobody sets.

Does: notices a step between two looks, in either direction: a time server that corrects a wrong clock, a person, a
virtual machine that slept (timers stand still meanwhile, the clock goes on).
Promises: a step back is owed until it is `settled`, so that one which could not be seen to at once is not forgotten. A
clock that is made to go slower or faster, as time servers do with small differences, makes no step.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STEP = 1.0
"""Seconds by which the clock has to move between two looks."""


class ClockWatch:
    """Looks at one clock."""

    def __init__(self, clock: Callable[[], float] = time.time, timer: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._timer = timer
        self._ahead = clock() - timer()
        self.owed = 0.0
        "Seconds by which it was set back, and that nobody has seen to."

    def look(self) -> float:
        """Seconds by which it was set since the last look, negative for back; 0 when it was not."""
        ahead = self._clock() - self._timer()
        step, self._ahead = ahead - self._ahead, ahead
        if abs(step) < STEP:
            return 0.0
        self.owed = max(self.owed - step, 0.0)
        return step

    def settled(self) -> None:
        """What waits was seen to."""
        self.owed = 0.0
