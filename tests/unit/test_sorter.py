"""Sorting: the rules asked about a letter, with a real spool and a child that says what the test wants, or dies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from relay.config.settings import Config
from relay.errors import RendererDied, RenderError, RendererUnavailable
from relay.mail.address import parse_address
from relay.slips.facts import Facts, LetterType, Wanted
from relay.spool.records import Delivery, State
from relay.transports.sorter import SHUT_FOR, Sorter, arrived
from tests.accepted import accepted

pytestmark = pytest.mark.asyncio

Make = Callable[..., Config]
CONTENT = b"From: a@lib.example\r\n\r\nhello\r\n"
RULES = [
    {"name": "read", "letter_type": ["FulTransitSlipLetter"], "discard": True},
    {"name": "kept", "letter_type": ["FulFines*"], "hold": "look"},
    {"name": "copies", "recipient": "desk@*", "copy_to": ["boss@lib.example"]},
]


class Child:
    """Reads letters as it is told."""

    def __init__(self, says: Facts | Exception) -> None:
        self.says = says
        self.asked: list[Wanted] = []

    async def describe(self, message: bytes, wanted: Wanted) -> Facts:
        self.asked.append(wanted)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def delivery(**fields: object) -> Delivery:
    made = Delivery(
        accepted(CONTENT), 0, "desk@print.lib.example", "sort:demo", "sort:demo", State.ACTIVE, 1, time.time(),
        notify="SUCCESS,FAILURE", orcpt="rfc822;x@y.example",
    )  # fmt: skip
    return replace(made, **fields)  # type: ignore[arg-type]


def transit() -> Facts:
    return Facts(LetterType("FulTransitSlipLetter", "fingerprint"))


async def test_the_letter_decides(make_config: Make) -> None:
    child = Child(transit())
    sorter = Sorter(make_config(rules=RULES), "demo", child, released=False)
    outcome = await sorter.deliver(delivery(), CONTENT)
    assert outcome.state is State.QUEUED
    assert outcome.onward is not None
    assert outcome.onward.way is not None
    assert (outcome.onward.way.route, outcome.onward.way.notify) == ("discard", "SUCCESS,FAILURE")
    assert outcome.onward.more == ()
    assert outcome.reason == "sorted by the rule read: discard"
    assert outcome.notes == ("the letter is a FulTransitSlipLetter (by its fingerprint)",)


async def test_how_it_is_printed_goes_along_and_not_with_its_copies(make_config: Make) -> None:
    rules = [{"name": "m", "letter_type": ["*"], "merge": True, "copies": 2, "copy_to": ["boss@lib.example"]}]
    outcome = await Sorter(make_config(rules=rules), "demo", Child(transit()), released=False).deliver(
        delivery(), CONTENT
    )
    assert outcome.onward is not None
    assert outcome.onward.way is not None
    assert (outcome.onward.way.route, outcome.onward.way.merge, outcome.onward.way.copies) == ("print:desk", True, 2)
    assert [(each.merge, each.copies) for each in outcome.onward.more] == [(False, 0)]


@pytest.mark.parametrize("error", [RenderError("no text"), RendererDied("the child ended")])
async def test_a_letter_that_ends_its_child_goes_on_as_if_no_rule_that_reads_matched(
    make_config: Make, error: Exception
) -> None:
    sorter = Sorter(make_config(rules=RULES), "demo", Child(error), released=False)
    outcome = await sorter.deliver(delivery(), CONTENT)
    assert outcome.state is State.QUEUED
    assert outcome.onward is not None
    assert outcome.onward.way is not None
    assert outcome.onward.way.route == "print:desk"
    assert outcome.notes == (f"the rules could not read the letter: {error}",)


async def test_without_any_child_the_letter_keeps_its_place_and_waits(make_config: Make) -> None:
    sorter = Sorter(make_config(rules=RULES), "demo", Child(RendererUnavailable("none starts")), released=False)
    outcome = await sorter.deliver(delivery(), CONTENT)
    assert (outcome.state, outcome.shut_for, outcome.onward) == (State.DEFERRED, SHUT_FOR, None)


async def test_no_child_is_asked_where_the_envelope_decides(make_config: Make) -> None:
    child = Child(transit())
    sorter = Sorter(make_config(rules=[RULES[2]]), "demo", child, released=False)
    outcome = await sorter.deliver(delivery(), CONTENT)
    assert child.asked == []
    assert outcome.onward is not None
    assert [(each.recipient, each.route, each.notify, each.orcpt, each.copy_of) for each in outcome.onward.more] == [
        ("boss@lib.example", "default", "NEVER", "", 0)
    ]
    assert outcome.notes == ()


async def test_what_is_forwarded_keeps_what_the_sender_asked(make_config: Make) -> None:
    config = make_config(rules=[{"name": "f", "recipient": "desk@*", "forward": ["b@lib.example"]}])
    outcome = await Sorter(config, "demo", Child(transit()), released=False).deliver(delivery(), CONTENT)
    assert outcome.state is State.DELIVERED
    assert outcome.onward is not None
    assert outcome.onward.way is None
    (more,) = outcome.onward.more
    assert (more.recipient, more.notify, more.orcpt) == ("b@lib.example", "SUCCESS,FAILURE", "rfc822;x@y.example")
    assert more.expires_at is not None
    assert outcome.reason == "sorted by the rule f: forwarded to b@lib.example"


async def test_what_a_person_let_go_is_not_held_again(make_config: Make) -> None:
    config = make_config(rules=RULES)
    facts = Facts(LetterType("FulFinesFeesNotificationLetter", "marker"))
    for released, route in ((False, "hold:kept"), (True, "print:desk")):
        outcome = await Sorter(config, "demo", Child(facts), released=released).deliver(delivery(), CONTENT)
        assert outcome.onward is not None
        assert outcome.onward.at_once is released, "what a person let go waits for no hours"
        assert outcome.onward is not None
        assert outcome.onward.way is not None
        assert outcome.onward.way.route == route


async def test_slips_do_not_expire_where_they_are_sorted_or_printed(make_config: Make) -> None:
    config = make_config(rules=RULES)
    assert config.delivery_for("sort:demo").deadlines(0) == (None, None)
    assert config.delivery_for("released:demo").deadlines(0) == (None, None)
    assert config.delivery_for("default").deadlines(0) == (4 * 3600.0, 5 * 86400.0)


async def test_a_message_in_the_spool_is_known_as_it_arrived() -> None:
    message = accepted(CONTENT)
    arrival = arrived(message, parse_address("desk@print.lib.example"), CONTENT)
    assert arrival.from_domains == ("lib.example",)
    assert (arrival.size, arrival.at, arrival.sender) == (message.size, message.received_at, message.reverse_path)
    assert arrived(message, parse_address("a@b.example"), b"no header").from_domains == ()
