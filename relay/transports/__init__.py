"""The ways out: `smtp` to a next hop, `printer` onto paper, `parked` for what is held or discarded by rule.

Each has one method, `deliver(delivery, content)`, which makes one attempt and says how it ended. It raises only for
faults of ours; the runner takes those for temporary.
"""

from __future__ import annotations

from typing import Protocol

from relay.spool.records import Delivery, Outcome


class Transport(Protocol):
    """A way out."""

    concurrency: int
    "Deliveries under way at the same time on one route."

    async def deliver(self, delivery: Delivery, content: bytes) -> Outcome:
        """Makes one attempt with the message's bytes, and says how it ended."""
        ...

    def interrupt(self) -> None:
        """The service stops: waits that the next start can take up end now, with Interrupted."""
        ...

    async def close(self) -> None:
        """Lets go of connections."""
        ...
