"""Test letters: our own text, sent through the same rules, signatures and ways as Alma's mail, and watched meanwhile.

Ordered over the control socket only, so by root and the account of the service: what is sent is nobody's mail but ours,
and whoever may order it may do so anyway.
Promises: nobody is told when one fails (`NOTIFY=NEVER`), since whoever ordered it looks on. What is noted of a letter
(its envelope and signatures as they leave) has no bytes of it, and only the last `KEPT` letters are remembered.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from typing import Any

from relay.bounces.mime import fields, text_part
from relay.bounces.own_mail import SOURCE, own_hostname, sender_of, written_by_us
from relay.bounces.words import Templates, local_time
from relay.config.institutions import Institution
from relay.config.settings import Config
from relay.errors import AddressError, BadSignature, OrderError, Unconvertible
from relay.intake.accept import first_delivery
from relay.mail import headers
from relay.mail.address import Address, parse_address
from relay.mail.envelope import Asked
from relay.mail.queue_id import new_queue_id
from relay.maillog import MailLog
from relay.outgoing.assemble import Assembler, OutgoingMail
from relay.outgoing.forms import EVERYTHING
from relay.outgoing.sign import Signer
from relay.routing.conditions import Arrival
from relay.spool.records import Delivery, NewMessage

KEPT = 20
"""Letters that are remembered."""

_TAG = re.compile(rb"(?:^|;)\s*([ads])\s*=\s*([^;\s]+)")


class Trials:
    """The test letters of one service, and what was seen of them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._seen: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()

    def write(self, to: str, institution: str) -> NewMessage:
        """A test letter, ready for the spool. Raises OrderError when it can't be written."""
        try:
            recipient = parse_address(to)
        except AddressError as error:
            raise OrderError(str(error)) from None
        sender = self._institution(recipient, institution)
        now = time.time()
        queue_id, hostname = new_queue_id(now), own_hostname(self._config)
        words = Templates([sender.language], "trials").fill(
            sender.language,
            "trial",
            institution=sender.name,
            hostname=hostname,
            now=local_time(now),
            recipient=str(recipient),
            queue_id=queue_id,
        )
        message_id = f"<{queue_id}@{hostname}>"
        head = [
            *fields(words, sender_of(sender), recipient, message_id, now),
            "Auto-Submitted: auto-generated",
            "MIME-Version: 1.0",
        ]
        content = "\r\n".join(head).encode("utf-8") + b"\r\n" + text_part(words.text)
        message = written_by_us(
            sender,
            content,
            now,
            queue_id=queue_id,
            message_id=message_id,
            smtputf8=not content.isascii(),
            reverse_path=str(sender_of(sender)),  # what the next hop sees is the institution's, as of any letter
        )
        arrival = Arrival(
            sender.name, SOURCE, recipient, message.reverse_path, (sender_of(sender).domain,), message.size, now
        )
        self._seen[queue_id] = []
        while len(self._seen) > KEPT:
            self._seen.popitem(last=False)
        return NewMessage(message, content, (first_delivery(self._config, arrival, Asked(notify="NEVER")),))

    def seen(self) -> dict[str, list[dict[str, Any]]]:
        """What was seen of each letter, by queue id: `{delivery, at, envelope_from, to, signatures, verified, fault}`
        of each time that it was made ready to leave.
        """
        return dict(self._seen)

    def note(self, delivery: Delivery, mail: OutgoingMail | None, fault: str = "") -> None:
        """Takes down how a letter was made ready to leave, if it is a test letter."""
        pages = self._seen.get(delivery.message.queue_id)
        if pages is None:
            return
        share = self._config.institution(delivery.message.institution).dkim_self_check
        pages.append(
            {
                "delivery": delivery.number,
                "at": time.time(),
                "envelope_from": str(mail.reverse_path or "") if mail is not None else "",
                "to": mail.recipient if mail is not None else delivery.recipient,
                "signatures": _signatures(mail.own_fields) if mail is not None else [],
                "verified": share >= 1,
                "fault": fault,
            }
        )

    def _institution(self, recipient: Address, name: str) -> Institution:
        """Whose letter it is: named, or that of the printer, or the only one there is."""
        known = [each.name for each in self._config.institutions]
        printer = self._config.printer_for(recipient)
        if name and name not in known:
            raise OrderError(f"there is no institution {name!r}; there are: {', '.join(known)}")
        if printer is not None and name not in ("", printer.institution):
            raise OrderError(
                f"the mailbox belongs to a printer of {printer.institution}, which prints nothing of {name}"
            )
        if not name and printer is None and len(known) > 1:
            raise OrderError(f"from whom? name the institution: {', '.join(known)}")
        return self._config.institution(name or (printer.institution if printer is not None else known[0]))


class WatchedAssembler(Assembler):
    """Makes mail ready to leave as ever, and has it taken down of test letters."""

    def __init__(self, config: Config, signer: Signer, maillog: MailLog, trials: Trials) -> None:
        super().__init__(config, signer, maillog)
        self._trials = trials

    def assemble(self, delivery: Delivery, content: bytes, offers: frozenset[str] = EVERYTHING) -> OutgoingMail:
        """The mail of a delivery. Raises as Assembler does."""
        if delivery.message.source != SOURCE:
            return super().assemble(delivery, content, offers)
        try:
            mail = super().assemble(delivery, content, offers)
        except (BadSignature, Unconvertible) as error:
            self._trials.note(delivery, None, str(error))
            raise
        self._trials.note(delivery, mail)
        return mail


def _signatures(own_fields: bytes) -> list[dict[str, str]]:
    """Algorithm, domain and selector of the signatures that we put on top."""
    names = {b"a": "algorithm", b"d": "domain", b"s": "selector"}
    return [
        {names[tag]: found.decode("ascii", "replace") for tag, found in _TAG.findall(value)}
        for name, value in headers.fields(own_fields)
        if name == "dkim-signature"
    ]
