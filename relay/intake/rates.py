"""Messages a minute of each source: a bucket that holds a minute's worth and fills up evenly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from relay.errors import Refusal
from relay.mail import status


class Rates:
    """Of all sources, by name."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`per_minute` is the most for each source; 0 for no limit."""
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # what was left, and when

    def are_spent(self, sources: Iterable[str]) -> bool:
        """Whether none of the sources may send a message now."""
        names = list(sources)
        return self._per_minute > 0 and bool(names) and all(self._left(name) < 1 for name in names)

    def take(self, source: str) -> None:
        """Counts a message of a source. Raises Refusal when it has sent enough for now."""
        if self._per_minute == 0:
            return
        left = self._left(source)
        if left < 1:
            raise Refusal(status.TOO_FAST)
        self._buckets[source] = (left - 1, self._clock())

    def _left(self, source: str) -> float:
        left, since = self._buckets.get(source, (float(self._per_minute), self._clock()))
        return min(float(self._per_minute), left + (self._clock() - since) * self._per_minute / 60)
