"""DKIM signatures (RFC 6376, RFC 8463): dkimpy's canonicalisation and hashing of the header, keys by `cryptography`.

Signs rsa-sha256 and ed25519-sha256, relaxed/relaxed, with `t=`, without `l=`. The fields in `OVERSIGNED` are named once
more than they occur, so that nobody can add another (RFC 6376 8.15). dkimpy's own `sign` is not used: it parses the key
anew and multiplies big numbers in Python for each message (8 ms), and takes the body apart line by line (40 times the
memory of a large one).
Promises: a message is signed only when it has exactly one From field, and all of that can be read.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator, Sequence

import dkim
from dkim.canonicalization import CanonicalizationPolicy

from relay.config.institutions import Institution
from relay.errors import AddressError, HeaderError
from relay.mail import headers
from relay.mail.address import ascii_domain
from relay.outgoing.keys import SigningKey, load_keys
from relay.outgoing.verify import Verifier

OVERSIGNED = (
    "from",
    "subject",
    "date",
    "to",
    "cc",
    "reply-to",
    "message-id",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
)
SIGNED_IF_THERE = (
    "sender",
    "in-reply-to",
    "references",
    "auto-submitted",
    "list-id",
    "list-help",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "list-subscribe",
    "list-post",
    "list-owner",
    "list-archive",
)
"""Not oversigned: a mailing list that passes a letter on may add these, and the signature stays good (RFC 6376 5.4)."""

_ONCE_MORE = tuple(name.encode("ascii") for name in OVERSIGNED)
_SIGNED = tuple(name.encode("ascii") for name in (*OVERSIGNED, *SIGNED_IF_THERE))
_BLOCK = 512 * 1024
_RELAXED = CanonicalizationPolicy.from_c_value(b"relaxed/relaxed")


class Signer:
    """Signs messages with the keys of the institutions, each parsed once."""

    def __init__(self, institutions: Sequence[Institution]) -> None:
        """Loads every key; StartError names the first that is unusable."""
        self._institutions = institutions
        self._keys: dict[str, list[SigningKey]] = {}
        self._known: dict[str, dict[tuple[str, str], SigningKey]] = {}
        "Those that sign, and those of before, by domain and selector."
        self._verifiers: dict[str, Verifier] = {}
        self.load()

    def load(self) -> None:
        """Takes the keys anew from where they are; when one is unusable StartError says so, and all stay as they are.

        What is being signed meanwhile is verified with the key that it was signed with.
        """
        keys = {each.name: [key for table in each.dkim for key in load_keys(table)] for each in self._institutions}
        for name, each in keys.items():
            self._known.setdefault(name, {}).update({(key.domain, key.selector): key for key in each})
        self._verifiers = {name: Verifier(each.values()) for name, each in self._known.items()}
        self._keys = keys

    def selectors(self) -> dict[str, list[str]]:
        """What signs the mail of each institution: SELECTOR._domainkey.DOMAIN."""
        return {name: [f"{key.selector}._domainkey.{key.domain}" for key in keys] for name, keys in self._keys.items()}

    def sign(self, institution: str, header: bytes, body: bytes | memoryview) -> list[bytes]:
        """The DKIM-Signature fields, each with its CRLF; none when the institution has no key, or its mail no From
        field that could be vouched for.
        """
        keys = self._keys[institution]
        if not keys:
            return []
        try:
            domain = ascii_domain(headers.from_domains(header)[0])
        except (HeaderError, AddressError):
            return []
        return signatures(_nearest(keys, domain), header, body)

    def verify(self, institution: str, own_fields: bytes, original: bytes, count: int, start: int = 0) -> None:
        """Verifies the first `count` signatures of a message as it leaves. Raises BadSignature."""
        self._verifiers[institution].verify(own_fields, original, count, start)


def signatures(keys: Sequence[SigningKey], header: bytes, body: bytes | memoryview) -> list[bytes]:
    """The DKIM-Signature fields, each with its CRLF, of a message given as header section and body."""
    fields = [(name.encode("ascii"), value + b"\r\n") for name, value in headers.fields(header)]
    names = _names_to_sign([name for name, _ in fields])
    listed = _folded(b":".join([*names, *_ONCE_MORE]), b":")  # what is absent adds nothing to the hash
    canonical, hashed = _RELAXED.canonicalize_headers(fields), base64.b64encode(body_hash(body))
    made = []
    for key in keys:
        now = int(time.time())
        expiry = b"" if key.expires_after is None else b" x=%d;" % (now + key.expires_after)
        tags = b"\r\n\t".join(
            [
                b"v=1; a=%s-sha256; c=relaxed/relaxed; d=%s;" % (key.kind.encode("ascii"), key.domain.encode("ascii")),
                b"s=%s; t=%d;%s" % (key.selector.encode("ascii"), now, expiry),
                b"h=%s;" % listed,
                b"bh=%s;" % hashed,
                b"b=",
            ]
        )
        digest = hashlib.sha256()
        dkim.hash_headers(digest, _RELAXED, canonical, names, (b"DKIM-Signature", b" " + tags), {})
        made.append(b"DKIM-Signature: " + tags + _folded(base64.b64encode(key.sign(digest.digest())), b"") + b"\r\n")
    return made


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
    """Names of the fields to sign, each as often as it occurs."""
    return [name for name in _SIGNED for _ in range(present.count(name))]


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


def _nearest(keys: list[SigningKey], domain: str) -> list[SigningKey]:
    """The keys of the longest domain that aligns with the From domain, or of the institution's first key where none
    does: the first of each kind, RSA before Ed25519, which not every receiver reads.
    """
    aligned = [key for key in keys if domain == key.domain or domain.endswith("." + key.domain)]
    longest = max(aligned, key=lambda key: len(key.domain)) if aligned else keys[0]
    first = {key.kind: key for key in reversed(keys) if key.domain == longest.domain}
    return [first[kind] for kind in ("rsa", "ed25519") if kind in first]
