"""Notices: what is told, once, and once that it is over; whom it goes to, and what it says."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Callable
from typing import Any

import pytest

from relay.bounces.own_mail import SOURCE
from relay.bounces.words import WIDTH, Templates
from relay.config.settings import Config
from relay.notices.conditions import Condition, conditions
from relay.notices.hours import Hours
from relay.notices.letter import Letters
from relay.notices.watch import Step, Watch
from relay.resources import templates_folder
from relay.spool.notices import Told
from relay.spool.records import NewMessage
from relay.spool.standing import Standing

Make = Callable[..., Config]
NOW = 1_795_541_279.0
LANGUAGES = ("de", "en", "es", "fr", "it", "nl")
KINDS = ("trouble", "waiting", "held", "silent")


class Node:
    """One node's watch, with what was told kept as the spool would."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.told: dict[str, Told] = {}

    def look(self, *found: Condition) -> list[str]:
        """What one look says: `kind` when it is told, `kind over` when it is over."""
        steps = self.watch.decide(found, self.told)
        for step in steps:
            self._keep(step)
        return [step.condition.kind + (" over" if step.known else "") for step in steps]

    def _keep(self, step: Step) -> None:
        key = step.condition.key
        if step.known is None:
            self.told[key] = Told(key, step.condition.since, NOW)
        else:
            del self.told[key]


def trouble(age: float) -> Condition:
    return Condition("trouble", "desk", 900, age)


def waiting(age: float) -> Condition:
    return Condition("waiting", "desk", 3600, age)


# --- what is told


def test_trouble_is_told_once_when_it_has_lasted() -> None:
    node = Node()
    assert node.look(trouble(800)) == []
    assert node.look(trouble(901)) == ["trouble"]
    assert node.look(trouble(931)) == []
    assert node.look(trouble(90_000)) == []


def test_it_is_over_once_when_two_looks_found_it_well() -> None:
    node = Node()
    node.look(trouble(901))
    assert node.look(trouble(0)) == []
    assert node.look(trouble(0)) == ["trouble over"]
    assert node.look(trouble(0)) == []
    assert node.look(trouble(901)) == ["trouble"]


def test_what_comes_and_goes_makes_no_mail() -> None:
    node = Node()
    node.look(trouble(901))
    for _ in range(5):
        assert node.look(trouble(0)) == []
        assert node.look(trouble(1000)) == []
    # Nor does a slip that is about as old as may be: it is well again when the oldest is half as old.
    node = Node()
    node.look(waiting(3601))
    for age in (3599, 3601, 3599, 1801, 3700):
        assert node.look(waiting(age)) == []
    assert [node.look(waiting(1800)), node.look(waiting(1800))] == [[], ["waiting over"]]


def test_after_a_restart_nothing_is_told_again() -> None:
    node = Node()
    node.look(trouble(901))
    node.watch = Watch()
    assert node.look(trouble(950)) == []
    assert [node.look(trouble(0)), node.look(trouble(0))] == [[], ["trouble over"]]


def test_slips_that_are_late_for_trouble_are_one_notice() -> None:
    node = Node()
    assert node.look(trouble(901), waiting(950)) == ["trouble"]
    assert node.look(trouble(4000), waiting(4050)) == []
    # The printer goes again, and prints what is late: that is the end of the trouble, and nothing new.
    for _ in range(3):
        assert node.look(trouble(2), waiting(4100)) == []
    assert node.look(trouble(2), waiting(100)) == []
    assert node.look(trouble(2), waiting(100)) == ["trouble over"]


def test_a_slip_can_be_late_without_trouble() -> None:
    node = Node()
    assert node.look(trouble(5), waiting(3700)) == ["waiting"]
    assert node.look(trouble(901), waiting(3900)) == ["trouble"]


def test_what_is_not_known_changes_nothing() -> None:
    node = Node()
    assert node.look(Condition("silent", "demo", 60, 61)) == ["silent"]
    assert [node.look(), node.look()] == [[], []]
    assert [node.look(Condition("silent", "demo", 60, 1)) for _ in range(2)] == [[], ["silent over"]]


def test_never_is_never() -> None:
    assert Node().look(Condition("silent", "demo", 0, 1e9), Condition("trouble", "desk", 0, 1e9)) == []


# --- how it stands


def bad(
    config: Config, standing: Standing | None = None, *, last_mail: dict[str, float] | None = None, since: float = 0.0
) -> list[str]:
    standings = {"print:desk": standing or Standing()}
    found = conditions(config, standings, last_mail or {}, NOW, since, Hours(config))
    return [condition.kind for condition in found if condition.is_bad]


