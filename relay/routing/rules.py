"""The route of a recipient: the first rule that matches, then the printers' mailboxes, then the institution's next hop.

A route is a name: `print:PRINTER`, `hold:RULE`, `discard`, or the name of a next hop.
Promises: a slip of one institution never gets the route of another institution's printer.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from relay.config.printers import Printer
from relay.config.settings import Config, Rule
from relay.mail.address import Address

PRINT = "print:"
HOLD = "hold:"
DISCARD = "discard"


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


def matches(pattern: str, recipient: Address) -> bool:
    """Whether a pattern with `*` and `?` fits a recipient; case does not count."""
    return fnmatchcase(recipient.key, pattern.casefold())


def destination(config: Config, route: str, recipient: Address) -> str:
    """What a route serves as one, so that a dead host delays its own mail only."""
    by_mx = any(hop.name == route and hop.host is None for hop in config.next_hops)
    return f"{route}@{recipient.domain}" if by_mx else route


def choose(config: Config, institution: str, recipient: Address, *, passing_holds: bool = False) -> Route:
    """The route of a recipient of a message of that institution; `passing_holds` when a person has let it go, so that
    no rule holds it.
    """
    name, because = _choose(config, institution, recipient, passing_holds)
    return Route(name, because, destination(config, name, recipient))


def _choose(config: Config, institution: str, recipient: Address, passing_holds: bool) -> tuple[str, str]:
    for rule in config.rules:
        if passing_holds and rule.hold is not None:
            continue
        if (route := _by_rule(config, rule, institution, recipient)) is not None:
            return route, f"the rule {rule.name}"
    printer = config.printer_for(recipient)
    if printer is not None and printer.institution == institution:
        return PRINT + printer.name, f"the mailbox stands for the printer {printer.name}"
    return config.institution(institution).next_hop or "default", f"the next hop of the institution {institution}"


def _by_rule(config: Config, rule: Rule, institution: str, recipient: Address) -> str | None:
    if rule.institution not in (None, institution) or not matches(rule.recipient, recipient):
        return None
    if rule.print is not None:
        printer: Printer = config.printer(rule.print)
        return PRINT + printer.name if printer.institution == institution else None
    if rule.hold is not None:
        return HOLD + rule.name
    return DISCARD if rule.discard else str(rule.next_hop)
