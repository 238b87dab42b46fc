"""Lanes: who may start now.

A lane is what waits for one destination; a route is all lanes of one way out, and shares its limits among them. A lane
is trusted once something went well: until then, and after it could not be reached, it gets one delivery at a time as a
probe, at growing intervals. So a dead or hanging destination costs one attempt, not every connection of its route.
A lane with a gate is a printer's whose slips wait for its hours; what was let out as a batch goes in the batch's order.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from math import inf

from relay.delivery.gates import Gate
from relay.spool.records import AT_ONCE, Delivery, Key
from relay.transports import Limits

REMEMBERED_FOR = 10.0
"""Seconds for which a destination that was served is still trusted, so that its next few messages need no probe."""

LOST_IN_A_ROW = 3
"""Deliveries lost in the middle, with none done between them, that count like a host that can't be reached."""


class Route:
    """The limits of one way out, and the lanes that wait for a place."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.running = 0
        self.blocked: OrderedDict[str, Lane] = OrderedDict()
        "Lanes that have something to start and found no place, in the order in which they get one."
        self.is_timed = False
        "Whether somebody will look again when the rate allows it."
        self._next_start = 0.0

    def pause(self) -> float:
        """Seconds until the rate allows another start; 0 when it may be now."""
        return max(self._next_start - time.monotonic(), 0.0) if self.limits.rate else 0.0

    def start(self) -> None:
        """An attempt starts."""
        self.running += 1
        if self.limits.rate:
            self._next_start = max(self._next_start, time.monotonic()) + 1 / self.limits.rate

    @property
    def has_place(self) -> bool:
        """Whether one more attempt may start, as far as the whole route goes."""
        return self.running < self.limits.total and self.pause() == 0.0


class Lane:
    """Deliveries of one destination that wait for their turn, the oldest first."""

    def __init__(
        self, destination: str, route: Route, *, is_behind: bool, gate: Gate | None = None, is_shared: bool = False
    ) -> None:
        """`is_shared` where other nodes may serve it as well, though only one at a time."""
        self.destination = destination
        self.is_shared = is_shared
        self.route = route
        self.gate = gate
        self.running = 0
        self.is_behind = is_behind
        "Whether some may wait in the spool, that have to come first."
        self.left = 0
        "Messages that were left to the spool so far."
        self.unclaimed = 0
        "Those of them that are just being accepted."
        self.is_shut = False
        "Whether the way out itself is in trouble: nothing is tried until it opens again."
        self.in_batch = False
        "Whether a batch is under way: others wait in the spool until it is out."
        self.drained = asyncio.Event()
        "Set when the last of a batch has come out."
        self._batch: deque[Delivery] = deque()
        self._trusted = _is_trusted_at_first(route.limits)
        self._failures = 0
        self._failed_at = 0.0
        self._used_at = -inf
        self._lost: set[Key] = set()
        self._waiting: list[tuple[Key, Delivery]] = []

    @property
    def capacity(self) -> int:
        """Deliveries that wait here at the most, before more are claimed; they wait without their bytes."""
        if self._failures and not self._trusted:
            return 1  # the probe
        return max(10, 4 * min(self.route.limits.per_destination, 25))

    @property
    def room(self) -> int:
        """Deliveries that may still be claimed for it."""
        return 0 if self.is_shut else max(self.capacity - len(self._waiting), 0)

    @property
    def is_full(self) -> bool:
        """Whether no more is claimed for it."""
        return len(self._waiting) >= self.capacity

    @property
    def is_idle(self) -> bool:
        """Whether it may be forgotten."""
        if self.running or self.has_waiting or self.is_behind or self.unclaimed or self.is_shut:
            return False
        if self.gate is not None or time.monotonic() - self._used_at < REMEMBERED_FOR:
            return False
        return not self._failures or time.monotonic() - self._failed_at > 2 * self.route.limits.backoff_longest

    @property
    def may_start(self) -> bool:
        """Whether an attempt may start here now."""
        allowed = self.route.limits.per_destination if self._trusted else 1
        return not self.is_shut and self.running < allowed and self.route.has_place

    @property
    def has_waiting(self) -> bool:
        """Whether something waits."""
        return bool(self._waiting or self._batch)

    @property
    def is_closed(self) -> bool:
        """Whether the hours of its printer are over."""
        return self.gate is not None and self.gate.is_closed

    @property
    def leaves_new(self) -> bool:
        """Whether what is accepted now has to wait in the spool."""
        held_up = self.gate is not None and (self.gate.holds_new or self.in_batch)
        # What comes in at another node may be older: the spool says who is next, and which node prints.
        return held_up or self.is_shared or self.is_behind or self.is_full or self.is_shut

    @property
    def until(self) -> float:
        """What was due by then may be claimed."""
        if self.gate is None:
            return inf
        return AT_ONCE if self.in_batch else self.gate.until

    @property
    def yields(self) -> bool:
        """Whether another node may try what this one has to put off."""
        return self.is_shared and not self.in_batch

    @property
    def is_ready_for_batch(self) -> bool:
        """Whether a batch may begin here."""
        return not (self.in_batch or self.is_shut or self.is_closed or self.running or self.has_waiting)

    def put_batch(self, slips: Sequence[Delivery]) -> None:
        """Deliveries that go in this order, after what waits already."""
        self._batch.extend(slips)
        self.drained.clear()

    def put(self, delivery: Delivery) -> None:
        """One more that waits."""
        heapq.heappush(self._waiting, (delivery.key, delivery))

    def pop(self) -> Delivery:
        """The next one: the oldest that waits, then those of a batch in their order."""
        return heapq.heappop(self._waiting)[1] if self._waiting else self._batch.popleft()

    def take_out(self, key: Key) -> bool:
        """Takes out one that waits; False when it does not wait here."""
        others = [entry for entry in self._waiting if entry[0] != key]
        if len(others) == len(self._waiting):
            batch = [delivery for delivery in self._batch if delivery.key != key]
            is_there, self._batch = len(batch) < len(self._batch), deque(batch)
            return is_there
        heapq.heapify(others)
        self._waiting = others
        return True

    def empty(self) -> list[Delivery]:
        """Takes out all that wait."""
        waiting = [*(delivery for _, delivery in self._waiting), *self._batch]
        self._waiting = []
        self._batch.clear()
        return waiting

    def start(self) -> None:
        """An attempt starts."""
        self.running += 1
        self.route.start()

    def end(self) -> None:
        """An attempt ended."""
        self.running -= 1
        self.route.running -= 1
        self._used_at = time.monotonic()

    def settled(self) -> None:
        """An attempt is over, and what may start has been started."""
        if not self.running and not self.has_waiting:
            self.drained.set()

    def went_well(self) -> None:
        """The destination answered."""
        self._trusted, self._failures = True, 0
        self._lost.clear()

    def lost(self, key: Key) -> float | None:
        """The transaction of a delivery was lost in the middle; the seconds to shut the lane for when too many were.

        One that is lost again and again counts once: it says something of that message, not of the destination.
        """
        self._lost.add(key)
        return self.unreachable() if len(self._lost) >= LOST_IN_A_ROW else None

    def unreachable(self) -> float | None:
        """The destination could not be reached; the seconds to shut the lane for, None when it is shut already."""
        if self.is_shut:
            return None
        limits = self.route.limits
        wait = min(limits.backoff_first * 2.0 ** min(self._failures, 32), limits.backoff_longest)
        self._failures += 1
        self._failed_at = time.monotonic()
        self._lost.clear()
        self._trusted = _is_trusted_at_first(limits)
        self.is_shut = True
        return wait * (1 + random.random() / 10)  # noqa: S311 - jitter, no secret


def _is_trusted_at_first(limits: Limits) -> bool:
    return limits.per_destination == 1 or not limits.is_probed
