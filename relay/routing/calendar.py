"""When a printer's slips may go: its hours, holidays and release times, as moments. Pure; it has no clock of its own.

Does: says of a moment (seconds since the epoch) whether the printer is open, since when and until when; which release
time was the last one and which is the next; until when a slip waits.
Promises: a time of the day is the first moment at which the clock shows it, or a later time. So a time that is shown
twice, in the night in which the clock is put back, counts once; one that is left out counts at the moment of the leap,
and hours that are left out altogether do not exist. Hours that go on over midnight belong to the day on which they
begin, and holidays leave out what begins on them.
Known limit: looks LOOK days ahead and back; a printer that is closed for longer never opens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from relay.config import hours as words
from relay.config.printers import Printer

LOOK = 800
"""Days that are looked at ahead and back."""

_AROUND = 3
"""Days before a moment that hours which hold at it may have begun, and a day to spare for a date that is left out."""

Spans = tuple[tuple[int, int], ...]
"""Begin and end of the hours of a day, in minutes; the end may lie in the next day."""


class Calendar:
    """The hours of one printer."""

    def __init__(
        self,
        week: tuple[Spans, ...] = ((words.WHOLE_DAY,),) * 7,
        holidays: Collection[tuple[date, date]] = (),
        release_at: Collection[int] = (),
        zone: ZoneInfo | None = None,
    ) -> None:
        """`release_at` are minutes of the day; without a zone the machine's clock counts."""
        self._week = week
        self._holidays = tuple(holidays)
        self._release_at = sorted(set(release_at))
        self._zone = zone

    @classmethod
    def of(cls, printer: Printer, default_zone: str | None) -> Calendar | None:
        """The calendar of a printer; None for one whose slips never wait."""
        zone = printer.time_zone or default_zone
        holds = printer.outside_hours == "hold"
        if not printer.release_at and not (holds and (printer.hours is not None or printer.holidays)):
            return None
        always = ((words.WHOLE_DAY,),) * 7
        return cls(
            words.week(printer.hours) if holds and printer.hours is not None else always,
            printer.holidays if holds else (),
            [words.minute(text) for text in printer.release_at],
            ZoneInfo(zone) if zone is not None else None,
        )

    @property
    def has_releases(self) -> bool:
        """Whether slips come out at release times only."""
        return bool(self._release_at)

    # --- hours

    def is_open(self, at: float) -> bool:
        """Whether it is open at a moment."""
        return any(begin <= at < end for begin, end in self._stretches(self._day(at), -_AROUND, 1))

    def opens_at(self, at: float) -> float | None:
        """The first moment from `at` on at which it is open; None for never."""
        return next((max(begin, at) for begin, end in self._ahead(at) if end > at), None)

    def opened_at(self, at: float) -> float | None:
        """Since when it is open at a moment; None when it is closed then, or was always open."""
        return self._edge(at, -1)

    def closes_at(self, at: float) -> float | None:
        """Until when it is open at a moment; None when it is closed then, or is always open."""
        return self._edge(at, 1)

    def open_time(self, since: float, until: float) -> float:
        """Seconds between two moments for which it is open."""
        days = (self._day(until) - self._day(since)).days
        stretches = self._stretches(self._day(since), -_AROUND, days + 1)
        return sum(max(min(end, until) - max(begin, since), 0.0) for begin, end in stretches)

    # --- release times

    def released_at(self, at: float) -> float | None:
        """The last release time up to a moment; None where there was none."""
        day = self._day(at)
        for back in range(-1, LOOK):
            found = [moment for moment in self._releases(day - timedelta(days=back)) if moment <= at]
            if found:
                return max(found)
        return None

    def releases_at(self, at: float) -> float | None:
        """The first release time after a moment; None where there is none."""
        day = self._day(at)
        for ahead in range(-_AROUND, LOOK):
            found = [moment for moment in self._releases(day + timedelta(days=ahead)) if moment > at]
            if found:
                return min(found)
        return None

    # --- both

    def goes_at(self, arrived: float, now: float) -> float | None:
        """When a slip may go that arrived before: `now`, or the moment that it has to wait for; None for never."""
        if not self.has_releases:
            return self.opens_at(now)
        last = self.released_at(now)
        return now if last is not None and arrived <= last else self.releases_at(now)

    def in_words(self, moment: float, now: float) -> str:
        """A moment ahead as people say it: "18:00", "Monday 08:00", "2027-01-04 08:00"."""
        then, today = self._local(moment), self._local(now)
        clock = then.strftime("%H:%M")
        if then.date() == today.date():
            return clock
        near = then.date() - today.date() < timedelta(days=7)
        return f"{then.strftime('%A') if near else then.date().isoformat()} {clock}"

    # --- days and moments

    def _edge(self, at: float, way: int) -> float | None:
        """Begin (-1) or end (1) of the hours that hold at a moment, however many days they go on for."""
        day, reach = self._day(at), _AROUND
        edge = None
        while reach <= 2 * LOOK:
            stretches = self._stretches(day, -(reach if way < 0 else _AROUND), reach if way > 0 else 1)
            span = next(((begin, end) for begin, end in stretches if begin <= at < end), None)
            if span is None:
                return None
            found = span[0] if way < 0 else span[1]
            if found == edge:
                return edge
            edge, reach = found, reach * 4
        return None

    def _ahead(self, at: float) -> Iterator[tuple[float, float]]:
        day = self._day(at)
        for ahead in range(-_AROUND, LOOK, 7):
            yield from self._stretches(day + timedelta(days=ahead), 0, 8)

    def _stretches(self, day: date, first: int, last: int) -> list[tuple[float, float]]:
        """When it is open by the hours of the days from `day + first` to `day + last`, without overlaps, in order."""
        spans = sorted(
            (self._moment(each, begin), self._moment(each, end))
            for each in (day + timedelta(days=number) for number in range(first, last + 1))
            for begin, end in self._hours(each)
        )
        joined: list[tuple[float, float]] = []
        for begin, end in spans:
            if joined and begin <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(end, joined[-1][1])
            elif begin < end:
                joined.append((begin, end))
        return joined

    def _hours(self, day: date) -> Spans:
        is_holiday = any(first <= day <= last for first, last in self._holidays)
        return () if is_holiday else self._week[day.weekday()]

    def _releases(self, day: date) -> list[float]:
        return [self._moment(day, minute) for minute in self._release_at] if self._hours(day) else []

    def _local(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, self._zone)

    def _day(self, at: float) -> date:
        return self._local(at).date()

    def _moment(self, day: date, minute: int) -> float:
        """The first moment at which the clock shows a minute of a day, or more."""
        shown = datetime.combine(day, time()) + timedelta(minutes=minute)
        first, second = (shown.replace(tzinfo=self._zone, fold=fold).timestamp() for fold in (0, 1))
        if first <= second:
            return first  # of a time that is shown twice the first
        # It is left out: then `second` lies before the leap and `first` after it.
        before, after = second, first
        while after - before > 1:
            middle = (before + after) // 2
            if self._local(middle).replace(tzinfo=None) >= shown:
                after = middle
            else:
                before = middle
        return after
