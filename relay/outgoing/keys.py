"""Signing keys (RFC 6376, RFC 8463): read from where the configuration says, never kept anywhere else.

Refuses, by StartError: what is no PEM private key, RSA shorter than `MIN_BITS`, kinds of key that DKIM does not have.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from relay.config.institutions import DkimKey
from relay.dns.dkim_record import key_text
from relay.errors import AddressError, StartError
from relay.mail.address import ascii_domain

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

MIN_BITS = 1024
"""RFC 8301 3.2: signers use at least 1024 bits; `slip-relay dkim keygen` makes 2048."""


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
        return "rsa" if isinstance(self.private, rsa.RSAPrivateKey) else "ed25519"

    def sign(self, digest: bytes) -> bytes:
        """The signature of a SHA-256 digest. Ed25519 signs the digest as its message (RFC 8463 3)."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(digest, padding.PKCS1v15(), utils.Prehashed(SHA256()))
        return self.private.sign(digest)


def load_key(settings: DkimKey) -> SigningKey:
    """The key of a `[[institutions.dkim]]` table. Raises StartError when its place holds no usable key."""
    try:
        domain, selector = ascii_domain(settings.domain), ascii_domain(settings.selector)
    except AddressError as error:
        raise StartError(str(error)) from None
    if settings.key_file is not None:
        private = read_private_key(settings.key_file)
    else:
        private = private_key(os.environ.get(settings.key_env or "", "").encode(), f"in {settings.key_env}")
    expires_after = None if settings.expires_after is None else int(settings.expires_after)
    return SigningKey(domain, selector, private, expires_after)


def read_private_key(path: Path) -> PrivateKey:
    """A key from a PEM file, or StartError."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise StartError(f"the DKIM key {path} can't be read: {error.strerror}") from None
    return private_key(text, str(path))


def private_key(text: bytes, place: str) -> PrivateKey:
    """A key from PEM, or StartError, which names the place it came from."""
    try:
        key = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise StartError(f"the DKIM key {place} is not a PEM private key without passphrase") from None
    if isinstance(key, ed25519.Ed25519PrivateKey) or (isinstance(key, rsa.RSAPrivateKey) and key.key_size >= MIN_BITS):
        return key
    raise StartError(f"the DKIM key {place} is not an RSA key of at least {MIN_BITS} bits, nor an Ed25519 key")


def public_record(key: PrivateKey) -> str:
    """The text of the DNS record of a key (RFC 6376 3.6.1, RFC 8463 4.2)."""
    return key_text(key.public_key())
