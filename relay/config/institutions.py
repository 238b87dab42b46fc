"""The settings of institutions: the tenants, each with domains, keys and a way out of its own."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from relay.config.kinds import Domain, Duration, Mailbox, Name, Settings, is_file, is_folder, mailbox
from relay.config.rewriting import KEEP, Convert, Rewriting, envelope_mailbox
from relay.config.rules import Pattern

Language = Literal["de", "en", "es", "fr", "it", "nl"]
"""Languages that mail of ours is written in: each is a template in templates/dsn and one in templates/notices."""


class DkimKey(Settings):
    """A signing key of an institution (RFC 6376)."""

    domain: Domain
    "d= of the signature: the From domain, or a parent of it."
    selector: Domain | None = None
    "s= of the signature; the record is published at SELECTOR._domainkey.DOMAIN. With key_folder the folder says it."
    key_file: Path | None = None
    "PEM file with the private key, RSA or Ed25519 (RFC 8463), as `slip-relay dkim keygen` writes it."
    key_env: str | None = None
    "Instead of a file: name of the environment variable that holds the same text."
    key_folder: Path | None = None
    """Instead of both: folder with the keys of the domain, each as SELECTOR.pem, in which `slip-relay dkim rotate` says
    what signs.
    """
    expires_after: Annotated[Duration, Field(ge=3600)] | None = None
    "Time after which receivers should not believe a signature any more (x=); each attempt is signed anew."

    @field_validator("key_file")
    @classmethod
    def _exists(cls, value: Path | None) -> Path | None:
        if value is not None and not is_file(value):
            raise ValueError(f"the key file {value} does not exist; `slip-relay dkim keygen` makes one")
        return value

    @field_validator("key_folder")
    @classmethod
    def _is_there(cls, value: Path | None) -> Path | None:
        if value is not None and not is_folder(value):
            raise ValueError(f"the folder {value} does not exist or can't be read")
        return value

    @field_validator("key_env")
    @classmethod
    def _is_set(cls, value: str | None) -> str | None:
        if value is not None and not os.environ.get(value):
            raise ValueError(f"the environment variable {value} is not set")
        return value

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.key_file, self.key_env, self.key_folder)) != 1:
            raise ValueError("a key is named by exactly one of key_file, key_env and key_folder")
        if self.key_folder is None and self.selector is None:
            raise ValueError("a key goes with its selector")
        if self.key_folder is not None and self.selector is not None:
            raise ValueError("with key_folder the folder says which selector signs: leave out selector")
        return self


class Institution(Settings):
    """One tenant: its domains, keys and way out."""

    name: Name
    domains: Annotated[tuple[Domain, ...], Field(min_length=1)]
    "Domains that may stand in the From field of its mail; subdomains count too."
    envelope_from: str = "verp"
    """`verp` (an address under bounce_domain that names the delivery), one fixed mailbox, or `keep`: the sender's own,
    by whose domain SPF is judged then.
    """
    bounce_domain: Domain | None = None
    "Domain of the VERP addresses; its MX must lead to where bounces are read."
    header_from: Literal["keep", "rewrite", "refuse"] = "keep"
    """What becomes of a letter whose From lies outside its domains: it is sent as it is, its From becomes
    `from_mailbox`, with the old one in Reply-To, or it is refused with 550 5.7.1.
    """
    from_mailbox: Mailbox | None = None
    "The From address of letters that are rewritten; in one of its domains."
    from_name: Annotated[str, Field(min_length=1, max_length=200)] = "{name} via Library"
    "The name before that address; `{name}` is the one that was there, or the part of the old address before the @."
    convert: Convert = "as-needed"
    "Which letters are converted before they are signed."
    next_hop: Name | None = None
    "Next hop for its mail; without it, the next hop of that name `default`."
    dsn_to: str = "sender"
    "Who is told when mail fails or is late: `sender` (of the envelope), `nobody`, or a mailbox."
    dsn_from: Mailbox | None = None
    "From address of these messages; without it MAILER-DAEMON at the first of its domains."
    language: Language = "en"
    "Language of these messages, and of notices."
    notify: Mailbox | None = None
    "Who is told when no mail comes, and of trouble at its printers that have no `notify` of their own."
    subjects: dict[str, Annotated[tuple[Pattern, ...], Field(min_length=1)]] = {}  # noqa: RUF012 - frozen by pydantic
    """Subjects that its letters have, by Alma's name of the letter, where they are not known otherwise:
    `FulTransitSlipLetter = ["Unterwegs*"]`.
    """
    auto_submitted: bool = True
    """Whether its letters that have no Auto-Submitted field get `Auto-Submitted: auto-generated` (RFC 3834), so that
    absence notes don't answer them.
    """
    dkim: tuple[DkimKey, ...] = ()
    """Signing keys. A message is signed with the keys whose domain is nearest to its From domain: the first that is
    RSA, and the first that is Ed25519.
    """
    dkim_self_check: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of its signed mail that is verified with our own public key before it leaves; what fails is held. 0 for
    none, 1 for all.
    """

    @model_validator(mode="after")
    def _envelope(self) -> Self:
        if self.envelope_from == "verp":
            if self.bounce_domain is None:
                raise ValueError('envelope_from = "verp" needs a bounce_domain')
        elif self.envelope_from != KEEP:
            envelope_mailbox(self.envelope_from)
        if self.dsn_to not in ("sender", "nobody"):
            mailbox(self.dsn_to)
        for key in self.dkim:
            if not any(
                key.domain == d or d.endswith("." + key.domain) or key.domain.endswith("." + d) for d in self.domains
            ):
                raise ValueError(f"the dkim domain {key.domain} is not among its domains, nor a parent or child of one")
        return self

    @model_validator(mode="after")
    def _rewriting(self) -> Self:
        if self.header_from == "rewrite" and self.from_mailbox is None:
            raise ValueError('header_from = "rewrite" needs a from_mailbox')
        if self.from_mailbox is not None:
            if not self.from_mailbox.isascii():
                raise ValueError("from_mailbox has to be ASCII: not every host takes internationalised mail")
            if not self.owns(self.from_mailbox.rpartition("@")[2]):
                raise ValueError(f"from_mailbox {self.from_mailbox} is in none of its domains")
        if re.search(r"[{}]", self.from_name.replace("{name}", "", 1)) or not self.from_name.isprintable():
            raise ValueError('from_name is text with {name} once at most, as in "{name} via Library"')
        return self

    def sending(self, rewriting: Rewriting) -> Institution:
        """Its settings for mail by a next hop that rewrites in this way."""
        return self.model_copy(update=own) if (own := rewriting.own) else self

    def owns(self, domain: str) -> bool:
        """Whether a domain is one of its own, or lies under one."""
        own = (*self.domains, *((self.bounce_domain,) if self.bounce_domain else ()))
        return any(domain == each or domain.endswith(f".{each}") for each in own)
