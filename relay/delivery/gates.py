"""Gates: whether slips may go to a printer now, by its calendar and a clock.

Does: keeps what follows from the calendar until it changes, so that asking costs nothing.
Promises: a gate changes when it is looked at (`look`) and never in between, so that whoever goes by it sees one state.
It notices when the clock is set, also back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol

from relay.routing.calendar import Calendar
from relay.spool.records import AT_ONCE, Delivery

Clock = Callable[[], float]
"""Gives the time, in seconds since the epoch."""

_LOOK_AGAIN = 3600.0
"""Seconds after which a calendar is asked again that sees no change ahead."""


class Binder(Protocol):
    """Makes batches of what waited for a printer (`relay.transports.binder`)."""

    async def bind(self, slips: Sequence[Delivery]) -> list[list[Delivery]]:
        """The slips in the order in which they are to come out, in batches."""
        ...

    def groups(self, batch: Sequence[Delivery]) -> list[list[Delivery]]:
        """The batch, with those slips together that come out as one document."""
        ...

    async def announce(self, batch: Sequence[Delivery]) -> None:
        """Prints what comes before a batch, if it can."""
        ...


class Gate:
    """The gate before one printer; it is shut until it is looked at."""

    def __init__(self, calendar: Calendar, binder: Binder | None = None, clock: Clock = time.time) -> None:
        """With a binder what waited goes out in batches (`relay.delivery.batches`)."""
        self._calendar = calendar
        self._clock = clock
        self.binder = binder
        self.is_closed = True
        "Whether nothing goes but what a person let go."
        self.until = AT_ONCE
        "What was due by then may be claimed one by one."
        self.batch_until: float | None = None
        "What arrived before then goes as a batch; None while there is none."
        self._looked_at = self._changes_at = -inf

    @property
    def holds_new(self) -> bool:
        """Whether what arrives now has to wait in the spool."""
        return self.is_closed or self._calendar.has_releases

    def look(self) -> None:
        """Goes by the clock."""
        now = self._clock()
        if self._looked_at <= now < self._changes_at:
            return
        calendar = self._calendar
        if calendar.has_releases:
            let_out, changes_at = calendar.released_at(now), calendar.releases_at(now)
            self.is_closed = False
            self.until = AT_ONCE if let_out is None or self.binder is not None else let_out
        else:
            self.is_closed = not calendar.is_open(now)
            let_out = calendar.opened_at(now)
            changes_at = calendar.opens_at(now) if self.is_closed else calendar.closes_at(now)
            self.until = AT_ONCE if self.is_closed else inf
        self.batch_until = let_out if self.binder is not None else None
        self._looked_at = now
        self._changes_at = changes_at if changes_at is not None else now + _LOOK_AGAIN
