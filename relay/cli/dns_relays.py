"""The smarthosts of an institution as `relay.dns.relay_check` looks at them."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from relay.config.institutions import Institution
from relay.config.next_hops import NextHop
from relay.config.settings import Config
from relay.dns.answers import Answers
from relay.dns.findings import Finding
from relay.dns.relay_check import Way, check_relay
from relay.errors import StartError
from relay.mail.address import ascii_domain


async def relay_findings(
    config: Config, institution: Institution, hop: NextHop, envelope: str, answers: Answers
) -> list[Finding]:
    """What Microsoft 365 or Google ask for, where the hop leads to them. Raises StartError for a certificate that can't
    be read.
    """
    findings: list[Finding] = []
    for host, port in hop.smarthosts:
        way = Way(
            host=host.lower().removesuffix("."),
            port=port,
            is_encrypted=hop.tls not in ("none", "opportunistic"),
            username=hop.username,
            has_token=hop.token is not None,
            sends_from=hop.sends_from,
            certificate=_names_in(hop.client_certificate) if hop.client_certificate is not None else (),
            ehlo=ascii_domain(config.server.hostname),
            envelope=envelope,
            mailbox=institution.envelope_from if "@" in institution.envelope_from else None,
            domains=tuple(ascii_domain(domain) for domain in institution.domains),
        )
        findings += await check_relay(answers, way)
    return findings


def _names_in(file: Path) -> tuple[str, ...]:
    """The names of the first certificate in a PEM file: what it says in its subject, and the alternatives."""
    try:
        certificate = x509.load_pem_x509_certificates(file.read_bytes())[0]
        common = [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except (OSError, ValueError) as error:
        raise StartError(f"the certificate {file}: {error}") from None
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return tuple(common)
    return tuple(dict.fromkeys([*common, *others.get_values_for_type(x509.DNSName)]))
