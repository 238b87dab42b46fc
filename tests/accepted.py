"""A message as intake would have accepted it, for tests that begin at the spool."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from relay.mail.queue_id import new_queue_id
from relay.spool.records import Message, NewDelivery, NewMessage


def accepted(content: bytes, *, reverse_path: str | None = "alma@exlibrisgroup.example") -> Message:
    """A new message with that content and a Message-ID of its own, received now."""
    queue_id = new_queue_id()
    return Message(
        queue_id=queue_id,
        institution="demo",
        source="alma",
        reverse_path=reverse_path,
        smtputf8=False,
        eight_bit=False,
        received_at=time.time(),
        client="127.0.0.1",
        helo="alma.example",
        protocol="ESMTP",
        message_id=f"<{queue_id}@alma.example>",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def new_message(content: bytes, *ways: tuple[str, str], **wishes: Any) -> NewMessage:
    """A message for the recipients and routes, ready for the spool; `wishes` are fields of each delivery."""
    deliveries = tuple(NewDelivery(recipient, route, destination=route, **wishes) for recipient, route in ways)
    return NewMessage(accepted(content), content, deliveries)
