"""Who may send what to whom. What is not allowed here is refused.

Does: finds the sources that a client is, checks each recipient, and at the end of DATA says for which institution the
message is taken.
Promises: nobody relays, signs or prints who may not: a client without a source gets no recipient, a From domain that
is not the source's gets no message, and another institution's printer gets no slip. Mail of a sandbox goes to whom its
source names, and to nobody else.
Known limit: returned mail (null reverse-path) may bear a stranger's From when all its recipients belong to one
institution of the source; it is signed as that institution's, for forwarding it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from relay.config.kinds import Network
from relay.config.listeners import Listener
from relay.config.settings import Config
from relay.config.sources import Source
from relay.errors import HeaderError, Refusal
from relay.intake import loops
from relay.intake.caller import Caller
from relay.intake.origin import ip_address
from relay.mail import headers, status
from relay.mail.address import Address, parse_address
from relay.mail.envelope import Envelope
from relay.routing.conditions import matches
from relay.routing.rules import choose


@dataclass(frozen=True, slots=True)
class Admission:
    """The institution that a message is taken for, and the source it came from."""

    institution: str
    source: str
    from_domains: tuple[str, ...] = ()
    "Domains of its From field."


@dataclass(frozen=True, slots=True)
class Addressee:
    """Whom mail to a recipient goes to."""

    address: Address
    diverted_by: str = ""
    "The sandbox whose mail it is, where that is not the recipient."


class Addresses(Protocol):
    """What is known at run time of the addresses of sources (`relay.intake.spf_sources.SpfSources`)."""

    def networks_of(self, source: Source) -> tuple[Network, ...]:
        """Networks in force beside those of the configuration."""
        ...

    def is_unknown(self, source: Source) -> bool:
        """Whether they were never found out."""
        ...


class Policy:
    """The rules of admission of one configuration."""

    def __init__(self, config: Config, addresses: Addresses) -> None:
        self._config = config
        self._addresses = addresses

    def sources_of(self, listener: Listener, caller: Caller, login: Source | None = None) -> tuple[Source, ...]:
        """The sources that a client is: the one it has logged in as, or all that its address or certificate is of.

        On a submission listener only a login counts. Raises Refusal where a certificate is missing, or where it can't
        be told now who the client is.
        """
        if listener.client_certificates == "required" and caller.certificate is None:
            raise Refusal(status.CERTIFICATE_NEEDED)
        if login is not None:
            return (login,)
        if listener.kind == "submission":
            return ()
        found = tuple(source for source in self._config.sources if self._is_known(source, caller))
        if not found and any(self._addresses.is_unknown(source) for source in self._config.sources):
            raise Refusal(status.SOURCE_UNKNOWN)
        return found

    def knows(self, listener: Listener, caller: Caller) -> bool:
        """Whether a client is a source before it has said a word."""
        return listener.kind == "relay" and any(self._is_known(source, caller) for source in self._config.sources)

    def _is_known(self, source: Source, caller: Caller) -> bool:
        if caller.certificate is not None and not caller.certificate.names.isdisjoint(source.certificates):
            return True
        address = ip_address(caller.address)
        return any(address in network for network in (*source.networks, *self._addresses.networks_of(source)))

    def addressee(self, sources: Sequence[Source], recipient: Address) -> Addressee:
        """Whom mail to the recipient goes to. Raises Refusal unless one of the sources may send to it on behalf of one
        of its institutions, or is a sandbox that has its mail diverted.
        """
        if not sources:
            raise Refusal(status.not_permitted("relaying is not allowed from here"))
        if any(self._may_send(source, name, recipient) for source in sources for name in source.institutions):
            return Addressee(recipient)
        for source in sources:
            if source.divert_to is not None:
                return Addressee(parse_address(source.divert_to), source.name)
        printer = self._config.printer_for(recipient)
        if printer is not None:
            raise Refusal(status.not_permitted("this printer belongs to an institution that you don't send for"))
        raise Refusal(status.not_permitted("not a printer here, and relaying to this recipient is not allowed"))

    def admit(self, sources: Sequence[Source], envelope: Envelope, header: bytes) -> Admission:
        """Says for which institution a message is taken. Raises Refusal when it is for none."""
        try:
            loops.check(header, self._config.server.hostname, envelope.recipients)
            domains = headers.from_domains(header)
        except HeaderError as error:
            raise Refusal(status.bad_content(str(error))) from None
        refusal = status.not_permitted(f"the From domain {domains[0]} may not be used from here")
        for source in sources:
            name = self._institution(source, envelope, domains)
            if name is None:
                continue
            if (foreign := self._foreign(name, envelope, domains)) is not None:
                text = f"letters of {name} are from its own domains, and {foreign} is none of them"
                refusal = status.not_permitted(text)
                continue
            # Each recipient was allowed to some source; here all have to be to this one, for this institution.
            if all(self._may_send(source, name, recipient) for recipient in envelope.recipients):
                return Admission(name, source.name, tuple(domains))
            refusal = status.not_permitted(f"the institution {name} may not send to one of the recipients from here")
        raise Refusal(refusal)

    def _may_send(self, source: Source, institution: str, recipient: Address) -> bool:
        if source.sandbox:
            if source.divert_to is not None and recipient.key == parse_address(source.divert_to).key:
                return True
            if not any(matches(pattern, recipient) for pattern in source.recipients):
                return False
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

    def _foreign(self, institution: str, envelope: Envelope, domains: list[str]) -> str | None:
        """The From domain for which an institution refuses a letter; None when it does not. Slips may be from anywhere
        that their source may be, and returned mail is from strangers.
        """
        settings = self._config.institution(institution)
        if settings.header_from != "refuse" or envelope.is_returned:
            return None
        if all(choose(self._config, institution, each).printer is not None for each in envelope.recipients):
            return None
        return next((domain for domain in domains if not settings.owns(domain)), None)

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
