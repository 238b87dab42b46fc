"""The settings of look-ups in the DNS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from relay.config.kinds import Duration, Settings, nameserver


class Dns(Settings):
    """Look-ups for next hops that are found by MX, and for sources that are known by SPF names."""

    nameservers: tuple[str, ...] = ()
    "Addresses, or address:port, to ask instead of the system's resolvers."
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
    def _spf_times(self) -> Self:
        if self.spf_longest < self.spf_shortest:
            raise ValueError("spf_longest can't be shorter than spf_shortest")
        return self
