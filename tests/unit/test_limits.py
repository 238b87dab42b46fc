"""Bounds of the intake: what a session may cost, who gets a place, how fast a source may be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config.settings import Intake
from relay.errors import Goodbye, Refusal
from relay.intake import limits
from relay.intake.connections import Connections
from relay.intake.limits import Budget
from relay.intake.rates import Rates
from relay.mail import status
from relay.mail.status import Reply
from relay.metrics import Metrics


@dataclass(eq=False)
class Guest:
    """A session that remembers what it was told."""

    address: str
    is_known: bool = False
    heard_at: float = 0.0
    told: list[Reply] = field(default_factory=list)

    def dismiss(self, reply: Reply) -> None:
        """Remembers."""
        self.told.append(reply)


def connections(**settings: Any) -> Connections[Guest]:
    return Connections[Guest](Intake(**settings), Metrics())


def test_commands_are_bounded_and_a_message_makes_up_for_them() -> None:
    budget = Budget(Intake(max_commands=50))
    for _ in range(50):
        budget.command()
    with pytest.raises(Goodbye) as goodbye:
        budget.command()
    assert goodbye.value.reply == status.TOO_MANY_COMMANDS
    budget.accepted()
    budget.command()


def test_recipients_that_are_taken_are_no_idle_talk() -> None:
    budget = Budget(Intake(max_commands=50))
    for _ in range(500):
        budget.command()
        budget.moved()
    for _ in range(50):
        budget.command()


def test_errors_are_bounded_and_a_message_makes_up_for_them() -> None:
    budget = Budget(Intake(max_errors=3))
    assert [budget.error() for _ in range(3)] == [False, False, True]
    budget.accepted()
    assert not budget.error()


def test_transactions_are_bounded() -> None:
    budget = Budget(Intake(max_messages=2))
    budget.transaction()
    budget.accepted()
    budget.transaction()
    with pytest.raises(Goodbye) as goodbye:
        budget.transaction()
    assert goodbye.value.reply == status.TOO_MANY_MESSAGES


def test_each_limit_is_counted_under_the_name_of_its_setting() -> None:
    assert set(limits.NAMES.values()) - {"turn", "line"} <= set(Intake.model_fields)


def test_places_of_one_address() -> None:
    place = connections(max_connections_per_address=2)
    guests = [Guest("192.0.2.1") for _ in range(3)]
    assert [place.enter(guest) for guest in guests] == [None, None, status.TOO_MANY_CONNECTIONS_OF_YOURS]
    assert place.enter(Guest("192.0.2.2")) is None
    place.leave(guests[0])
    place.leave(guests[0])
    assert place.enter(guests[2]) is None


def test_a_client_of_ipv6_has_a_whole_network_to_come_from() -> None:
    place = connections(max_connections_per_address=1)
    assert place.enter(Guest("2001:db8::1")) is None
    assert place.enter(Guest("2001:db8::ffff:2")) == status.TOO_MANY_CONNECTIONS_OF_YOURS
    assert place.enter(Guest("2001:db8:0:1::1")) is None
    assert place.enter(Guest("::ffff:192.0.2.1")) is None
    assert place.enter(Guest("::ffff:192.0.2.2")) is None


def test_a_source_gets_the_place_of_the_most_silent_stranger() -> None:
    place = connections(max_connections=3)
    source, silent, talker = (
        Guest("192.0.2.1", is_known=True),
        Guest("198.51.100.1", heard_at=1.0),
        Guest("198.51.100.2", heard_at=2.0),
    )
    assert [place.enter(guest) for guest in (source, silent, talker)] == [None] * 3
    assert place.enter(Guest("198.51.100.3")) == status.TOO_MANY_CONNECTIONS
    assert place.enter(Guest("192.0.2.1", is_known=True)) is None
    assert (source.told, silent.told, talker.told) == ([], [status.MAKE_ROOM], [])
    assert place.enter(Guest("192.0.2.1", is_known=True)) is None
    assert talker.told == [status.MAKE_ROOM]
    assert place.enter(Guest("192.0.2.1", is_known=True)) == status.TOO_MANY_CONNECTIONS, "nobody else is a stranger"
    assert len(list(place)) == 3


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans()), max_size=60))
def test_there_are_never_more_than_there_may_be(steps: list[tuple[int, bool, bool]]) -> None:
    place = connections(max_connections=5, max_connections_per_address=2)
    for number, (host, is_known, leaves) in enumerate(steps):
        if leaves and list(place):
            place.leave(next(iter(place)))
        place.enter(Guest(f"192.0.2.{host}", is_known, float(number)))
        inside = [guest.address for guest in place]
        assert len(inside) <= 5
        assert all(inside.count(address) <= 2 for address in inside)
    for guest in place:
        place.leave(guest)
    assert not place._of_address


def test_a_source_is_slowed_down_and_goes_on_after_a_while() -> None:
    now = 0.0
    rates = Rates(60, lambda: now)
    for _ in range(60):
        rates.take("alma")
    assert rates.are_spent(["alma"])
    with pytest.raises(Refusal) as refusal:
        rates.take("alma")
    assert refusal.value.reply == status.TOO_FAST
    assert not rates.are_spent(["alma", "desk"])
    rates.take("desk")
    now = 1.0
    rates.take("alma")
    assert rates.are_spent(["alma"])
    now = 1000.0
    for _ in range(60):
        rates.take("alma")
    assert rates.are_spent(["alma"]), "what was saved up is a minute's worth"


def test_without_a_limit_nobody_is_slowed_down() -> None:
    rates = Rates(0)
    for _ in range(10_000):
        rates.take("alma")
    assert not rates.are_spent(["alma"])
    assert not Rates(10).are_spent([])
