"""The ways out: `smtp` to a next hop, `printer` onto paper, `parked` for what is held or discarded by rule.

Each has one method, `deliver(delivery, content)`, which makes one attempt and says how it ended. It raises only for
faults of ours; the runner takes those for temporary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from relay.spool.records import Delivery, Outcome


@dataclass(frozen=True, slots=True)
class Limits:
    """What a way out bears."""

    total: int
    "Attempts at the same time on the route."
    per_destination: int
    "Attempts at the same time for one destination."
    rate: float | None = None
    "Most attempts begun per second on the route; None for no limit."
    is_probed: bool = True
    "Whether a destination gets one delivery at a time until something went well."
    backoff_first: float = 60.0
    "Seconds until a destination that can't be reached is asked again; doubled by each further failure."
    backoff_longest: float = 600.0
    by_one_node: bool = False
    "Whether a destination is served by one node at a time, so that its order is kept across nodes."


class Transport(Protocol):
    """A way out."""

    limits: Limits
    "What it bears."

    async def deliver(self, delivery: Delivery, content: bytes) -> Outcome:
        """Makes one attempt with the message's bytes, and says how it ended."""
        ...

    def interrupt(self) -> None:
        """The service stops: waits that the next start can take up end now, with Interrupted."""
        ...

    async def close(self) -> None:
        """Lets go of connections."""
        ...
