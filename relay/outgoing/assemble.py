"""The bytes of a delivery as they go out: our fields on top of the message as it came, the signature made last.

Nothing below our fields is touched, so signatures that the message brought along stay good. What is signed is byte for
byte what is sent.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache

from relay.config.settings import Config
from relay.mail import headers
from relay.mail.address import Address
from relay.outgoing.missing import missing_fields
from relay.outgoing.rewrite import reverse_path
from relay.outgoing.sign import Signer
from relay.spool.records import Delivery, Message


@dataclass(frozen=True, slots=True)
class OutgoingMail:
    """Envelope and bytes of one delivery, ready for a next hop."""

    reverse_path: Address | None
    recipient: str
    own_fields: bytes
    "What we put on top of the message."
    original: bytes
    "The message as it came."
    smtputf8: bool
    eight_bit: bool
    ret: str = ""
    envid: str = ""
    notify: str = ""
    orcpt: str = ""
    "What the sender asked about DSNs, for a next hop that takes it (RFC 3461 5.2.1)."

    @property
    def content(self) -> bytes:
        """The whole of it, which is another copy."""
        return self.own_fields + self.original

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return len(self.own_fields) + len(self.original)


class Assembler:
    """Makes deliveries ready to leave, by one configuration."""

    def __init__(self, config: Config, signer: Signer) -> None:
        self._config = config
        self._signer = signer
        secret = config.server.secret
        self._verp_key = secret.reveal().encode() if secret else b""

    def assemble(self, delivery: Delivery, content: bytes) -> OutgoingMail:
        """The mail of a delivery: envelope rewritten, Received, DKIM-Signature and what it lacks on top.

        Raises BadSignature when it is signed, and a receiver would not believe it.
        """
        message = delivery.message
        institution = self._config.institution(message.institution)
        header = headers.section(content)
        hostname = self._config.server.hostname
        added = missing_fields(message, header, hostname, automatic=institution.auto_submitted)
        signatures = self._signer.sign(institution.name, added + header, memoryview(content)[len(header) + 2 :])
        own_fields = b"".join((received_field(message, hostname), *signatures, added))
        if signatures and _is_in_sample(message.queue_id, institution.dkim_self_check):
            self._signer.verify(institution.name, own_fields, content, len(signatures))
        sender = reverse_path(delivery, institution, self._verp_key)
        return OutgoingMail(
            reverse_path=sender,
            recipient=delivery.recipient,
            own_fields=own_fields,
            original=content,
            # Asked for only where it is needed: many hosts do not have it.
            smtputf8=message.smtputf8 and not (delivery.recipient.isascii() and header.isascii()),
            eight_bit=message.eight_bit or not content.isascii(),
            ret=message.ret,
            envid=message.envid,
            notify=delivery.notify,
            orcpt=delivery.orcpt,
        )


def _is_in_sample(queue_id: str, share: float) -> bool:
    """Whether a message is among a share of all, the same at each attempt."""
    return zlib.crc32(queue_id.encode("ascii")) < share * 2**32


@lru_cache(maxsize=16)
def _date(second: int) -> str:
    return formatdate(second, localtime=True)


def received_field(message: Message, hostname: str) -> bytes:
    """Our Received field (RFC 5321 4.4). Without a `for` clause: it would show one recipient to others.

    A message that began here (`protocol` is empty) came from nobody, and by no protocol that has a name.
    """
    date = _date(int(message.received_at))
    if not message.protocol:
        return f"Received: by {hostname} (slip-relay) id {message.queue_id};\r\n\t{date}\r\n".encode()
    protocol = f"UTF8{message.protocol.removeprefix('E')}" if message.smtputf8 else message.protocol  # RFC 6531 4.3
    client = f"IPv6:{message.client}" if ":" in message.client else message.client
    field = (
        f"Received: from {message.helo} ([{client}])\r\n"
        f"\tby {hostname} (slip-relay) with {protocol} id {message.queue_id};\r\n"
        f"\t{date}\r\n"
    )
    return field.encode("utf-8")