@pytest.mark.parametrize(
    ("standing", "told"),
    [
        (Standing(), []),
        (Standing(open=3, oldest_at=NOW - 1000, tried_since=NOW - 899), []),
        (Standing(open=3, oldest_at=NOW - 1000, tried_since=NOW - 901), ["trouble"]),
        (Standing(open=3, oldest_at=NOW - 3601, tried_since=NOW - 2), ["waiting"]),
        (Standing(open=3, oldest_at=NOW - 3601), ["waiting"]),
        (Standing(for_a_person=1, for_a_person_since=NOW - 3599), []),
        (Standing(for_a_person=1, for_a_person_since=NOW - 3601), ["held"]),
    ],
)
def test_how_the_slips_of_a_printer_stand(make_config: Make, standing: Standing, told: list[str]) -> None:
    assert bad(make_config(), standing) == told


def test_a_printer_may_have_times_of_its_own(make_config: Make, tree: dict[str, Any]) -> None:
    printer = tree["printers"][0] | {"trouble_after": "1m", "waiting_after": "0s"}
    config = make_config(printers=[printer])
    assert bad(config, Standing(open=1, oldest_at=NOW - 9000, tried_since=NOW - 61)) == ["trouble"]


def with_hours(make_config: Make, tree: dict[str, Any], **hours: Any) -> Config:
    """A printer with hours in UTC; NOW is a Tuesday, 17:27:59."""
    printer = tree["printers"][0] | {"time_zone": "UTC"} | hours
    return make_config(printers=[printer], notices={"silent_after": "3h"})


YESTERDAY = Standing(open=9, oldest_at=NOW - 86400, tried_since=NOW - 86400)


@pytest.mark.parametrize(
    ("hours", "told"),
    [
        ({"tue": ["17:20-20:00"]}, []),
        ({"tue": ["17:00-20:00"]}, ["trouble"]),
        ({"tue": ["16:00-20:00"]}, ["trouble", "waiting"]),
        ({"tue": ["18:00-20:00"]}, []),
    ],
)
def test_only_open_hours_count(
    make_config: Make, tree: dict[str, Any], hours: dict[str, list[str]], told: list[str]
) -> None:
    assert bad(with_hours(make_config, tree, hours=hours), YESTERDAY) == told
    # One that prints at night as well has no excuse.
    config = with_hours(make_config, tree, hours=hours, outside_hours="print")
    assert bad(config, YESTERDAY) == ["trouble", "waiting"]


@pytest.mark.parametrize(("release_at", "told"), [("17:00", []), ("16:00", ["waiting"]), ("18:00", [])])
def test_slips_that_wait_for_a_release_are_not_late(
    make_config: Make, tree: dict[str, Any], release_at: str, told: list[str]
) -> None:
    config = with_hours(make_config, tree, release_at=[release_at])
    assert bad(config, Standing(open=9, oldest_at=NOW - 7200)) == told
    # One that is at the printer already waits for nothing.
    assert bad(config, Standing(open=9, oldest_at=NOW - 7200, tried_since=NOW - 1000)) == ["trouble", *told]


def test_silence_is_counted_in_opening_hours_and_only_where_it_is_wanted(
    make_config: Make, tree: dict[str, Any]
) -> None:
    config = make_config(notices={"silent_after": "3h"})
    assert bad(config, last_mail={"demo": NOW - 10_000}) == []
    assert bad(config, last_mail={"demo": NOW - 11_000}) == ["silent"]
    for outside_hours in ("hold", "print"):
        for begins, told in (("15:00", []), ("14:00", ["silent"])):
            hours = {"hours": {"tue": [f"{begins}-20:00"]}, "outside_hours": outside_hours}
            assert bad(with_hours(make_config, tree, **hours), last_mail={"demo": NOW - 86400}) == told
    assert bad(config, last_mail={}) == []
    assert bad(make_config(), last_mail={"demo": NOW - 1e6}) == []


def test_a_service_that_was_away_does_not_call_that_silence(make_config: Make) -> None:
    config = make_config(notices={"silent_after": "3h"})
    last_mail = {"demo": NOW - 50_000}
    assert bad(config, last_mail=last_mail, since=NOW - 10_000) == []
    assert bad(config, last_mail=last_mail, since=NOW - 11_000) == ["silent"]
    # What was told before is not over by that either; mail ends it.
    node = Node()
    node.told["institution:demo:silent"] = Told("institution:demo:silent", NOW - 50_000, NOW - 30_000)
    for _ in range(3):
        assert node.look(*conditions(config, {}, last_mail, NOW, NOW - 60, Hours(config))) == []
    heard = [node.look(*conditions(config, {}, {"demo": NOW - 5}, NOW, NOW - 60, Hours(config))) for _ in range(2)]
    assert heard == [[], ["silent over"]]


