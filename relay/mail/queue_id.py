"""Queue ids: what a message is called in the 250 reply, in every log line and on the slip.

Thirteen characters of Crockford's base 32, the first ten of them the time in microseconds: they sort by arrival, can
be read over the telephone, and tell nothing about the mail. A clock that is set back, by up to a day, does not change
their order: until it has caught up they go on from the last one, as long as the service runs.
"""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_DAY = 86_400_000_000


class _Clock:
    """The time in microseconds, which does not go back."""

    last = 0

    def now(self) -> int:
        shown = int(time.time() * 1_000_000)
        # A clock that was wrong by more was wrong about the day: what waits of that time is better left behind.
        self.last = self.last + 1 if 0 <= self.last - shown < _DAY else shown
        return self.last


_clock = _Clock()


def new_queue_id(now: float | None = None) -> str:
    """A new queue id; `now` is seconds since the epoch, the present when it is not given."""
    microseconds = _clock.now() if now is None else int(now * 1_000_000)
    number = (microseconds << 14) | secrets.randbits(14)
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(60, -1, -5))
