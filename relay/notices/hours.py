"""The time that counts: seconds in which slips could come out of a printer, or in which somebody is at a desk.

Promises: a printer without hours is always open. Slips of one that prints at night all the same have all the time,
while silence counts by the hours that are named for it.
"""

from __future__ import annotations

from relay.config.printers import Printer
from relay.config.settings import Config
from relay.routing.calendar import Calendar


class Hours:
    """The hours of all printers of a configuration."""

    def __init__(self, config: Config) -> None:
        def calendar(printer: Printer) -> Calendar | None:
            return Calendar.of(printer, config.server.time_zone)

        self._slips = {printer.name: calendar(printer) for printer in config.printers}
        self._desks: dict[str, list[Calendar | None]] = {institution.name: [] for institution in config.institutions}
        for printer in config.queues:
            as_named = printer.model_copy(update={"outside_hours": "hold", "release_at": ()})
            self._desks[printer.institution].append(calendar(as_named))

    def at_printer(self, printer: str, since: float, until: float) -> float:
        """Seconds in which a slip that is at the printer could come out."""
        return _open_time(self._slips[printer], since, until)

    def in_queue(self, printer: str, since: float, until: float) -> float:
        """Seconds in which a slip that arrived could come out: not before the first release time, where there are."""
        calendar = self._slips[printer]
        if calendar is not None and calendar.has_releases:
            released_at = calendar.releases_at(since)
            since = until if released_at is None else released_at
        return _open_time(calendar, since, until) if since < until else 0.0

    def of_institution(self, institution: str, since: float, until: float) -> float:
        """Seconds in which the institution was open: the longest of its printers' hours."""
        desks = self._desks[institution]
        return max((_open_time(calendar, since, until) for calendar in desks), default=until - since)


def _open_time(calendar: Calendar | None, since: float, until: float) -> float:
    return until - since if calendar is None else calendar.open_time(since, until)
