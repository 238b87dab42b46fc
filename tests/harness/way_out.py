"""The way out without spool and runner: letters over one SMTP transport, one after the other."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from relay.config.settings import Config
from relay.dns.resolver import Resolver
from relay.maillog import MailLog
from relay.outgoing.assemble import Assembler
from relay.outgoing.sign import Signer
from relay.spool.records import Delivery, Message, Outcome, State
from relay.transports.smtp import SmtpTransport
from tests.harness.waiting import LOCALHOST

LETTER = b"From: circ@lib.example\r\nSubject: due\r\n\r\n.dot\r\nbody\r\n"


class Letters:
    """Deliveries by the first next hop of a configuration."""

    def __init__(self, config: Config) -> None:
        assembler = Assembler(config, Signer(config.institutions), MailLog.of(config))
        self.transport = SmtpTransport(
            config.next_hops[0],
            config.server.hostname,
            assembler,
            Resolver(config.dns),
            MailLog.of(config),
            backoff_first=1.0,
        )

    async def send(
        self, content: bytes = LETTER, recipient: str = "reader@patron.example", **of_the_message: Any
    ) -> Outcome:
        """Makes one attempt, and says how it ended."""
        return await self.transport.deliver(delivery_of(content, recipient, **of_the_message), content)


def delivery_of(content: bytes, recipient: str = "reader@patron.example", **of_the_message: Any) -> Delivery:
    """A letter at its first attempt; the message has these fields instead of the usual ones."""
    message = Message(
        "0123456789ABC", "demo", "alma", "circ@lib.example", False, False, time.time(), "192.0.2.1", "alma",
        "ESMTP", "<1@lib.example>", len(content), "",
    )  # fmt: skip
    message = replace(message, **of_the_message)
    return Delivery(message, 0, recipient, "default", "default", State.ACTIVE, 1, 0.0)


def by_hop(host: str, port: int, *, dns: str = LOCALHOST, **settings: Any) -> Config:
    """A configuration whose next hop is a host on this machine; without a host it goes by MX."""
    at = {"host": host} if host else {}
    return Config.model_validate({
        "server": {"hostname": "relay.lib.example"},
        "dns": {"nameservers": [dns], "timeout": "3s"},
        "spool": {"url": "sqlite:////nowhere/spool.db"},
        "listeners": [{"name": "smtp", "address": LOCALHOST, "port": 2525}],
        "institutions": [{"name": "demo", "domains": ["lib.example"], "envelope_from": "bounces@lib.example"}],
        "sources": [{"name": "alma", "institutions": ["demo"], "networks": ["192.0.2.0/24"]}],
        "next_hops": [{"name": "default", "port": port, "timeout": "5s", **at, **settings}],
    })  # fmt: skip


@asynccontextmanager
async def letters_by(host: str, port: int, **settings: Any) -> AsyncIterator[Letters]:
    """Letters by that next hop; its sessions end with the block."""
    letters = Letters(by_hop(host, port, **settings))
    try:
        yield letters
    finally:
        await letters.transport.close()


async def send(port: int, **settings: Any) -> Outcome:
    """What becomes of one letter to `localhost`."""
    async with letters_by("localhost", port, **settings) as letters:
        return await letters.send()
