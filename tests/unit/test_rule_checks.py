"""Mistakes in rules: found when the configuration is read, or by `slip-relay check`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from relay.cli import command
from relay.config.load import load
from relay.config.rule_checks import nonsense
from relay.config.settings import Config
from relay.errors import ConfigError
from tests.harness import toml

Make = Callable[..., Config]
Tree = dict[str, Any]

LAW = {"name": "law", "domains": ["law.example"], "envelope_from": "a@law.example"}
COURT = {"name": "court", "institution": "law", "mailboxes": ["court@print.law.example"], "queue": "c", "profile": "a4"}


def written(tree: Tree, folder: Path, *rules: dict[str, Any]) -> Path:
    tree["rules"] = [{"name": f"r{number}", **rule} for number, rule in enumerate(rules, 1)]
    tree["institutions"].append(LAW)
    tree["printers"].append(COURT)
    path = folder / "relay.toml"
    path.write_text(toml.dumps(tree), encoding="utf-8")
    return path


MISTAKES = [
    ({"print": "x"}, "rules[1].print ('r1'): there is no printer 'x' (there are: court, desk)"),
    ({"copy_to": ["x"]}, "rules[1].copy_to ('r1'): there is no printer 'x'"),
    ({"copy_to": ["desk@print.lib.example"]}, "desk@print.lib.example stands for a printer: name the printer instead"),
    ({"forward": ["DESK@print.lib.example"]}, "stands for a printer: name the printer instead"),
    ({"forward": ["nobody"]}, "the address has no @"),
    ({"copies": 1, "source": "x"}, "there is no source 'x' (there are: alma)"),
    (
        {"print": "desk", "profile": "x"},
        "there is no profile 'x' (there are: a4, a5, label, letter, receipt58, receipt80)",
    ),
    ({"print": "desk", "hold": "x"}, "a rule has only one of print, next_hop, hold, discard and forward"),
    ({"discard": True, "copies": 2}, "profile, copies and merge are for what is printed"),
    ({"discard": True, "merge": True}, "profile, copies and merge are for what is printed"),
    ({"copies": 0}, "greater than or equal to 1"),
    ({"discard": True, "hours": "8-18"}, 'hours are written as in "08:00-18:00"'),
    ({"discard": True, "hours": "08:00-08:00"}, "the hours are over when they begin"),
    ({"discard": True, "hours": "08:00-24:30"}, "hours are written"),
    ({"discard": True, "days": ["Monday"]}, "input should be 'mon'"),
    ({"discard": True, "days": ["mon"], "time_zone": "Mars/Base"}, "there is no time zone 'Mars/Base'"),
    ({"discard": True, "time_zone": "Europe/Berlin"}, "time_zone goes with hours or days"),
    ({"discard": True, "same_list": [["a"]]}, "same_list needs the elements"),
    ({"discard": True, "same_list": [[]], "elements": [{"selector": "p"}]}, "at least 1 item"),
    ({"discard": True, "elements": [{"select": "p"}]}, "is unknown; is selector meant?"),
    ({"discard": True, "larger_than": "2MiB", "smaller_than": "1MiB"}, "no message is larger_than and smaller_than"),
]


@pytest.mark.parametrize(("rule", "text"), MISTAKES)
def test_a_mistake_in_a_rule_is_told_with_its_place(tree: Tree, tmp_path: Path, rule: Tree, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(written(tree, tmp_path, rule))
    assert [problem for problem in error.value.problems if text in str(problem)], error.value.problems
    assert str(error.value.problems[0]).startswith("relay.toml: rules[1]")


SHADOWED = [
    ([{"discard": True}, {"print": "desk"}], True),
    ([{"recipient": "*@lib.example", "discard": True}, {"recipient": "desk*@lib.example", "print": "desk"}], True),
    ([{"recipient": "desk@*", "discard": True}, {"recipient": "*", "print": "desk"}], False),
    ([{"letter_type": ["A", "B"], "discard": True}, {"letter_type": ["B"], "text": "x", "print": "desk"}], True),
    ([{"letter_type": ["A"], "discard": True}, {"letter_type": ["A", "B"], "print": "desk"}], False),
    ([{"hours": "08:00-18:00", "discard": True}, {"print": "desk"}], False),
    ([{"copies": 2}, {"print": "desk"}], False),
    ([{"print": "court"}, {"print": "desk"}], False),
    ([{"institution": "law", "discard": True}, {"print": "desk"}], False),
    ([{"institution": "demo", "discard": True}, {"print": "desk"}], True),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "found"), SHADOWED)
def test_a_rule_that_never_matches_is_nonsense_and_yet_read(
    tree: Tree, tmp_path: Path, rules: list[Tree], found: bool
) -> None:
    config = load(written(tree, tmp_path, *rules))
    told = list(nonsense(config))
    assert bool(told) is found, told
    if found:
        assert told == [(("rules", 1), "never matches: the rule 'r1' before it takes all that it would take")]


def test_actions_across_institutions_are_nonsense(tree: Tree, tmp_path: Path) -> None:
    rules: list[Tree] = [{"institution": "demo", "recipient": "a@*", "print": "court", "source": "alma"}]
    rules += [{"institution": "law", "recipient": "b@*", "copy_to": ["desk", "x@y.example"], "source": "alma"}]
    told = dict(nonsense(load(written(tree, tmp_path, *rules))))
    assert told == {
        ("rules", 0, "print"): "the printer 'court' belongs to 'law', and prints nothing of 'demo'",
        ("rules", 1, "copy_to"): "the printer 'desk' belongs to 'demo', and prints nothing of 'law'",
        ("rules", 1, "source"): "the source 'alma' does not send for 'law'",
    }


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"merge": True}, "and no printer that it could be for has any"),
        ({"print": "desk", "merge": True}, "and none ever wait for 'desk'"),
        ({"institution": "law", "merge": True}, "and no printer that it could be for has any"),
    ],
)
def test_merging_where_nothing_waits_is_nonsense(tree: Tree, tmp_path: Path, rule: Tree, told: str) -> None:
    what = f"merge is for slips that wait for a printer's hours or release_at, {told}"
    assert list(nonsense(load(written(tree, tmp_path, rule)))) == [(("rules", 0, "merge"), what)]


@pytest.mark.parametrize("waits", [{"release_at": ["10:00"]}, {"hours": {"mon": ["08:00-10:00"]}}])
@pytest.mark.parametrize("rule", [{"merge": True}, {"print": "desk", "merge": True}, {"copies": 2}])
def test_merging_where_slips_wait_is_right(tree: Tree, tmp_path: Path, rule: Tree, waits: Tree) -> None:
    tree["printers"][0] |= waits
    assert list(nonsense(load(written(tree, tmp_path, rule)))) == []


def test_merging_at_a_printer_that_prints_at_night_is_nonsense(tree: Tree, tmp_path: Path) -> None:
    tree["printers"][0] |= {"hours": {"mon": ["08:00-10:00"]}, "outside_hours": "print"}
    assert len(list(nonsense(load(written(tree, tmp_path, {"merge": True}))))) == 1


def test_check_tells_of_nonsense_and_of_bad_selectors(tree: Tree, tmp_path: Path) -> None:
    path = written(
        tree, tmp_path, {"elements": [{"selector": "p"}, {"selector": "td["}], "discard": True}, {"discard": True},
        {"print": "desk"},
    )  # fmt: skip
    ran = CliRunner().invoke(command, ["check", "-c", str(path)])
    assert ran.exit_code == 1
    assert "rules[1].elements[2].selector ('r1'): the selector 'td[' can't be used" in ran.stderr
    assert "rules[3] ('r3'): never matches: the rule 'r2' before it takes all that it would take" in ran.stderr
