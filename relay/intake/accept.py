"""The moment a message becomes ours: admitted, routed, committed; only then the 250.

The commit is shielded: a client that goes away while it runs can't undo half of it. It may then send the message again;
that is the price of never losing one.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from relay.config.settings import Config, Source
from relay.errors import Refusal
from relay.intake.policy import Policy
from relay.mail import headers, status
from relay.mail.address import Address
from relay.mail.envelope import Asked, Envelope
from relay.mail.queue_id import new_queue_id
from relay.maillog import MailLog
from relay.routing import rules
from relay.routing.conditions import Arrival
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

    def hand_over(self, deliveries: Sequence[Delivery], content: bytes) -> None:
        """Takes deliveries that were claimed."""
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
    ) -> None:
        self._config = config
        self._policy = policy
        self._store = store
        self._maillog = maillog
        self._runner = runner

    def has_room(self, size: int) -> bool:
        """Whether the spool has room for a message of that many bytes."""
        return self._store.has_room(size)

    async def accept(self, client: Client, envelope: Envelope, content: bytes) -> str:
        """The queue id under which the message is kept. Raises Refusal, or SpoolError when it could not be kept."""
        if not self.has_room(len(content)):
            raise Refusal(status.SPOOL_FULL)
        header = headers.section(content)
        admission = self._policy.admit(client.sources, envelope, header)
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
            sha256=hashlib.sha256(content).hexdigest(),
            ret=envelope.ret,
            envid=envelope.envid,
        )
        deliveries = tuple(
            self._delivery(message, admission.from_domains, recipient, asked)
            for recipient, asked in zip(envelope.recipients, envelope.asked, strict=True)
        )
        await self._keep(NewMessage(message, content, deliveries))
        return message.queue_id

    def _delivery(
        self, message: Message, from_domains: tuple[str, ...], recipient: Address, asked: Asked
    ) -> NewDelivery:
        """By the envelope alone: a letter that has to be read, or goes several ways, is sorted after the 250."""
        arrival = Arrival(
            message.institution,
            message.source,
            recipient,
            message.reverse_path,
            from_domains,
            message.size,
            message.received_at,
        )
        decision = rules.decide(self._config, arrival)
        if decision is not None and decision.is_one_way and decision.route is not None:
            route, destination = decision.route.name, decision.route.destination
            profile, copies, merge = decision.profile, decision.copies, decision.merge
        else:
            route = destination = rules.SORT + message.institution
            profile, copies, merge = "", 0, False
        warn_at, expires_at = self._config.delivery_for(route).deadlines(message.received_at)
        return NewDelivery(
            recipient=str(recipient),
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

    async def _keep(self, new: NewMessage) -> None:
        """Returns when the message is kept: first the client is answered, then its deliveries are seen to."""
        retry_at = self._runner.reserve(new.deliveries)
        kept = self._store.accept(new, retry_at)
        waiting = asyncio.shield(kept)
        kept.add_done_callback(partial(self._go_on, new, retry_at))
        await waiting

    def _go_on(
        self, new: NewMessage, retry_at: list[float | None] | None, kept: asyncio.Future[list[Delivery]]
    ) -> None:
        """The message was kept, or was not."""
        failed = kept.cancelled() or kept.exception() is not None
        if retry_at is None:
            self._runner.leave(new.deliveries)
        elif failed:
            self._runner.give_back(new.deliveries, retry_at)
        if failed:
            return
        self._runner.hand_over(kept.result(), new.content)
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
