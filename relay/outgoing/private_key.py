"""Private keys for DKIM as files hold them (PKCS#8 PEM).

Refuses, by StartError: what is no PEM private key, RSA shorter than `MIN_BITS`, kinds of key that DKIM does not have.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from relay.errors import StartError

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Kind = Literal["rsa", "ed25519"]

MIN_BITS = 1024
"""RFC 8301 3.2: signers use at least 1024 bits."""

BITS = 2048
"""Of the keys that are made here."""


def kind_of(key: PrivateKey) -> Kind:
    """k= of its record."""
    return "rsa" if isinstance(key, rsa.RSAPrivateKey) else "ed25519"


def new_private_key(kind: Kind, bits: int = BITS) -> PrivateKey:
    """A new key; `bits` are those of an RSA key."""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def pem(key: PrivateKey) -> bytes:
    """The private key as PKCS#8 PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_new(path: Path, content: bytes) -> None:
    """Writes a file that did not exist, readable by its owner only, and on disk afterwards.

    Raises StartError when there is one already, or it can't be written.
    """
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise StartError(f"{path} exists already; a key in use is not overwritten") from None
    except OSError as error:
        raise StartError(f"{path} can't be written: {error.strerror}") from None


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