# --- the letter

TROUBLE = Condition("trouble", "desk", 900, 1000, NOW - 1000, 3, "the printer says media-empty")


def letter(config: Config, condition: Condition = TROUBLE, *, is_over: bool = False) -> NewMessage:
    new = Letters(config).write(condition, condition.since, NOW, is_over=is_over)
    assert new is not None
    return new


@pytest.fixture
def told_config(make_config: Make, tree: dict[str, Any]) -> Make:
    """A configuration in which the institution, and by choice the printer, name somebody."""

    def make(printer: dict[str, Any] | None = None, **institution: Any) -> Config:
        institutions = [tree["institutions"][0] | {"notify": "it@lib.example"} | institution]
        return make_config(institutions=institutions, printers=[tree["printers"][0] | (printer or {})])

    return make


def test_the_letter(told_config: Make) -> None:
    new = letter(told_config({"desk": "Main desk"}))
    message = email.message_from_bytes(new.content, policy=email.policy.default)
    assert not message.defects
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["From"] == "Print and mail service <MAILER-DAEMON@lib.example>"
    assert message["Subject"] == "Slips do not come out: desk (Main desk)"
    text = message.get_content()
    for said in ("Printer: desk (Main desk)", "CUPS queue: desk", "Slips: 3", "the printer says media-empty"):
        assert said in text
    for state in ("pending", "deferred"):
        assert f"\r\n slip-relay queue list --state {state} --route print:desk\r\n" in text
    assert new.content.count(b"\n") == new.content.count(b"\r\n")
    (delivery,) = new.deliveries
    assert (delivery.recipient, delivery.route, delivery.notify) == ("it@lib.example", "default", "NEVER")
    assert (new.message.reverse_path, new.message.source, new.message.about) == (None, SOURCE, "")


def test_the_desk_is_told_before_the_administrator(told_config: Make) -> None:
    config = told_config({"notify": "circulation@lib.example"})
    assert letter(config).deliveries[0].recipient == "circulation@lib.example"
    silent = Condition("silent", "demo", 60, 61, NOW - 61)
    assert letter(config, silent).deliveries[0].recipient == "it@lib.example"


def test_without_a_mailbox_there_is_no_letter(make_config: Make) -> None:
    assert Letters(make_config()).write(TROUBLE, NOW, NOW, is_over=False) is None


def test_no_notice_comes_onto_paper(make_config: Make, tree: dict[str, Any]) -> None:
    institutions = [tree["institutions"][0] | {"notify": "it@lib.example"}]
    rules = [{"name": "paper", "recipient": "it@*", "print": "desk"}]
    config = make_config(institutions=institutions, rules=rules)
    assert Letters(config).write(TROUBLE, NOW, NOW, is_over=False) is None


# --- the words


def test_each_language_has_a_template_and_each_template_a_language() -> None:
    assert {path.name for path in (templates_folder() / "notices").iterdir()} == {f"{each}.txt" for each in LANGUAGES}


def test_every_language_has_words_for_everything() -> None:
    templates = Templates(LANGUAGES, "notices")
    slips = {"printer": "desk (Main)", "queue": "desk_queue", "count": "37"}
    common = {"institution": "demo", "hostname": "relay.lib.example", "since": "2026-11-24 18:27 +01:00"}
    texts, subjects = set(), set()
    for language in LANGUAGES:
        for kind in KINDS:
            values = common | ({} if kind == "silent" else slips)
            for over in (False, True):
                more = {"now": "2026-11-24 19:00 +01:00", "reason": "media-empty", "command": "slip-relay queue list"}
                more["second_command"] = "" if kind == "silent" else "slip-relay queue"
                words = templates.fill(language, kind, **values, **more, over=over)
                assert all(value in words.text for value in values.values())
                assert all((f"\n {more[name]}\n" in words.text) is not over for name in ("reason", "command"))
                assert (more["now"] in words.text) is over
                assert "\n\n\n" not in words.text
                assert not words.text.startswith("\n")
                assert words.text.endswith(".\n")
                assert all(len(line) <= WIDTH for line in words.text.splitlines())
                texts.add(words.text)
                subjects.add(words.subject)
    assert len(texts) == len(subjects) == len(LANGUAGES) * len(KINDS) * 2
