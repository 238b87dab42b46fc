"""What Microsoft 365 and Google ask of a server that relays by them, as far as DNS and configuration can tell.

Both take mail of strangers to nobody but their own customers. Whether it is a customer's they tell by the domain of the
Envelope-From, by the certificate that the server shows, or by the mailbox that logs in; mail of which neither can be
told is refused (Microsoft: 550 5.7.64, Google: 550 5.7.1), DSNs first, whose Envelope-From is empty.
Known limit: what is set in their administration pages can't be seen from here. The DNS shows whether a domain is
one of theirs by its MX, or by the record that proved it to them, which may have been removed since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from relay.dns.answers import Answers
from relay.dns.findings import Finding, Verdict
from relay.errors import DnsError

Provider = Literal["Microsoft 365", "Google"]

_MX: dict[Provider, tuple[str, ...]] = {
    "Microsoft 365": (".mail.protection.outlook.com", ".mx.microsoft"),
    "Google": (".google.com", ".googlemail.com"),
}
_PROOF: dict[Provider, str] = {"Microsoft 365": "ms=", "Google": "google-site-verification="}
_SPF: dict[Provider, str] = {"Microsoft 365": "spf.protection.outlook.com", "Google": "_spf.google.com"}
_MAILBOX_HOSTS: dict[str, Provider] = {
    "smtp.office365.com": "Microsoft 365",
    "smtp-legacy.office365.com": "Microsoft 365",
    "smtp.gmail.com": "Google",
}


@dataclass(frozen=True, slots=True)
class Way:
    """How an institution's mail goes by a smarthost."""

    host: str
    port: int
    is_encrypted: bool
    username: str | None
    has_token: bool
    "Whether it logs in by an access token (XOAUTH2)."
    sends_from: tuple[str, ...]
    certificate: tuple[str, ...]
    "Names in the client certificate that is shown; none without one."
    ehlo: str
    envelope: str
    "Domain of the Envelope-From."
    mailbox: str | None
    "The Envelope-From, where it is one fixed mailbox."
    domains: tuple[str, ...]
    "From domains of the institution."

    @property
    def is_mailbox_host(self) -> bool:
        """Whether the host is one at which a mailbox logs in, and not a relay."""
        return self.host in _MAILBOX_HOSTS

    @property
    def provider(self) -> Provider | None:
        """Whose host it is; None for any other."""
        if self.host.endswith((".mail.protection.outlook.com", ".mx.microsoft")):
            return "Microsoft 365"
        return "Google" if self.host == "smtp-relay.gmail.com" else _MAILBOX_HOSTS.get(self.host)


async def check_relay(answers: Answers, way: Way) -> list[Finding]:
    """What the host asks for; nothing where it is neither of Microsoft nor of Google."""
    provider = way.provider
    if provider is None:
        return []
    findings = [_reached(way), _spf_name(way, provider)]
    if way.is_mailbox_host:
        return [*findings, _mailbox(way), _login(way)]
    findings.append(await _accepted(answers, way, provider))
    findings.append(_certificate(way) if provider == "Microsoft 365" else _greeting(way))
    return findings


def _finding(way: Way, must: str, says: str, verdict: Verdict, advice: str = "") -> Finding:
    return Finding("relay", way.host, must, says, verdict, "" if verdict == "ok" else advice)


def _reached(way: Way) -> Finding:
    """Port and TLS."""
    ports: tuple[int, ...] = (25,) if way.provider == "Microsoft 365" and not way.is_mailbox_host else (587, 465)
    if way.host == "smtp-relay.gmail.com":
        ports = (587, 465, 25)
    if way.host.endswith("office365.com"):
        ports = (587,)
    must = f"port {' or '.join(map(str, ports))}, with TLS"
    says = f"port {way.port}, {'with TLS' if way.is_encrypted else 'TLS not asked for'}"
    is_good = way.port in ports and way.is_encrypted
    advice = f'set port = {ports[0]} and tls = "required" for this next hop'
    return _finding(way, must, says, "ok" if is_good else "wrong" if way.port not in ports else "warn", advice)


def _spf_name(way: Way, provider: Provider) -> Finding:
    """Its hosts that send are others than the one that takes the mail, so SPF has to be judged for those."""
    name = _SPF[provider]
    is_named = name in way.sends_from
    advice = f'set sends_from = ["{name}"], so that SPF is judged for the addresses that mail leaves from'
    says = f"sends_from is {', '.join(way.sends_from) or 'not set'}"
    return _finding(way, f"sends_from names {name}", says, "ok" if is_named else "warn", advice)


