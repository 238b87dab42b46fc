"""How a slip is printed once more: on which printer, how laid out, and whether it says so on paper.

Promises: a slip of one institution never comes out at another's printer.
"""

from __future__ import annotations

from relay.config.printers import Printer
from relay.config.settings import Config
from relay.errors import OrderError
from relay.routing.rules import PRINT
from relay.spool.records import Delivery, NewDelivery
from relay.spool.reprints import Again


def again(config: Config, printer: str, mark: bool | None) -> Again:
    """On the printer of that name, or on the slip's own where none is named; `mark` None leaves it to the printer."""

    def new(delivery: Delivery) -> NewDelivery:
        found = _printer(config, delivery, printer)
        route = PRINT + found.name
        warn_at, expires_at = config.delivery_for(route).deadlines(delivery.message.received_at)
        is_elsewhere = route != delivery.route
        return NewDelivery(
            recipient=delivery.recipient,
            route=route,
            destination=route,
            notify="NEVER",
            warn_at=warn_at,
            expires_at=expires_at,
            profile="" if is_elsewhere else delivery.profile,  # a rule chose it for the paper of its printer
            copies=delivery.copies,
            reprint_of=delivery.number if delivery.reprint_of is None else delivery.reprint_of,
            marked=found.mark_reprints if mark is None else mark,
        )

    return new


def _printer(config: Config, delivery: Delivery, name: str) -> Printer:
    """Raises OrderError when it is no slip, or can't be printed there."""
    if not delivery.route.startswith(PRINT):
        raise OrderError(f"it is no slip: it goes by {delivery.route}")
    own = delivery.route.removeprefix(PRINT)
    try:
        found = config.printer(name or own)
    except KeyError:
        hint = "" if name else "; name another one with --printer"
        raise OrderError(f"the configuration has no printer {name or own!r}{hint}") from None
    if found.institution != delivery.message.institution:
        raise OrderError(
            f"the printer {found.name} is that of {found.institution}, and the slip is {delivery.message.institution}'s"
        )
    if not found.queue:
        raise OrderError(f"the printer {found.name} has no queue: what it gets goes to its own address, by mail")
    return found
