"""Why a letter goes where it goes: the rules asked one by one, as the service asks them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import click

from relay.cli.tables import clean, clock
from relay.config.printers import Printer
from relay.config.settings import Config
from relay.errors import HeaderError
from relay.mail import headers
from relay.mail.address import Address
from relay.routing import rules
from relay.routing.conditions import Arrival, Finding, findings
from relay.routing.rules import Decision
from relay.slips.facts import Facts

_MARKS = {True: "holds", False: "does not hold", None: "unknown"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A rule, its conditions, and what came of it."""

    name: str
    verdict: str
    "`matches`, `does not match`, or `not asked`, since a rule before it decided."
    conditions: tuple[Finding, ...]
    action: str


@dataclass(frozen=True, slots=True)
class Explained:
    """All that can be said of a letter and its way."""

    arrival: Arrival
    facts: Facts
    rules: tuple[Asked, ...]
    decision: Decision
    ways: tuple[str, ...]
    "What would happen, in words."
    sorted_first: bool
    "Whether it is sorted after its arrival, since a rule reads the letter or makes several deliveries."

    def shape(self) -> dict[str, Any]:
        """As JSON: the arrival, what the letter is, each rule with its conditions, and what would happen."""
        kind = self.facts.letter_type
        return {
            "institution": self.arrival.institution,
            "source": self.arrival.source,
            "recipient": str(self.arrival.recipient),
            "sender": self.arrival.sender,
            "from_domains": list(self.arrival.from_domains),
            "size": self.arrival.size,
            "at": self.arrival.at,
            "letter": {
                "type": kind.name if kind else None,
                "found_by": kind.found_by if kind else None,
                "printer_code": self.facts.printer_code or None,
                "library_code": self.facts.library_code or None,
                "attachments": list(self.facts.attachments),
                "unreadable": self.facts.unreadable or None,
            },
            "rules": [
                {**asdict(rule), "conditions": [asdict(condition) for condition in rule.conditions]}
                for rule in self.rules
            ],
            "sorted_first": self.sorted_first,
            "because": self.decision.because,
            "ways": list(self.ways),
        }


async def explain_letter(
    config: Config,
    content: bytes,
    *,
    recipient: Address,
    sender: str | None,
    at: float,
    institution: str | None,
    source: str | None,
    read: Callable[[str], Awaitable[Facts]],
) -> Explained:
    """Asks the rules about a message; `read` tells what its letter is like for the rules of an institution."""
    domains = _from_domains(content)
    owner = _institution(config, institution, recipient, domains)
    arrival = Arrival(owner, _source(config, source, owner), recipient, sender, domains, len(content), at)
    at_intake = rules.decide(config, arrival)
    facts = await read(owner)
    decision = rules.decide(config, arrival, facts)
    assert decision is not None, "with facts there is always a decision"
    return Explained(
        arrival,
        facts,
        _asked(config, arrival, facts),
        decision,
        tuple(_ways(config, decision)),
        at_intake is None or not at_intake.is_one_way,
    )


def tell(explained: Explained) -> None:
    """Prints it for a person."""
    facts, arrival = explained.facts, explained.arrival
    click.echo(f"letter   {facts.letter_type or 'of a type that is not known'}")
    for name, code in (("printer", facts.printer_code), ("library", facts.library_code)):
        if code:
            click.echo(f"         code of the {name}: {clean(code)}")
    if facts.unreadable:
        click.echo(f"         can't be read: {clean(facts.unreadable)}")
    if facts.attachments:
        click.echo(f"         attached: {clean(', '.join(facts.attachments))}")
    click.echo(
        f"mail     of {arrival.institution}, from {clean(arrival.sender or '<>')} by the source {arrival.source}, "
        f"{arrival.size} bytes, {clock(arrival.at)}"
    )
    for number, rule in enumerate(explained.rules, 1):
        click.echo(f"rule {number:<3} {rule.name}: {rule.verdict} ({rule.action})")
        for each in rule.conditions:
            click.echo(f"         {each.condition} = {clean(each.wanted)}: {_MARKS[each.fits]}; {clean(each.found)}")
    click.echo(f"because  of {explained.decision.because}")
    for way in explained.ways:
        click.echo(f"result   {clean(way)}")