async def _accepted(answers: Answers, way: Way, provider: Provider) -> Finding:
    """Whether the Envelope-From is of a domain that the provider knows as ours."""
    must = f"{way.envelope} is a domain of your account"
    page = (
        "Accepted domains in the Exchange admin center"
        if provider == "Microsoft 365"
        else "Domains in the admin console"
    )
    parents = [each for each in way.domains if way.envelope.endswith(f".{each}")]
    try:
        signs = {each: await _sign(answers, each, provider) for each in (way.envelope, *parents)}
    except DnsError as error:
        return _finding(way, must, str(error), "unknown")
    if signs[way.envelope]:
        return _finding(way, must, signs[way.envelope], "ok")
    if parent := next((each for each in parents if signs[each]), ""):
        advice = f"add {way.envelope} there ({page}), or let {parent} stand for its subdomains: else mail is refused"
        return _finding(way, must, f"{parent} is one; of {way.envelope} the DNS does not say so", "warn", advice)
    advice = f"see that it stands there ({page}): mail from a domain of nobody's is refused"
    return _finding(way, must, f"nothing in the DNS of {way.envelope} says that it is", "warn", advice)


async def _sign(answers: Answers, domain: str, provider: Provider) -> str:
    """What in the DNS of a domain says that the provider has it; "" for nothing. Raises DnsError."""
    for host in await answers.texts(domain, "MX"):
        if f".{host.lower()}".endswith(_MX[provider]):
            return f"its MX is {host}"
    for text in await answers.texts(domain, "TXT"):
        if text.lower().startswith(_PROOF[provider]):
            return f"it was proved to {provider} (TXT {text.partition('=')[0]}=)"
    return ""


def _certificate(way: Way) -> Finding:
    """DSNs and notices have no Envelope-From: whose they are the certificate alone says."""
    must = "a client certificate with a name of your account's domains"
    if not way.certificate:
        advice = (
            "DSNs and notices have an empty Envelope-From, and are refused without it (5.7.64): set "
            "client_certificate, and let the connector in the Exchange admin center go by that name"
        )
        return _finding(way, must, "no client certificate", "warn", advice)
    says = ", ".join(way.certificate[:5])
    is_good = any(_is_in(name, way.domains) for name in way.certificate)
    advice = f"take one whose name is in {' or '.join(way.domains)}, which has to be an accepted domain"
    return _finding(way, must, says, "ok" if is_good else "wrong", advice)


def _greeting(way: Way) -> Finding:
    """Where the Envelope-From is empty, Google goes by who logs in, or by the name in EHLO."""
    must = "a login, or a name of your domains in EHLO, for DSNs"
    if way.username is not None:
        return _finding(way, must, f"login as {way.username}", "ok")
    advice = f"let server.hostname be a name in {' or '.join(way.domains)}: DSNs have an empty Envelope-From"
    return _finding(way, must, way.ehlo, "ok" if _is_in(way.ehlo, way.domains) else "wrong", advice)


def _mailbox(way: Way) -> Finding:
    """At these hosts a person's mailbox sends, and nobody else."""
    must = "the Envelope-From is the mailbox that logs in"
    relay = "smtp-relay.gmail.com" if way.provider == "Google" else "a connector (MX-NAME.mail.protection.outlook.com)"
    if way.mailbox is None:
        own = way.username or "MAILBOX"
        advice = f'other addresses are refused or replaced: set envelope_from = "{own}", or go by {relay}'
        return _finding(way, must, f"other addresses, at {way.envelope}", "wrong", advice)
    is_same = way.username is not None and way.mailbox.lower() == way.username.lower()
    rights = f"to send as {way.mailbox} and as the From addresses of letters"
    advice = f"{way.username} needs the right {rights}; or go by {relay}"
    return _finding(way, must, way.mailbox, "ok" if is_same else "warn", advice)


def _login(way: Way) -> Finding:
    must = "a login by XOAUTH2" if way.provider == "Microsoft 365" else "a login, and few letters"
    if way.username is None:
        return _finding(way, must, "no login", "wrong", "set username, and token or password, of this next hop")
    if way.provider == "Microsoft 365" and not way.has_token:
        advice = 'Microsoft is doing away with passwords at this host: use a token (auth = "xoauth2")'
        return _finding(way, must, "a password", "warn", advice)
    if way.provider == "Google":
        advice = "it is made for one person, 2,000 letters a day: smtp-relay.gmail.com is for servers"
        return _finding(way, must, f"login as {way.username}", "warn", advice)
    return _finding(way, must, f"a token for {way.username}", "ok")


def _is_in(name: str, domains: Sequence[str]) -> bool:
    bare = name.lower().removeprefix("*.")
    return any(bare == domain or bare.endswith(f".{domain}") for domain in domains)
