"""Brings due deliveries to their routes.

Each destination is a lane (`lanes`), so that a slow or dead one holds up nobody else; within a lane the oldest goes
first, also after its way out was shut for a while. What was just accepted is begun, or handed over, in the transaction
that accepts it; the rest is claimed from the spool in batches. Memory is bounded by the number of destinations that are
being served, not by the length of the queue: a lane that is full claims no more, and what is accepted for it waits in
the spool, in order. So does what is accepted for a printer whose hours are over (`gates`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping, Sequence
from math import inf

from relay.delivery.attempt import Attempts, Made
from relay.delivery.batches import Batches
from relay.delivery.clock import ClockWatch
from relay.delivery.gates import Gate
from relay.delivery.lanes import Lane, Route
from relay.errors import LeaseLost, SpoolError
from relay.maillog import MailLog
from relay.spool.records import Delivery, Key, NewDelivery, Outcome, State
from relay.spool.store import Store
from relay.transports import Limits, Transport

BATCH = 100
"""Deliveries of one claim."""

POLL = 1.0
"""Seconds between looks for deliveries that became due."""

LOOK_FOR_LATE = 5.0
"""Seconds between looks for deliveries that are late or to be given up."""

_PAUSE_AFTER_FAULT = 5.0
_CLOCK_STEP = 0.01
"""Seconds after the end of a lease at which it is looked at: at the very end it might hold still."""


class Runner:
    """Works until `stop`, then lets running attempts end."""

    def __init__(
        self,
        store: Store,
        attempts: Attempts,
        transports: Mapping[str, Transport],
        maillog: MailLog,
        gates: Mapping[str, Gate] | None = None,
    ) -> None:
        """`gates` are those of the routes whose deliveries wait for hours; they are printers', and have one lane."""
        self._store = store
        self._attempts = attempts
        self._transports = transports
        self._maillog = maillog
        self._routes = {name: Route(name, transport.limits) for name, transport in transports.items()}
        self._lanes: dict[str, Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: set[Key] = set()
        self._wake = asyncio.Event()
        self._caught_up = False
        self._stopping = False
        self._stopped = asyncio.Event()
        self._alone = frozenset(name for name, transport in transports.items() if transport.limits.by_one_node)
        self._clock = ClockWatch()
        self._gates = gates or {}
        self._gated = [self._lane(route, route) for route in self._gates]
        self._batches = Batches(store, maillog, self._held, self._fill, self._wake.set)

    # --- what intake asks

    def reserve(self, deliveries: Sequence[NewDelivery]) -> list[float | None] | None:
        """Whether a message may be claimed as it is accepted: for each delivery the time of a second attempt, when the
        first one begins at once, else None; or None for all, while older ones of a destination wait in the spool.

        Each answer is followed by `hand_over`, `leave` or `give_back`.
        """
        lanes = [self._lane(each.destination, each.route) for each in deliveries]
        if self._stopping or any(lane.leaves_new for lane in lanes):
            for lane in lanes:
                lane.is_behind = True
                lane.left += 1
                lane.unclaimed += 1
            return None
        retry_at: list[float | None] = []
        for lane, delivery in zip(lanes, deliveries, strict=True):
            begins = lane.may_start and not lane.has_waiting
            if begins:
                lane.start()
            retry_at.append(self._attempts.retry_at(delivery.route, 1) if begins else None)
        return retry_at

    def hand_over(self, deliveries: Sequence[Delivery], content: bytes | None) -> None:
        """Takes deliveries of one message that were claimed as it was accepted; its bytes, when they are at hand."""
        for delivery in deliveries:
            lane = self._lane(delivery.destination, delivery.route)
            self._held.add(delivery.key)
            if delivery.state is State.ACTIVE:
                self._start(lane, delivery, content, begun=True)
            else:
                lane.put(delivery)
                self._fill(lane)

    def leave(self, deliveries: Sequence[NewDelivery]) -> None:
        """A message that was not claimed is in the spool now (or was not accepted after all)."""
        for delivery in deliveries:
            self._lane(delivery.destination, delivery.route).unclaimed -= 1
        self._wake.set()

    def give_back(self, deliveries: Sequence[NewDelivery], retry_at: Sequence[float | None]) -> None:
        """A message that was to be claimed could not be accepted."""
        for delivery, time_of_second in zip(deliveries, retry_at, strict=True):
            if time_of_second is not None:
                lane = self._lane(delivery.destination, delivery.route)
                lane.end()
                self._fill(lane)

    def reopen(self) -> None:
        """Somebody changed what waits, or knows better: destinations that were given a rest are asked again now."""
        for lane in self._lanes.values():
            lane.is_shut = False
            lane.is_behind = True
            self._fill(lane)
        self._wake.set()

    # --- the work

    async def run(self) -> None:
        """Claims, renews and looks for what is late, until `stop`."""
        alive = [asyncio.create_task(self._renew()), asyncio.create_task(self._watch())]
        try:
            await self._work()
            await self._stopped.wait()  # attempts that are let end still need the lease
        finally:
            for task in alive:
                task.cancel()

    async def _renew(self) -> None:
        """Shows that this node lives, however much there is to do."""
        while True:
            await asyncio.sleep(self._store.lease / 3)
            try:
                if await self._store.renew(set(self._held)):
                    self._wake.set()
            except SpoolError as error:
                self._maillog.fault("renew", error)

    async def _watch(self) -> None:
        """Takes over what a dead node holds as soon as its lease ends, without a commit while all live."""
        while True:
            try:
                ends = await self._store.first_lease_end()
                if ends is not None and ends < 0 and await self._store.take_over():
                    self._wake.set()
            except SpoolError as error:
                self._maillog.fault("take-over", error)
                ends = _PAUSE_AFTER_FAULT
            pause = POLL if ends is None or ends < 0 else min(ends + _CLOCK_STEP, POLL)
            await asyncio.sleep(pause)

    async def _work(self) -> None:
        clock = asyncio.get_running_loop().time
        looked = clock()
        while not self._stopping:
            self._wake.clear()
            more_waits = False
            try:
                more_waits = await self._claim()
                if clock() - looked > LOOK_FOR_LATE:
                    await self._see_to_late()
                    looked = clock()
                pause = POLL
            except SpoolError as error:
                self._maillog.fault("claim", error)
                self._wake.clear()
                pause = _PAUSE_AFTER_FAULT
            if not more_waits:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()

    async def stop(self, timeout: float) -> None:
        """Starts nothing more, gives running attempts `timeout` seconds to end, then cuts them off."""
        self._stopping = True
        self._wake.set()
        await self._batches.stop()
        for transport in self._transports.values():
            transport.interrupt()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._stopped.set()

    async def _claim(self) -> bool:
        """Claims a batch for the lanes that have room; whether there may be more."""
        await self._see_to_clock()
        self._see_to_hours()
        await self._batches.begin(self._gated)
        until = {lane.destination: lane.until for lane in self._gated if lane.until != inf}
        room = {name: lane.room for name, lane in self._lanes.items()}
        asked = [(lane, lane.left, lane.unclaimed) for name, lane in self._lanes.items() if room[name]]
        claimed, left = await self._store.claim(BATCH, room, until, self._alone)
        too_late = []
        for delivery in claimed:
            # What waits here already was taken away from this node by an operator's order: as it is now, it counts.
            if delivery.key not in self._held or self._take_out(delivery.key):
                self._held.add(delivery.key)
                lane = self._lane(delivery.destination, delivery.route)
                if lane.is_shut and lane.yields:
                    too_late.append(delivery)  # held here, it would keep other nodes from all of that destination
                else:
                    lane.put(delivery)
        if too_late:
            self._spawn(self._let_go(too_late, in_order=True))
        for lane, left_before, unclaimed in asked:
            # What was being accepted at that time may have come too late for this claim.
            lane.is_behind = unclaimed > 0 or lane.left > left_before or lane.destination in left
        self._caught_up = not left
        for destination in {delivery.destination for delivery in claimed}:
            self._fill(self._lanes[destination])
        for lane in [lane for lane, _, _ in asked if lane.is_idle]:
            self._lanes.pop(lane.destination, None)
        return bool(claimed) and any(name not in self._lanes or not self._lanes[name].is_full for name in left)

    async def _see_to_clock(self) -> None:
        """A clock that was set back must not keep waiting what was due by the old one."""
        if step := self._clock.look():
            self._maillog.service("clock-set", seconds=round(step, 1))
        if self._clock.owed:
            await self._store.clock_set_back(self._clock.owed)
            self._clock.settled()

    def _see_to_hours(self) -> None:
        """Opens and closes printers by their hours."""
        for lane in self._gated:
            was_closed = lane.is_closed
            self._gates[lane.destination].look()
            if lane.is_closed and not was_closed:
                waiting = lane.empty()
                lane.settled()
                if waiting:
                    self._spawn(self._let_go(waiting, in_order=True))
            elif was_closed and not lane.is_closed:
                lane.is_behind = True
            if lane.is_closed is not was_closed:
                self._maillog.service("hours", route=lane.destination, now="closed" if lane.is_closed else "open")

    async def _see_to_late(self) -> None:
        while not self._stopping:
            late = await self._store.claim_overdue(BATCH)
            keys = {delivery.key for delivery in late}
            self._held |= keys
            try:
                for delivery in late:
                    with contextlib.suppress(LeaseLost):  # an operator was quicker
                        followups = await self._attempts.overdue(delivery)
                        self._wait_in_spool([each for new in followups for each in new.deliveries])
            finally:
                self._held -= keys
            if len(late) < BATCH:
                return

    def _lane(self, destination: str, route: str) -> Lane:
        lane = self._lanes.get(destination)
        if lane is None:
            # A route that the configuration has no more still has its mail.
            way = self._routes.setdefault(route, Route(route, Limits(1, 1)))
            gate, is_shared = self._gates.get(destination), way.limits.by_one_node and self._store.is_shared
            lane = Lane(destination, way, is_behind=not self._caught_up, gate=gate, is_shared=is_shared)
            self._lanes[destination] = lane
        return lane

    def _take_out(self, key: Key) -> bool:
        """Takes a delivery out of the lane where it waits; False when an attempt of it runs."""
        return any(lane.take_out(key) for lane in self._lanes.values())

    def _fill(self, lane: Lane) -> None:
        """Starts what may start in a lane; when its route has no place left, it is told as soon as there is one."""
        while not self._stopping and lane.has_waiting and lane.may_start:
            lane.start()
            self._start(lane, lane.pop())
        route = lane.route
        if not lane.has_waiting or lane.is_shut or route.has_place:
            route.blocked.pop(lane.destination, None)
        elif not self._stopping:
            route.blocked[lane.destination] = lane
            if (pause := route.pause()) and not route.is_timed:
                route.is_timed = True
                asyncio.get_running_loop().call_later(pause, self._rate_allows, route)

    def _rate_allows(self, route: Route) -> None:
        route.is_timed = False
        self._fill_blocked(route)

    def _fill_blocked(self, route: Route) -> None:
        for lane in list(route.blocked.values()):
            route.blocked.pop(lane.destination, None)
            self._fill(lane)
            if not route.has_place:
                return

    def _start(self, lane: Lane, delivery: Delivery, content: bytes | None = None, *, begun: bool = False) -> None:
        """Starts an attempt whose place is taken already; `begun` when its beginning is recorded already."""
        self._spawn(self._attempt(lane, delivery, content, begun=begun))

    async def _attempt(self, lane: Lane, delivery: Delivery, content: bytes | None, *, begun: bool) -> None:
        made: Made | None = None
        has_place = True

        def answered(outcome: Outcome) -> None:
            nonlocal has_place
            self._learn(lane, delivery.key, outcome)
            if outcome.state is State.DELIVERED:
                # The way out is free again; the next one need not wait until this one is recorded.
                has_place = False
                lane.end()
                self._fill(lane)
                self._fill_blocked(lane.route)

        try:
            made = await self._attempts.make(delivery, content, begun=begun, answered=answered)
        except Exception as error:
            # The spool would not record it, or a bug: give it back when the spool may be well again. Should that fail
            # too it is let go of with the next renewals, for it is not among what is held here.
            self._maillog.fault(f"delivery {delivery}", error)
            with contextlib.suppress(SpoolError):
                await asyncio.sleep(_PAUSE_AFTER_FAULT)
                await self._store.release([delivery])
        finally:
            if has_place:
                lane.end()
            if made is not None and made.kept is not None and made.outcome.shut_for is not None:
                if lane.is_closed or lane.yields:
                    # Perhaps another node can reach what this one can't.
                    waiting = lane.empty() if lane.yields else []
                    self._spawn(self._let_go([made.kept, *waiting], in_order=True))
                else:
                    lane.put(made.kept)
                lane.is_shut = True
                asyncio.get_running_loop().call_later(made.outcome.shut_for, self._open, lane)
            else:
                self._held.discard(delivery.key)
            if made is not None:
                self._wait_in_spool(made.waiting)
            self._fill(lane)
            self._fill_blocked(lane.route)
            lane.settled()
            if (lane.is_behind or lane.is_shared) and not lane.is_full:
                self._wake.set()

    def _learn(self, lane: Lane, key: Key, outcome: Outcome) -> None:
        """What an attempt says of its destination."""
        shut_for = None
        match outcome.trouble:
            case "unreachable":
                shut_for = lane.unreachable()
            case "lost":
                shut_for = lane.lost(key)
            case _:
                lane.went_well()
        if shut_for is not None:
            self._maillog.destination_shut(lane.destination, seconds=shut_for, reason=outcome.reason)
            lane.is_behind = True
            waiting = lane.empty()
            asyncio.get_running_loop().call_later(shut_for, self._open, lane)
            if waiting:
                self._spawn(self._let_go(waiting))

    async def _let_go(self, waiting: list[Delivery], *, in_order: bool = False) -> None:
        """Gives back what waited in a lane that was shut: in the spool it can expire, and be held or cancelled."""
        try:
            await self._store.release(waiting, in_order=in_order)
        except SpoolError as error:
            self._maillog.fault("release", error)
        self._held.difference_update(delivery.key for delivery in waiting)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _wait_in_spool(self, deliveries: Sequence[NewDelivery]) -> None:
        """Deliveries that nobody has claimed are in the spool now: a DSN of ours, or what was sorted."""
        for delivery in deliveries:
            lane = self._lane(delivery.destination, delivery.route)
            lane.is_behind = True
            lane.left += 1
            self._wake.set()

    def _open(self, lane: Lane) -> None:
        """The time is over for which a lane was shut: its oldest delivery is tried again, then the rest."""
        lane.is_shut = False
        self._fill(lane)
        self._wake.set()
