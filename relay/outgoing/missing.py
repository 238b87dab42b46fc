"""Fields that a letter has to have and came without (RFC 6409 8), put on top of it before it is signed.

Each attempt makes the same bytes. A field that a signature the letter brought along says to be absent (oversigned, RFC
6376 8.15) is not added: the signature would not be good any more.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache

from relay.mail.address import ascii_domain
from relay.outgoing.brought import brought, covered
from relay.spool.records import Message

_WANTED = re.compile(rb"^(message-id|date|auto-submitted)[ \t]*:", re.IGNORECASE | re.MULTILINE)


def date_of(message: Message) -> str:
    """When a message was received, as fields say it (RFC 5322 3.3)."""
    return _date(int(message.received_at))


@lru_cache(maxsize=16)
def _date(second: int) -> str:
    return formatdate(second, localtime=True)


def missing_fields(message: Message, header: bytes, hostname: str, *, automatic: bool) -> bytes:
    """Message-ID, made of the queue id; Date, that of receipt; where mail is `automatic` Auto-Submitted (RFC 3834 5).
    Each has its CRLF, and is left out where the header has it. Returned mail (null reverse-path) is not called
    automatic: others wrote it.
    """
    present = {name.lower() for name in _WANTED.findall(header)}
    lacks_id, lacks_date = b"message-id" not in present, b"date" not in present
    is_to_say = automatic and message.reverse_path is not None and b"auto-submitted" not in present
    if not lacks_id and not lacks_date and not is_to_say:
        return b""
    signed = covered(brought(header))
    fields = b""
    if lacks_id and "message-id" not in signed:
        fields += f"Message-ID: <{message.queue_id}@{ascii_domain(hostname)}>\r\n".encode("ascii")
    if lacks_date and "date" not in signed:  # the next hop would add one, and break what says that there is none
        fields += f"Date: {date_of(message)}\r\n".encode("ascii")
    if is_to_say and "auto-submitted" not in signed:
        fields += b"Auto-Submitted: auto-generated\r\n"
    return fields
