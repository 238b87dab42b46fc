"""Batches: what waited for a printer until it opened, or until a release time, let out in one go.

Does: takes all that waits since before that moment out of the spool, has it put in order, and gives it to the lane
batch by batch, each after its separator page, with the slips that may share a document as one.
Promises: a batch belongs to one node. Which slips are of it is a matter of their arrival and the clock, not of memory:
after a crash what is left is a batch again. The slips go the way of all slips; a separator that can't be printed, and
letters that can't be read, hold up none of them.
Known limit: with more than MOST waiting slips, each MOST of them are sorted by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence

from relay.delivery.gates import Binder
from relay.delivery.lanes import Lane
from relay.errors import SpoolError
from relay.maillog import MailLog
from relay.spool.records import Delivery, Key
from relay.spool.store import Store

MOST = 2000
"""Slips that one node takes at once; their records are some 4 MB."""

STEP = 200
"""Slips of one transaction."""

_PAUSE_AFTER_FAULT = 5.0
_LOOK_AGAIN = 1.0


class Batches:
    """The batches of all lanes of a runner."""

    def __init__(
        self, store: Store, maillog: MailLog, held: set[Key], fill: Callable[[Lane], None], wake: Callable[[], None]
    ) -> None:
        """`held` is what the runner's node holds; `fill` starts what may start in a lane."""
        self._store = store
        self._maillog = maillog
        self._held = held
        self._fill = fill
        self._wake = wake
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def begin(self, lanes: Sequence[Lane]) -> None:
        """Begins a batch in each of the lanes that have nothing to do and for which one waits."""
        ready = {
            lane.destination: (lane, lane.gate.binder, lane.gate.batch_until)
            for lane in lanes
            if lane.gate is not None and lane.gate.binder is not None and lane.is_ready_for_batch
        }
        moments = {name: moment for name, (_, _, moment) in ready.items() if moment is not None}
        for destination in await self._store.waiting_since(moments):
            lane, binder, _ = ready[destination]
            self._begin(lane, binder, moments[destination])

    def _begin(self, lane: Lane, binder: Binder, moment: float) -> None:
        if self._stopping:
            return
        lane.in_batch = True
        task = asyncio.create_task(self._let_out(lane, binder, moment), name=f"batch of {lane.destination}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Ends; what was not let out yet is given back with all that the node holds."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _let_out(self, lane: Lane, binder: Binder, moment: float) -> None:
        slips: list[Delivery] = []
        rest = [slips]
        try:
            await self._take(lane.destination, moment, slips)
            if slips:
                with self._forgiven(lane):
                    rest = await binder.bind(slips)
            else:  # another node is at it
                rest = []
                await asyncio.sleep(_LOOK_AGAIN)
            while rest and not lane.is_closed:
                with self._forgiven(lane):
                    await binder.announce(rest[0])
                lane.put_batch(await self._merged(binder, rest[0]))
                del rest[0]
                self._fill(lane)
                await lane.drained.wait()
        except Exception as error:
            self._maillog.fault(f"batch of {lane.destination}", error)
            await asyncio.sleep(_PAUSE_AFTER_FAULT)
        await self._give_back([slip for batch in rest for slip in batch])
        lane.in_batch = False
        lane.is_behind = True
        self._wake()

    async def _take(self, destination: str, moment: float, slips: list[Delivery]) -> None:
        """Takes what waits, in steps: intake waits for the spool meanwhile. Other nodes keep away from the first on."""
        while len(slips) < MOST:
            some = await self._store.claim_batch(destination, moment, STEP)
            self._held.update(slip.key for slip in some)
            slips += some
            if len(some) < STEP:
                break
        slips.sort(key=lambda slip: slip.key)

    async def _merged(self, binder: Binder, batch: Sequence[Delivery]) -> list[Delivery]:
        """The batch with those slips as one delivery that come out as one document."""
        merged: list[Delivery] = []
        for group in binder.groups(batch):
            if len(group) == 1:
                merged += group
                continue
            try:
                made = await self._store.bundle(group)
            except Exception as error:  # each goes by itself; should it have been made after all, then none of them
                self._maillog.fault("bundle", error)
                merged += group
                continue
            self._held.difference_update(slip.key for slip in group)
            self._held.add(made.bundle.key)
            merged.append(made.bundle)
            for slip in made.slips:
                self._maillog.merged(slip.message.queue_id, slip.number, route=slip.route, bundle=str(made.bundle))
        return merged

    @contextlib.contextmanager
    def _forgiven(self, lane: Lane) -> Iterator[None]:
        """Slips go out also when their batch can't be put in order, or announced."""
        try:
            yield
        except Exception as error:
            self._maillog.fault(f"batch of {lane.destination}", error)

    async def _give_back(self, slips: Sequence[Delivery]) -> None:
        """It closed in the middle of a batch, or something went wrong: the rest waits in the spool, in its order."""
        if not slips:
            return
        try:
            await self._store.release(slips, in_order=True)
        except SpoolError as error:
            self._maillog.fault("release", error)  # let go of with the next renewals, for it is not among what is held
        self._held.difference_update(slip.key for slip in slips)
