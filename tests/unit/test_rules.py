"""Routes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay.config.settings import Config
from relay.mail.address import parse_address
from relay.routing.rules import choose

Make = Callable[..., Config]

RULES = [
    {"name": "hold-it", "recipient": "held@*", "hold": "a person decides"},
    {"name": "drop-it", "recipient": "drop@*", "discard": True},
    {"name": "old-desk", "recipient": "old@print.lib.example", "print": "desk"},
    {"name": "partner", "recipient": "*@partner.example", "next_hop": "default"},
    {"name": "late", "recipient": "held@*", "discard": True},
]


@pytest.mark.parametrize(
    ("recipient", "route"),
    [
        ("reader@patron.example", "default"),
        ("DESK@Print.Lib.Example", "print:desk"),
        ("old@print.lib.example", "print:desk"),
        ("held@x.example", "hold:hold-it"),
        ("drop@x.example", "discard"),
        ("a@partner.example", "default"),
    ],
)
def test_the_first_rule_that_matches_decides(make_config: Make, recipient: str, route: str) -> None:
    assert choose(make_config(rules=RULES), "demo", parse_address(recipient)).name == route


def test_a_printer_is_never_the_route_of_another_institution(make_config: Make) -> None:
    law = {"name": "law", "domains": ["law.example"], "bounce_domain": "b.law.example"}
    config = make_config(institutions=[make_config().institutions[0].model_dump(), law], rules=RULES)
    assert choose(config, "law", parse_address("old@print.lib.example")).name == "default"
    assert choose(config, "law", parse_address("desk@print.lib.example")).name == "default"


def test_a_route_says_why(make_config: Make) -> None:
    assert choose(make_config(rules=RULES), "demo", parse_address("held@x.example")).because == "the rule hold-it"
