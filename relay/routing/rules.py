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

    @property
    def printer(self) -> str | None:
        """Name of the printer, where the route leads to one."""
        return self.name.removeprefix(PRINT) if self.name.startswith(PRINT) else None


def matches(pattern: str, recipient: Address) -> bool:
    """Whether a pattern with `*` and `?` fits a recipient; case does not count."""
    return fnmatchcase(recipient.key, pattern.casefold())


def choose(config: Config, institution: str, recipient: Address) -> Route:
    """The route of a recipient of a message of that institution."""
    for rule in config.rules:
        if (route := _by_rule(config, rule, institution, recipient)) is not None:
            return route
    printer = config.printer_for(recipient)
    if printer is not None and printer.institution == institution:
        return Route(PRINT + printer.name, f"the mailbox stands for the printer {printer.name}")
    hop = config.institution(institution).next_hop or "default"
    return Route(hop, f"the next hop of the institution {institution}")


def _by_rule(config: Config, rule: Rule, institution: str, recipient: Address) -> Route | None:
    if rule.institution not in (None, institution) or not matches(rule.recipient, recipient):
        return None
    because = f"the rule {rule.name}"
    if rule.print is not None:
        printer: Printer = config.printer(rule.print)
        return Route(PRINT + printer.name, because) if printer.institution == institution else None
    if rule.hold is not None:
        return Route(HOLD + rule.name, because)
    if rule.discard:
        return Route(DISCARD, because)
    return Route(str(rule.next_hop), because)
