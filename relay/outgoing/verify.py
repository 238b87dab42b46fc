"""What leaves is verified before it leaves, with the key that our own DNS record would give (RFC 6376 6.1).

Shares no code with `relay.outgoing.sign`: fields are taken apart, made canonical and hashed in another way here, so
that a mistake in one of them shows. Knows the signatures that we make, and no others: relaxed/relaxed, SHA-256, no
`l=`. Takes time in proportion to the message, and memory for one block of it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from relay.errors import BadSignature
from relay.outgoing.keys import SigningKey, public_record

_PublicKey = rsa.RSAPublicKey | ed25519.Ed25519PublicKey
_Field = tuple[bytes, bytes]

_BLOCK = 64 * 1024
_SPACES = re.compile(rb"[ \t]{2,}|\t")
_REST_OF_SPACES = re.compile(rb"[ \t\r]*\n?")


class Verifier:
    """Verifies signatures made with these keys."""

    def __init__(self, keys: Iterable[SigningKey]) -> None:
        self._keys = {
            (key.domain.encode("ascii"), key.selector.encode("ascii")): _published(public_record(key.private))
            for key in keys
        }

    def verify(self, own_fields: bytes, original: bytes, signatures: int, begin: int = 0) -> None:
        """Verifies the first signatures of a message that leaves as `own_fields` and `original` from `begin` on.

        Raises BadSignature for the first that would not be accepted elsewhere.
        """
        start = begin if original.startswith(b"\r\n", begin) else original.find(b"\r\n\r\n", begin) + 2
        end = start if start != 1 else len(original)  # without an empty line all of it is header
        fields = _fields(own_fields + original[begin:end])
        found = [field for field in fields if field[0] == b"dkim-signature"][:signatures]
        if len(found) < signatures:
            raise BadSignature(f"it has {len(found)} DKIM signatures instead of {signatures}")
        if sum(name == b"from" for name, _ in fields) != 1:
            raise BadSignature("it has not exactly one From field")
        body = base64.b64encode(_body_hash(original, end + 2))
        for _, value in found:
            self._verify(value, fields, body)

    def _verify(self, value: bytes, fields: list[_Field], body: bytes) -> None:
        parts = [part.partition(b"=") for part in value.split(b";")]
        tags = {name.strip(): b"".join(text.split()) for name, _, text in parts}
        key = self._keys.get((tags.get(b"d", b""), tags.get(b"s", b"")))
        named = f"the DKIM signature of selector {tags.get(b's', b'').decode('ascii', 'replace')}"
        algorithm = b"rsa-sha256" if isinstance(key, rsa.RSAPublicKey) else b"ed25519-sha256"
        if key is None or tags.get(b"a") != algorithm or tags.get(b"c") != b"relaxed/relaxed" or b"l" in tags:
            raise BadSignature(f"{named} is not as ours are")
        if b"x" in tags and int(tags[b"x"]) <= time.time():
            raise BadSignature(f"{named} has expired")
        if tags.get(b"bh") != body:
            raise BadSignature(f"{named} has the hash of another body")
        names = tags.get(b"h", b"").lower().split(b":")
        if b"from" not in names:
            raise BadSignature(f"{named} does not cover the From field")
        without = b";".join(part[0] + b"=" if part[0].strip() == b"b" else b"".join(part) for part in parts)
        text = b"".join(_chosen(names, fields)) + b"dkim-signature:" + _canonical(without)
        try:
            _check(key, base64.b64decode(tags.get(b"b", b""), validate=True), hashlib.sha256(text).digest())
        except (InvalidSignature, ValueError):
            raise BadSignature(f"{named} does not verify with its own public key") from None


def _published(record: str) -> _PublicKey:
    """The key that a receiver makes of a record."""
    tags = dict(part.strip().split("=", 1) for part in record.split(";"))
    octets = base64.b64decode(tags["p"])
    if tags["k"] == "ed25519":
        return ed25519.Ed25519PublicKey.from_public_bytes(octets)
    key = load_der_public_key(octets)
    assert isinstance(key, rsa.RSAPublicKey), "its record says so"
    return key


def _check(key: _PublicKey, signature: bytes, digest: bytes) -> None:
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, digest, padding.PKCS1v15(), utils.Prehashed(SHA256()))
    else:
        key.verify(signature, digest)


def _fields(header: bytes) -> list[_Field]:
    """Name (lower case) and unfolded value of each field, from the top."""
    fields: list[_Field] = []
    for line in header.removesuffix(b"\r\n").split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] = (fields[-1][0], fields[-1][1] + line)
        else:
            name, _, value = line.partition(b":")
            fields.append((name.rstrip(b" \t").lower(), value))
    return fields


def _canonical(value: bytes) -> bytes:
    # Also a form feed at its ends is left out, as dkimpy and others do.
    return _SPACES.sub(b" ", value).strip()


def _chosen(names: list[bytes], fields: list[_Field]) -> Iterable[bytes]:
    """The fields that names of `h=` stand for, in canonical form: each name once more is the next from below."""
    left: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        left.setdefault(name, []).append(value)
    for name in names:
        if values := left.get(name):
            yield name + b":" + _canonical(values.pop()) + b"\r\n"


def _body_hash(message: bytes, start: int) -> bytes:
    """SHA-256 of the body from `start` in relaxed canonical form (RFC 6376 3.4.4), block by block.

    A block ends behind all spaces that stand where it would be cut, and the line end after them.
    """
    digest, held, is_empty = hashlib.sha256(), bytearray(), True
    while start < len(message):
        run = _REST_OF_SPACES.match(message, min(start + _BLOCK, len(message)))
        assert run is not None, "it matches anywhere"
        text = _single_spaced(message[start : run.start()]) + _SPACES.sub(b" ", run[0])
        text = text.replace(b"  ", b" ").replace(b" \r\n", b"\r\n")
        kept = text.rstrip(b" \r\n")
        if kept:
            digest.update(held)
            digest.update(kept)
            held, is_empty = bytearray(), False
        held += text[len(kept) :]
        start = run.end()
    if not is_empty:
        digest.update(b"\r\n")
    return digest.digest()


def _single_spaced(text: bytes) -> bytes:
    """Each run of spaces and tabs as one space; up to two at the very ends."""
    words = text.replace(b"\t", b" ").split(b" ")
    return b" ".join([words[0], *filter(None, words[1:-1]), words[-1]]) if len(words) > 1 else words[0]
