"""One try of one delivery: recorded before anything leaves, settled with what came of it.

A fault of ours in a transport defers the delivery; it never ends it. Bytes that are not those accepted end it as
corrupt.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from relay.config.settings import Delivery as DeliverySettings
from relay.delivery.retry import delay
from relay.errors import Interrupted, LeaseLost, SpoolError
from relay.maillog import MailLog
from relay.spool.records import Delivery, Outcome, State
from relay.spool.store import Store
from relay.transports import Transport


@dataclass(frozen=True, slots=True)
class PutOff:
    """A delivery that keeps its place, since its route is shut for some seconds."""

    delivery: Delivery
    seconds: float


class Attempts:
    """Makes attempts over the transports that the routes name."""

    def __init__(
        self, settings: DeliverySettings, store: Store, transports: Mapping[str, Transport], maillog: MailLog
    ) -> None:
        self._settings = settings
        self._store = store
        self._transports = transports
        self._maillog = maillog

    async def make(self, delivery: Delivery) -> PutOff | None:
        """Tries a delivery that this node holds, and lets go of it; PutOff when the whole route is shut.

        Raises SpoolError when the spool would not record it.
        """
        started = time.monotonic()
        retry_at = time.time() + delay(self._settings, delivery.attempts + 1)
        try:
            delivery = await self._store.begin(delivery, retry_at)
            outcome = self._expired(delivery, await self._try(delivery))
            put_off = await self._settle(delivery, outcome)
        except LeaseLost as error:
            self._maillog.fault("lease", error)
            return None
        except Interrupted:
            return None
        self._maillog.attempt_ended(
            delivery.message.queue_id,
            delivery.number,
            route=delivery.route,
            recipient=delivery.recipient,
            state=outcome.state.value,
            attempt=delivery.attempts,
            seconds=time.monotonic() - started,
            reason=outcome.reason,
        )
        return put_off

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> PutOff | None:
        if outcome.state is State.DEFERRED and outcome.shut_for is not None:
            kept = await self._store.put_off(delivery, outcome, time.time() + outcome.shut_for)
            return PutOff(kept, outcome.shut_for)
        await self._store.settle(delivery, outcome, time.time() + delay(self._settings, delivery.attempts))
        return None

    async def _try(self, delivery: Delivery) -> Outcome:
        transport = self._transports.get(delivery.route)
        if transport is None:
            return Outcome(State.DEFERRED, f"the configuration has no route {delivery.route!r} any more")
        try:
            content = await self._store.content(delivery.message)
        except SpoolError as error:
            return Outcome(State.CORRUPT, str(error))
        try:
            return await transport.deliver(delivery, content)
        except (SpoolError, Interrupted):
            raise
        except Exception as error:
            self._maillog.fault(f"delivery {delivery.message.queue_id}", error)
            return Outcome(
                State.DEFERRED, f"a fault of slip-relay itself ({type(error).__name__}); the log has the trace"
            )

    def _expired(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        age = time.time() - delivery.message.received_at
        if (
            outcome.state is not State.DEFERRED
            or age < self._settings.expire_after
            or delivery.route.startswith("print:")
        ):
            return outcome
        return Outcome(State.EXPIRED, f"not delivered in time; last: {outcome.reason}", outcome.reply)
