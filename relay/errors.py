"""What can go wrong, as a tree.

    RelayError
    +-- ConfigError            the configuration is wrong; carries every problem found
    +-- StartError             the service can't start on this machine (port, spool, lock, key file)
    +-- AddressError           text is not an address by the strict grammar
    +-- HeaderError            a header section can't be trusted (no From, two Froms, not parseable)
    +-- BadSignature           our own signature would not be accepted; the mail must not leave so
    +-- Unconvertible          mail has no form that a next hop takes; carries the reply that says so
    +-- Refusal                the client is told no; carries the SMTP reply
    |   +-- Goodbye            ... and the session ends
    +-- SpoolError             the spool could not do it; whoever waits must not believe it was done
    |   +-- SpoolAway          its database server does not answer
    |   +-- LeaseLost          the fence of a write did not match: somebody else owns the delivery
    |   +-- CorruptBody        the bytes of a message are gone, or are not those that were accepted
    +-- RenderError            a slip can't become paper; final for this slip, kept and shown
    |   +-- RendererDied       the child was killed or crashed (time, memory, bug); counts as final too
    +-- RendererUnavailable    no rendering child starts on this machine; the slips wait
    +-- PrintError             CUPS said no, or did not answer
    |   +-- JobUnknown         CUPS does not know the job (any more)
    |   +-- JobRefused         CUPS does not take this job, though it may take others
    |   +-- NotPermitted       CUPS does not let us do it: no password, a wrong one, or too few rights
    +-- CredentialsMissing     a token or a client certificate for a next hop can't be had; the mail waits
    +-- OrderError             an operator's order can't be carried out, or did not reach the service
    +-- Interrupted            the service stops in the middle of a wait; the next start goes on from there
    +-- NoSecureWay            mail that may go over verified TLS only has no such way; final
    +-- DnsError               a look-up gave no usable answer
        +-- NoSuchDomain       the name does not exist, or says that it takes no mail
        |   +-- NullMx         it says that it takes no mail
        +-- SpfError           an SPF record is missing or wrong; its owner has to mend it
        +-- StsError           an MTA-STS record or policy is wrong, or forbids every host there is
            +-- StsHostAway    the host of the policy did not answer

Each message is one sentence fit for a person: what, where, what to do. What is unknown is temporary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.mail.status import Reply


class RelayError(Exception):
    """Base of all errors that slip-relay raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the configuration: `place` (file and path of the setting) and `meaning` (what to do)."""

    place: str
    meaning: str

    def __str__(self) -> str:
        return f"{self.place}: {self.meaning}"


class ConfigError(RelayError):
    """The configuration is wrong. `problems` holds every mistake, in the order of the file."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class StartError(RelayError):
    """The service can't start here; the message says what to mend."""


class AddressError(RelayError):
    """Text is not an address or path by RFC 5321 4.1.2 / RFC 6531 3.3."""


class HeaderError(RelayError):
    """A header section that we will not vouch for (RFC 5322 3.6)."""


class BadSignature(RelayError):
    """What we signed does not verify with our own public key (RFC 6376 6.1); the message says why."""


class Unconvertible(RelayError):
    """Mail has no form that a next hop with few extensions would take (RFC 6152 3); another next hop might take it.

    `enhanced` is 5.6.3 for a body, 5.6.7 for an address, 5.6.9 for the header (RFC 3463 3.7, RFC 6531 3.7.4.2).
    """

    def __init__(self, text: str, enhanced: str = "5.6.9") -> None:
        super().__init__(text)
        self.enhanced = enhanced


class Refusal(RelayError):
    """The client is told no; `reply` is what it hears."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class Goodbye(Refusal):
    """The client is told no in the middle of what it says, and the session ends."""


class SpoolError(RelayError):
    """The spool could not do it; nothing of it was kept."""


class SpoolAway(SpoolError):
    """The spool's database server does not answer, or changes over to another one; time mends that."""


class LeaseLost(SpoolError):
    """A worker wrote to a delivery that it does not own any more; nothing was changed."""


class CorruptBody(SpoolError):
    """The bytes of a message are gone, or are not those that were accepted; trying again would not change that."""


class RenderError(RelayError):
    """A slip can't be rendered; trying again would end the same way."""


class RendererDied(RenderError):
    """The rendering child ended without an answer: out of time, out of memory, or crashed."""


class RendererUnavailable(RelayError):
    """No rendering child gets ready; that is the machine's fault, not the slip's."""


class PrintError(RelayError):
    """CUPS refused, failed or did not answer in time; a person or time can mend that, so it is never final."""


class JobRefused(PrintError):
    """CUPS does not take this job; waiting would not change that."""


class NotPermitted(PrintError):
    """CUPS does not let this user do it; the message says which user, and what CUPS wants."""


class JobUnknown(PrintError):
    """CUPS has no such job (any more)."""


class CredentialsMissing(RelayError):
    """What a next hop wants to see of us can't be had: a token, a client certificate. No fault of host or mail."""


class OrderError(RelayError):
    """An operator's order can't be carried out, or did not reach the service; the message says why."""


class NoService(OrderError):
    """No service runs that could be asked."""


class Interrupted(RelayError):
    """The service stops. The delivery stays as it is, and the next start goes on from there."""


class NoSecureWay(RelayError):
    """Mail that may go over verified TLS only (RFC 8689) has no such way, and would not have one later."""


class DnsError(RelayError):
    """No usable answer from the DNS; try later."""


class NoSuchDomain(DnsError):
    """The domain does not exist, or publishes a null MX (RFC 7505)."""


class NullMx(NoSuchDomain):
    """The domain publishes that it takes no mail (RFC 7505)."""


class SpfError(DnsError):
    """SPF's permanent error (RFC 7208 2.6.7): no record or two, one that can't be read, or too many look-ups."""


class StsError(DnsError):
    """MTA-STS (RFC 8461): a record or policy is wrong, or forbids every host there is; its owner has to mend it."""


class StsHostAway(StsError):
    """The host of an MTA-STS policy can't be reached, or did not answer in time."""
