"""The bytes of a delivery as they go out: our fields on top of the message as it came, the signature made last.

What is below our fields is changed only where a setting or the next hop wants it (`relay.outgoing.fields`,
`relay.outgoing.seven_bit`), so signatures that the message brought along stay good, or the log says what broke them.
What is signed is byte for byte what is sent.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache

from relay.config.institutions import Institution
from relay.config.settings import Config
from relay.errors import AddressError, Unconvertible
from relay.mail import headers
from relay.mail.address import Address, ascii_domain, parse_address
from relay.maillog import MailLog
from relay.outgoing.brought import Change, brought
from relay.outgoing.fields import Fields, outgoing_fields
from relay.outgoing.missing import missing_fields
from relay.outgoing.rewrite import reverse_path
from relay.outgoing.seven_bit import CONVERT, Converted, converted
from relay.outgoing.sign import Signer
from relay.spool.records import Delivery, Message

EVERYTHING = frozenset({"8bitmime", "smtputf8"})
"""The extensions of a next hop, in small letters, that the bytes depend on."""

_WANTED = "the next hop takes it only when it is converted"


@dataclass(frozen=True, slots=True)
class OutgoingMail:
    """Envelope and bytes of one delivery, ready for a next hop."""

    reverse_path: Address | None
    recipient: str
    own_fields: bytes
    "What goes before the message: our fields, and the whole header section where something of it was changed."
    original: bytes
    "The message as it came, or as it was converted."
    smtputf8: bool
    eight_bit: bool
    ret: str = ""
    envid: str = ""
    notify: str = ""
    orcpt: str = ""
    "What the sender asked about DSNs, for a next hop that takes it (RFC 3461 5.2.1)."
    start: int = 0
    "Where in `original` begins what is sent of it: behind its header section where that is in `own_fields`."
    is_converted: bool = False
    "Whether it was converted for a next hop that takes less."

    @property
    def content(self) -> bytes:
        """The whole of it, which is another copy."""
        return self.own_fields + self.original[self.start :]

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return len(self.own_fields) + len(self.original) - self.start

    def suits(self, offers: frozenset[str]) -> bool:
        """Whether a host with these extensions (in small letters) takes it as it is."""
        return (not self.smtputf8 or "smtputf8" in offers) and (not self.eight_bit or _takes_eight_bit(offers))


class Assembler:
    """Makes deliveries ready to leave, by one configuration."""

    def __init__(self, config: Config, signer: Signer, maillog: MailLog) -> None:
        self._config = config
        self._signer = signer
        self._maillog = maillog
        secret = config.server.secret
        self._verp_key = secret.reveal().encode() if secret else b""

    def assemble(self, delivery: Delivery, content: bytes, offers: frozenset[str] = EVERYTHING) -> OutgoingMail:
        """The mail of a delivery for a host with these extensions: envelope rewritten, Received, DKIM-Signature and
        what it lacks on top.

        Raises BadSignature when it is signed, and a receiver would not believe it; Unconvertible when such a host does
        not take it in any form.
        """
        message = delivery.message
        institution = self._config.institution(message.institution)
        sender = reverse_path(delivery, institution, self._verp_key)
        section = headers.section(content)
        fields = outgoing_fields(section, institution)
        header, changes = fields.header, fields.changes
        smtputf8 = _is_international(delivery, sender, header)
        eight_bit = not content.isascii()
        start = min(len(section), len(content)) if changes else 0
        less = None
        if (smtputf8 and "smtputf8" not in offers) or (eight_bit and not _takes_eight_bit(offers)):
            less = _converted(delivery, sender, institution, content, fields, offers)
            content, start = less.message, 0
            header, changes = headers.section(content), changes + less.changes
            smtputf8, eight_bit = False, not content.isascii()
        if changes:
            self._say_what_breaks(delivery, section, changes, less)

        hostname = self._config.server.hostname
        added = missing_fields(message, header, hostname, automatic=institution.auto_submitted)
        body = memoryview(content)[(start or len(header)) + 2 :]
        signatures = self._signer.sign(institution.name, added + header, body)
        received = received_field(message, hostname, in_ascii=less is not None)
        own_fields = b"".join((received, *signatures, added, header if start else b""))
        if signatures and _is_in_sample(message.queue_id, institution.dkim_self_check):
            self._signer.verify(institution.name, own_fields, content, len(signatures), start)
        return OutgoingMail(
            reverse_path=sender,
            recipient=delivery.recipient,
            own_fields=own_fields,
            original=content,
            smtputf8=smtputf8,
            eight_bit=_takes_eight_bit(offers) and (message.eight_bit or eight_bit),
            ret=message.ret,
            envid=message.envid,
            notify=delivery.notify,
            orcpt=delivery.orcpt,
            start=start,
            is_converted=less is not None,
        )

    def _say_what_breaks(
        self, delivery: Delivery, section: bytes, changes: Iterable[Change], less: Converted | None
    ) -> None:
        """Tells the log of each signature that is not good any more, and of the settings that broke it."""
        queue_id, number, institution = delivery.message.queue_id, delivery.number, delivery.message.institution
        for signature in brought(section):
            if rules := signature.broken_by(changes):
                self._maillog.signature_broken(
                    queue_id, number, institution=institution, kind="dkim", domain=signature.domain,
                    selector=signature.selector, rules=rules,
                )  # fmt: skip
        if less is not None and less.has_signed_part:
            self._maillog.signature_broken(
                queue_id, number, institution=institution, kind="multipart/signed", rules=[CONVERT]
            )


def _takes_eight_bit(offers: frozenset[str]) -> bool:
    return "8bitmime" in offers or "smtputf8" in offers  # RFC 6531 3.1: who has the second has the first


def _is_international(delivery: Delivery, sender: Address | None, header: bytes) -> bool:
    """Whether it takes SMTPUTF8 to send it as it is. Asked for only where it is needed: many hosts do not have it."""
    if not delivery.recipient.isascii() and not parse_address(delivery.recipient).local.isascii():
        return True
    if sender is not None and not sender.local.isascii():
        return True
    return delivery.message.smtputf8 and not (delivery.recipient.isascii() and header.isascii())


def _converted(
    delivery: Delivery,
    sender: Address | None,
    institution: Institution,
    content: bytes,
    fields: Fields,
    offers: frozenset[str],
) -> Converted:
    """The mail for a host with fewer extensions than it needs. Raises Unconvertible."""
    for address in (parse_address(delivery.recipient), sender):
        if address is not None and not address.local.isascii():
            raise Unconvertible("an address of its envelope is not ASCII, and the next hop has no SMTPUTF8", "5.6.7")
    if institution.convert == "never":
        raise Unconvertible(f'{_WANTED}, and {institution.name} has convert = "never"', "5.6.3")
    start = len(headers.section(content)) + 2
    made = converted(content, fields.header, start, bodies=not _takes_eight_bit(offers))
    is_signed = made.has_signed_part or any(each.broken_by(made.changes) for each in brought(fields.header))
    if institution.convert == "unsigned" and is_signed:
        raise Unconvertible(f"{_WANTED}, which breaks a signature that it brought", "5.6.3")
    return made


def _is_in_sample(queue_id: str, share: float) -> bool:
    """Whether a message is among a share of all, the same at each attempt."""
    return zlib.crc32(queue_id.encode("ascii")) < share * 2**32


@lru_cache(maxsize=16)
def _date(second: int) -> str:
    return formatdate(second, localtime=True)


def received_field(message: Message, hostname: str, *, in_ascii: bool = False) -> bytes:
    """Our Received field (RFC 5321 4.4). Without a `for` clause: it would show one recipient to others.

    A message that began here (`protocol` is empty) came from nobody, and by no protocol that has a name.
    """
    date = _date(int(message.received_at))
    helo = message.helo
    if in_ascii:
        helo, hostname = _in_ascii(helo), _in_ascii(hostname)
    if not message.protocol:
        return f"Received: by {hostname} (slip-relay) id {message.queue_id};\r\n\t{date}\r\n".encode()
    protocol = f"UTF8{message.protocol.removeprefix('E')}" if message.smtputf8 else message.protocol  # RFC 6531 4.3
    client = f"IPv6:{message.client}" if ":" in message.client else message.client
    field = (
        f"Received: from {helo} ([{client}])\r\n"
        f"\tby {hostname} (slip-relay) with {protocol} id {message.queue_id};\r\n"
        f"\t{date}\r\n"
    )
    return field.encode("utf-8")


def _in_ascii(name: str) -> str:
    try:
        return ascii_domain(name)
    except AddressError:
        return name.encode("ascii", "replace").decode("ascii")
