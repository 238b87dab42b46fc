"""The settings of look-ups in the DNS."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from relay.config.kinds import Duration, Settings, nameserver


class Dns(Settings):
    """Look-ups for next hops that are found by MX, and for sources that are known by SPF names."""

    nameservers: tuple[str, ...] = ()
    "Addresses, or address:port, to ask instead of the system's resolvers."
    dnssec: Literal["off", "local", "trusted"] = "off"
    """Whether the name servers validate, so that TLSA records count (DANE): `local` where they are on this machine,
    `trusted` where they are not, and nobody on the way to them can forge an answer.
    """
    timeout: Duration = 10.0
    "Longest wait for an answer."
    spf_shortest: Annotated[Duration, Field(ge=0.2)] = 300.0
    "An SPF name is asked again when its records say so (TTL), but not sooner than this; and so soon after a failure."
    spf_longest: Duration = 86400.0
    "Nor later than this."
    spf_file: Path | None = None
    "Where the last good answers are kept for the next start; without it `spf.json` beside the spool's file."

    @field_validator("nameservers")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            nameserver(text)
        return value

    @model_validator(mode="after")
    def _validating(self) -> Self:
        if self.dnssec != "off" and not self.nameservers:
            raise ValueError(f'dnssec = "{self.dnssec}" needs the nameservers that validate')
        if self.dnssec == "local":
            for text in self.nameservers:
                if not ip_address(nameserver(text)[0]).is_loopback:
                    raise ValueError(
                        f"the name server {text} is not on this machine: where nobody on the way to it can forge its "
                        'answers, say dnssec = "trusted"'
                    )
        return self

    @model_validator(mode="after")
    def _spf_times(self) -> Self:
        if self.spf_longest < self.spf_shortest:
            raise ValueError("spf_longest can't be shorter than spf_shortest")
        return self
