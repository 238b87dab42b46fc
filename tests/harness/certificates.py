"""Certificates for tests: an authority, what it signs, and what signs itself. Worthless elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


@dataclass(frozen=True, slots=True)
class Made:
    """A certificate and its key, in files."""

    certificate: Path
    key: Path
    read: x509.Certificate
    signing_key: ec.EllipticCurvePrivateKey

    @property
    def sha256(self) -> str:
        """The fingerprint, as a source names it."""
        return f"sha256:{self.read.fingerprint(hashes.SHA256()).hex()}"


def make(
    folder: Path,
    name: str,
    *,
    names: Sequence[str] = (),
    signed_by: Made | None = None,
    is_authority: bool = False,
    signs: bool | None = None,
    days: float = 30.0,
) -> Made:
    """Write NAME.pem and NAME.key; without `signed_by` it signs itself. What was there is replaced at one stroke.

    It is for `names`, or without any for its own. `signs` is said of its key, unless it is None.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = signed_by.read.subject if signed_by is not None else subject
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names or (name,)]), False)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), True)
    )
    if signs is not None:
        usage = dict.fromkeys(_USES, False) | {"key_cert_sign": signs, "digital_signature": True}
        builder = builder.add_extension(x509.KeyUsage(**usage), True)
    read = builder.sign(signed_by.signing_key if signed_by is not None else key, hashes.SHA256())
    made = Made(folder / f"{name}.pem", folder / f"{name}.key", read, key)
    _replace(made.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    _replace(made.certificate, read.public_bytes(Encoding.PEM))
    return made


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(content)
    os.replace(fresh, path)
