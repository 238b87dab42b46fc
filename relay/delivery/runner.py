"""Brings due deliveries to their routes.

Each route is a lane with limits of its own, so that a slow or dead destination holds up nobody else; within a lane the
oldest goes first, also after its way out was shut for a while. What was just accepted is handed over directly; the rest
is claimed from the spool in batches. Memory is bounded by the number of routes, not by the length of the queue: a lane
that is full claims no more, and what is accepted for it waits in the spool, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Collection, Mapping, Sequence

from relay.delivery.attempt import Attempts
from relay.errors import SpoolError
from relay.maillog import MailLog
from relay.spool.records import Delivery
from relay.spool.store import LEASE, Store
from relay.transports import Transport

LANE_CAPACITY = 100
"""Deliveries that wait in one lane; they wait without their bytes. A claim may bring up to BATCH more."""

BATCH = 100
"""Deliveries of one claim."""

POLL = 1.0
"""Seconds between looks for deliveries that became due."""

_PAUSE_AFTER_FAULT = 5.0


class _Lane:
    """Deliveries of one route that wait for their turn."""

    def __init__(self, concurrency: int) -> None:
        self.running = 0
        self.is_behind = True
        "Whether some may wait in the spool, that have to come first."
        self.left = 0
        "Messages that were left to the spool so far."
        self.unclaimed = 0
        "Those of them that are just being accepted."
        self.is_shut = False
        "Whether the way out itself is in trouble: nothing is tried until it opens again."
        self._concurrency = concurrency
        self._waiting: list[tuple[int, Delivery]] = []

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= LANE_CAPACITY

    def put(self, delivery: Delivery) -> None:
        heapq.heappush(self._waiting, (delivery.id, delivery))

    def next(self) -> Delivery | None:
        if self.is_shut or self.running >= self._concurrency or not self._waiting:
            return None
        return heapq.heappop(self._waiting)[1]


class Runner:
    """Works until `stop`, then lets running attempts end."""

    def __init__(self, store: Store, attempts: Attempts, transports: Mapping[str, Transport], maillog: MailLog) -> None:
        self._store = store
        self._attempts = attempts
        self._transports = transports
        self._maillog = maillog
        self._lanes = {route: _Lane(transport.concurrency) for route, transport in transports.items()}
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: set[int] = set()
        self._wake = asyncio.Event()
        self._stopping = False

    def may_claim(self, routes: Collection[str]) -> bool:
        """Whether a message for these routes may be claimed as it is accepted: not while older deliveries of a route
        wait in the spool. Each answer is followed by `hand_over` or `leave`.
        """
        lanes = [self._lane(route) for route in routes]
        if not self._stopping and not any(lane.is_behind or lane.is_full for lane in lanes):
            return True
        for lane in lanes:
            lane.is_behind = True
            lane.left += 1
            lane.unclaimed += 1
        return False

    def leave(self, routes: Collection[str]) -> None:
        """A message that was not claimed is in the spool now (or was not accepted after all)."""
        for route in routes:
            self._lane(route).unclaimed -= 1
        self._wake.set()

    def hand_over(self, deliveries: Sequence[Delivery]) -> None:
        """Takes deliveries that this node holds."""
        for delivery in deliveries:
            if delivery.id not in self._held:
                self._held.add(delivery.id)
                self._lane(delivery.route).put(delivery)
        for route in {delivery.route for delivery in deliveries}:
            self._fill(route)

    async def run(self) -> None:
        """Claims and renews until `stop`."""
        renewed = asyncio.get_running_loop().time()
        while not self._stopping:
            self._wake.clear()
            more_waits = False
            try:
                more_waits = await self._claim()
                now = asyncio.get_running_loop().time()
                if now - renewed > LEASE / 3:
                    await self._store.renew(self._held)
                    renewed = now
                pause = POLL
            except SpoolError as error:
                self._maillog.fault("claim", error)
                self._wake.clear()
                pause = _PAUSE_AFTER_FAULT
            if not more_waits:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)

    async def stop(self, timeout: float) -> None:
        """Starts nothing more, gives running attempts `timeout` seconds to end, then cuts them off."""
        self._stopping = True
        self._wake.set()
        for transport in self._transports.values():
            transport.interrupt()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _claim(self) -> bool:
        """Claims a batch for the lanes that have room; whether there may be more."""
        full = {route for route, lane in self._lanes.items() if lane.is_full}
        asked = [(lane, lane.left, lane.unclaimed) for route, lane in self._lanes.items() if route not in full]
        claimed = await self._store.claim(BATCH, full)
        self.hand_over(claimed)
        if len(claimed) == BATCH:
            return True
        for lane, left, unclaimed in asked:
            # What was being accepted at that time may have come too late for this claim.
            lane.is_behind = unclaimed > 0 or lane.left > left
        return False

    def _lane(self, route: str) -> _Lane:
        return self._lanes.setdefault(route, _Lane(1))  # a route that the configuration has no more still has its mail

    def _open(self, route: str) -> None:
        """The time is over for which a route was shut: its oldest delivery is tried again, then the rest."""
        self._lane(route).is_shut = False
        self._fill(route)

    def _fill(self, route: str) -> None:
        lane = self._lane(route)
        while not self._stopping and (delivery := lane.next()) is not None:
            lane.running += 1
            task = asyncio.create_task(self._attempt(delivery, lane), name=f"delivery-{delivery.id}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _attempt(self, delivery: Delivery, lane: _Lane) -> None:
        put_off = None
        try:
            put_off = await self._attempts.make(delivery)
        except Exception as error:
            # The spool would not record it, or a bug: give it back when the spool may be well again. Should that fail
            # too, its lease ends by itself, for only what is held here is renewed.
            self._maillog.fault(f"delivery {delivery.message.queue_id}", error)
            with contextlib.suppress(SpoolError):
                await asyncio.sleep(_PAUSE_AFTER_FAULT)
                await self._store.release([delivery])
        finally:
            lane.running -= 1
            if put_off is None:
                self._held.discard(delivery.id)
            else:
                lane.put(put_off.delivery)
                lane.is_shut = True
                asyncio.get_running_loop().call_later(put_off.seconds, self._open, delivery.route)
            self._fill(delivery.route)
            if lane.is_behind and not lane.is_full:
                self._wake.set()
