"""Fields that a letter has to have and came without (RFC 6409 8), put on top of it before it is signed.

Each attempt makes the same bytes. A field that a signature the letter brought along says to be absent (oversigned, RFC
6376 8.15) is not added: the signature would not be good any more.
"""

from __future__ import annotations

from relay.mail import headers
from relay.mail.address import ascii_domain
from relay.outgoing.brought import brought, covered
from relay.spool.records import Message


def missing_fields(message: Message, header: bytes, hostname: str, *, automatic: bool) -> bytes:
    """Message-ID, made of the queue id, and where mail is `automatic` Auto-Submitted (RFC 3834 5), each with its CRLF;
    nothing of it where the header has it. Returned mail (null reverse-path) is not called automatic: others wrote it.
    """
    lacks_id = headers.count(header, "message-id") == 0
    is_to_say = automatic and message.reverse_path is not None and headers.count(header, "auto-submitted") == 0
    if not lacks_id and not is_to_say:
        return b""
    signed = covered(brought(header))
    fields = b""
    if lacks_id and "message-id" not in signed:
        fields += f"Message-ID: <{message.queue_id}@{ascii_domain(hostname)}>\r\n".encode("ascii")
    if is_to_say and "auto-submitted" not in signed:
        fields += b"Auto-Submitted: auto-generated\r\n"
    return fields
