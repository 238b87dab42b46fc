"""A mail transaction: what MAIL and RCPT have said so far (RFC 5321 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from relay.config.sources import Source
from relay.intake.commands import Mail, Rcpt
from relay.mail.address import Address
from relay.mail.envelope import Asked, Envelope


class Transaction:
    """One, from an accepted MAIL on. `sources` are those that the client may be in it."""

    def __init__(self, mail: Mail, sources: Sequence[Source]) -> None:
        self.mail = mail
        self.sources = tuple(sources)
        self._recipients: dict[str, tuple[Address, Asked]] = {}

    def __len__(self) -> int:
        """How many recipients it has."""
        return len(self._recipients)

    def add(self, rcpt: Rcpt) -> None:
        """Takes a recipient; one that is there already is not taken twice."""
        self._recipients.setdefault(rcpt.recipient.key, (rcpt.recipient, rcpt.asked))

    def envelope(self) -> Envelope:
        """The envelope as it is now."""
        mail, taken = self.mail, self._recipients.values()
        return Envelope(
            mail.reverse_path,
            tuple(recipient for recipient, _ in taken),
            mail.smtputf8,
            mail.eight_bit,
            mail.ret,
            mail.envid,
            tuple(asked for _, asked in taken),
            mail.requiretls,
        )
