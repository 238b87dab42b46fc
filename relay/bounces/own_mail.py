"""A message that we write ourselves, ready for the spool: who it is from, whether it may go, and its way.

Promises: it has the null reverse-path and asks for no DSN, so that nothing is ever told about it; it goes the way that
the rules choose for its addressee, and never onto paper.
"""

from __future__ import annotations

import hashlib
import math

from relay.bounces.mime import wire_address
from relay.config.institutions import Institution
from relay.config.settings import Config
from relay.errors import AddressError, StartError
from relay.mail.address import Address, ascii_domain, parse_address
from relay.routing import rules
from relay.spool.records import Message, NewDelivery, NewMessage

SOURCE = "slip-relay"
"""What a message of ours has as its source."""


def own_hostname(config: Config) -> str:
    """Our name in ASCII, for Message-IDs and reports. Raises StartError when it has no such form."""
    try:
        return ascii_domain(config.server.hostname)
    except AddressError as error:
        raise StartError(f"server.hostname: {error}") from None


def sender_of(institution: Institution) -> Address:
    """Whom mail of ours is from."""
    if institution.dsn_from is not None:
        return parse_address(institution.dsn_from)
    return Address("MAILER-DAEMON", institution.domains[0])


def way_to(config: Config, institution: Institution, to: Address) -> rules.Route | None:
    """The way to an addressee; None where it would end on paper."""
    if config.printer_for(to) is not None:
        return None
    route = rules.choose(config, institution.name, to)
    is_paper = route.printer is not None or route.name.startswith(rules.SORT)  # to a printer's own address
    return None if is_paper else route


def own_message(
    config: Config,
    institution: Institution,
    to: Address,
    route: rules.Route,
    content: bytes,
    *,
    queue_id: str,
    message_id: str,
    now: float,
    about: str = "",
) -> NewMessage:
    """The message with that content; `about` names the delivery that it tells of."""
    is_utf8 = not (wire_address(sender_of(institution)) + wire_address(to)).isascii()
    message = written_by_us(
        institution, content, now, queue_id=queue_id, message_id=message_id, smtputf8=is_utf8, about=about
    )
    expire_after = config.delivery_for(route.name).expire_after
    expires_at = now + expire_after if math.isfinite(expire_after) else None
    way = NewDelivery(str(to), route.name, route.destination, notify="NEVER", expires_at=expires_at)
    return NewMessage(message, content, (way,))


def written_by_us(
    institution: Institution,
    content: bytes,
    now: float,
    *,
    queue_id: str,
    message_id: str,
    smtputf8: bool,
    reverse_path: str | None = None,
    about: str = "",
) -> Message:
    """What the spool has to know of a message that came from no client."""
    return Message(
        queue_id=queue_id,
        institution=institution.name,
        source=SOURCE,
        reverse_path=reverse_path,
        smtputf8=smtputf8,
        eight_bit=not content.isascii(),
        received_at=now,
        client="",
        helo="",
        protocol="",
        message_id=message_id,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        about=about,
    )
