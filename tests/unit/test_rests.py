"""Targets that could not be reached are put behind the others, and come back by themselves."""

from __future__ import annotations

from relay.transports.rests import MOST, Rests
from relay.transports.targets import Target
from relay.transports.tls_policy import Start, TlsPolicy

TLS = TlsPolicy(Start.NEVER, "none")
FIRST, SECOND, THIRD = TARGETS = [Target(f"smtp{n}.example", f"192.0.2.{n}", 25, TLS) for n in (1, 2, 3)]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_rests() -> tuple[Rests, Clock]:
    clock = Clock()
    return Rests(10.0, 30.0, clock), clock


def test_one_that_failed_comes_last_and_is_left_out_never() -> None:
    rests, _ = make_rests()
    assert rests.in_order(TARGETS) == TARGETS
    rests.failed(FIRST)
    assert rests.in_order(TARGETS) == [SECOND, THIRD, FIRST]
    rests.failed(SECOND)
    assert rests.in_order(TARGETS) == [THIRD, FIRST, SECOND]
    rests.failed(THIRD)
    assert rests.in_order(TARGETS) == TARGETS


def test_when_a_rest_is_over_one_mail_tries_it() -> None:
    rests, clock = make_rests()
    rests.failed(FIRST)
    clock.now += 10
    assert rests.in_order(TARGETS) == TARGETS
    assert rests.in_order(TARGETS) == [SECOND, THIRD, FIRST], "others wait for what comes of it"
    rests.reached(FIRST)
    assert rests.in_order(TARGETS) == TARGETS


def test_one_behind_another_that_is_well_is_not_taken_for_tried() -> None:
    rests, clock = make_rests()
    rests.failed(SECOND)
    clock.now += 10
    for _ in range(3):
        assert rests.in_order(TARGETS) == TARGETS
    rests.failed(FIRST)
    assert rests.in_order(TARGETS) == [SECOND, THIRD, FIRST], "its rest is over"
    rests.failed(SECOND)
    clock.now += 10
    assert rests.in_order(TARGETS) == [FIRST, THIRD, SECOND], "it failed again, and rests for twice as long"


def test_rests_grow_up_to_the_longest_however_many_mails_saw_the_same() -> None:
    rests, clock = make_rests()
    for wait in (10, 20, 30, 30):
        for _ in range(5):
            rests.failed(FIRST)
        clock.now += wait - 1
        assert rests.in_order(TARGETS)[0] == SECOND, wait
        clock.now += 1
        assert rests.in_order(TARGETS)[0] == FIRST, wait


def test_a_mail_that_never_came_back_keeps_nobody_out() -> None:
    rests, clock = make_rests()
    rests.failed(FIRST)
    clock.now += 10
    assert rests.in_order(TARGETS)[0] == FIRST  # and nothing is heard of it
    clock.now += 10
    assert rests.in_order(TARGETS)[0] == FIRST


def test_what_is_remembered_is_bounded() -> None:
    rests, clock = make_rests()
    for n in range(MOST):
        rests.failed(Target(f"mx{n}.example", "192.0.2.1", 25, TLS))
    clock.now += 100
    rests.failed(FIRST)
    assert len(rests._resting) == 1
