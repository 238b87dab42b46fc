"""How a session with a host is encrypted, and what its certificate has to be: one frozen policy for each target.

Promises: a policy that asks something of the certificate is never met by a session without TLS, nor by one whose
certificate is another. TLS 1.2 and 1.3 only.
"""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.config.next_hops import NextHop
from relay.errors import StartError


class UnwantedCertificate(Exception):
    """The host's certificate is not what the policy asks for; the text says why."""


class Start(StrEnum):
    """When TLS begins."""

    NEVER = "never"
    IF_OFFERED = "if offered"
    "By STARTTLS; without it, or where it fails, in clear text (RFC 7435)."
    ALWAYS = "always"
    "By STARTTLS, or there is no session."
    FIRST = "first"
    "Before the first word (RFC 8314 3)."


@dataclass(frozen=True, slots=True)
class Authorities:
    """Who has to have signed the certificate, and for the host's name: those of the system, or of a PEM file."""

    file: Path | None = None


class Check(Protocol):
    """One thing that the certificate has to be besides; hashable, for it is part of the policy."""

    def check(self, peer: ssl.SSLObject) -> None:
        """Looks at the certificate of a session that has just begun. Raises UnwantedCertificate."""
        ...


@dataclass(frozen=True, slots=True)
class Pins:
    """The certificate, or its key, is one of these: `sha256:HEX` of the certificate, `spki:HEX` of its public key."""

    fingerprints: frozenset[str]

    def check(self, peer: ssl.SSLObject) -> None:
        """Raises UnwantedCertificate where it is none of them."""
        found = fingerprints(peer.getpeercert(binary_form=True) or b"")
        if not self.fingerprints & set(found):
            raise UnwantedCertificate(f"its certificate is not a pinned one; it is {' and '.join(found)}")


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """What is asked of a session; the name is what it is called in the log."""

    start: Start
    name: str
    authorities: Authorities | None = None
    "None where nobody has to have signed the certificate."
    checks: tuple[Check, ...] = field(default=())
    "What it has to be besides; each is asked, after the handshake."
    server_name: str = ""
    "The name that is asked for (SNI), and that the certificate is for; without it the name of the host."

    @classmethod
    def of(cls, hop: NextHop) -> TlsPolicy:
        """What the configuration says. Pins alone are enough; where `ca_file` is named too, both are asked for."""
        if not hop.is_verified:
            start = {"none": Start.NEVER, "opportunistic": Start.IF_OFFERED, "encrypted": Start.ALWAYS}[hop.tls]
            return cls(start, hop.tls)
        start = Start.FIRST if hop.tls == "implicit" else Start.ALWAYS
        if not hop.pins:
            return cls(start, "verified", Authorities(hop.ca_file))
        authorities = Authorities(hop.ca_file) if hop.ca_file is not None else None
        return cls(start, "pinned", authorities, (Pins(frozenset(hop.pins)),))

    @property
    def is_verified(self) -> bool:
        """Whether it asks something of the certificate."""
        return self.authorities is not None or bool(self.checks)

    def context(self) -> ssl.SSLContext:
        """The client side of TLS. Raises StartError when the authorities can't be used."""
        if self.authorities is None:  # against listeners only; any certificate is better than none (RFC 7435)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            file = self.authorities.file
            try:
                context = ssl.create_default_context(cafile=file)
                if file is not None:  # it may name the host's own certificate, or an authority below the topmost
                    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            except (OSError, ssl.SSLError) as error:
                raise StartError(f"the authorities in {file} can't be used: {error}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


def fingerprints(der: bytes) -> tuple[str, str]:
    """How pins name a certificate: by all of it, and by its key. Raises UnwantedCertificate when it can't be read."""
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except ValueError:
        raise UnwantedCertificate("its certificate can't be read") from None
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(der).hexdigest()}", f"spki:{hashlib.sha256(spki).hexdigest()}"
