"""The way out without spool and runner: letters over one SMTP transport, one after the other."""

from __future__ import annotations

import time

from relay.config.settings import Config
from relay.dns.resolver import Resolver
from relay.maillog import MailLog
from relay.outgoing.assemble import Assembler
from relay.outgoing.sign import Signer
from relay.spool.records import Delivery, Message, Outcome, State
from relay.transports.smtp import SmtpTransport

LETTER = b"From: circ@lib.example\r\nSubject: due\r\n\r\n.dot\r\nbody\r\n"


class Letters:
    """Deliveries by the first next hop of a configuration."""

    def __init__(self, config: Config) -> None:
        assembler = Assembler(config, Signer(config.institutions))
        self.transport = SmtpTransport(
            config.next_hops[0],
            config.server.hostname,
            assembler,
            Resolver(config.dns),
            MailLog.of(config),
            backoff_first=1.0,
        )

    async def send(self, content: bytes = LETTER, recipient: str = "reader@patron.example") -> Outcome:
        """Makes one attempt, and says how it ended."""
        message = Message(
            "0123456789ABC", "demo", "alma", "circ@lib.example", False, False, time.time(), "192.0.2.1", "alma",
            "ESMTP", "<1@lib.example>", len(content), "",
        )  # fmt: skip
        delivery = Delivery(message, 0, recipient, "default", "default", State.ACTIVE, 1, 0.0)
        return await self.transport.deliver(delivery, content)
