"""Whether a rule is for a piece of mail: each of its conditions, and what was found.

Does: compares the conditions of a rule with what is known: of the envelope when mail arrives, of the letter once a
child has read it.
Promises: three answers: it fits, it does not, or nobody can tell before the letter is read (None). Conditions on the
envelope are compared first, so that a letter is not read for a rule that is not for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo

from relay.config.hours import DAYS, minutes
from relay.config.rules import Rule
from relay.mail.address import Address
from relay.slips.facts import ElementFound, ElementWanted, Facts


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known of mail before anybody reads it."""

    institution: str
    source: str
    recipient: Address
    sender: str | None
    "The reverse-path; None is the null one."
    from_domains: tuple[str, ...]
    size: int
    at: float
    "When it arrived, in seconds since the epoch."


@dataclass(frozen=True, slots=True)
class Finding:
    """One condition of a rule."""

    condition: str
    "The name of its setting."
    wanted: str
    found: str
    fits: bool | None
    "None while nobody can tell: the letter was not read yet."


def matches(pattern: str, recipient: Address) -> bool:
    """Whether a pattern with `*` and `?` fits a recipient; case does not count."""
    return fnmatchcase(recipient.key, pattern.casefold())


def fits(rule: Rule, arrival: Arrival, facts: Facts | None, zone: str | None = None) -> bool | None:
    """Whether a rule is for this mail; None when it may be, depending on the letter.

    `zone` is the time zone of a rule that names none; without it the machine's.
    """
    if rule.institution not in (None, arrival.institution) or not matches(rule.recipient, arrival.recipient):
        return False
    verdict: bool | None = True
    for finding in findings(rule, arrival, facts, zone):
        if finding.fits is False:
            return False
        if finding.fits is None:
            verdict = None
    return verdict


def findings(rule: Rule, arrival: Arrival, facts: Facts | None, zone: str | None = None) -> Iterator[Finding]:
    """Each condition that a rule has, those on the envelope first."""
    yield from _of_envelope(rule, arrival)
    if rule.hours is not None or rule.days:
        yield _time(rule, arrival.at, rule.time_zone or zone)
    if rule.reads_letter:
        yield from _of_letter(rule, facts)


def elements_wanted(rule: Rule) -> tuple[ElementWanted, ...]:
    """What a rule asks about elements, one question for each."""
    lists = tuple(pattern for patterns in rule.same_list for pattern in patterns)
    return tuple(ElementWanted(each.selector, each.any_of, lists) for each in rule.elements)


def _of_envelope(rule: Rule, arrival: Arrival) -> Iterator[Finding]:
    if rule.institution is not None:
        found = arrival.institution
        yield Finding("institution", rule.institution, found, found == rule.institution)
    if rule.recipient != "*":
        yield Finding("recipient", rule.recipient, str(arrival.recipient), matches(rule.recipient, arrival.recipient))
    if rule.source is not None:
        yield Finding("source", rule.source, arrival.source, arrival.source == rule.source)
    if rule.sender is not None:
        yield _sender(rule.sender, arrival)
    if rule.larger_than is not None:
        yield Finding("larger_than", str(int(rule.larger_than)), str(arrival.size), arrival.size > rule.larger_than)
    if rule.smaller_than is not None:
        yield Finding("smaller_than", str(int(rule.smaller_than)), str(arrival.size), arrival.size < rule.smaller_than)


def _sender(pattern: str, arrival: Arrival) -> Finding:
    if "@" in pattern or pattern == "<>":
        found = arrival.sender or "<>"
        return Finding("sender", pattern, found, fnmatchcase(found.casefold(), pattern.casefold()))
    domains = arrival.from_domains
    fit = any(fnmatchcase(domain.casefold(), pattern.casefold()) for domain in domains)
    return Finding("sender", pattern, ", ".join(domains) or "no From domain", fit)


def _time(rule: Rule, at: float, zone: str | None) -> Finding:
    """The clock of that time zone; a night belongs to the day on which it begins."""
    utc = datetime.fromtimestamp(at, UTC)
    local = utc.astimezone(ZoneInfo(zone)) if zone is not None else utc.astimezone()
    minute, day = local.hour * 60 + local.minute, local
    fit = True
    if rule.hours is not None:
        begin, end = minutes(rule.hours)
        if begin < end:
            fit = begin <= minute < end
        else:
            fit = minute >= begin or minute < end
            if minute < end:
                day = local - timedelta(days=1)
    if rule.days:
        fit = fit and DAYS[day.weekday()] in rule.days
    wanted = " ".join([*rule.days, *([rule.hours] if rule.hours is not None else [])])
    return Finding("days" if rule.hours is None else "hours", wanted, f"{local:%a %H:%M} {local.tzname()}", fit)


def _of_letter(rule: Rule, facts: Facts | None) -> Iterator[Finding]:
    if rule.letter_type:
        found = facts.letter_type if facts is not None else None
        fit = found is not None and any(fnmatchcase(found.name, pattern) for pattern in rule.letter_type)
        yield _unless_unread("letter_type", ", ".join(rule.letter_type), str(found or "not recognised"), fit, facts)
    for name, pattern in (("printer_code", rule.printer_code), ("library_code", rule.library_code)):
        if pattern is not None:
            said = str(getattr(facts, name)) if facts is not None else ""
            fit = bool(said) and fnmatchcase(said.casefold(), pattern.casefold())
            yield _unless_unread(name, pattern, said or "the letter does not say", fit, facts)
    if rule.text is not None:
        there = facts is not None and rule.text in facts.texts
        yield _unless_unread("text", rule.text, _there(there, facts), there, facts)
    if rule.attached:
        kinds = facts.attachments if facts is not None else ()
        fit = any(fnmatchcase(kind, pattern.casefold()) for kind in kinds for pattern in rule.attached)
        yield _unless_unread("attached", ", ".join(rule.attached), ", ".join(kinds) or "nothing", fit, facts)
    if rule.elements:
        yield from _of_elements(rule, facts)


def _of_elements(rule: Rule, facts: Facts | None) -> Iterator[Finding]:
    wanted = elements_wanted(rule)
    answers = [facts.elements.get(each, ElementFound()) if facts is not None else ElementFound() for each in wanted]
    for element, answer in zip(rule.elements, answers, strict=True):
        patterns = f": {' or '.join(element.any_of)}" if element.any_of else ""
        fit = answer.count > 0
        shown = " | ".join(answer.samples) or _there(fit, facts)
        yield _unless_unread("elements", f"{element.selector}{patterns}", shown, fit, facts)
    if rule.same_list:
        fit = any(
            all(any(number in answer.fits for number in numbers) for answer in answers) for numbers in _numbers(rule)
        )
        lists = "; ".join(" or ".join(patterns) for patterns in rule.same_list)
        yield _unless_unread("same_list", lists, "all of them fit one list" if fit else "no list fits all", fit, facts)


def _numbers(rule: Rule) -> Iterator[range]:
    """Where the patterns of each list stand among those of all lists."""
    start = 0
    for patterns in rule.same_list:
        yield range(start, start + len(patterns))
        start += len(patterns)


def _there(there: bool, facts: Facts | None) -> str:
    if facts is not None and facts.unreadable:
        return f"the letter can't be read: {facts.unreadable}"
    return "it is in the letter" if there else "it is not in the letter"


def _unless_unread(condition: str, wanted: str, found: str, fit: bool, facts: Facts | None) -> Finding:
    if facts is None:
        return Finding(condition, wanted, "the letter was not read", None)
    return Finding(condition, wanted, found, fit)
