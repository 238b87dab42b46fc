"""Whether the certificates of a host are those of its TLSA records (RFC 7671, RFC 7672 3).

Does: compares the host's own certificate with DANE-EE records, where neither names nor dates count, and looks among
those that it sent for the trust anchor of a DANE-TA record, from which a path has to lead to it, for one of the names.
Known limit: where a host publishes digests of two kinds, either is enough (RFC 7671 9 would take the stronger).
"""

from __future__ import annotations

import _ssl
import hashlib
import ssl
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from relay.dns.tlsa import Matching, Selector, Tlsa, Usage
from relay.transports.tls_policy import UnwantedCertificate


@dataclass(frozen=True, slots=True)
class DaneCheck:
    """The usable TLSA records of a host, and the names that a certificate under a trust anchor has to have one of."""

    records: tuple[Tlsa, ...]
    names: tuple[str, ...]

    def check(self, peer: ssl.SSLObject) -> None:
        """Looks at the certificates of a session that has just begun. Raises UnwantedCertificate."""
        try:
            leaf, *others = [x509.load_der_x509_certificate(each) for each in _sent(peer)]
        except ValueError:
            raise UnwantedCertificate("its certificate can't be read") from None
        if any(_fits(record, leaf) for record in self.records if record.usage is Usage.END_ENTITY):
            return
        anchors = [record for record in self.records if record.usage is Usage.TRUST_ANCHOR]
        trusted = [each for each in others if any(_fits(record, each) for record in anchors)]
        trusted += [each for each in map(_whole, anchors) if each is not None]
        if not trusted:
            raise UnwantedCertificate("its certificate is not one of its TLSA records")
        self._find_path(trusted, leaf, others)

    def _find_path(
        self, trusted: list[x509.Certificate], leaf: x509.Certificate, others: list[x509.Certificate]
    ) -> None:
        """A path from a trust anchor to the host's own certificate, for one of the names."""
        builder = PolicyBuilder().store(Store(trusted)).extension_policies(ca_policy=_AUTHORITY, ee_policy=_HOST)
        reason = ""
        for name in self.names:
            try:
                builder.build_server_verifier(x509.DNSName(name)).verify(leaf, others)
            except VerificationError as error:
                reason = str(error)
            else:
                return
        raise UnwantedCertificate(f"its certificate does not follow from its TLSA records: {reason}")


def _may_sign(_: Policy, __: x509.Certificate, extension: x509.ExtensionType | None) -> None:
    """Whether a key is for signing certificates, where it is said what it is for (RFC 5280 4.2.1.3)."""
    if isinstance(extension, x509.KeyUsage) and not extension.key_cert_sign:
        raise ValueError("its key is not for certificates")


# What public authorities have to put in besides is not asked of a private one, which DANE is for.
_AUTHORITY = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign)
)
_HOST = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)


def _sent(peer: ssl.SSLObject) -> list[bytes]:
    """The certificates that a host sent, its own first, in DER."""
    if hasattr(peer, "get_unverified_chain"):  # from Python 3.13 on
        return list(peer.get_unverified_chain())
    chain = peer._sslobj.get_unverified_chain() or []  # type: ignore[attr-defined]
    return [each.public_bytes(_ssl.ENCODING_DER) for each in chain]


def _fits(record: Tlsa, certificate: x509.Certificate) -> bool:
    if record.selector is Selector.CERTIFICATE:
        content = certificate.public_bytes(Encoding.DER)
    else:
        content = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    match record.matching:
        case Matching.FULL:
            return content == record.content
        case Matching.SHA256:
            return hashlib.sha256(content).digest() == record.content
        case Matching.SHA512:
            return hashlib.sha512(content).digest() == record.content


def _whole(record: Tlsa) -> x509.Certificate | None:
    """The trust anchor that stands in the record itself, which the host need not send."""
    if record.selector is not Selector.CERTIFICATE or record.matching is not Matching.FULL:
        return None
    try:
        return x509.load_der_x509_certificate(record.content)
    except ValueError:
        return None
