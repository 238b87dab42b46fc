"""Signing keys (RFC 6376, RFC 8463): read from where the configuration says, never kept anywhere else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256

from relay.config.institutions import DkimKey
from relay.dns.dkim_record import key_text
from relay.errors import AddressError, StartError
from relay.mail.address import ascii_domain
from relay.outgoing.key_folder import read_folder
from relay.outgoing.private_key import PrivateKey, kind_of, private_key, read_private_key


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with the names it is published under."""

    domain: str
    selector: str
    private: PrivateKey
    expires_after: int | None = None
    "Seconds from `t=` to `x=` of its signatures; None for none."

    @property
    def kind(self) -> Literal["rsa", "ed25519"]:
        """k= of its record."""
        return kind_of(self.private)

    def sign(self, digest: bytes) -> bytes:
        """The signature of a SHA-256 digest. Ed25519 signs the digest as its message (RFC 8463 3)."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(digest, padding.PKCS1v15(), utils.Prehashed(SHA256()))
        return self.private.sign(digest)


def load_keys(settings: DkimKey) -> list[SigningKey]:
    """The keys that sign by a `[[institutions.dkim]]` table. Raises StartError when its place holds no usable key."""
    expires_after = None if settings.expires_after is None else int(settings.expires_after)
    try:
        domain = ascii_domain(settings.domain)
        selector = ascii_domain(settings.selector) if settings.selector is not None else ""
    except AddressError as error:
        raise StartError(str(error)) from None
    if settings.key_folder is not None:
        folder = read_folder(settings.key_folder)
        return [SigningKey(domain, name, folder.key(name), expires_after) for name in folder.signs]
    if settings.key_file is not None:
        private = read_private_key(settings.key_file)
    else:
        private = private_key(os.environ.get(settings.key_env or "", "").encode(), f"in {settings.key_env}")
    return [SigningKey(domain, selector, private, expires_after)]


def public_record(key: PrivateKey) -> str:
    """The text of the DNS record of a key (RFC 6376 3.6.1, RFC 8463 4.2)."""
    return key_text(key.public_key())
