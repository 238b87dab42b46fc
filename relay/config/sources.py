"""The settings of sources: who may submit mail, how it is known, and what it may send."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from relay.config.kinds import Domain, Duration, Mailbox, Name, Network, Settings, Text, dns_name, fingerprint


def _certificate(value: str) -> str:
    kind, colon, rest = value.partition(":")
    if kind in ("sha256", "spki"):
        return fingerprint(value)
    if kind == "dns" and colon:
        return f"dns:{dns_name(rest)}"
    if kind == "subject" and "=" in rest:
        return value
    raise ValueError(
        'a certificate is named by its fingerprint ("sha256:..."), that of its public key ("spki:..."), a name in it '
        '("dns:mta.example.org") or its whole subject ("subject:CN=mta,O=Example")'
    )


DnsName = Annotated[str, AfterValidator(dns_name)]
Certificate = Annotated[str, AfterValidator(_certificate)]


class Source(Settings):
    """Somebody allowed to submit mail. What matches no source is refused."""

    name: Name
    institutions: Annotated[tuple[Name, ...], Field(min_length=1)]
    "Institutions it may send for."
    networks: tuple[Network, ...] = ()
    "Addresses it connects from, on relay listeners."
    spf: tuple[DnsName, ...] = ()
    """Names whose SPF records list the addresses it connects from, on relay listeners; asked again as they change:
    `spf-eu.exlibrisgroup.com`.
    """
    certificates: tuple[Certificate, ...] = ()
    """Client certificates it shows, on relay listeners that have client_ca: `sha256:` and the fingerprint, `spki:` and
    that of the public key, `dns:` and a name in it, or `subject:` and the whole subject (RFC 4514).
    """
    username: Text | None = None
    "Name it gives to AUTH."
    password_hash: str | None = None
    "Argon2 hash of its password, as `slip-relay hash-password` prints it."
    from_domains: tuple[Domain, ...] = ()
    "From domains that it may use besides those of its institutions."
    recipients: tuple[str, ...] = ("*",)
    "Recipients it may send to besides its institutions' printers: patterns as in `*@example.edu`; [] is printing only."
    sandbox: bool = False
    "An Alma sandbox: its mail goes to what `recipients` names and to nothing else, printers included."
    divert_to: Mailbox | None = None
    "Where all other mail of a sandbox goes; without it, it is refused."

    @model_validator(mode="after")
    def _who(self) -> Self:
        if (self.username is None) != (self.password_hash is None):
            raise ValueError("username and password_hash go together")
        if not (self.networks or self.spf or self.certificates) and self.username is None:
            raise ValueError("a source is known by networks, spf, certificates, or by username and password_hash")
        if self.password_hash is not None and not self.password_hash.startswith("$argon2"):
            raise ValueError("password_hash is not an argon2 hash; `slip-relay hash-password` makes one")
        return self

    @model_validator(mode="after")
    def _sandbox(self) -> Self:
        if self.divert_to is not None and not self.sandbox:
            raise ValueError("divert_to is for a sandbox: set sandbox = true")
        if self.sandbox and any(not pattern.strip("*?@") for pattern in self.recipients):
            raise ValueError("a sandbox names the recipients that it may send to: its letters go to real patrons else")
        return self


class Auth(Settings):
    """Passwords that are tried out."""

    delay: Annotated[Duration, Field(le=60)] = 1.0
    "A wrong password is answered so late; the wait is doubled by each further one of the same address, up to 16 times."
    max_failures: Annotated[int, Field(ge=1, le=1000)] = 10
    "So many failed AUTHs of one address (IPv6: of its /64) lock it out."
    within: Duration = 600.0
    "The time in which they count."
    lock_for: Duration = 900.0
    "How long an address is locked out: AUTH is answered 421 4.7.0 at once."
