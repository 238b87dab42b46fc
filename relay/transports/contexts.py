"""The client side of TLS for one next hop, made once and again when its files change: authorities, our certificate.

Promises: files that can't be used never take the place of those that work.
"""

from __future__ import annotations

import ssl

from relay.config.next_hops import NextHop
from relay.errors import CredentialsMissing, StartError
from relay.maillog import MailLog
from relay.stamps import Stamp, stamp_of
from relay.transports.tls_policy import Authorities, TlsPolicy


class Contexts:
    """Those of one next hop, by what they trust: to make one takes 20 ms where it is the system's authorities."""

    def __init__(self, hop: NextHop, maillog: MailLog) -> None:
        self._hop = hop
        self._maillog = maillog
        self._made: dict[Authorities | None, tuple[Stamp, ssl.SSLContext]] = {}

    def of(self, policy: TlsPolicy) -> ssl.SSLContext:
        """The context for a policy. Raises CredentialsMissing when its files, or ours, can't be used."""
        stamp, made = self._stamp(), self._made.get(policy.authorities)
        if made is not None and made[0] == stamp:
            return made[1]
        try:
            context = client_context(self._hop, policy)
        except StartError as error:
            if made is None:
                raise CredentialsMissing(str(error)) from None
            context = made[1]
            self._maillog.service("next-hop-files-kept", next_hop=self._hop.name, why=error)
        self._made[policy.authorities] = (stamp, context)
        return context

    def _stamp(self) -> Stamp:
        hop = self._hop
        return stamp_of((hop.ca_file, hop.client_certificate, hop.client_key))


def client_context(hop: NextHop, policy: TlsPolicy) -> ssl.SSLContext:
    """A context with our certificate, where there is one. Raises StartError when a file can't be used."""
    context = policy.context()
    if hop.client_certificate is not None:
        try:
            context.load_cert_chain(hop.client_certificate, hop.client_key, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise StartError(
                f"the client certificate {hop.client_certificate} with the key {hop.client_key} can't be used: "
                f"{_in_words(error)}"
            ) from None
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; write it without a password, readable by the service only")


def _in_words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return "the key is that of another certificate"
    if isinstance(error, ssl.SSLError):
        return f"they are not PEM files of a certificate and its key ({error.reason or 'PEM lib'})"
    return str(error)
