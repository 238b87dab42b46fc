"""Until when slips wait for the hours of their printer, for people and programs that look at the queue.

Known limit: what a person has just let go is shown as waiting, too, for the second until it is begun.
"""

from __future__ import annotations

import time

from relay.config.settings import Config
from relay.routing.calendar import Calendar
from relay.routing.rules import PRINT
from relay.spool.records import State

_WAITS = (State.QUEUED, State.DEFERRED)


class Waiting:
    """The calendars of one configuration, at one moment."""

    def __init__(self, config: Config) -> None:
        self._now = time.time()
        calendars = {PRINT + each.name: Calendar.of(each, config.server.time_zone) for each in config.printers}
        self._calendars = {route: calendar for route, calendar in calendars.items() if calendar is not None}

    def until(self, state: str, route: str, received_at: float) -> float | None:
        """The moment that a slip waits for, in seconds since the epoch; None when it does not wait for hours, or when
        they never come.
        """
        calendar = self._calendars.get(route)
        if calendar is None or state not in _WAITS:
            return None
        moment = calendar.goes_at(received_at, self._now)
        return moment if moment is not None and moment > self._now else None

    def in_words(self, state: str, route: str, received_at: float) -> str:
        """The same for people, as in "waits until Monday 08:00"; nothing for what does not wait for hours."""
        calendar = self._calendars.get(route)
        if calendar is None or state not in _WAITS:
            return ""
        moment = calendar.goes_at(received_at, self._now)
        if moment is None:
            return "waits: its printer does not open any more"
        return f"waits until {calendar.in_words(moment, self._now)}" if moment > self._now else ""
