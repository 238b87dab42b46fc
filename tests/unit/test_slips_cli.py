"""`explain`, `render`, `profiles`: without a service, without a printer, in sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pypdf import PdfReader

from relay.cli import command
from tests.harness import samples, toml

Tree = dict[str, Any]

MAILBOX = "desk@print.lib.example"


@pytest.fixture
def slip(tmp_path: Path) -> Path:
    path = tmp_path / "slip.eml"
    path.write_bytes(samples.request_slip(recipient=MAILBOX).replace(b"\r\n", b"\n"))
    return path


@pytest.fixture
def config(tree: Tree, tmp_path: Path) -> Path:
    tree["rules"] = [
        {"name": "night", "hours": "22:00-06:00", "time_zone": "UTC", "discard": True},
        {
            "name": "copies",
            "recipient": "desk@*",
            "text": "Closed stacks",
            "copy_to": ["boss@lib.example"],
            "copies": 2,
        },
        {"name": "transits", "letter_type": ["FulTransitSlipLetter"], "hold": "look"},
        {"name": "requests", "letter_type": ["FulReasource*"], "print": "desk", "profile": "a5"},
        {"name": "rest", "discard": True},
    ]
    path = tmp_path / "relay.toml"
    path.write_text(toml.dumps(tree), encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(each) for each in arguments])


def test_explain_says_what_the_letter_is_which_rules_match_and_why(slip: Path, config: Path) -> None:
    ran = run("explain", slip, "--to", MAILBOX, "-c", config, "--at", "2026-11-25T12:00+00:00")
    assert ran.exit_code == 0, ran.output
    lines = ran.output.splitlines()
    assert lines[0] == "letter   FulReasourceRequestSlipLetter (by its fingerprint)"
    assert "rule 1   night: does not match (discard)" in lines
    assert "         hours = 22:00-06:00: does not hold; Wed 12:00 UTC" in lines
    assert "rule 2   copies: matches (copy_to boss@lib.example; copies 2)" in lines
    assert "         text = Closed stacks: holds; it is in the letter" in lines
    assert "rule 4   requests: matches (print desk; profile a5)" in lines
    assert "rule 5   rest: not asked, the rule before it decides (discard)" in lines
    assert lines[-3:] == [
        "because  of the rule requests, with what copies adds",
        "result   printed on desk with the profile a5, 2 copies",
        "result   a copy to boss@lib.example by default",
    ]


@pytest.mark.parametrize(
    ("waits", "words"),
    [
        ({"release_at": ["10:00"]}, "in one document with others that wait with it"),
        ({}, "by itself: merge is for slips that wait, and this printer has neither hours nor release times"),
    ],
)
def test_explain_says_whether_a_slip_is_merged(slip: Path, tree: Tree, tmp_path: Path, waits: Tree, words: str) -> None:
    tree["rules"] = [{"name": "short", "letter_type": ["*"], "merge": True}]
    tree["printers"][0] |= waits
    path = tmp_path / "relay.toml"
    path.write_text(toml.dumps(tree), encoding="utf-8")
    ran = run("explain", slip, "--to", MAILBOX, "-c", path)
    assert "rule 1   short: matches (merge)" in ran.output.splitlines()
    assert ran.output.splitlines()[-1] == f"result   printed on desk with the profile a4, {words}"


def test_explain_tells_programs_the_same(slip: Path, config: Path) -> None:
    ran = run("explain", slip, "--to", MAILBOX, "-c", config, "--at", "2026-11-25T23:00+00:00", "--json")
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.output)
    assert told["letter"]["type"] == "FulReasourceRequestSlipLetter"
    assert told["letter"]["found_by"] == "fingerprint"
    assert [rule["verdict"] for rule in told["rules"]][:2] == ["matches", "not asked, the rule before it decides"]
    assert told["rules"][0]["conditions"] == [
        {"condition": "hours", "wanted": "22:00-06:00", "found": "Wed 23:00 UTC", "fits": True}
    ]
    assert told["ways"] == ["dropped: accepted, recorded, and nothing more"]
    assert told["sorted_first"] is False


def test_explain_tells_of_a_letter_that_can_t_be_read(tmp_path: Path, config: Path) -> None:
    path = tmp_path / "odd.eml"
    path.write_bytes(b"From: a@lib.example\nContent-Type: application/zip\n\nx\n")
    ran = run("explain", path, "--to", MAILBOX, "-c", config, "--at", "2026-11-25T12:00+00:00")
    assert ran.exit_code == 0
    assert "can't be read: the message has no text to print" in ran.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--to", "nobody"], 2, "the address has no @"),
        (["--to", MAILBOX, "--at", "noon"], 2, "a time is written as in 2026-11-25T18:30"),
        (["--to", MAILBOX, "--institution", "x"], 2, "there is no institution 'x'; there are: demo"),
        (["--to", MAILBOX, "--source", "x"], 2, "there is no source 'x'; there are: alma"),
    ],
)
def test_wrong_usage_is_said_in_a_sentence(
    slip: Path, config: Path, arguments: list[str], code: int, said: str
) -> None:
    ran = run("explain", slip, "-c", config, *arguments)
    assert ran.exit_code == code
    assert said in ran.output


def test_a_letter_is_rendered_into_a_file(slip: Path, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pdf"
    ran = run("render", slip, "--profile", "receipt80", "-o", out, "-c", config)
    assert ran.exit_code == 0, ran.output
    page = PdfReader(out).pages[0]
    assert round(float(page.mediabox.width) / 72 * 25.4) == 80
    assert ran.output.startswith(f"{out}: 1 page of 80 x ")


def test_what_can_t_be_rendered_is_said(tmp_path: Path, config: Path) -> None:
    path = tmp_path / "odd.eml"
    path.write_bytes(b"From: a@lib.example\nContent-Type: application/zip\n\nx\n")
    ran = run("render", path, "--profile", "a4", "-o", tmp_path / "out.pdf", "-c", config)
    assert ran.exit_code == 1
    assert "has no text to print" in str(ran.exception)
    assert not (tmp_path / "out.pdf").exists()


def test_an_unknown_profile_and_a_missing_file_are_said(slip: Path, config: Path, tmp_path: Path) -> None:
    ran = run("render", slip, "--profile", "x", "-o", tmp_path / "o.pdf", "-c", config)
    assert (ran.exit_code, "there is no profile 'x'; there are: a4, a5, letter, receipt80" in ran.output) == (2, True)
    ran = run("render", tmp_path / "nowhere", "--profile", "a4", "-o", tmp_path / "o.pdf", "-c", config)
    assert (ran.exit_code, "can't be read: No such file" in ran.output) == (1, True)


def test_profiles_are_shown_with_their_printers(config: Path, tree: Tree) -> None:
    tree["profiles"] = [{"name": "a4", "paper": "A4", "margin_mm": 20}, {"name": "label", "paper": "100x60mm"}]
    config.write_text(toml.dumps(tree), encoding="utf-8")
    ran = run("profiles", "-c", config)
    assert ran.exit_code == 0
    rows = {line.split()[0]: line for line in ran.output.splitlines()[1:]}
    assert set(rows) == {"a4", "a5", "letter", "receipt80", "receipt58", "label"}
    assert "configuration" in rows["a4"]
    assert rows["a4"].endswith("desk")
    assert "built in" in rows["a5"]
    told = {each["name"]: each for each in json.loads(run("profiles", "-c", config, "--json").output)}
    assert (told["a4"]["margin_mm"], told["a4"]["built_in"], told["a4"]["printers"]) == (20, False, ["desk"])
    assert told["label"]["paper"] == "100x60mm"
