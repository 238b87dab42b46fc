"""What the rules make of mail: conditions, order, actions, and what never crosses from one institution to another."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from relay.config.settings import Config
from relay.mail.address import parse_address
from relay.routing.conditions import Arrival, elements_wanted, findings
from relay.routing.rules import Decision, decide, judge, merges, wanted
from relay.slips.facts import ElementFound, Facts, LetterType

Make = Callable[..., Config]

LAW = {"name": "law", "domains": ["law.example"], "envelope_from": "a@law.example"}


def printers(*names: str, institution: str = "demo") -> list[dict[str, Any]]:
    return [
        {"name": name, "institution": institution, "mailboxes": [f"{name}@print.lib.example"], "queue": name,
         "profile": "a4"}
        for name in names
    ]  # fmt: skip


@pytest.fixture
def make(make_config: Make) -> Callable[..., Config]:
    """A configuration of these rules, with two institutions and three printers."""

    def made(*rules: dict[str, Any]) -> Config:
        named = [{"name": f"r{number}", **rule} for number, rule in enumerate(rules, 1)]
        institutions = [make_config().institutions[0].model_dump(), LAW]
        return make_config(
            institutions=institutions,
            printers=[*printers("desk", "roll"), *printers("court", institution="law")],
            rules=named,
        )

    return made


def arrival(recipient: str = "desk@print.lib.example", **known: Any) -> Arrival:
    defaults: dict[str, Any] = {
        "institution": "demo",
        "source": "alma",
        "sender": "alma@exlibrisgroup.com",
        "from_domains": ("lib.example",),
        "size": 10_000,
        "at": 0.0,
    }
    return Arrival(recipient=parse_address(recipient), **{**defaults, **known})


def at(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def ways(decision: Decision | None) -> list[str]:
    assert decision is not None
    own = [decision.route.name] if decision.route is not None else []
    more = [*decision.forwards, *decision.copies_to]
    return [*own, *(f"{each.route.name} {each.recipient}" for each in more)]


TRANSIT = Facts(LetterType("FulTransitSlipLetter", "marker"), printer_code="MAIN", library_code="LAW-1")

ON_ENVELOPE = [
    ({"recipient": "d?sk@*"}, {}, True),
    ({"recipient": "roll@*"}, {}, False),
    ({"institution": "demo"}, {}, True),
    ({"institution": "law"}, {}, False),
    ({"source": "alma"}, {}, True),
    ({"source": "other"}, {}, False),
    ({"sender": "*@ExLibrisGroup.com"}, {}, True),
    ({"sender": "*@exlibrisgroup.com"}, {"sender": None}, False),
    ({"sender": "<>"}, {"sender": None}, True),
    ({"sender": "<>"}, {}, False),
    ({"sender": "lib.example"}, {}, True),
    ({"sender": "*.example"}, {"from_domains": ("a.example", "b.org")}, True),
    ({"sender": "*.example"}, {"from_domains": ()}, False),
    ({"larger_than": 9_999}, {}, True),
    ({"larger_than": 10_000}, {}, False),
    ({"smaller_than": 10_001}, {}, True),
    ({"smaller_than": 10_000}, {}, False),
]


@pytest.mark.parametrize(("condition", "known", "fits"), ON_ENVELOPE)
def test_conditions_on_the_envelope_are_judged_at_once(
    make: Make, condition: dict[str, Any], known: dict[str, Any], fits: bool
) -> None:
    config = make({**condition, "discard": True})
    assert ways(decide(config, arrival(**known))) == (["discard"] if fits else ["print:desk"])


TIMES = [
    ({"hours": "08:00-18:00"}, "2026-11-25T08:00", True),
    ({"hours": "08:00-18:00"}, "2026-11-25T18:00", False),
    ({"hours": "18:00-08:00"}, "2026-11-25T07:59", True),
    ({"hours": "18:00-08:00"}, "2026-11-25T12:00", False),
    ({"hours": "18:00-24:00"}, "2026-11-25T23:59", True),
    ({"days": ["wed"]}, "2026-11-25T12:00", True),
    ({"days": ["thu"]}, "2026-11-25T12:00", False),
    ({"hours": "22:00-06:00", "days": ["fri"]}, "2026-11-28T05:00", True),
    ({"hours": "22:00-06:00", "days": ["sat"]}, "2026-11-28T05:00", False),
    ({"hours": "08:00-09:00"}, "2026-07-01T08:30", True),
]


@pytest.mark.parametrize(("condition", "moment", "fits"), TIMES)
def test_hours_and_days_go_by_the_clock_of_the_time_zone(
    make: Make, condition: dict[str, Any], moment: str, fits: bool
) -> None:
    config = make({**condition, "time_zone": "Europe/Berlin", "discard": True})
    assert ways(decide(config, arrival(at=at(moment)))) == (["discard"] if fits else ["print:desk"])


def test_a_rule_without_a_time_zone_goes_by_that_of_the_server(make: Make) -> None:
    config = make({"hours": "08:00-18:00", "discard": True})
    for zone, fits in (("Europe/Berlin", True), ("Pacific/Auckland", False)):
        server = config.server.model_copy(update={"time_zone": zone})
        here = config.model_copy(update={"server": server})
        assert ways(decide(here, arrival(at=at("2026-11-25T12:00")))) == (["discard"] if fits else ["print:desk"])


IN_LETTER = [
    ({"letter_type": ["FulTransit*"]}, TRANSIT, True),
    ({"letter_type": ["A", "FulTransitSlipLetter"]}, TRANSIT, True),
    ({"letter_type": ["FulLoanReceiptLetter"]}, TRANSIT, False),
    ({"letter_type": ["*"]}, Facts(), False),
    ({"letter_type": ["*"]}, Facts(unreadable="no"), False),
    ({"printer_code": "main"}, TRANSIT, True),
    ({"library_code": "LAW*"}, TRANSIT, True),
    ({"library_code": "*"}, Facts(), False),
    ({"text": "here"}, Facts(texts=frozenset({"here"})), True),
    ({"text": "here"}, TRANSIT, False),
    ({"attached": ["application/vnd.*", "text/csv"]}, Facts(attachments=("application/pdf", "text/csv")), True),
    ({"attached": ["application/vnd.*"]}, Facts(attachments=("application/pdf",)), False),
    ({"attached": ["*"]}, TRANSIT, False),
]


@pytest.mark.parametrize(("condition", "facts", "fits"), IN_LETTER)
def test_conditions_on_the_letter_wait_for_it(make: Make, condition: dict[str, Any], facts: Facts, fits: bool) -> None:
    config = make({**condition, "discard": True})
    assert decide(config, arrival()) is None
    assert ways(decide(config, arrival(), facts)) == (["discard"] if fits else ["print:desk"])


def test_no_letter_is_read_for_a_rule_that_its_envelope_rules_out(make: Make) -> None:
    config = make({"recipient": "roll@*", "letter_type": ["X"], "discard": True})
    assert ways(decide(config, arrival())) == ["print:desk"]
    assert decide(config, arrival("roll@print.lib.example")) is None


def test_no_letter_is_read_after_a_rule_has_decided(make: Make) -> None:
    config = make({"recipient": "desk@*", "print": "roll"}, {"letter_type": ["X"], "discard": True})
    assert ways(decide(config, arrival())) == ["print:roll"]


def test_mail_to_the_world_is_not_sorted_for_the_sake_of_slips(make: Make) -> None:
    config = make({"recipient": "*@print.lib.example", "letter_type": ["X"], "discard": True})
    assert ways(decide(config, arrival("reader@patron.example"))) == ["default"]


ENDS = {
    "elements": [{"selector": "#from"}, {"selector": "#to", "any_of": ["*"]}],
    "same_list": [["Main*", "Map*"], ["Law*", "Annex*"]],
    "discard": True,
}


@pytest.mark.parametrize(
    ("start", "end", "fits"),
    [({0}, {1}, True), ({2}, {3}, True), ({0}, {2}, False), (set(), {0}, False), ({0, 2}, {3}, True)],
)
def test_both_ends_of_a_transit_have_to_be_in_one_list(make: Make, start: set[int], end: set[int], fits: bool) -> None:
    config = make(ENDS)
    first, second = elements_wanted(config.rules[0])
    assert first.lists == second.lists == ("Main*", "Map*", "Law*", "Annex*")
    assert wanted(config, "demo").elements == (first, second)
    facts = Facts(elements={first: ElementFound(1, frozenset(start)), second: ElementFound(1, frozenset(end))})
    assert ways(decide(config, arrival(), facts)) == (["discard"] if fits else ["print:desk"])


def test_an_element_that_is_not_there_rules_it_out(make: Make) -> None:
    config = make(ENDS)
    first, _ = elements_wanted(config.rules[0])
    facts = Facts(elements={first: ElementFound(1, frozenset({0}))})
    assert ways(decide(config, arrival(), facts)) == ["print:desk"]


def test_a_rule_without_an_action_adds_and_the_next_one_is_asked(make: Make) -> None:
    config = make(
        {"copy_to": ["roll", "boss@lib.example"], "copies": 2},
        {"copy_to": ["roll"], "copies": 3, "profile": "a5"},
        {"recipient": "desk@*", "print": "desk"},
        {"discard": True},
    )
    decision = decide(config, arrival())
    assert ways(decision) == ["print:desk", "print:roll roll@print.lib.example", "default boss@lib.example"]
    assert decision is not None
    assert (decision.copies, decision.profile) == (2, "a5")
    assert decision.because == "the rule r3, with what r1 and r2 add"
    assert not decision.is_one_way


def test_a_copy_for_where_it_goes_anyway_is_none(make: Make) -> None:
    assert ways(decide(make({"copy_to": ["desk"]}), arrival())) == ["print:desk"]


def test_what_is_forwarded_goes_out_by_the_institutions_next_hop_and_is_not_printed(make: Make) -> None:
    config = make({"recipient": "desk@*", "forward": ["a@lib.example", "b@lib.example"], "copy_to": ["roll"]})
    decision = decide(config, arrival())
    assert decision is not None
    assert decision.route is None
    assert ways(decision) == ["default a@lib.example", "default b@lib.example", "print:roll roll@print.lib.example"]


def test_nothing_of_one_institution_comes_out_at_another_ones_printer(make: Make) -> None:
    config = make({"copy_to": ["court", "roll"]}, {"print": "court"}, {"letter_type": ["*"], "print": "court"})
    own = decide(config, arrival(), TRANSIT)
    assert ways(own) == ["print:desk", "print:roll roll@print.lib.example"]
    theirs = decide(config, arrival("x@y.example", institution="law"), TRANSIT)
    assert ways(theirs) == ["print:court"]


def test_any_rule_that_matches_may_let_slips_be_merged(make: Make) -> None:
    config = make({"copies": 2}, {"merge": True}, {"recipient": "desk@*", "print": "roll"}, {"print": "desk"})
    decision = decide(config, arrival())
    assert decision is not None
    assert (decision.route and decision.route.name, decision.merge, decision.copies) == ("print:roll", True, 2)
    assert decision.is_one_way, "it is known when the mail arrives"
    by_itself = decide(make({"print": "roll", "merge": True}), arrival())
    assert by_itself is not None
    assert by_itself.merge
    assert (decide(make({"print": "roll"}), arrival()) or decision).merge is False


def test_whose_slips_may_be_merged_is_known_of_each_printer(make: Make) -> None:
    def of(*rules: dict[str, Any]) -> set[str]:
        config = make(*rules)
        return {printer.name for printer in config.printers if merges(config, printer)}

    assert of({"print": "roll"}) == set()
    assert of({"merge": True}) == {"desk", "roll", "court"}
    assert of({"print": "roll", "merge": True}) == {"roll"}
    assert of({"institution": "law", "merge": True}) == {"court"}


def test_profile_copies_and_merge_are_for_paper_only(make: Make) -> None:
    config = make({"copies": 2, "profile": "a5", "merge": True})
    decision = decide(config, arrival("reader@patron.example"))
    assert decision is not None
    assert not decision.merge
    assert (decision.route and decision.route.name, decision.copies, decision.profile) == ("default", 0, "")


def test_a_person_passes_rules_that_hold_and_no_others(make: Make) -> None:
    config = make({"letter_type": ["*"], "hold": "look"}, {"letter_type": ["FulTransit*"], "print": "roll"})
    assert ways(decide(config, arrival(), TRANSIT)) == ["hold:r1"]
    assert ways(decide(config, arrival(), TRANSIT, passing_holds=True)) == ["print:roll"]


def test_each_condition_is_told_with_what_was_found(make: Make) -> None:
    config = make({"recipient": "desk@*", "letter_type": ["A"], "smaller_than": 5, "discard": True})
    told = [(each.condition, each.fits) for each in findings(config.rules[0], arrival(), None)]
    assert told == [("recipient", True), ("smaller_than", False), ("letter_type", None)]
    assert [(each.rule.name, each.fits) for each in judge(config, arrival(), TRANSIT)] == [("r1", False)]
