"""The settings of next hops, and of how mail is tried again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from relay.config.kinds import Duration, Name, Port, Secret, Settings, Text, address_or_domain, is_file

RESERVED_ROUTES = ("print", "returned", "discard", "hold")


class Retry(Settings):
    """Times of one route, where they differ from those of [delivery]."""

    first: Annotated[Duration, Field(ge=0.01)] | None = None
    "Wait after the first failed attempt."
    longest: Duration | None = None
    "Longest wait between two attempts."
    warn_after: Duration | None = None
    'Age at which the sender is told of the delay; "0s" for never.'
    expire_after: Duration | None = None
    "Age at which it is given up."


class Delivery(Settings):
    """How deliveries are tried again."""

    retry_first: Annotated[Duration, Field(ge=0.01)] = 60.0
    "Wait after the first failed attempt; doubled by each further one."
    retry_longest: Duration = 3600.0
    "Longest wait between two attempts."
    warn_after: Duration = 4 * 3600.0
    'Age at which the sender is told that mail is late; "0s" for never. Of slips nobody is told.'
    expire_after: Duration = 5 * 86400.0
    "Age at which mail that could not be delivered ends as expired. Slips never expire."
    stop_timeout: Duration = 20.0
    "Time that running attempts get to end when the service stops."

    def deadlines(self, since: float) -> tuple[float | None, float | None]:
        """When mail of that age is late, and when it is given up, in seconds since the epoch; None for never."""
        late = since + self.warn_after if 0 < self.warn_after < self.expire_after else None
        return late, since + self.expire_after if math.isfinite(self.expire_after) else None

    def for_route(self, retry: Retry) -> Delivery:
        """These settings, with what a route has of its own."""
        own = {
            "retry_first": retry.first,
            "retry_longest": retry.longest,
            "warn_after": retry.warn_after,
            "expire_after": retry.expire_after,
        }
        return self.model_copy(update={name: value for name, value in own.items() if value is not None})


class NextHop(Settings):
    """Where smtp goes: a smarthost, or the MX of the recipient's domain."""

    name: Name
    host: Text | None = None
    "The smarthost; without it mail goes to the MX of each recipient's domain."
    port: Port = 25
    tls: Literal["required", "opportunistic", "none", "implicit"] = "opportunistic"
    """`required`: STARTTLS with a verified certificate; `opportunistic`: STARTTLS when offered, unverified;
    `implicit`: TLS first, verified.
    """
    sends_from: tuple[str, ...] = ()
    """Addresses, or SPF names, from which its mail reaches the world, for `slip-relay dns`; without it the addresses of
    `host`, or of server.hostname where mail goes by MX.
    """
    ca_file: Path | None = None
    "PEM file with the authorities to trust instead of the system's."
    username: Text | None = None
    "Name for AUTH."
    password: Secret | None = None
    "Password for AUTH."
    max_connections: Annotated[int, Field(ge=1, le=1000)] | None = None
    "Connections open at the same time; without it 10 to a smarthost, 100 where mail goes by MX."
    max_per_domain: Annotated[int, Field(ge=1, le=100)] = 5
    "Connections open at the same time for the mail of one domain, where mail goes by MX."
    max_rate: Annotated[float, Field(gt=0)] | None = None
    "Most messages per second; without it as many as it takes."
    backoff_longest: Duration = 600.0
    "A host that can't be reached is asked with one message at growing intervals, at the longest this one."
    retry: Retry = Retry()
    "Other times than those of [delivery]."
    timeout: Duration = 60.0
    "Longest wait for a connection or an answer."
    data_timeout: Duration = 600.0
    "Longest wait for a message to be sent and taken (RFC 5321 4.5.3.2.6); giving up early makes duplicates."
    idle_timeout: Duration = 30.0
    "Time an unused connection is kept for the next message."

    @property
    def concurrency(self) -> int:
        """Most connections at the same time, to all hosts together."""
        return self.max_connections or (10 if self.host else 100)

    @field_validator("sends_from")
    @classmethod
    def _senders(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(address_or_domain(text) for text in value)

    @model_validator(mode="after")
    def _auth(self) -> Self:
        if self.name in RESERVED_ROUTES:
            raise ValueError(f"{self.name} is a reserved word")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if self.username is not None and self.tls not in ("required", "implicit"):
            raise ValueError('AUTH is done over verified TLS only: set tls to "required" or "implicit"')
        if self.host is None and (self.username is not None or self.tls in ("required", "implicit")):
            raise ValueError("username, and verified tls, need a host")
        if self.ca_file is not None and not is_file(self.ca_file):
            raise ValueError(f"the file {self.ca_file} does not exist")
        return self
