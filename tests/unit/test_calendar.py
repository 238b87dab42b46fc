"""Hours and release times as moments, compared with a clock that is read minute by minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay.config.settings import Config
from relay.routing.calendar import Calendar, Spans

DAY = 24 * 60
FEWER = settings.default.max_examples * 2 // 5 if settings.default is not None else 40
"""Examples of a test that reads a clock for days."""
ZONES = ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Africa/Cairo", "Pacific/Apia", "UTC"]

# Days around which something happens to the clock of one of these zones, and any other day.
CHANGES = [
    date(2026, 3, 29),  # Berlin, forward
    date(2026, 10, 25),  # Berlin, back
    date(2026, 3, 8),  # St John's
    date(2026, 11, 1),
    date(2026, 4, 5),  # Lord Howe, half an hour
    date(2026, 10, 4),
    date(2026, 4, 24),  # Cairo, at midnight
    date(2026, 10, 30),
    date(2011, 12, 30),  # Apia, a whole day
    date(2006, 10, 29),  # St John's changed at one minute past midnight then
]
NEAR_CHANGES = st.builds(lambda day, off: day + timedelta(days=off), st.sampled_from(CHANGES), st.integers(-2, 2))
DATES = NEAR_CHANGES | st.dates(date(2010, 1, 1), date(2035, 1, 1))
SPAN = st.tuples(st.integers(0, DAY - 1), st.integers(1, DAY)).map(lambda pair: (pair[0], pair[0] + pair[1]))
# Around the hours in which clocks are changed, whose edges are what goes wrong.
NIGHT = st.tuples(st.integers(0, 240), st.integers(1, 200)).map(lambda pair: (pair[0], pair[0] + pair[1]))
WEEKS = st.lists(st.lists(SPAN | NIGHT, max_size=3).map(tuple), min_size=7, max_size=7).map(tuple)


class SlowClock:
    """Reads a clock each minute of some days, and remembers the latest time that it has shown."""

    def __init__(self, zone: ZoneInfo, around: date, days: int) -> None:
        start = datetime(around.year, around.month, around.day, tzinfo=UTC) - timedelta(days=days)
        self.moments = [start.timestamp() + 60 * number for number in range(2 * days * DAY)]
        self.shown: list[datetime] = []
        latest = datetime.min
        for moment in self.moments:
            latest = max(latest, datetime.fromtimestamp(moment, zone).replace(tzinfo=None))
            self.shown.append(latest)


@cache
def slow_clock(zone: str, around: date) -> SlowClock:
    """Some days of a zone, read once."""
    return SlowClock(ZoneInfo(zone), around, 3)


def is_open(shown: datetime, week: tuple[Spans, ...], holidays: set[date]) -> bool:
    """By the definition: some hours have begun, and not ended, by the latest time that the clock has shown."""
    for back in range(3):
        day = shown.date() - timedelta(days=back)
        minute = (shown - datetime(day.year, day.month, day.day)) / timedelta(minutes=1)
        if day not in holidays and any(begin <= minute < end for begin, end in week[day.weekday()]):
            return True
    return False


@settings(max_examples=FEWER)
@given(st.sampled_from(ZONES), DATES, WEEKS, st.sets(NEAR_CHANGES, max_size=2))
@example("Europe/Berlin", date(2026, 3, 29), (((130, 170),),) * 7, set())  # hours that do not exist
@example("Europe/Berlin", date(2026, 10, 25), (((130, 170),),) * 7, set())  # hours that are shown twice
@example("Pacific/Apia", date(2011, 12, 30), (((0, DAY),),) * 7, set())
def test_it_is_open_when_a_clock_says_so(zone: str, around: date, week: tuple[Spans, ...], holidays: set[date]) -> None:
    slow = slow_clock(zone, around)
    calendar = Calendar(week, [(day, day) for day in holidays], zone=ZoneInfo(zone))
    expected = [is_open(shown, week, holidays) for shown in slow.shown]
    # The first day only makes the clock's memory good; each change, and some minutes between, are looked at.
    changes = [i for i in range(DAY, len(expected)) if expected[i] != expected[i - 1]]
    looked_at = sorted({*changes, *(i - 1 for i in changes), *range(DAY, len(expected), 97)})
    assert calendar.open_time(slow.moments[DAY], slow.moments[-1]) == 60 * sum(expected[DAY:-1])
    for i in looked_at:
        at = slow.moments[i]
        assert calendar.open_time(slow.moments[DAY], at) == 60 * sum(expected[DAY:i])
        assert calendar.is_open(at) == expected[i], slow.shown[i]
        opening = next((j for j in range(i, len(expected)) if expected[j]), None)
        if opening is not None:
            assert calendar.opens_at(at) == slow.moments[opening]
        else:
            found = calendar.opens_at(at)
            assert found is None or found > slow.moments[-1]
        if expected[i]:
            began = next((j for j in range(i, DAY, -1) if not expected[j - 1]), None)
            ends = next((j for j in range(i, len(expected)) if not expected[j]), None)
            if began is not None:
                assert calendar.opened_at(at) == slow.moments[began]
            if ends is not None:
                assert calendar.closes_at(at) == slow.moments[ends]
        else:
            assert calendar.opened_at(at) is None
            assert calendar.closes_at(at) is None


@settings(max_examples=FEWER)
@given(st.sampled_from(ZONES), DATES, st.sets(st.integers(0, DAY - 1) | st.integers(0, 200), min_size=1, max_size=4))
@example("Europe/Berlin", date(2026, 3, 29), {150})
@example("Europe/Berlin", date(2026, 10, 25), {150})
@example("Pacific/Apia", date(2011, 12, 30), {600})
def test_each_release_time_comes_once_a_day(zone: str, around: date, times: set[int]) -> None:
    slow = slow_clock(zone, around)
    calendar = Calendar(release_at=times, zone=ZoneInfo(zone))
    expected = set()
    for (_, before), (moment, shown) in pairwise(zip(slow.moments, slow.shown, strict=True)):
        if before < shown:
            days = {before.date(), shown.date()}  # a leap over a whole day has a day between
            days |= {before.date() + timedelta(days=1)}
            midnights = [datetime(day.year, day.month, day.day) for day in days]
            if any(before < midnight + timedelta(minutes=each) <= shown for midnight in midnights for each in times):
                expected.add(moment)
    begin, end = slow.moments[DAY], slow.moments[-1]
    found, at = set(), begin
    while (following := calendar.releases_at(at)) is not None and following <= end:
        assert calendar.released_at(following) == following
        assert calendar.released_at(following + 59) == following
        found.add(following)
        at = following
    assert found == {moment for moment in expected if begin < moment <= end}


def at(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.fixture
def calendar_of(make_config: Callable[..., Config]) -> Callable[..., Calendar | None]:
    def make(**settings: object) -> Calendar | None:
        config = make_config()
        tree = config.model_dump(mode="json") | {"printers": [config.printers[0].model_dump() | settings]}
        return Calendar.of(Config.model_validate(tree).printers[0], "Europe/Berlin")

    return make


def test_a_weekend_with_a_holiday_after_it(calendar_of: Callable[..., Calendar]) -> None:
    calendar = calendar_of(
        hours={"mon-fri": ["08:00-12:00", "13:00-18:00"], "sat": ["10:00-14:00"]}, holidays=["2026-12-24 to 2027-01-03"]
    )
    assert calendar.is_open(at("2026-12-23T08:00"))
    assert not calendar.is_open(at("2026-12-23T12:30"))
    assert calendar.opens_at(at("2026-12-23T12:30")) == at("2026-12-23T13:00")
    assert calendar.opens_at(at("2026-12-23T18:00")) == at("2027-01-04T08:00")
    assert calendar.in_words(at("2027-01-04T08:00"), at("2026-12-23T18:00")) == "2027-01-04 08:00"
    assert calendar.in_words(at("2027-01-04T08:00"), at("2027-01-02T18:00")) == "Monday 08:00"
    assert calendar.in_words(at("2027-01-04T08:00"), at("2027-01-04T07:00")) == "08:00"


def test_release_times_count_on_open_days_and_need_no_open_hour(calendar_of: Callable[..., Calendar]) -> None:
    calendar = calendar_of(hours={"mon-fri": ["08:00-18:00"]}, release_at=["07:30", "12:00"])
    friday, monday = at("2026-11-27T12:00"), at("2026-11-30T07:30")
    assert calendar.released_at(at("2026-11-29T12:00")) == friday
    assert calendar.releases_at(friday) == monday
    assert calendar.goes_at(friday - 1, friday) == friday
    assert calendar.goes_at(friday + 1, friday + 5) == monday


def test_printing_all_the_same_outside_hours_holds_nothing(calendar_of: Callable[..., Calendar | None]) -> None:
    assert calendar_of(hours={"mon": ["08:00-18:00"]}, outside_hours="print") is None
    calendar = calendar_of(hours={"mon": ["08:00-18:00"]}, outside_hours="print", release_at=["10:00"])
    assert calendar is not None
    assert calendar.releases_at(at("2026-11-28T09:00")) == at("2026-11-28T10:00"), "on a Saturday, too"


def test_the_machines_own_clock_is_read_as_a_zone_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        week: tuple[Spans, ...] = (
            ((150, 300),),
        ) * 7  # from 02:30, which is left out in March and shown twice in October
        own, named = Calendar(week, release_at=[150]), Calendar(week, release_at=[150], zone=ZoneInfo("Europe/Berlin"))
        for day in ("2026-03-28", "2026-03-29", "2026-10-24", "2026-10-25"):
            for moment in (at(f"{day}T12:00"), at(f"{day}T02:45")):
                assert own.opens_at(moment) == named.opens_at(moment)
                assert own.releases_at(moment) == named.releases_at(moment)
        assert own.releases_at(at("2026-03-28T12:00")) == at("2026-03-29T03:00")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_printer_without_hours_never_waits(calendar_of: Callable[..., Calendar | None]) -> None:
    assert calendar_of() is None


def test_one_that_never_opens_again_says_so(calendar_of: Callable[..., Calendar]) -> None:
    calendar = calendar_of(holidays=["2026-01-01 to 2126-01-01"])
    assert calendar.opens_at(at("2026-11-27T12:00")) is None
    assert calendar_of(hours={"mon-sun": ["00:00-24:00"]}).opened_at(at("2026-11-27T12:00")) is None
