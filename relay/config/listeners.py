"""The settings of listeners, and of TLS on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from relay.config.kinds import Duration, IpAddress, Name, Network, Port, Settings, is_file


class Listener(Settings):
    """One address and port that takes mail."""

    name: Name
    address: IpAddress = "0.0.0.0"  # noqa: S104 - an SMTP server listens to the world; policy is by source
    "IP address to listen on; `::` listens on IPv6."
    port: Port
    kind: Literal["relay", "submission"] = "relay"
    "`relay` is for known clients (port 25); `submission` takes nothing without AUTH (ports 587 and 465)."
    tls: Literal["starttls", "implicit"] = "starttls"
    "`starttls` offers STARTTLS when there is a certificate; `implicit` begins with TLS (RFC 8314, port 465)."
    tls_certificate: Path | None = None
    "PEM file with the certificate chain."
    tls_key: Path | None = None
    "PEM file with the private key of that certificate."
    client_ca: Path | None = None
    """PEM file with the authorities (or the certificates themselves) that client certificates are verified by; clients
    are asked for one when it is set.
    """
    client_certificates: Literal["optional", "required"] = "optional"
    "Whether a client without a verified certificate may send; asked only where client_ca is set."
    proxy_protocol_from: tuple[Network, ...] = ()
    """Load balancers, which say by a PROXY header (version 2) who the client is. Connections from there without one
    are closed.
    """

    @model_validator(mode="after")
    def _tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if self.tls_certificate is None:
            if self.kind == "submission":
                raise ValueError(
                    "a submission listener needs tls_certificate and tls_key: passwords travel over TLS only"
                )
            if self.tls == "implicit":
                raise ValueError('tls = "implicit" needs tls_certificate and tls_key')
            if self.client_ca is not None:
                raise ValueError(
                    "client certificates travel over TLS only: client_ca needs tls_certificate and tls_key"
                )
        if self.client_ca is None and self.client_certificates == "required":
            raise ValueError('client_certificates = "required" needs client_ca, by which they are verified')
        for path in (self.tls_certificate, self.tls_key, self.client_ca):
            if path is not None and not is_file(path):
                raise ValueError(f"the file {path} does not exist")
        return self


class Tls(Settings):
    """TLS on all listeners."""

    handshake_timeout: Annotated[Duration, Field(gt=0)] = 20.0
    "A client that has not ended its handshake (or sent its PROXY header) by then is gone."
    look_every: Annotated[Duration, Field(ge=0.2)] = 60.0
    "How often the files of certificates are looked at; changed ones are taken without a restart. SIGHUP looks at once."
    warn_before: Duration = 14 * 86400.0
    "The log warns of a certificate that ends within this time, once a day."
