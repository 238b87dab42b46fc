"""The moment a message becomes ours: admitted, routed, committed; only then the 250.

The commit is shielded: a client that goes away while it runs can't undo half of it. It may then send the message again;
that is the price of never losing one.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from relay.config.settings import Config, Source
from relay.errors import Refusal
from relay.intake.policy import Policy
from relay.mail import headers, status
from relay.mail.envelope import Envelope
from relay.mail.queue_id import new_queue_id
from relay.maillog import MailLog
from relay.routing import rules
from relay.spool.records import Delivery, Message
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

    def may_claim(self, routes: Collection[str]) -> bool:
        """Whether a message for these routes may be claimed as it is accepted."""
        ...

    def hand_over(self, deliveries: Sequence[Delivery]) -> None:
        """Takes deliveries that were claimed."""
        ...

    def leave(self, routes: Collection[str]) -> None:
        """Learns that a message which was not claimed is in the spool."""
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
        )
        routes = [
            (str(recipient), rules.choose(self._config, admission.institution, recipient).name)
            for recipient in envelope.recipients
        ]
        await asyncio.shield(self._keep(message, content, routes))
        return message.queue_id

    async def _keep(self, message: Message, content: bytes, routes: list[tuple[str, str]]) -> None:
        names = {route for _, route in routes}
        claim = self._runner.may_claim(names)
        try:
            held = await self._store.accept(message, content, routes, claim=claim)
            self._maillog.accepted(
                message.queue_id,
                source=message.source,
                institution=message.institution,
                client=message.client,
                sender=message.reverse_path or "<>",
                recipients=len(routes),
                size=message.size,
                seconds=time.time() - message.received_at,
            )
            self._runner.hand_over(held)
        finally:
            if not claim:
                self._runner.leave(names)
