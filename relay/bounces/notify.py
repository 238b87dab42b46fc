"""Who is told what about a delivery: the DSN that follows from how it ended, or from its being late.

Does: decides whether a DSN is due (RFC 3461 5.2, 6), to whom, in which language, and gives it as a new message that is
ready for the spool.
Promises: a DSN never causes another: nobody is told about mail with the null reverse-path, which ours have too (RFC
3461 6.1, RFC 3834 2). NOTIFY is kept to; where nothing was said, failures and delays are told. No DSN comes onto paper.
Slips that are held or uncertain make none: they are the desk's. Neither does mail that a rule discards. Of a slip that
went to a printer's own address those are told who are told of the printer's trouble (`notify`), where one is named.
Known limits: nobody is told where the addressee is a printer's mailbox; what the DSN would say stands in the spool.
"""

from __future__ import annotations

import time
from typing import Literal

from relay.bounces.dsn import Action, Report, compose
from relay.bounces.mime import Words
from relay.bounces.own_mail import own_hostname, own_message, sender_of, way_to
from relay.bounces.words import Templates, local_time
from relay.config.institutions import Institution
from relay.config.settings import Config
from relay.mail.address import Address, parse_address
from relay.mail.queue_id import new_queue_id
from relay.mail.status import Reply
from relay.routing import rules
from relay.spool.records import Delivery, Message, NewMessage, Outcome, State

Kind = Literal["failed", "expired", "delayed", "delivered", "relayed"]
"""What is told, as the templates call it."""

_ACTIONS: dict[Kind, Action] = {
    "failed": "failed",
    "expired": "failed",
    "delayed": "delayed",
    "delivered": "delivered",
    "relayed": "relayed",
}

_ASKED_BY: dict[Kind, str] = {
    "failed": "FAILURE",
    "expired": "FAILURE",
    "delayed": "DELAY",
    "delivered": "SUCCESS",
    "relayed": "SUCCESS",
}

_STATUS: dict[Kind, str] = {
    "failed": "5.0.0",
    "expired": "4.4.7",  # delivery time expired; of the class 4 also in a failure (RFC 3463 3.5)
    "delayed": "4.0.0",
    "delivered": "2.0.0",
    "relayed": "2.0.0",
}
"""The enhanced status, where no reply has a better one."""


