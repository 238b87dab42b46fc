"""The words in which journeys are told: submit, wait for a state, see what came out."""

from __future__ import annotations

import asyncio
from typing import Any

from relay.spool.engine import Place
from relay.spool.queries import DeliveryLine, list_deliveries
from tests.harness.dns_server import verify_dkim
from tests.harness.next_hop import Taken
from tests.harness.playground import Playground
from tests.harness.waiting import until

EXTRA: dict[str, Any] = {
    "institutions": [
        {"name": "law", "domains": ["law.example"], "envelope_from": "alma-bounces@law.example", "next_hop": "default"}
    ],
    "sources": [
        {"name": "law", "institutions": ["law"], "networks": ["127.0.0.1/32"]},
        {"name": "desk", "institutions": ["demo"], "networks": ["127.0.0.3/32"], "recipients": []},
    ],
    "intake": {"max_message_size": "1MB"},
    "profiles": [
        {
            "name": "counter",
            "paper": "A4",
            "header": "{desk} | {institution} | {received}",
            "footer": "{queue_id} | {page}/{pages}",
            "big": {"select": "h1", "label": "Slip"},
            "tray": "tray-2",
            "copies": 2,
            "duplex": "long-edge",
        }
    ],
    "printers": [
        {
            "name": "counter",
            "institution": "demo",
            "mailboxes": ["counter@print.lib.example"],
            "queue": "laser",
            "profile": "counter",
            "desk": "Counter in the hall",
        }
    ],
    "rules": [
        {"name": "hold-it", "recipient": "held@*", "hold": "a person decides"},
        {"name": "drop-it", "recipient": "dropped@*", "discard": True},
    ],
}
"""What the shared playground has besides the demo institution."""


class Story:
    """A playground with the questions that tests ask it."""

    def __init__(self, playground: Playground) -> None:
        self.playground = playground
        self.appliance = playground.appliance
        self.next_hop = playground.next_hop
        self.printers = playground.printers

    def mailbox(self, printer: str) -> str:
        """The address that stands for a printer."""
        return self.playground.institution.mailbox(printer)

    async def submit(self, message: bytes, *recipients: str, sender: str = "alma@exlibrisgroup.example") -> str:
        """Hands a message in and gives its queue id."""
        return queue_id(await self.appliance.submit(message, sender, recipients))

    def deliveries(self, *queue_ids: str) -> list[DeliveryLine]:
        """What the spool says of messages, in order of arrival."""
        lines = list_deliveries(Place.file(self.playground.institution.spool), limit=100_000)
        return [line for line in lines if line.queue_id in queue_ids]

    async def settled(self, *queue_ids: str, state: str = "delivered", seconds: float = 30.0) -> list[DeliveryLine]:
        """Waits until every delivery of the messages is in a state."""

        def all_there() -> bool:
            lines = self.deliveries(*queue_ids)
            return bool(lines) and all(line.state == state for line in lines)

        await until(
            all_there,
            lambda: (
                f"{state}; it is {[(line.queue_id, line.state, line.reason) for line in self.deliveries(*queue_ids)]}\n"
                + self.playground.appliance.log.read_text(encoding="utf-8")[-3000:]
            ),
            seconds=seconds,
        )
        return self.deliveries(*queue_ids)

    def taken_for(self, recipient: str) -> list[Taken]:
        """What the next hop took for a recipient."""
        return [taken for taken in self.next_hop.taken if recipient in taken.rcpt_to]

    async def verdict(self, taken: Taken) -> bool:
        """Whether an independent verifier accepts the signature, by the demo's DNS."""
        return (await asyncio.to_thread(verify_dkim, taken.content, self.playground.ports.dns)).valid


def queue_id(reply: str) -> str:
    """The queue id in the text of a 250 reply."""
    assert reply.startswith("2.0.0 queued as "), reply
    return reply.rpartition(" ")[2]


def body(message: bytes) -> bytes:
    """What stands below the header."""
    return message.partition(b"\r\n\r\n")[2]
