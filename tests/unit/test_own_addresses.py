"""Printers that have an address of their own: configured, decided on, shown, and told of when mail to them fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from relay.bounces.notify import Notifier
from relay.bounces.own_mail import way_to
from relay.cli import command
from relay.config.load import load
from relay.config.settings import Config
from relay.control.again import again
from relay.control.ways import Ways
from relay.errors import ConfigError, OrderError
from relay.mail.address import parse_address
from relay.notices.conditions import conditions
from relay.notices.hours import Hours
from relay.routing.conditions import Arrival
from relay.routing.rules import Decision, choose, decide
from relay.slips.facts import Facts
from relay.spool.orders import Verb
from relay.spool.records import Delivery, Outcome, State
from relay.transports.sorter import Sorter
from tests.accepted import accepted
from tests.harness import toml

Make = Callable[..., Config]

BRANCH = {
    "name": "branch",
    "institution": "demo",
    "mailboxes": ["branch@print.lib.example"],
    "forward_to": ["branch-1@eprint.example", "branch-2@eprint.example"],
    "notify": "branch@lib.example",
}
DESK = {
    "name": "desk",
    "institution": "demo",
    "mailboxes": ["desk@print.lib.example"],
    "queue": "desk",
    "profile": "a4",
}
BOTH = DESK | {"name": "both", "mailboxes": ["both@print.lib.example"], "forward_to": ["both@eprint.example"]}
LAW = {"name": "law", "domains": ["law.example"], "envelope_from": "a@law.example", "next_hop": "other"}


@pytest.fixture
def make(make_config: Make) -> Make:
    def made(*rules: dict[str, Any], **tables: Any) -> Config:
        named = [{"name": f"r{number}", **rule} for number, rule in enumerate(rules, 1)]
        return make_config(
            **{
                "institutions": [make_config().institutions[0].model_dump(exclude_none=True), LAW],
                "next_hops": [{"name": "default", "host": "127.0.0.1"}, {"name": "other"}],
                "printers": [DESK, BRANCH, BOTH],
                "rules": named,
                **tables,
            }
        )

    return made


def arrival(recipient: str, institution: str = "demo") -> Arrival:
    return Arrival(institution, "alma", parse_address(recipient), "alma@exlibrisgroup.com", ("lib.example",), 100, 0.0)


def ways(decision: Decision | None) -> list[str]:
    assert decision is not None
    own = [decision.route.name] if decision.route is not None else []
    return [*own, *(f"{each.route.name} {each.recipient}" for each in (*decision.forwards, *decision.copies_to))]


BY_MAIL = ["default branch-1@eprint.example", "default branch-2@eprint.example"]


def test_a_slip_goes_to_the_addresses_of_its_printer_instead_of_paper(make: Make) -> None:
    decision = decide(make(), arrival("branch@print.lib.example"))
    assert ways(decision) == BY_MAIL
    assert decision is not None
    assert not decision.is_one_way
    assert decision.because == "the mailbox of the printer branch"


def test_with_a_queue_it_is_printed_as_well(make: Make) -> None:
    assert ways(decide(make(), arrival("both@print.lib.example"))) == ["print:both", "default both@eprint.example"]
    assert ways(decide(make(), arrival("desk@print.lib.example"))) == ["print:desk"]


@pytest.mark.parametrize(
    ("rule", "recipient", "found"),
    [
        ({"recipient": "desk@*", "print": "branch"}, "desk@print.lib.example", BY_MAIL),
        ({"recipient": "branch@*", "print": "desk"}, "branch@print.lib.example", ["print:desk"]),
        ({"recipient": "desk@*", "copy_to": ["branch"]}, "desk@print.lib.example", ["print:desk", *BY_MAIL]),
        (
            {"recipient": "desk@*", "copy_to": ["both"]},
            "desk@print.lib.example",
            ["print:desk", "print:both both@print.lib.example", "default both@eprint.example"],
        ),
        ({"recipient": "branch@*", "copies": 3, "profile": "a5"}, "branch@print.lib.example", BY_MAIL),
        (
            {"recipient": "branch@*", "copy_to": ["branch", "branch-1@eprint.example"]},
            "branch@print.lib.example",
            BY_MAIL,
        ),
        ({"recipient": "branch@*", "hold": "no"}, "branch@print.lib.example", ["hold:r1"]),
    ],
)
def test_rules_print_on_it_and_copy_to_it(make: Make, rule: dict[str, Any], recipient: str, found: list[str]) -> None:
    assert ways(decide(make(rule), arrival(recipient))) == found


def test_mail_of_ours_does_not_go_there(make: Make) -> None:
    config = make({"recipient": "it@lib.example", "print": "branch"})
    for address in ("branch@print.lib.example", "it@lib.example"):
        assert way_to(config, config.institution("demo"), parse_address(address)) is None
    assert way_to(config, config.institution("demo"), parse_address("other@lib.example")) is not None


def test_nobody_else_s_slips_go_there(make: Make) -> None:
    config = make({"recipient": "*", "copy_to": ["branch"]}, {"recipient": "*", "print": "branch"})
    assert ways(decide(config, arrival("branch@print.lib.example", "law"))) == ["other"]


def test_what_a_person_lets_go_is_sorted_once_more(make: Make) -> None:
    config = make()
    to = parse_address("branch@print.lib.example")
    assert choose(config, "demo", to).name == "sort:demo"
    held = replace(_delivery("branch@print.lib.example"), route="hold:gone", state=State.HELD)
    assert Ways(config)(held, Verb.RELEASE).route == "released:demo"
    printed = replace(held, route="print:branch", copy_of=0)
    assert Ways(config)(printed, Verb.RELEASE).route == "sort:demo"


def _delivery(recipient: str, **known: Any) -> Delivery:
    message = accepted(b"From: a@lib.example\r\n\r\n", reverse_path="alma@exlibrisgroup.com")
    return Delivery(message, 1, recipient, "default", "default", State.ACTIVE, 1, 0.0, **known)


@pytest.mark.asyncio
async def test_it_is_sorted_without_a_look_into_the_letter_and_told_of_when_it_fails(make: Make) -> None:
    class NoReader:
        async def describe(self, message: bytes, wanted: object) -> Facts:
            raise AssertionError("nothing has to be read")

    sorter = Sorter(make(), "demo", NoReader(), released=False)
    for mailbox, count in (("branch", 2), ("both", 1)):
        outcome = await sorter.deliver(_delivery(f"{mailbox}@print.lib.example"), b"From: a@lib.example\r\n\r\n")
        assert outcome.onward is not None
        assert [each.notify for each in outcome.onward.more] == [""] * count
        assert all(each.copy_of == 1 and each.expires_at is not None for each in outcome.onward.more)


@pytest.mark.parametrize(
    ("printer", "institution", "told"),
    [
        ({"notify": "desk@lib.example"}, {"notify": "it@lib.example"}, "desk@lib.example"),
        ({}, {"notify": "it@lib.example"}, "it@lib.example"),
        ({}, {"dsn_to": "postmaster@lib.example"}, "postmaster@lib.example"),
        ({}, {}, "alma@exlibrisgroup.com"),
        ({}, {"dsn_to": "nobody"}, None),
    ],
)
def test_the_desk_is_told_when_its_printer_can_t_be_written_to(
    make_config: Make, printer: dict[str, Any], institution: dict[str, Any], told: str | None
) -> None:
    base = make_config().institutions[0].model_dump(exclude_none=True)
    branch = {name: value for name, value in BRANCH.items() if name != "notify"} | printer
    config = make_config(institutions=[base | institution], printers=[branch])
    refused = Outcome(State.FAILED, "refused")

    def whom(**known: Any) -> str | None:
        new = Notifier(config).about(_delivery("branch-1@eprint.example", **known), refused, b"")
        return new.deliveries[0].recipient if new is not None else None

    assert whom(copy_of=0) == told
    other = {"dsn_to": "alma@exlibrisgroup.com"} | institution
    ordinary = None if other["dsn_to"] == "nobody" else other["dsn_to"]
    assert whom() == ordinary  # mail that somebody wrote to the printer's address himself


def test_a_printer_without_a_queue_has_no_notices_and_no_reprints(make: Make) -> None:
    config = make(printers=[BRANCH])
    assert [each.kind for each in conditions(config, {}, {}, 0.0, 0.0, Hours(config))] == []
    slip = replace(_delivery("desk@print.lib.example"), route="print:desk")
    with pytest.raises(OrderError, match="the printer branch has no queue"):
        again(config, "branch", None)(slip)


@pytest.mark.parametrize(
    ("printer", "complaint"),
    [
        ({"forward_to": []}, "queue is missing, or forward_to"),
        ({"copies": 2}, "printers[2].copies ('branch'): is unknown"),
        ({"hours": {"mon": ["08:00-12:00"]}}, "hours is for a printer with a queue"),
        ({"profile": "a4"}, "profile is for a printer with a queue"),
        ({"duplicates": {"content": "10m"}}, "duplicates.content is for a printer with a queue"),
        ({"queue": "branch"}, "profile is missing"),
        (
            {"forward_to": ["desk@print.lib.example"]},
            "printers[2].forward_to ('branch'): desk@print.lib.example stands",
        ),
        ({"forward_to": ["no address"]}, "printers[2].forward_to[1] ('branch')"),
    ],
)
def test_mistakes_are_told(tree: dict[str, Any], tmp_path: Path, printer: dict[str, Any], complaint: str) -> None:
    tree["printers"].append(BRANCH | printer)
    path = tmp_path / "relay.toml"
    path.write_text(toml.dumps(tree), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert complaint in "\n".join(map(str, caught.value.problems))


@pytest.mark.parametrize(
    ("institution", "is_told"),
    [
        ({}, False),
        ({"dsn_to": "nobody"}, False),
        ({"dsn_to": "it@lib.example"}, True),
        ({"notify": "it@lib.example"}, True),
    ],
)
def test_somebody_has_to_hear_of_slips_that_can_t_be_delivered(
    tree: dict[str, Any], tmp_path: Path, institution: dict[str, Any], is_told: bool
) -> None:
    tree["institutions"][0] |= institution
    tree["printers"].append({name: value for name, value in BRANCH.items() if name != "notify"})
    path = tmp_path / "relay.toml"
    path.write_text(toml.dumps(tree), encoding="utf-8")
    try:
        load(path)
        found = ""
    except ConfigError as error:
        found = "\n".join(map(str, error.problems))
    assert ("nobody hears what can't be delivered there" in found) is not is_told


def test_it_stands_in_for_nobody(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["printers"][0]["alternates"] = ["branch"]
    tree["printers"].append(BRANCH)
    path = tmp_path / "relay.toml"
    path.write_text(toml.dumps(tree), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"has no other printer 'branch' \(there are none\)"):
        load(path)


@pytest.mark.asyncio
async def test_explain_and_set_up_know_it(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["printers"] = [BRANCH]
    path, slip = tmp_path / "relay.toml", tmp_path / "slip.eml"
    path.write_text(toml.dumps(tree), encoding="utf-8")
    slip.write_bytes(b"From: a@lib.example\r\nSubject: x\r\n\r\ntext\r\n")

    async def said(*arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, command, [*arguments, "-c", str(path)])
        return result.output

    explained = await said("explain", str(slip), "--to", "branch@print.lib.example")
    assert "result   forwarded to branch-1@eprint.example by default, instead" in explained.splitlines()
    assert "`slip-relay send-test --to-printer branch` writes to it" in await said("printers", "test", "branch")
    assert "0 mistakes" not in await said("check")
    assert "1 printers" in await said("check")
