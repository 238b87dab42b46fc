"""Mail that goes in circles, told by its header; the refusal is for good (RFC 5321 6.3).

What can circle here: a copy or a forward by a rule, to a mailbox that sends it on to a printer's; a next hop that
gives the institution's mail back to us. (Mail of ours has the null reverse-path, and never causes more of it.) Each
round adds a Received field of ours, so few of those are enough to know; a rule's round costs no paper, since the same
slip is printed once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from relay.errors import Refusal
from relay.mail import headers
from relay.mail.address import Address
from relay.mail.status import Reply

MAX_RECEIVED = 50
"""Received fields of a message that is no loop yet."""

MAX_OWN = 3
"""Those of them that are ours: a letter may come back once or twice on purpose."""


def check(header: bytes, hostname: str, recipients: Sequence[Address]) -> None:
    """Raises Refusal when a message goes in circles, and HeaderError when its header can't be read."""
    if b"received" not in header.lower():
        return
    ours = re.compile(rf"(?:^|\s)by\s+{re.escape(hostname)}(?=[\s;(]|$)", re.IGNORECASE)
    received = own = 0
    delivered_to: set[str] = set()
    for name, value in headers.fields(header):
        if name == "received":
            received += 1
            own += ours.search(headers.unfold(value)) is not None
        elif name == "delivered-to":
            delivered_to.add(headers.unfold(value).strip("<>").casefold())
    if received > MAX_RECEIVED:
        raise Refusal(Reply(554, "5.4.6", f"the message has passed {received} servers: a mail loop"))
    if own > MAX_OWN:
        raise Refusal(Reply(554, "5.4.6", f"the message has been here {own} times: a mail loop"))
    # RFC 9228: who delivers says to whom. What was here, was delivered there and comes back for there, will again.
    for recipient in recipients:
        if own and recipient.key in delivered_to:
            raise Refusal(Reply(554, "5.4.6", "the message was delivered to one of its recipients before: a mail loop"))
