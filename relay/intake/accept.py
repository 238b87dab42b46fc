"""The moment a message becomes ours: admitted, routed, committed; only then the 250.

The commit is shielded: a client that goes away while it runs can't undo half of it. It may then send the message again;
that is the price of never losing one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from relay.config.settings import Config
from relay.config.sources import Source
from relay.errors import Refusal
from relay.intake.policy import Policy
from relay.intake.rates import Rates
from relay.intake.staging import Arrived, ContentSink, Staging
from relay.mail import headers, status
from relay.mail.address import Address
from relay.mail.envelope import Asked, Envelope
from relay.mail.queue_id import new_queue_id
from relay.maillog import MailLog
from relay.routing import rules
from relay.routing.conditions import Arrival
from relay.spool.contents import LargeContent
from relay.spool.records import Delivery, Message, NewDelivery, NewMessage
from relay.spool.store import Store


@dataclass(frozen=True, slots=True)
class Client:
    """What is known of the client: its address, what it called itself, and how it spoke (RFC 3848)."""

    address: str
    helo: str
    protocol: str
    sources: tuple[Source, ...]


class Claimant(Protocol):
    """Who works on what was accepted (`relay.delivery.runner.Runner`)."""

    def reserve(self, deliveries: Sequence[NewDelivery]) -> list[float | None] | None:
        """Whether a message may be claimed as it is accepted, and when its second attempts would be due."""
        ...

    def hand_over(self, deliveries: Sequence[Delivery], content: bytes | None) -> None:
        """Takes deliveries that were claimed; without the bytes of a large message, which are in the spool."""
        ...

    def leave(self, deliveries: Sequence[NewDelivery]) -> None:
        """Learns that a message which was not claimed is in the spool."""
        ...

    def give_back(self, deliveries: Sequence[NewDelivery], retry_at: Sequence[float | None]) -> None:
        """Learns that a message which was to be claimed was not accepted."""
        ...


class Acceptance:
    """Takes messages into the spool and hands their deliveries on."""

    def __init__(
        self,
        config: Config,
        policy: Policy,
        store: Store,
        maillog: MailLog,
        runner: Claimant,
        staging: Staging,
    ) -> None:
        self._config = config
        self._policy = policy
        self._store = store
        self._maillog = maillog
        self._runner = runner
        self.rates = Rates(config.intake.max_messages_per_minute)
        self._staging = staging

    def has_room(self, size: int) -> bool:
        """Whether the spool has room for a message of that many bytes, besides those that just come in."""
        return self._staging.has_room(size)

    def sink(self) -> ContentSink:
        """Where the bytes of a message go while they come in."""
        return self._staging.sink()

    async def accept(self, client: Client, envelope: Envelope, arrived: Arrived) -> str:
        """The queue id under which the message is kept. Raises Refusal, or SpoolError when it could not be kept.

        What arrived is closed in the end, however it ends.
        """
        try:
            new = self._admitted(client, envelope, arrived)
            kept = self._keep(new, arrived)
        except BaseException:
            arrived.close()
            raise
        await kept
        return new.message.queue_id

    def _admitted(self, client: Client, envelope: Envelope, arrived: Arrived) -> NewMessage:
        """The message as it goes into the spool. Raises Refusal."""
        content, header = arrived.content, arrived.header
        if not self.has_room(0 if isinstance(content, LargeContent) else len(content)):
            raise Refusal(status.SPOOL_FULL)
        admission = self._policy.admit(client.sources, envelope, header)
        self.rates.take(admission.source)
        message = Message(
            queue_id=new_queue_id(),
            institution=admission.institution,
            source=admission.source,
            reverse_path=str(envelope.reverse_path) if envelope.reverse_path else None,
            smtputf8=envelope.smtputf8,
            eight_bit=envelope.eight_bit,
            received_at=time.time(),
            client=client.address,
            helo=client.helo,
            protocol=client.protocol,
            message_id=headers.message_id(header),
            size=len(content),
            sha256=arrived.sha256,
            ret=envelope.ret,
            envid=envelope.envid,
            requiretls=envelope.requiretls,
        )
        deliveries = tuple(
            first_delivery(self._config, _arrival(message, admission.from_domains, recipient), asked)
            for recipient, asked in zip(envelope.recipients, envelope.asked, strict=True)
        )
        if isinstance(content, LargeContent):
            return NewMessage(message, b"", deliveries, large=content)
        return NewMessage(message, content, deliveries)

    def _keep(self, new: NewMessage, arrived: Arrived) -> asyncio.Future[list[Delivery]]:
        """Done when the message is kept: first the client is answered, then its deliveries are seen to."""
        retry_at = self._runner.reserve(new.deliveries)
        kept = self._store.accept(new, retry_at)
        waiting = asyncio.shield(kept)
        kept.add_done_callback(partial(self._go_on, new, arrived, retry_at))
        return waiting

    def _go_on(
        self,
        new: NewMessage,
        arrived: Arrived,
        retry_at: list[float | None] | None,
        kept: asyncio.Future[list[Delivery]],
    ) -> None:
        """The message was kept, or was not."""
        arrived.close()
        failed = kept.cancelled() or kept.exception() is not None
        if retry_at is None:
            self._runner.leave(new.deliveries)
        elif failed:
            self._runner.give_back(new.deliveries, retry_at)
        if failed:
            return
        self._runner.hand_over(kept.result(), new.content if new.large is None else None)
        message = new.message
        self._maillog.accepted(
            message.queue_id,
            source=message.source,
            institution=message.institution,
            client=message.client,
            sender=message.reverse_path or "<>",
            recipients=len(new.deliveries),
            size=message.size,
            seconds=time.time() - message.received_at,
        )


def first_delivery(config: Config, arrival: Arrival, asked: Asked) -> NewDelivery:
    """The delivery of a recipient, by the envelope alone: a letter that has to be read, or goes several ways, is sorted
    after it was accepted.
    """
    decision = rules.decide(config, arrival)
    if decision is not None and decision.is_one_way and decision.route is not None:
        route, destination = decision.route.name, decision.route.destination
        profile, copies, merge = decision.profile, decision.copies, decision.merge
    else:
        route = destination = rules.SORT + arrival.institution
        profile, copies, merge = "", 0, False
    warn_at, expires_at = config.delivery_for(route).deadlines(arrival.at)
    return NewDelivery(
        recipient=str(arrival.recipient),
        route=route,
        destination=destination,
        notify=asked.notify,
        orcpt=asked.orcpt,
        warn_at=warn_at,
        expires_at=expires_at,
        profile=profile,
        copies=copies,
        merge=merge,
    )


def _arrival(message: Message, from_domains: tuple[str, ...], recipient: Address) -> Arrival:
    return Arrival(
        message.institution,
        message.source,
        recipient,
        message.reverse_path,
        from_domains,
        message.size,
        message.received_at,
    )
