"""Who may send what to whom. What is not allowed here is refused.

Does: finds the sources that a client is, checks each recipient, and at the end of DATA says for which institution the
message is taken.
Promises: nobody relays, signs or prints who may not: a client without a source gets no recipient, a From domain that
is not the source's gets no message, and another institution's printer gets no slip.
Known limit: returned mail (null reverse-path) may bear a stranger's From when all its recipients belong to one
institution of the source; it is signed as that institution's, for forwarding it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from relay.config.settings import Config, Listener, Source
from relay.errors import HeaderError, Refusal
from relay.mail import headers, status
from relay.mail.address import Address
from relay.mail.envelope import Envelope
from relay.routing.conditions import matches
from relay.routing.rules import choose

MAX_HEADER = 256 * 1024
"""Octets of a header section; nobody's letter has more, and reading one costs time."""

MAX_RECEIVED = 50
"""More Received fields than this are a loop (RFC 5321 6.3)."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The institution that a message is taken for, and the source it came from."""

    institution: str
    source: str
    from_domains: tuple[str, ...] = ()
    "Domains of its From field."


class Policy:
    """The rules of admission of one configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._hasher = PasswordHasher()
        self._by_username = {source.username: source for source in config.sources if source.username}
        # Verified when the user name is unknown, so that the time taken does not tell which names exist.
        self._decoy = self._hasher.hash("no such user")

    def sources_at(self, listener: Listener, client: str) -> tuple[Source, ...]:
        """The sources that a client is by its address. On a submission listener the address is nobody's."""
        if listener.kind == "submission":
            return ()
        address = ipaddress.ip_address(client.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return tuple(
            source for source in self._config.sources if any(address in network for network in source.networks)
        )

    def authenticate(self, username: str, password: str) -> Source | None:
        """The source of a user name and password; slow on purpose, to be called off the event loop."""
        source = self._by_username.get(username)
        try:
            self._hasher.verify(source.password_hash or "" if source else self._decoy, password)
        except (VerificationError, InvalidHashError):
            return None
        return source

    def check_recipient(self, sources: Sequence[Source], recipient: Address) -> None:
        """Raises Refusal unless one of the sources may send to the recipient on behalf of one of its institutions."""
        if not sources:
            raise Refusal(status.not_permitted("relaying is not allowed from here"))
        if any(self._may_send(source, name, recipient) for source in sources for name in source.institutions):
            return
        printer = self._config.printer_for(recipient)
        if printer is not None:
            raise Refusal(status.not_permitted("this printer belongs to an institution that you don't send for"))
        raise Refusal(status.not_permitted("not a printer here, and relaying to this recipient is not allowed"))

    def admit(self, sources: Sequence[Source], envelope: Envelope, header: bytes) -> Admission:
        """Says for which institution a message is taken. Raises Refusal when it is for none."""
        if len(header) > MAX_HEADER:
            raise Refusal(status.bad_content(f"the header is larger than {MAX_HEADER} bytes"))
        try:
            received, domains = headers.count(header, "received"), headers.from_domains(header)
        except HeaderError as error:
            raise Refusal(status.bad_content(str(error))) from None
        if received > MAX_RECEIVED:
            raise Refusal(status.Reply(554, "5.4.6", f"the message has passed {received} servers: a mail loop"))
        refusal = status.not_permitted(f"the From domain {domains[0]} may not be used from here")
        for source in sources:
            name = self._institution(source, envelope, domains)
            if name is None:
                continue
            # Each recipient was allowed to some source; here all have to be to this one, for this institution.
            if all(self._may_send(source, name, recipient) for recipient in envelope.recipients):
                return Admission(name, source.name, tuple(domains))
            refusal = status.not_permitted(f"the institution {name} may not send to one of the recipients from here")
        raise Refusal(refusal)

    def _may_send(self, source: Source, institution: str, recipient: Address) -> bool:
        if choose(self._config, institution, recipient).printer is not None:
            return True
        # Whatever rules make of them, an institution's own mailboxes take its mail. Another one's take none, and
        # nobody relays to them by mail either.
        if (printer := self._config.printer_for(recipient)) is not None:
            return printer.institution == institution
        return any(matches(pattern, recipient) for pattern in source.recipients)

    def _institution(self, source: Source, envelope: Envelope, domains: list[str]) -> str | None:
        """The institution of a source that the From domains speak for; None when they may not be used."""
        owners = {self._owner(domain) for domain in domains}
        if None not in owners:
            found = owners
        elif all(any(_within(domain, allowed) for allowed in source.from_domains) for domain in domains):
            found = set(source.institutions) if len(source.institutions) == 1 else self._addressees(envelope)
        elif envelope.is_returned:
            found = self._addressees(envelope)
        else:
            return None
        name = found.pop() if len(found) == 1 else None
        return name if name in source.institutions else None

    def _owner(self, domain: str) -> str | None:
        """Name of the institution with the longest domain which the domain equals or lies under."""
        owners = [
            (len(own), institution.name)
            for institution in self._config.institutions
            for own in (*institution.domains, institution.bounce_domain)
            if own and _within(domain, own)
        ]
        return max(owners)[1] if owners else None

    def _addressees(self, envelope: Envelope) -> set[str | None]:
        """Institutions that the recipients belong to: whose mail it is when its From domain is a stranger's."""
        return {
            printer.institution
            if (printer := self._config.printer_for(recipient)) is not None
            else self._owner(recipient.domain)
            for recipient in envelope.recipients
        }


def _within(domain: str, parent: str) -> bool:
    return domain == parent or domain.endswith("." + parent)
