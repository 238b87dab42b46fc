"""The DKIM record of a key: what it must be, and whether what is published verifies our signatures (RFC 6376 3.6.1,
RFC 8463 4 for Ed25519).
"""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from relay.dns.answers import Answers
from relay.dns.findings import Finding, Record, Verdict
from relay.dns.tags import read_tags
from relay.errors import DnsError
from relay.mail.status import printable

PublicKey = RSAPublicKey | Ed25519PublicKey

GOOD_BITS = 2048
"""RFC 8301 3.2: signers should use RSA keys of at least so many."""


def key_record(domain: str, selector: str, key: PublicKey) -> Record:
    """The record to publish for a key."""
    return Record(f"{selector}._domainkey.{domain}", "TXT", key_text(key))


def key_text(key: PublicKey) -> str:
    """What the record of a key says."""
    return f"v=DKIM1; k={_kind(key)}; p={base64.b64encode(_raw(key)).decode('ascii')}"


async def check_key(answers: Answers, domain: str, selector: str, key: PublicKey) -> Finding:
    """Whether the DNS has the key with which we sign."""
    record = key_record(domain, selector, key)
    must = f"our public key ({f'RSA, {key.key_size} bits' if isinstance(key, RSAPublicKey) else 'Ed25519'})"
    try:
        texts = await answers.texts(record.name, "TXT")
    except DnsError as error:
        return Finding("dkim", record.name, must, str(error), "unknown")
    verdict, says, advice = judge_record(texts, key)
    return Finding("dkim", record.name, must, says, verdict, advice, record if verdict == "wrong" else None)


def judge_record(texts: tuple[str, ...], key: PublicKey) -> tuple[Verdict, str, str]:
    """What TXT records at the name of a key are worth, what they say in words, and what to do about them."""
    if not texts:
        return "wrong", "no record", "publish it: without it every signature fails"
    if len(texts) > 1:
        return (
            "wrong",
            f"{len(texts)} TXT records",
            "leave one: which one a verifier takes is chance (RFC 6376 3.6.2.2)",
        )
    try:
        tags = read_tags(texts[0])
        fault = _fault(tags, key)
    except DnsError as error:
        return "wrong", printable(str(error), 200), "replace it"
    if fault:
        return "wrong", *fault
    if "y" in _words(tags.get("t", "")):
        return "warn", "our key, with t=y", "take t=y out: a verifier may treat letters as if they were not signed"
    if isinstance(key, RSAPublicKey) and key.key_size < GOOD_BITS:
        return "warn", "our key", f"make a new one with {GOOD_BITS} bits (slip-relay dkim keygen)"
    return "ok", "our key", ""


def _fault(tags: dict[str, str], key: PublicKey) -> tuple[str, str] | None:
    """What keeps a verifier from using the record, and what to do; None for nothing. Raises DnsError."""
    if "v" in tags and (tags["v"] != "DKIM1" or next(iter(tags)) != "v"):
        return f"v={printable(tags['v'], 40)}", "v=DKIM1 has to come first, if it is there at all"
    if "p" not in tags:
        return "no p=", "replace it: there is no key in it"
    if not tags["p"]:
        return "an empty p=: the key is revoked", "publish the key, or sign with another one (institutions.dkim)"
    if (kind := tags.get("k", "rsa").lower()) != _kind(key):
        return f"k={printable(kind, 40)}", f"our key is k={_kind(key)}"
    if "h" in tags and "sha256" not in _words(tags["h"]):
        return f"h={printable(tags['h'], 40)}", "we sign with sha256: take h= out"
    if "s" in tags and not {"*", "email"} & set(_words(tags["s"])):
        return f"s={printable(tags['s'], 40)}", "it is not for mail: take s= out"
    try:
        published = base64.b64decode("".join(tags["p"].split()), validate=True)
        is_ours = _read(published, key) == _raw(key)
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        raise DnsError("p= can't be read as a key") from None
    if not is_ours:
        return "another key", "publish ours, or name the key_file that belongs to it (institutions.dkim)"
    return None


def _kind(key: PublicKey) -> str:
    return "rsa" if isinstance(key, RSAPublicKey) else "ed25519"


def _raw(key: PublicKey) -> bytes:
    """A key as p= has it."""
    if isinstance(key, RSAPublicKey):
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _read(published: bytes, key: PublicKey) -> bytes:
    """What is published, in the form of `_raw`: an RSA key may be a bare RSAPublicKey as well (RFC 6376 3.6.1).

    Raises ValueError or UnsupportedAlgorithm when it is no key.
    """
    if isinstance(key, RSAPublicKey):
        return load_der_public_key(published).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Ed25519PublicKey.from_public_bytes(published).public_bytes(Encoding.Raw, PublicFormat.Raw)


def _words(value: str) -> list[str]:
    return [word.strip().lower() for word in value.split(":")]
