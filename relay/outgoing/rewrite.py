"""The envelope under which a delivery leaves: SPF is judged by its reverse-path, so it should be in the institution's
domain.

The null reverse-path stays null (RFC 5321 4.5.5): a DSN must never cause another.
"""

from __future__ import annotations

from relay.config.institutions import Institution
from relay.mail.address import Address, parse_address
from relay.mail.verp import verp_address
from relay.spool.records import Delivery


def reverse_path(delivery: Delivery, institution: Institution, verp_key: bytes) -> Address | None:
    """The reverse-path of a delivery: null, the institution's fixed mailbox, the sender's own, or a VERP address that
    names the delivery.
    """
    if delivery.message.reverse_path is None:
        return None
    if institution.envelope_from == "keep":
        return delivery.message.sender
    if institution.envelope_from != "verp":
        return parse_address(institution.envelope_from)
    assert institution.bounce_domain is not None, "the configuration was checked"
    return verp_address(verp_key, delivery.message.queue_id, delivery.number, institution.bounce_domain)
