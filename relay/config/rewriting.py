"""How mail is rewritten on its way out: the settings that a next hop may have otherwise than the institution."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from relay.config.kinds import Settings, mailbox

KEEP = "keep"

Convert = Literal["as-needed", "always", "unsigned", "never"]
"""Whether 8-bit text and UTF-8 in a header are converted before a letter is signed: where the next hop takes none of
it; always, so that no host after it has to; `unsigned`, as needed and only where no signature that the letter brought
breaks by it; or never. Lines that are too long are converted as needed, too. What is not converted fails at a next hop
that does not take it.
"""


def envelope_mailbox(value: str) -> str:
    """An Envelope-From that the configuration names, or ValueError."""
    if not mailbox(value).isascii():
        raise ValueError("envelope_from has to be ASCII: not every host takes internationalised mail")
    return value


class Rewriting(Settings):
    """What is done otherwise than the institution says; what is not set is as there."""

    envelope_from: str | None = None
    "`keep`, or one fixed mailbox."
    header_from: Literal["keep", "rewrite"] | None = None
    "What becomes of a From outside the institution's domains."
    convert: Convert | None = None
    "Which letters are converted."

    @field_validator("envelope_from")
    @classmethod
    def _envelope(cls, value: str | None) -> str | None:
        if value == "verp":
            raise ValueError('"verp" is for the institution: set envelope_from there, and here "keep" or a mailbox')
        return value if value in (None, KEEP) else envelope_mailbox(str(value))

    @property
    def own(self) -> dict[str, str]:
        """The settings that are set, by name."""
        return {name: value for name, value in self if value is not None}
