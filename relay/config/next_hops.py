"""The settings of next hops, and of how mail is tried again."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from relay.config.kinds import (
    Duration,
    Fingerprint,
    IpAddress,
    Name,
    Port,
    Secret,
    Settings,
    Text,
    address_or_domain,
    host_and_port,
    is_file,
    one_or_more,
)
from relay.config.rewriting import Rewriting

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


class Token(Settings):
    """Where an OAuth access token comes from: the answer of an authorisation server (JSON, RFC 6749 5.1), or bare."""

    file: Path | None = None
    "File that somebody else renews; read for each login."
    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    "Program and arguments that print it. No shell is involved."
    timeout: Annotated[Duration, Field(gt=0)] = 30.0
    "Longest time the program may take."
    lifetime: Duration = 300.0
    "How long what it printed is used, where it does not say itself (`expires_in`)."

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.file is None) == (self.command is None):
            raise ValueError("a token comes from exactly one of file and command")
        if self.file is not None and not (is_file(self.file) and os.access(self.file, os.R_OK)):
            raise ValueError(f"the file {self.file} does not exist or can't be read")
        if self.command is not None:
            program = Path(self.command[0])
            if not program.is_absolute():
                raise ValueError(f"the program is named by its whole path, as in /usr/bin/{program.name}")
            if not (is_file(program) and os.access(program, os.X_OK)):
                raise ValueError(f"the program {program} does not exist or can't be run")
        return self


class NextHop(Settings):
    """Where smtp goes: a smarthost, or the MX of the recipient's domain."""

    name: Name
    host: Text | None = None
    "The smarthost; without it mail goes to the MX of each recipient's domain."
    hosts: Annotated[tuple[Text, ...], Field(min_length=1, max_length=16)] | None = None
    "Several smarthosts instead, the preferred first; each may have a port of its own, as in smtp2.example:2525."
    port: Port = 25
    source_address: Annotated[tuple[IpAddress, ...], BeforeValidator(one_or_more)] = ()
    """Addresses of this machine to send from, one for IPv4 and one for IPv6. When one is named, what has none is not
    used.
    """
    tls: Literal["required", "opportunistic", "encrypted", "none", "implicit"] = "opportunistic"
    """`required`: STARTTLS with a verified certificate; `encrypted`: STARTTLS with any certificate; `opportunistic`:
    STARTTLS when offered, with any certificate; `implicit`: TLS first, verified.
    """
    sends_from: tuple[str, ...] = ()
    """Addresses, or SPF names, from which its mail reaches the world, for `slip-relay dns`; without it the addresses of
    its hosts; where mail goes by MX those of `source_address`, or of server.hostname.
    """
    ca_file: Path | None = None
    "PEM file with the authorities to trust instead of the system's."
    pins: tuple[Fingerprint, ...] = ()
    """Certificates of which the host has to show one, by sha256:HEX of the certificate or spki:HEX of its public key.
    Authorities, name and time are not asked then, unless ca_file is set as well.
    """
    client_certificate: Path | None = None
    "PEM file with the certificate to show, and those between it and its authority."
    client_key: Path | None = None
    "PEM file with its private key."
    auth: Literal["plain", "login", "xoauth2"] | None = None
    "How to log in; without it as the host offers."
    username: Text | None = None
    "Name for AUTH."
    password: Secret | None = None
    "Password for AUTH."
    token: Token | None = None
    "Access token for AUTH XOAUTH2, instead of a password."
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
    rewriting: Rewriting = Rewriting()
    "Other ways to rewrite its mail than those of the institution."
    timeout: Duration = 60.0
    "Longest wait for a connection or an answer."
    data_timeout: Duration = 600.0
    "Longest wait for a message to be sent and taken (RFC 5321 4.5.3.2.6); giving up early makes duplicates."
    idle_timeout: Duration = 30.0
    "Time an unused connection is kept for the next message."

    @property
    def concurrency(self) -> int:
        """Most connections at the same time, to all hosts together."""
        return self.max_connections or (100 if self.goes_by_mx else 10)

    @property
    def goes_by_mx(self) -> bool:
        """Whether it goes to the MX of each recipient's domain."""
        return self.host is None and self.hosts is None

    @property
    def smarthosts(self) -> tuple[tuple[str, int], ...]:
        """Names, or addresses, of the smarthosts with their ports, the preferred first."""
        named = self.hosts or ((self.host,) if self.host is not None else ())
        return tuple(host_and_port(each, self.port) for each in named)

    @property
    def is_verified(self) -> bool:
        """Whether nobody else can pass himself off as the host."""
        return self.tls in ("required", "implicit")

    @field_validator("sends_from")
    @classmethod
    def _senders(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(address_or_domain(text) for text in value)

    @field_validator("host", "hosts")
    @classmethod
    def _hosts(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for each in (value,) if isinstance(value, str) else value or ():
            host_and_port(each, 25)
        return value

    @model_validator(mode="after")
    def _place(self) -> Self:
        if self.name in RESERVED_ROUTES:
            raise ValueError(f"{self.name} is a reserved word")
        if self.host is not None and self.hosts is not None:
            raise ValueError("host is for one smarthost, hosts for several: set one of them")
        if len(set(self.smarthosts)) < len(self.smarthosts):
            raise ValueError("a smarthost is named twice in hosts")
        if len({":" in address for address in self.source_address}) < len(self.source_address):
            raise ValueError("source_address is one address, or one for IPv4 and one for IPv6")
        if self.goes_by_mx and (self.username is not None or self.is_verified):
            raise ValueError("username, and verified tls, need a host")
        return self

    @model_validator(mode="after")
    def _tls(self) -> Self:
        for setting in ("ca_file", "pins"):
            if getattr(self, setting) and not self.is_verified:
                raise ValueError(f'{setting} is for verified TLS: set tls to "required" or "implicit"')
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("client_certificate and client_key go together")
        if self.client_certificate is not None and self.tls == "none":
            raise ValueError('a client certificate is shown over TLS only: set tls to "required" or "implicit"')
        for file in (self.ca_file, self.client_certificate, self.client_key):
            if file is not None and not is_file(file):
                raise ValueError(f"the file {file} does not exist")
        return self

    @model_validator(mode="after")
    def _auth(self) -> Self:
        if self.token is not None:
            if self.username is None:
                raise ValueError("token needs a username: the mailbox that it is for")
            if self.password is not None:
                raise ValueError("password and token are two ways to log in: set one of them")
            if self.auth in ("plain", "login"):
                raise ValueError(f'auth = "{self.auth}" takes a password; a token is for "xoauth2"')
        elif self.auth == "xoauth2":
            raise ValueError('auth = "xoauth2" needs a token')
        elif (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        elif self.auth is not None and self.username is None:
            raise ValueError("auth needs a username")
        if self.username is not None and not self.is_verified:
            raise ValueError('AUTH is done over verified TLS only: set tls to "required" or "implicit"')
        return self
