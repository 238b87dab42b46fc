"""Times of the day and the week as settings: opening hours, holidays, release times, time zones.

Promises: what is written wrong is a ValueError that says how it is written right. What the times mean on the days on
which the clock is changed is said by `relay.routing.calendar`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""Days of the week, as `datetime.weekday` counts them."""

WHOLE_DAY = (0, 24 * 60)
"""Begin and end of a day, in its minutes."""

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_DATES = re.compile(r"(\d{4}-\d\d-\d\d)(?:\s+to\s+(\d{4}-\d\d-\d\d))?")


def minutes(hours: str) -> tuple[int, int]:
    """Begin and end of hours as in "18:00-07:30", in minutes of the day. Raises ValueError."""
    match = _HOURS.fullmatch(hours)
    if match is None or (match[3] == "24" and match[4] != "00"):
        raise ValueError('hours are written as in "08:00-18:00", or "18:00-08:00" for a night')
    begin, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    if begin == end:
        raise ValueError("the hours are over when they begin")
    return begin, end


def minute(time: str) -> int:
    """A time as in "10:00", in minutes of the day. Raises ValueError."""
    match = _TIME.fullmatch(time)
    if match is None:
        raise ValueError('a time of the day is written as in "08:30", from "00:00" to "23:59"')
    return int(match[1]) * 60 + int(match[2])


def days(name: str) -> range:
    """The days of the week that "sat", or "mon-fri", stands for, counted from Monday, which is 0. Raises ValueError."""
    first, dash, last = name.partition("-")
    if first not in DAYS or (dash and last not in DAYS):
        raise ValueError(f'{name!r} is no day: they are {", ".join(DAYS)}, and several are written as in "mon-fri"')
    begin, end = DAYS.index(first), DAYS.index(last if dash else first)
    if end < begin:
        raise ValueError(f"{name!r} is no part of a week, which begins with mon and ends with sun")
    return range(begin, end + 1)


def week(hours: Mapping[str, Sequence[str]]) -> tuple[tuple[tuple[int, int], ...], ...]:
    """For each day of the week begin and end of its hours, in minutes of that day; a night ends on the next one."""
    found: list[tuple[tuple[int, int], ...]] = [()] * len(DAYS)
    for name, texts in hours.items():
        spans = [minutes(text) for text in texts]
        for day in days(name):
            found[day] = tuple((begin, end if begin < end else end + WHOLE_DAY[1]) for begin, end in spans)
    return tuple(found)


def _week(value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    named: dict[int, str] = {}
    for name, texts in value.items():
        for day in days(name):
            if day in named:
                raise ValueError(f"{DAYS[day]} has hours twice, by {named[day]!r} and by {name!r}")
            named[day] = name
        for text in texts:
            minutes(text)
    if not any(value.values()):
        raise ValueError('there are no hours in it; they are written as in { mon-fri = ["08:00-18:00"] }')
    return value


def _time(value: str) -> str:
    minute(value)
    return value


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"there is no time zone {name!r} on this machine; one is Europe/Berlin") from None
    return name


def _dates(value: object) -> object:
    """First and last day; TOML has dates of its own, which need no quotes."""
    if isinstance(value, date):
        return value, value
    if not isinstance(value, str):
        return value  # a pair already, or pydantic says what is wrong with it
    match = _DATES.fullmatch(value.strip())
    try:
        if match is None:
            raise ValueError
        first = date.fromisoformat(match[1])
        last = date.fromisoformat(match[2]) if match[2] else first
    except ValueError:
        raise ValueError(
            f'{value!r} is no day: one is written as in "2026-12-24", several as in "2026-12-24 to 2027-01-02"'
        ) from None
    if last < first:
        raise ValueError(f"{value!r} ends before it begins")
    return first, last


TimeZone = Annotated[str, AfterValidator(_zone)]
"""A name of the IANA time zone database."""

Week = Annotated[dict[str, tuple[str, ...]], AfterValidator(_week)]
"""Hours by day of the week, as in `{ mon-fri = ["08:00-12:00", "13:00-18:00"], sat = ["10:00-14:00"] }`."""

TimeOfDay = Annotated[str, AfterValidator(_time)]
"""A time of the day, as in `10:00`."""

Dates = Annotated[tuple[date, date], BeforeValidator(_dates)]
"""First and last of some days."""
