"""One try of one delivery: recorded before anything leaves, settled with what came of it and with the DSN that follows.

A fault of ours in a transport defers the delivery; it never ends it. Bytes that are not those accepted end it as
corrupt. What was tried is recorded however long the spool is away: else it would be done again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from relay.bounces.notify import Notifier
from relay.config.settings import Config
from relay.delivery.retry import delay
from relay.errors import CorruptBody, Interrupted, LeaseLost, SpoolError
from relay.maillog import MailLog
from relay.spool.records import Delivery, NewDelivery, NewMessage, Outcome, State
from relay.spool.store import Store
from relay.transports import Transport

_PAUSE_AFTER_FAULT = 1.0


@dataclass(frozen=True, slots=True)
class Made:
    """An attempt that was made."""

    outcome: Outcome
    followups: tuple[NewMessage, ...] = ()
    "Messages that were accepted with it."
    kept: Delivery | None = None
    "The delivery as it is now, where it was put off and keeps its place."

    @property
    def waiting(self) -> tuple[NewDelivery, ...]:
        """Deliveries that are in the spool now for whoever claims them."""
        onward = self.outcome.onward
        sorted_now = (*((onward.way,) if onward.way is not None else ()), *onward.more) if onward is not None else ()
        return (*sorted_now, *(delivery for new in self.followups for delivery in new.deliveries))


class Attempts:
    """Makes attempts over the transports that the routes name."""

    def __init__(
        self,
        config: Config,
        store: Store,
        transports: Mapping[str, Transport],
        notifier: Notifier,
        maillog: MailLog,
    ) -> None:
        self._config = config
        self._institutions = frozenset(institution.name for institution in config.institutions)
        self._store = store
        self._transports = transports
        self._notifier = notifier
        self._maillog = maillog

    def retry_at(self, route: str, attempts: int) -> float:
        """When the next attempt is due after the `attempts`-th of a route, begun now."""
        return time.time() + delay(self._config.delivery_for(route), attempts)

    async def make(
        self,
        delivery: Delivery,
        content: bytes | None = None,
        *,
        begun: bool = False,
        answered: Callable[[Outcome], None] = lambda outcome: None,
    ) -> Made | None:
        """Tries a delivery that this node holds, and lets go of it; None when it was not this node's any more, or is
        to go on after the next start.

        `begun` when the beginning is recorded already; `content` when its bytes are at hand. Raises SpoolError when
        the spool would not record that it begins. `answered` is called with what the way out said, before that is
        recorded.
        """
        started = time.monotonic()
        try:
            if not begun:
                retry_at = self.retry_at(delivery.route, delivery.attempts + 1)
                delivery, content = await self._store.begin_and_read(delivery, retry_at)
            outcome, content = await self._try(delivery, content)
            answered(outcome)
            outcome = _expired(delivery, outcome)
            made = await self._settle(delivery, outcome, content)
        except LeaseLost as error:
            self._maillog.lease_lost(delivery.message.queue_id, delivery.number, error)
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
        self._log(delivery, made.followups)
        return made

    async def overdue(self, delivery: Delivery) -> tuple[NewMessage, ...]:
        """Ends a delivery that waited until it expired, or tells its sender that it is late; gives the DSN."""
        content = await self._content_or_nothing(delivery)
        if delivery.expires_at is not None and delivery.expires_at <= time.time():
            outcome = Outcome(State.EXPIRED, _too_late(delivery.reason))
            followups = _some(self._notifier.about(delivery, outcome, content))
            await self._store.give_up(delivery, outcome.reason, followups)
            self._maillog.expired(delivery.message.queue_id, delivery.number, route=delivery.route)
        else:
            followups = _some(self._notifier.late(delivery, content))
            await self._store.warned(delivery, followups)
        self._log(delivery, followups)
        return followups

    async def _settle(self, delivery: Delivery, outcome: Outcome, content: bytes) -> Made:
        retry_at = self.retry_at(delivery.route, delivery.attempts)
        # What was sorted goes on, or others go in its stead: it is not at its end.
        followups = _some(self._notifier.about(delivery, outcome, content)) if outcome.onward is None else ()
        while True:
            try:
                if outcome.onward is not None:
                    for again in await self._store.sort(delivery, outcome, outcome.onward):
                        self._maillog.duplicate(
                            delivery.message.queue_id, again.number, printer=again.printer, of=again.of, by="message-id"
                        )
                    return Made(outcome)
                if outcome.state is State.DEFERRED and outcome.shut_for is not None:
                    kept = await self._store.put_off(delivery, outcome, time.time() + outcome.shut_for)
                    return Made(outcome, kept=kept)
                await self._store.settle(delivery, outcome, retry_at, followups)
                return Made(outcome, followups)
            except LeaseLost:
                raise
            except SpoolError as error:
                self._maillog.fault(f"delivery {delivery}", error)
                await asyncio.sleep(_PAUSE_AFTER_FAULT)

    async def _try(self, delivery: Delivery, content: bytes | None) -> tuple[Outcome, bytes]:
        transport = self._transports.get(delivery.route)
        if transport is None:
            return Outcome(State.DEFERRED, f"the configuration has no route {delivery.route!r} any more"), b""
        if delivery.message.institution not in self._institutions:
            reason = f"the configuration has no institution {delivery.message.institution!r} any more"
            return Outcome(State.DEFERRED, reason), b""
        if delivery.is_bundle:
            content = b""  # its letters are those of its slips, whatever became of the first one's
        try:
            content = await self._store.content(delivery.message) if content is None else content
        except CorruptBody as error:
            return Outcome(State.CORRUPT, str(error)), b""
        except SpoolError as error:
            return Outcome(State.DEFERRED, str(error)), b""
        try:
            return await transport.deliver(delivery, content), content
        except (SpoolError, Interrupted):
            raise
        except Exception as error:
            self._maillog.fault(f"delivery {delivery}", error)
            reason = f"a fault of slip-relay itself ({type(error).__name__}); the log has the trace"
            return Outcome(State.DEFERRED, reason), content

    async def _content_or_nothing(self, delivery: Delivery) -> bytes:
        try:
            return await self._store.content(delivery.message)
        except SpoolError:
            return b""

    def _log(self, delivery: Delivery, followups: tuple[NewMessage, ...]) -> None:
        for new in followups:
            self._maillog.notified(
                new.message.queue_id, about=str(delivery), recipient=new.deliveries[0].recipient, size=len(new.content)
            )


def _expired(delivery: Delivery, outcome: Outcome) -> Outcome:
    if outcome.state is not State.DEFERRED or delivery.expires_at is None or time.time() < delivery.expires_at:
        return outcome
    return replace(outcome, state=State.EXPIRED, reason=_too_late(outcome.reason), shut_for=None)


def _too_late(last: str) -> str:
    return f"not delivered in time; last: {last}" if last else "not delivered in time"


def _some(new: NewMessage | None) -> tuple[NewMessage, ...]:
    return (new,) if new is not None else ()
