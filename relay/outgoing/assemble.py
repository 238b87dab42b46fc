"""The bytes of a delivery as they go out: our fields on top of the message as it came, the signature made last.

What is below our fields is changed only where a setting or the next hop wants it (`relay.outgoing.fields`,
`relay.outgoing.forms`), so signatures that the message brought along stay good, or the log says what broke them.
What is signed is byte for byte what is sent.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from relay.config.institutions import Institution
from relay.config.settings import Config
from relay.errors import AddressError
from relay.mail import headers
from relay.mail.address import Address, ascii_domain
from relay.maillog import MailLog
from relay.outgoing.brought import brought
from relay.outgoing.fields import outgoing_fields
from relay.outgoing.forms import EVERYTHING, Form, form_for, suits, takes_eight_bit
from relay.outgoing.missing import date_of, missing_fields
from relay.outgoing.rewrite import reverse_path
from relay.outgoing.seven_bit import CONVERT
from relay.outgoing.sign import Signer
from relay.spool.records import Delivery, Message


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
    requiretls: bool = False
    "Whether a next hop that takes this is told that it may go over verified TLS only (RFC 8689)."

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
        return suits(offers, smtputf8=self.smtputf8, eight_bit=self.eight_bit)


class Assembler:
    """Makes deliveries ready to leave, by one configuration."""

    def __init__(self, config: Config, signer: Signer, maillog: MailLog) -> None:
        self._config = config
        self._signer = signer
        self._maillog = maillog
        self._sending: dict[tuple[str, str], Institution] = {}
        secret = config.server.secret
        self._verp_key = secret.reveal().encode() if secret else b""

    def assemble(self, delivery: Delivery, content: bytes, offers: frozenset[str] = EVERYTHING) -> OutgoingMail:
        """The mail of a delivery for a host with these extensions: envelope rewritten, Received, DKIM-Signature and
        what it lacks on top.

        Raises BadSignature when it is signed, and a receiver would not believe it; Unconvertible when such a host does
        not take it in any form.
        """
        message = delivery.message
        institution = self._institution(message.institution, delivery.route)
        hostname = self._config.server.hostname
        sender = reverse_path(delivery, institution, self._verp_key)
        section = headers.section(content)
        form = form_for(offers, delivery, sender, institution, content, outgoing_fields(section, institution))
        if form.changes:
            self._say_what_breaks(delivery, section, form)
        header, sent = form.header, form.content
        added = missing_fields(message, header, hostname, automatic=institution.auto_submitted)
        body = memoryview(sent)[(form.start or len(header)) + 2 :]
        signatures = self._signer.sign(institution.name, added + header, body)
        received = received_field(message, hostname, in_ascii=form.is_converted)
        own_fields = b"".join((received, *signatures, added, header if form.start else b""))
        if signatures and _is_in_sample(message.queue_id, institution.dkim_self_check):
            self._signer.verify(institution.name, own_fields, sent, len(signatures), form.start)
        return OutgoingMail(
            reverse_path=sender,
            recipient=delivery.recipient,
            own_fields=own_fields,
            original=sent,
            start=form.start,
            smtputf8=form.smtputf8,
            eight_bit=form.eight_bit or (message.eight_bit and not form.is_converted and takes_eight_bit(offers)),
            is_converted=form.is_converted,
            ret=message.ret,
            envid=message.envid,
            notify=delivery.notify,
            orcpt=delivery.orcpt,
            requiretls=message.requiretls,
        )

    def _institution(self, name: str, route: str) -> Institution:
        """The settings of an institution for mail by a next hop."""
        found = self._sending.get((name, route))
        if found is None:
            found = self._config.institution(name)
            hops = [hop for hop in self._config.next_hops if hop.name == route]
            self._sending[name, route] = found = found.sending(hops[0].rewriting) if hops else found
        return found

    def _say_what_breaks(self, delivery: Delivery, section: bytes, form: Form) -> None:
        """Tells the log of each signature that is not good any more, and of the rules that broke it."""
        about = delivery.message.queue_id, delivery.number, delivery.message.institution
        for signature in brought(section):
            if rules := signature.broken_by(form.changes):
                self._maillog.signature_broken(
                    *about, kind="dkim", domain=signature.domain, selector=signature.selector, rules=rules
                )
        if form.has_signed_part:
            self._maillog.signature_broken(*about, kind="multipart/signed", rules=[CONVERT])


def _is_in_sample(queue_id: str, share: float) -> bool:
    """Whether a message is among a share of all, the same at each attempt."""
    return zlib.crc32(queue_id.encode("ascii")) < share * 2**32


def received_field(message: Message, hostname: str, *, in_ascii: bool = False) -> bytes:
    """Our Received field (RFC 5321 4.4). Without a `for` clause: it would show one recipient to others.

    A message that began here (`protocol` is empty) came from nobody, and by no protocol that has a name.
    """
    date = date_of(message)
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