def _asked(config: Config, arrival: Arrival, facts: Facts) -> tuple[Asked, ...]:
    asked = {judged.rule.name: judged.fits for judged in rules.judge(config, arrival, facts)}
    found = []
    for rule in config.rules:
        conditions = tuple(findings(rule, arrival, facts, config.server.time_zone))
        if rule.name not in asked:
            verdict = "not asked, the rule before it decides"
        else:
            verdict = "matches" if asked[rule.name] else "does not match"
        if not rules.may_use(config, rule, arrival.institution):
            printer = Finding("print", str(rule.print), "a printer of another institution", fits=False)
            conditions = (*conditions, printer)
        found.append(Asked(rule.name, verdict, conditions, _action(config, rule.name)))
    return tuple(found)


def _action(config: Config, name: str) -> str:
    rule = next(rule for rule in config.rules if rule.name == name)
    words = []
    for setting in ("print", "next_hop", "hold", "forward", "copy_to", "profile", "copies"):
        value = getattr(rule, setting)
        if value not in (None, ()):
            words.append(f"{setting} {', '.join(value) if isinstance(value, tuple) else value}")
    return "; ".join([*words, *(name for name in ("merge", "discard") if getattr(rule, name))])


def _ways(config: Config, decision: Decision) -> list[str]:
    ways = [_way(config, decision)] if decision.route is not None else []
    ways += [f"forwarded to {each.recipient} by {each.route.name}, instead" for each in decision.forwards]
    for each in decision.copies_to:
        where = f"on {each.route.printer}" if each.route.printer else f"to {each.recipient} by {each.route.name}"
        ways.append(f"a copy {where}")
    return ways


def _way(config: Config, decision: Decision) -> str:
    route = decision.route
    assert route is not None
    if route.printer is not None:
        printer = config.printer(route.printer)
        copies = f", {decision.copies} copies" if decision.copies > 1 else ""
        merge = "" if not decision.merge else f", {_merging(printer)}"
        return f"printed on {printer.name} with the profile {decision.profile or printer.profile}{copies}{merge}"
    if route.name == rules.DISCARD:
        return "dropped: accepted, recorded, and nothing more"
    if route.name.startswith(rules.HOLD):
        rule = next(rule for rule in config.rules if rule.name == route.name.removeprefix(rules.HOLD))
        return f"held for a person: {rule.hold}"
    return f"sent by {route.name}"


def _merging(printer: Printer) -> str:
    if printer.slips_wait:
        return "in one document with others that wait with it"
    return "by itself: merge is for slips that wait, and this printer has neither hours nor release times"


def _from_domains(content: bytes) -> tuple[str, ...]:
    try:
        return tuple(headers.from_domains(headers.section(content)))
    except HeaderError:
        return ()


def _institution(config: Config, named: str | None, recipient: Address, domains: tuple[str, ...]) -> str:
    known = [institution.name for institution in config.institutions]
    if named is not None:
        if named not in known:
            raise click.BadParameter(
                f"there is no institution {named!r}; there are: {', '.join(known)}", param_hint="--institution"
            )
        return named
    printer = config.printer_for(recipient)
    if printer is not None:
        return printer.institution
    owners = {
        institution.name
        for institution in config.institutions
        for domain in domains
        if any(domain == own or domain.endswith("." + own) for own in institution.domains)
    }
    if len(owners) == 1:
        return owners.pop()
    if len(known) == 1:
        return known[0]
    raise click.UsageError(f"whose mail is it? Name the institution with --institution: {', '.join(known)}")


def _source(config: Config, named: str | None, institution: str) -> str:
    sources = [source for source in config.sources if named in (None, source.name)]
    if not sources:
        known = ", ".join(source.name for source in config.sources)
        raise click.BadParameter(f"there is no source {named!r}; there are: {known}", param_hint="--source")
    return next((source.name for source in sources if institution in source.institutions), sources[0].name)
