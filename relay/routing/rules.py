"""The route of a recipient: the rules in their order, then the printers' mailboxes, then the institution's next hop.

A route is a name: `print:PRINTER`, `hold:RULE`, `discard`, the name of a next hop; or `sort:INSTITUTION` for what has
to be sorted first, since a rule wants to read the letter, or makes more than one delivery of it.
Promises: a slip of one institution never gets the route of another institution's printer, nor a copy there. What is
forwarded or copied by mail leaves through the next hop of the institution, whoever sent it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from relay.config.printers import Printer
from relay.config.rules import Rule
from relay.config.settings import Config
from relay.mail.address import Address, parse_address
from relay.routing.conditions import Arrival, elements_wanted, fits, matches
from relay.slips.facts import ElementWanted, Facts, Wanted

PRINT = "print:"
HOLD = "hold:"
DISCARD = "discard"
SORT = "sort:"
RELEASED = "released:"
"""As SORT, for what a person let go: no rule holds it again."""


@dataclass(frozen=True, slots=True)
class Route:
    """A route's name, and a sentence that says why it was taken."""

    name: str
    because: str
    destination: str
    "What is served as one: the route, or for mail by MX the route and the recipient's domain."

    @property
    def printer(self) -> str | None:
        """Name of the printer, where the route leads to one."""
        return self.name.removeprefix(PRINT) if self.name.startswith(PRINT) else None


@dataclass(frozen=True, slots=True)
class Additional:
    """A further delivery that a rule makes: a copy, or what is forwarded."""

    recipient: Address
    route: Route
    printer: str = ""
    """The printer whose own address it is. Such a slip is never lost in silence, copy or not, and goes there once."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rules say of a piece of mail."""

    route: Route | None
    "Its way; None when it is forwarded, and goes no further itself."
    because: str
    forwards: tuple[Additional, ...] = ()
    "What goes in its stead."
    copies_to: tuple[Additional, ...] = ()
    "What goes as well."
    profile: str = ""
    copies: int = 0
    merge: bool = False

    @property
    def is_one_way(self) -> bool:
        """Whether it is one delivery still."""
        return self.route is not None and not self.copies_to


@dataclass(frozen=True, slots=True)
class Judged:
    """A rule, and whether it is for a piece of mail (None: the letter has to be read first)."""

    rule: Rule
    fits: bool | None


def destination(config: Config, route: str, recipient: Address) -> str:
    """What a route serves as one, so that a dead host delays its own mail only."""
    by_mx = any(hop.name == route and hop.goes_by_mx for hop in config.next_hops)
    return f"{route}@{recipient.domain}" if by_mx else route


def choose(config: Config, institution: str, recipient: Address, *, passing_holds: bool = False) -> Route:
    """The route of a recipient by what looks at recipient and institution only, as if no other rule matched.

    `passing_holds` when a person has let it go, so that no rule holds it.
    """
    for rule in config.rules:
        if not rule.is_simple or (passing_holds and rule.hold is not None):
            continue
        if rule.institution in (None, institution) and matches(rule.recipient, recipient):
            decision = _by_rule(config, rule, institution, recipient)
            if decision.route is not None or decision.forwards:
                return decision.route or _sorted(institution, decision)
    decision = _ordinary(config, institution, recipient)
    return decision.route or _sorted(institution, decision)


def decide(
    config: Config, arrival: Arrival, facts: Facts | None = None, *, passing_holds: bool = False
) -> Decision | None:
    """What is to become of mail; None when a rule has to read the letter first, and `facts` are not given."""
    added: list[Rule] = []
    for judged in judge(config, arrival, facts, passing_holds=passing_holds):
        if judged.fits is None:
            return None
        if judged.fits:
            added.append(judged.rule)
    if added and added[-1].decides:
        rule = added.pop()
        decision = _by_rule(config, rule, arrival.institution, arrival.recipient)
        return _with_what_is_added(config, arrival, decision, added, rule)
    decision = _ordinary(config, arrival.institution, arrival.recipient)
    return _with_what_is_added(config, arrival, decision, added) if added else decision


def _with_what_is_added(
    config: Config, arrival: Arrival, decision: Decision, added: list[Rule], deciding: Rule | None = None
) -> Decision:
    """The decision with copies, and how it is printed: of each setting the first rule that has it counts."""
    because, route = decision.because, decision.route
    if added:
        names = " and ".join(rule.name for rule in added)
        because = f"{because}, with what {names} add{'s' if len(added) == 1 else ''}"
    asked = [*added, deciding] if deciding is not None else added
    forwarded = {(each.recipient.key, each.route.name) for each in decision.forwards}
    copies_to: dict[tuple[str, str], Additional] = {}
    for each in (*decision.copies_to, *(copy for rule in asked for copy in _copies(config, rule, arrival.institution))):
        key = each.recipient.key, each.route.name
        # A copy for where it goes anyway would be the same paper, or mail, twice.
        if key not in forwarded and not _is_own(each, route, arrival.recipient):
            copies_to.setdefault(key, each)
    on_paper = route is not None and route.printer is not None
    return replace(
        decision,
        because=because,
        copies_to=tuple(copies_to.values()),
        profile=next((rule.profile for rule in asked if rule.profile), "") if on_paper else "",
        copies=next((rule.copies for rule in asked if rule.copies), 0) if on_paper else 0,
        merge=on_paper and any(rule.merge for rule in asked),
    )


