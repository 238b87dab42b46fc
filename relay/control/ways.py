"""Where a delivery goes that a person lets go, and until when it is tried.

A delivery keeps its route while the configuration has it, so that what was decided at receipt stays. One that a rule
held, or whose route is gone from the configuration, has its way chosen anew; after a release no rule holds it again.
Where rules look at more than recipient and institution, it is sorted anew.
"""

from __future__ import annotations

import math
import time

from relay.config.settings import Config
from relay.errors import OrderError
from relay.mail.address import parse_address
from relay.routing import rules
from relay.spool.orders import Verb, Way
from relay.spool.records import Delivery


class Ways:
    """The ways of one configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._institutions = {institution.name for institution in config.institutions}
        self._routes = {rules.DISCARD, *(hop.name for hop in config.next_hops)}
        self._routes |= {rules.PRINT + printer.name for printer in config.queues}
        self._routes |= {word + name for word in (rules.SORT, rules.RELEASED) for name in self._institutions}
        self._are_simple = all(rule.is_simple for rule in config.rules) and not any(
            printer.forward_to for printer in config.printers
        )

    def __call__(self, delivery: Delivery, verb: Verb) -> Way:
        """The way of a delivery, with its times counted from now. Raises OrderError when it has none."""
        route, destination = delivery.route, delivery.destination
        if route not in self._routes:
            if delivery.is_bundle:
                raise OrderError(f"the configuration has no route {route} any more: put it back, or cancel the bundle")
            institution = delivery.message.institution
            if institution not in self._institutions:
                raise OrderError(f"the configuration has neither the route {route} nor the institution {institution}")
            made_of_one = delivery.copy_of is not None or delivery.reprint_of is not None
            if self._are_simple or made_of_one:  # of a copy no further copies are made
                recipient = parse_address(delivery.recipient)
                chosen = rules.choose(self._config, institution, recipient, passing_holds=verb is Verb.RELEASE)
                route, destination = chosen.name, chosen.destination
            else:
                route = destination = (rules.RELEASED if verb is Verb.RELEASE else rules.SORT) + institution
        times, now = self._config.delivery_for(route), time.time()
        return Way(
            route,
            destination,
            warn_at=now + times.warn_after if 0 < times.warn_after < times.expire_after else None,
            expires_at=now + times.expire_after if math.isfinite(times.expire_after) else None,
        )
