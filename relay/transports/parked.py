"""Mail that a rule keeps or drops: nothing leaves, the outcome is recorded."""

from __future__ import annotations

from relay.spool.records import Delivery, Outcome, State
from relay.transports import Limits


class Parked:
    """Ends each delivery with the same outcome."""

    limits = Limits(total=4, per_destination=4)

    def __init__(self, state: State, reason: str) -> None:
        self._outcome = Outcome(state, reason)

    async def deliver(self, delivery: Delivery, content: bytes) -> Outcome:
        """The outcome that the rule says."""
        return self._outcome

    def interrupt(self) -> None:
        """Nothing to interrupt."""

    async def close(self) -> None:
        """Nothing to let go of."""