def _is_own(each: Additional, route: Route | None, recipient: Address) -> bool:
    if route is None or each.route.name != route.name:
        return False
    return each.route.printer is not None or each.recipient.key == recipient.key


def judge(
    config: Config, arrival: Arrival, facts: Facts | None = None, *, passing_holds: bool = False
) -> Iterator[Judged]:
    """The rules in their order, up to the one that decides."""
    for rule in config.rules:
        if passing_holds and rule.hold is not None:
            continue
        fit = fits(rule, arrival, facts, config.server.time_zone)
        if fit and not may_use(config, rule, arrival.institution):
            fit = False
        yield Judged(rule, fit)
        if fit and rule.decides:
            return


def may_use(config: Config, rule: Rule, institution: str) -> bool:
    """Whether a rule is for this institution's mail: one that prints is, where the printer is the institution's."""
    return rule.print is None or config.printer(rule.print).institution == institution


def merges(config: Config, printer: Printer) -> bool:
    """Whether a rule lets slips of a printer come out in one document."""
    return any(
        rule.merge and rule.print in (None, printer.name) and rule.institution in (None, printer.institution)
        for rule in config.rules
    )


def wanted(config: Config, institution: str) -> Wanted:
    """What the rules want to know of a letter of that institution."""
    texts: dict[str, None] = {}
    elements: dict[ElementWanted, None] = {}
    for rule in config.rules:
        if rule.institution in (None, institution):
            if rule.text is not None:
                texts[rule.text] = None
            elements |= dict.fromkeys(elements_wanted(rule))
    return Wanted(tuple(texts), tuple(elements), config.institution(institution).subjects)


def _action(config: Config, rule: Rule, institution: str) -> str | None:
    """The route that a rule gives; None where it has none for this institution."""
    if rule.print is not None:
        return PRINT + rule.print if may_use(config, rule, institution) else None
    if rule.hold is not None:
        return HOLD + rule.name
    return DISCARD if rule.discard else rule.next_hop


def _by_rule(config: Config, rule: Rule, institution: str, recipient: Address) -> Decision:
    """What a rule makes of mail that it is for; nothing where it has no action for this institution."""
    because = f"the rule {rule.name}"
    name = _action(config, rule, institution)
    if name is not None and rule.print is not None:
        return _to_printer(config, config.printer(rule.print), because)
    route = Route(name, because, destination(config, name, recipient)) if name is not None else None
    return Decision(route, because, tuple(_by_mail(config, institution, address, because) for address in rule.forward))


def _ordinary(config: Config, institution: str, recipient: Address) -> Decision:
    printer = config.printer_for(recipient)
    if printer is not None and printer.institution == institution:
        return _to_printer(config, printer, f"the mailbox of the printer {printer.name}")
    name = config.institution(institution).next_hop or "default"
    because = f"the next hop of the institution {institution}"
    return Decision(Route(name, because, destination(config, name, recipient)), because)


def _to_printer(config: Config, printer: Printer, because: str) -> Decision:
    """Onto paper by its queue, and by mail to the addresses that it has itself."""
    by_mail = _to_own_addresses(config, printer, because)
    if not printer.queue:
        return Decision(None, because, forwards=by_mail)
    name = PRINT + printer.name
    return Decision(Route(name, because, name), because, copies_to=by_mail)


def _to_own_addresses(config: Config, printer: Printer, because: str) -> tuple[Additional, ...]:
    found = (_by_mail(config, printer.institution, address, because) for address in printer.forward_to)
    return tuple(replace(each, printer=printer.name) for each in found)


def _sorted(institution: str, decision: Decision) -> Route:
    """The route of what goes on as other deliveries: those are made when it is sorted."""
    return Route(SORT + institution, decision.because, SORT + institution)


def _copies(config: Config, rule: Rule, institution: str) -> Iterator[Additional]:
    for name in rule.copy_to:
        because = f"a copy, by the rule {rule.name}"
        if "@" in name:
            yield _by_mail(config, institution, name, because)
            continue
        printer = config.printer(name)
        if printer.institution == institution:  # nobody else's slips come out there
            if printer.queue:
                yield Additional(parse_address(printer.mailboxes[0]), Route(PRINT + name, because, PRINT + name))
            yield from _to_own_addresses(config, printer, because)


def _by_mail(config: Config, institution: str, address: str, because: str) -> Additional:
    recipient = parse_address(address)
    name = config.institution(institution).next_hop or "default"
    return Additional(recipient, Route(name, because, destination(config, name, recipient)))