class Notifier:
    """Writes the DSNs of one configuration."""

    def __init__(self, config: Config) -> None:
        """Compiles the templates of the languages in use. Raises StartError when the hostname has no ASCII form."""
        self._config = config
        self._hostname = own_hostname(config)
        self._institutions = {institution.name: institution for institution in config.institutions}
        self._templates = Templates({institution.language for institution in config.institutions})

    def about(self, delivery: Delivery, outcome: Outcome, content: bytes) -> NewMessage | None:
        """The DSN that follows from the end of a delivery, or None. `content` is the mail, b"" if it is not at hand."""
        kind = _kind(delivery, outcome)
        return self._notice(kind, delivery, outcome, content) if kind is not None else None

    def late(self, delivery: Delivery, content: bytes) -> NewMessage | None:
        """The DSN that tells of a delay, or None."""
        return self._notice("delayed", delivery, Outcome(State.DEFERRED, delivery.reason), content)

    def _notice(self, kind: Kind, delivery: Delivery, outcome: Outcome, content: bytes) -> NewMessage | None:
        institution = self._institutions.get(delivery.message.institution)
        if institution is None or not _is_wanted(kind, delivery.notify):
            return None
        to = self._desk(institution, delivery) or _addressee(institution, delivery.message)
        route = way_to(self._config, institution, to) if to is not None else None
        if to is None or route is None:
            return None
        return self._message(kind, institution, to, route, delivery, outcome, content)

    def _desk(self, institution: Institution, delivery: Delivery) -> Address | None:
        """Whom trouble of a printer is told, of a slip that went to the printer's own address; None for other mail."""
        if delivery.copy_of is None or delivery.message.reverse_path is None:
            return None
        printer = self._config.printer_at(institution.name, parse_address(delivery.recipient))
        if printer is None:
            return None
        told = printer.notify or institution.notify
        return parse_address(told) if told is not None else None

    def _message(
        self,
        kind: Kind,
        institution: Institution,
        to: Address,
        route: rules.Route,
        delivery: Delivery,
        outcome: Outcome,
        original: bytes,
    ) -> NewMessage:
        now = time.time()
        queue_id = new_queue_id(now)
        message_id = f"<{queue_id}@{self._hostname}>"
        content = compose(
            self._report(kind, delivery, outcome),
            self._words(kind, institution, delivery, outcome, attached=bool(original)),
            original,
            sender=sender_of(institution),
            to=to,
            message_id=message_id,
            now=now,
            whole=_ACTIONS[kind] == "failed" and delivery.message.ret == "FULL",
        )
        return own_message(
            self._config,
            institution,
            to,
            route,
            content,
            queue_id=queue_id,
            message_id=message_id,
            now=now,
            about=str(delivery),
        )

    def _report(self, kind: Kind, delivery: Delivery, outcome: Outcome) -> Report:
        return Report(
            action=_ACTIONS[kind],
            status=_status(kind, outcome.reply),
            reporting_host=self._hostname,
            queue_id=delivery.message.queue_id,
            recipient=delivery.recipient,
            arrived_at=delivery.message.received_at,
            reply=outcome.reply,
            reason=outcome.reason,
            remote_host=outcome.remote_host,
            attempted_at=delivery.begun_at,
            retried_until=delivery.expires_at,
            envid=delivery.message.envid,
            orcpt=delivery.orcpt,
        )

    def _words(
        self, kind: Kind, institution: Institution, delivery: Delivery, outcome: Outcome, *, attached: bool
    ) -> Words:
        message = delivery.message
        answered = outcome.reply is not None and bool(outcome.remote_host)
        return self._templates.fill(
            institution.language,
            kind,
            sender=message.reverse_path or "",
            recipient=delivery.recipient,
            arrived=local_time(message.received_at),
            until=local_time(delivery.expires_at) if delivery.expires_at is not None else "",
            queue_id=message.queue_id,
            hostname=self._hostname,
            remote_host=outcome.remote_host,
            reply=str(outcome.reply) if answered else "",
            reason=outcome.reason if _ACTIONS[kind] in ("failed", "delayed") else "",
            attached=attached,
        )


def _kind(delivery: Delivery, outcome: Outcome) -> Kind | None:
    """What the end of a delivery is called, where it is one that somebody may be told of."""
    if outcome.state is State.FAILED:
        return "failed"
    if outcome.state is State.EXPIRED:
        return "expired"
    if outcome.state is not State.DELIVERED or delivery.route == rules.DISCARD:
        return None
    if delivery.route.startswith(rules.PRINT):
        return "delivered"
    return None if outcome.dsn_passed_on else "relayed"  # who took the request over reports (RFC 3461 5.2.1)


def _is_wanted(kind: Kind, notify: str) -> bool:
    """Whether the sender wants to hear it (RFC 3461 4.1); who says nothing is told of failures and delays."""
    return _ASKED_BY[kind] in (notify or "FAILURE,DELAY").split(",")


def _addressee(institution: Institution, message: Message) -> Address | None:
    """Who is told; None where nobody may be (RFC 3461 6.1) or the institution wants nobody to be."""
    if message.reverse_path is None or institution.dsn_to == "nobody":
        return None
    return parse_address(message.reverse_path if institution.dsn_to == "sender" else institution.dsn_to)


def _status(kind: Kind, reply: Reply | None) -> str:
    """The enhanced status of the reply, where it says the same as what is told (RFC 3464 2.3.4)."""
    if reply is not None and reply.enhanced.startswith(_STATUS[kind][0]) and kind != "expired":
        return reply.enhanced
    return _STATUS[kind]
