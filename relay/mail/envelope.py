"""What SMTP says about a message, apart from the message (RFC 5321 2.3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from relay.mail.address import Address


@dataclass(frozen=True, slots=True)
class Asked:
    """What the sender wants to hear about a recipient (RFC 3461 4): NOTIFY and ORCPT, "" where nothing was said."""

    notify: str = ""
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Reverse-path (None is the null reverse-path), recipients in the order given, and what the sender asked for."""

    reverse_path: Address | None
    recipients: tuple[Address, ...]
    smtputf8: bool = False
    eight_bit: bool = False
    ret: str = ""
    envid: str = ""
    wishes: tuple[Asked, ...] = ()
    requiretls: bool = False

    @property
    def asked(self) -> tuple[Asked, ...]:
        """What was asked for each recipient, in their order."""
        return self.wishes or (Asked(),) * len(self.recipients)

    @property
    def is_returned(self) -> bool:
        """Whether it bears the null reverse-path of DSNs and other automatic answers."""
        return self.reverse_path is None
