"""A clock that is set is noticed, and one that goes a little fast or slow is not."""

from __future__ import annotations

from relay.delivery.clock import STEP, ClockWatch


class Times:
    """A clock and a timer that the test moves."""

    def __init__(self) -> None:
        self.clock, self.timer = 1_800_000_000.0, 50.0
        self.watch = ClockWatch(lambda: self.clock, lambda: self.timer)

    def goes_on(self, seconds: float, *, clock: float | None = None) -> float:
        self.timer += seconds
        self.clock += seconds if clock is None else clock
        return self.watch.look()


def test_time_that_goes_by_is_no_step_nor_is_a_clock_that_is_slewed() -> None:
    times = Times()
    assert times.goes_on(3600) == 0.0
    assert [times.goes_on(1.0, clock=1.0 - STEP / 2) for _ in range(10)] == [0.0] * 10
    assert times.watch.owed == 0.0


def test_a_step_back_is_owed_until_it_is_settled() -> None:
    times = Times()
    assert round(times.goes_on(1.0, clock=-7199.0)) == -7200
    assert times.goes_on(1.0) == 0.0
    assert round(times.watch.owed) == 7200
    times.goes_on(1.0, clock=-59.0)
    assert round(times.watch.owed) == 7260
    times.watch.settled()
    assert times.watch.owed == 0.0


def test_a_machine_that_slept_owes_nothing_and_a_step_that_is_undone_neither() -> None:
    times = Times()
    assert times.goes_on(0.5, clock=64 * 3600) == 64 * 3600 - 0.5
    assert times.watch.owed == 0.0
    times.goes_on(1.0, clock=-99.0)
    times.goes_on(1.0, clock=101.0)
    assert round(times.watch.owed) == 0
