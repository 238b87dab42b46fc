"""The server side of TLS on a listener: its certificate, taken anew when its files change, and client certificates.

Promises: TLS 1.2 and 1.3 with forward secrecy only (RFC 9325); a certificate that can't be used never takes the place
of one that works; what is open goes on with the certificate it began with. A connection costs some 60 KiB.
Known limit: OpenSSL refuses the handshake of a client whose certificate it can't verify, where it asks for one.
"""

from __future__ import annotations

import hashlib
import ssl
import time
from asyncio import sslproto
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.config.listeners import Listener
from relay.errors import StartError
from relay.maillog import MailLog
from relay.stamps import Stamp, stamp_of

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2 (RFC 9325 4.2); those of TLS 1.3 are all good."""

DAY = 86400.0

# asyncio reserves this for each connection, 256 KiB as it comes: a thousand idle ones are a quarter of a gigabyte then.
sslproto.SSLProtocol.max_size = 32 * 1024


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is told of a server certificate."""

    name: str
    ends_at: float
    "Seconds since the epoch."

    def in_words(self, now: float) -> str:
        """Name and end, for a person."""
        day = time.strftime("%Y-%m-%d", time.gmtime(self.ends_at))
        left = (self.ends_at - now) / DAY
        return f"{self.name} ended on {day}" if left < 0 else f"{self.name} ends on {day}, in {left:.0f} days"


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A client certificate that was verified: all the names that a source may know it by."""

    names: frozenset[str]

    @classmethod
    def of(cls, der: bytes) -> ClientCertificate:
        """That of a certificate in DER. Raises ValueError when it can't be read."""
        read = x509.load_der_x509_certificate(der)
        spki = read.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        names = {
            f"sha256:{hashlib.sha256(der).hexdigest()}",
            f"spki:{hashlib.sha256(spki).hexdigest()}",
            f"subject:{read.subject.rfc4514_string()}",
        }
        return cls(frozenset(names | {f"dns:{name.lower()}" for name in _dns_names(read)}))


class ServerTls:
    """TLS of one listener that has a certificate."""

    def __init__(self, listener: Listener, maillog: MailLog, warn_before: float) -> None:
        """Raises StartError when the certificate can't be used."""
        self._listener = listener
        self._maillog = maillog
        self._warn_before = warn_before
        self._warned_at = float("-inf")
        self._tried = _stamp(listener)
        self.context = server_context(listener)
        self.certificate = certificate_of(listener)

    def look(self, now: float) -> None:
        """Takes the certificate anew when its files have changed; warns of its end."""
        stamp = _stamp(self._listener)
        if stamp != self._tried:
            self._tried = stamp
            self._reload()
        self._tell_end(now)

    def _reload(self) -> None:
        name = self._listener.name
        try:
            self.context, self.certificate = server_context(self._listener), certificate_of(self._listener)
        except StartError as error:
            self._maillog.certificate(name, what="kept", subject=self.certificate.name, why=str(error))
            return
        self._warned_at = float("-inf")
        self._maillog.certificate(name, what="taken", subject=self.certificate.name)

    def _tell_end(self, now: float) -> None:
        ends_at = self.certificate.ends_at
        self._maillog.metrics.certificate_ends.labels(self._listener.name).set(ends_at)
        if ends_at - now <= self._warn_before and now - self._warned_at >= DAY:
            self._warned_at = now
            what = "ends" if ends_at > now else "ended"
            self._maillog.certificate(
                self._listener.name, what=what, subject=self.certificate.name, why=self.certificate.in_words(now)
            )


def server_context(listener: Listener) -> ssl.SSLContext:
    """The context of a listener that has a certificate. Raises StartError when a file is unusable."""
    assert listener.tls_certificate is not None, "the configuration was checked"
    assert listener.tls_key is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    file = listener.tls_certificate
    try:
        context.load_cert_chain(file, listener.tls_key)
        if listener.client_ca is not None:
            file = listener.client_ca
            context.load_verify_locations(file)
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the file may name the client's certificate itself
            required = listener.client_certificates == "required"
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"the listener {listener.name} can't use the certificate {file}: {error}") from None
    return context


def certificate_of(listener: Listener) -> Certificate:
    """What is told of a listener's certificate. Raises StartError when it can't be read."""
    assert listener.tls_certificate is not None, "the configuration was checked"
    try:
        return certificate_in(listener.tls_certificate)
    except StartError as error:
        raise StartError(f"the listener {listener.name} can't use {error}") from None


def certificate_in(file: Path) -> Certificate:
    """What is told of the first certificate in a PEM file. Raises StartError when it can't be read."""
    try:
        read = x509.load_pem_x509_certificates(file.read_bytes())[0]
        names = _dns_names(read) or [read.subject.rfc4514_string()]
    except (OSError, ValueError) as error:
        raise StartError(f"the certificate {file}: {error}") from None
    return Certificate(names[0], read.not_valid_after_utc.timestamp())


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)


def _stamp(listener: Listener) -> Stamp:
    return stamp_of((listener.tls_certificate, listener.tls_key, listener.client_ca))
