"""DKIM signatures (RFC 6376): dkimpy's canonicalisation and hashing of the header, the RSA operation by `cryptography`.

Signs rsa-sha256, relaxed/relaxed, without `l=`. The fields in `OVERSIGNED` are named once more than they occur, so that
nobody can add another (RFC 6376 8.15). dkimpy's own `sign` is not used: it parses the key anew and multiplies big
numbers in Python for each message (8 ms), and takes the body apart line by line (40 times the memory of a large one).
Refuses at start: keys that are not RSA, or shorter than `MIN_BITS`.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dkim
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from dkim.canonicalization import CanonicalizationPolicy

from relay.config.settings import DkimKey, Institution
from relay.errors import AddressError, HeaderError, StartError
from relay.mail import headers
from relay.mail.address import ascii_domain

OVERSIGNED = ("from", "subject", "date", "to", "message-id")
SIGNED_IF_THERE = (
    "cc",
    "reply-to",
    "sender",
    "in-reply-to",
    "references",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "auto-submitted",
)
MIN_BITS = 1024
"""RFC 8301 3.2: signers use at least 1024 bits; `slip-relay dkim keygen` makes 2048."""

_BLOCK = 512 * 1024
_RELAXED = CanonicalizationPolicy.from_c_value(b"relaxed/relaxed")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with the names it is published under."""

    domain: str
    selector: str
    private: rsa.RSAPrivateKey


class Signer:
    """Signs messages with the keys of the institutions, each parsed once."""

    def __init__(self, institutions: Sequence[Institution]) -> None:
        """Loads every key; StartError names the first that is unusable."""
        self._keys = {institution.name: [load_key(each) for each in institution.dkim] for institution in institutions}

    def sign(self, institution: str, header: bytes, body: bytes | memoryview) -> bytes:
        """The DKIM-Signature field with its CRLF, or b"" when the institution has no key."""
        keys = self._keys[institution]
        return signature(_nearest(keys, header), header, body) if keys else b""


def load_key(settings: DkimKey) -> SigningKey:
    """The key of a `[[institutions.dkim]]` table. Raises StartError when the file holds no usable RSA key."""
    try:
        domain, selector = ascii_domain(settings.domain), ascii_domain(settings.selector)
    except AddressError as error:
        raise StartError(str(error)) from None
    return SigningKey(domain, selector, read_private_key(settings.key_file))


def read_private_key(path: Path) -> rsa.RSAPrivateKey:
    """An RSA key from a PEM file, or StartError."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise StartError(f"the DKIM key {path} can't be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise StartError(f"the DKIM key {path} is not a PEM private key without passphrase") from None
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < MIN_BITS:
        raise StartError(f"the DKIM key {path} is not an RSA key of at least {MIN_BITS} bits")
    return key


def signature(key: SigningKey, header: bytes, body: bytes | memoryview) -> bytes:
    """The DKIM-Signature field, with its CRLF, of a message given as header section and body."""
    fields = [(name.encode("ascii"), value + b"\r\n") for name, value in headers.fields(header)]
    names = _names_to_sign([name for name, _ in fields])
    tags = b"\r\n\t".join(
        [
            b"v=1; a=rsa-sha256; c=relaxed/relaxed; d=%s;" % key.domain.encode("ascii"),
            b"s=%s; t=%d;" % (key.selector.encode("ascii"), int(time.time())),
            b"h=%s;" % _folded(b":".join(names), b":"),
            b"bh=%s;" % base64.b64encode(body_hash(body)),
            b"b=",
        ]
    )
    digest = hashlib.sha256()
    own_field = (b"DKIM-Signature", b" " + tags)
    dkim.hash_headers(digest, _RELAXED, _RELAXED.canonicalize_headers(fields), names, own_field, {})
    signed = key.private.sign(digest.digest(), padding.PKCS1v15(), utils.Prehashed(SHA256()))
    return b"DKIM-Signature: " + tags + _folded(base64.b64encode(signed), b"") + b"\r\n"


def body_hash(body: bytes | memoryview) -> bytes:
    """SHA-256 of a body, its line ends CRLF, in relaxed canonical form (RFC 6376 3.4.4).

    Hashes the same bytes as dkimpy would, without another copy of a large body.
    """
    digest = hashlib.sha256()
    empty = 0  # line ends that count only if something comes after them
    is_empty = True
    for lines in _in_blocks(body):
        text = _relaxed(lines)
        kept = text.rstrip(b"\r\n")
        if kept:
            digest.update(b"\r\n" * empty + kept)
            empty, is_empty = 0, False
        empty += (len(text) - len(kept)) // 2
    if not is_empty:
        digest.update(b"\r\n")
    return digest.digest()


def _in_blocks(body: bytes | memoryview) -> Iterator[bytes]:
    """A body in pieces of about `_BLOCK`, each but the last one with whole lines."""
    view, start, size = memoryview(body), 0, _BLOCK
    while start < len(view):
        block = bytes(view[start : start + size])
        end = block.rfind(b"\r\n") + 2 if start + size < len(view) else len(block)
        if end == 1:  # a line that is longer than the block
            size *= 2
            continue
        yield block[:end]
        start, size = start + end, _BLOCK


def _relaxed(lines: bytes) -> bytes:
    single = lines.replace(b"\t", b" ")
    while b"  " in single:  # halves each run of spaces; twice as fast as an expression on letters full of indentation
        single = single.replace(b"  ", b" ")
    return single.replace(b" \r\n", b"\r\n").removesuffix(b" ")


def _names_to_sign(present: list[bytes]) -> list[bytes]:
    names: list[bytes] = []
    for name in (*OVERSIGNED, *SIGNED_IF_THERE):
        times = present.count(name.encode("ascii")) + (name in OVERSIGNED)
        names += [name.encode("ascii")] * times
    return names


def _folded(value: bytes, separator: bytes) -> bytes:
    """A long tag value in lines of about 70 octets, broken after a separator or, without one, anywhere."""
    lines, line = [], b""
    parts = value.split(separator) if separator else [value[i : i + 70] for i in range(0, len(value), 70)]
    for i, part in enumerate(parts):
        piece = part + separator if i < len(parts) - 1 else part
        if line and len(line) + len(piece) > 70:
            lines.append(line)
            line = b""
        line += piece
    return b"\r\n\t ".join([*lines, line])


def _nearest(keys: list[SigningKey], header: bytes) -> SigningKey:
    """The key with the longest domain that aligns with the From domain; the institution's first where none does."""
    try:
        domain = ascii_domain(headers.from_domains(header)[0])
    except (HeaderError, AddressError):
        return keys[0]
    aligned = [key for key in keys if domain == key.domain or domain.endswith("." + key.domain)]
    return max(aligned, key=lambda key: len(key.domain)) if aligned else keys[0]
