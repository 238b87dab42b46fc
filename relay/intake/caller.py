"""Who is at the other end of a connection."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

from relay.intake.tls import ClientCertificate


@dataclass(frozen=True, slots=True)
class Caller:
    """A client: its address (by a load balancer's word where there is one) and its verified certificate."""

    address: str
    certificate: ClientCertificate | None = None


def caller_on(transport: asyncio.BaseTransport, address: str) -> Caller:
    """The client of that address on a transport, with the certificate it has shown there."""
    tls = transport.get_extra_info("ssl_object")
    if not isinstance(tls, ssl.SSLObject | ssl.SSLSocket):
        return Caller(address)
    der = tls.getpeercert(binary_form=True)  # there is one only where it was asked for, and then it was verified
    try:
        return Caller(address, ClientCertificate.of(der) if der else None)
    except ValueError:
        return Caller(address)
