"""How a session with a host begins: connection, greeting, TLS as the policy asks, AUTH as configured.

Promises: where the policy asks something of TLS there is no session without it. A failure leaves nothing open.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from dataclasses import dataclass

import aiosmtplib

from relay.config.next_hops import NextHop
from relay.errors import StartError
from relay.mail.status import Reply, printable
from relay.maillog import MailLog
from relay.transports.contexts import Contexts
from relay.transports.dialogue import Dialogue
from relay.transports.login import Login, LoginRefused, NoSuchLogin, StaleToken
from relay.transports.targets import Target
from relay.transports.tls_policy import Start, TlsPolicy, UnwantedCertificate
from relay.transports.tokens import Credential

ENDED = "it ended the session after the TLS handshake; perhaps it wants a client certificate, or another one"
"""With TLS 1.3 this is how a host refuses our certificate (RFC 8446 4.4.2.4 comes after our side is done)."""


class NoSession(Exception):
    """A target with which there is no session; the text says why, and is fit for a person."""


class SessionRefused(NoSession):
    """The host said no before the first transaction."""

    def __init__(self, text: str, reply: Reply) -> None:
        super().__init__(text)
        self.reply = reply


class _BrokenTls(Exception):
    """STARTTLS was offered, and did not lead to TLS."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that is ready for a transaction."""

    dialogue: Dialogue
    security: str
    "How it is encrypted, for the log."


class Opener:
    """Opens the sessions of one next hop."""

    def __init__(self, hop: NextHop, hostname: str, maillog: MailLog) -> None:
        self._hop = hop
        self._hostname = hostname
        self._contexts = Contexts(hop, maillog)
        self._login = Login(hop, hop.username, maillog) if hop.username is not None else None

    async def open(self, target: Target) -> Opened:
        """A session with a target. Raises NoSession, and CredentialsMissing when we have not what it wants to see."""
        try:
            try:
                client = await self._open(target)
            except StaleToken:
                client = await self._open(target)
        except LoginRefused as error:
            look_at = "password" if self._hop.token is None else "token"
            reason = f"{target} refused our login: {error}; look at username and {look_at} of {self._hop.name}"
            raise SessionRefused(reason, error.reply) from None
        except NoSuchLogin as error:
            raise NoSession(f"there is no login at {target}: {error}") from None
        except UnwantedCertificate as error:
            raise NoSession(f"{target} can't be trusted: {error}") from None
        except aiosmtplib.SMTPResponseException as error:
            reply = Reply.parse(error.code, error.message)
            raise SessionRefused(f"{target} refused the session: {reply}", reply) from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise NoSession(_in_words(target, error)) from None
        if not isinstance(client.transport, asyncio.Transport):
            raise NoSession(f"{target} can't be reached: the connection was lost")
        security = _security(client, target.tls)
        return Opened(Dialogue(client.transport, frozenset(client.esmtp_extensions)), security)

    async def _open(self, target: Target) -> aiosmtplib.SMTP:
        # Had before the connection, so that no host waits for it.
        credential = await self._login.credential() if self._login is not None else None
        start = target.tls.start
        if start is not Start.IF_OFFERED:
            return await self._open_as(target, start, credential)
        try:
            return await self._open_as(target, start, credential)
        except _BrokenTls:
            # A peer whose TLS is broken is no worse than one that has none (RFC 7435 3).
            return await self._open_as(target, Start.NEVER, credential)

    async def _open_as(self, target: Target, start: Start, credential: Credential | None) -> aiosmtplib.SMTP:
        context = self._contexts.of(target.tls) if start is not Start.NEVER else None
        client = aiosmtplib.SMTP(
            hostname=target.tls.server_name or target.name,
            sock=await self._connect(target),
            local_hostname=self._hostname,
            timeout=self._hop.timeout,
            use_tls=start is Start.FIRST,
            start_tls=False,
            tls_context=context,
        )
        try:
            await client.connect()
            if start is not Start.FIRST:
                await _greet(client)
            if start is Start.ALWAYS:
                await client.starttls()
            elif start is Start.IF_OFFERED and client.supports_extension("starttls"):
                try:
                    await client.starttls()
                    await _greet(client)
                except (aiosmtplib.SMTPException, OSError) as error:
                    raise _BrokenTls from error
            if target.tls.is_verified:
                _verify(client, target.tls)
            await _greet_again(client)
            if self._login is not None and credential is not None:
                await self._login.log_in(client, str(target), credential)
        except BaseException:
            client.close()
            raise
        return client

    async def _connect(self, target: Target) -> socket.socket:
        connection = socket.socket(socket.AF_INET6 if target.is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            for source in self._hop.source_address:
                if (":" in source) is target.is_ipv6:
                    connection.bind((source, 0))
            async with asyncio.timeout(self._hop.timeout):
                await asyncio.get_running_loop().sock_connect(connection, (target.address, target.port))
        except TimeoutError:
            connection.close()
            raise TimeoutError(f"no answer for {self._hop.timeout:g} s") from None
        except BaseException:
            connection.close()
            raise
        return connection


def try_source(address: str) -> None:
    """Whether this machine can send from an address. Raises StartError."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as connection:
        try:
            connection.bind((address, 0))
        except OSError as error:
            raise StartError(f"nothing can be sent from {address}: {error.strerror}") from None


async def _greet(client: aiosmtplib.SMTP) -> None:
    """EHLO where it is due: at the start, and again after STARTTLS (RFC 3207 4.2)."""
    if not client.is_ehlo_or_helo_needed:
        return
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError:
        await client.helo()


async def _greet_again(client: aiosmtplib.SMTP) -> None:
    """EHLO where TLS has just begun; otherwise it has been said."""
    try:
        await _greet(client)
    except aiosmtplib.SMTPServerDisconnected:
        raise aiosmtplib.SMTPServerDisconnected(ENDED) from None


def _verify(client: aiosmtplib.SMTP, policy: TlsPolicy) -> None:
    """Whether the session is what its policy asks for; the handshake has asked the authorities already."""
    peer = client.get_transport_info("ssl_object")
    if not isinstance(peer, ssl.SSLObject):
        raise UnwantedCertificate("the session is not encrypted")
    for each in policy.checks:
        each.check(peer)


def _security(client: aiosmtplib.SMTP, policy: TlsPolicy) -> str:
    peer = client.get_transport_info("ssl_object")
    return f"{peer.version()}, {policy.name}" if isinstance(peer, ssl.SSLObject) else "in clear text"


def _in_words(target: Target, error: Exception) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"{target} can't be trusted: {printable(cause.verify_message, 300)}"
    if isinstance(error.__cause__, aiosmtplib.SMTPServerDisconnected) and target.tls.start is Start.FIRST:
        why = ENDED
    elif isinstance(cause, ssl.SSLError):
        why = f"TLS failed, {(cause.reason or 'UNKNOWN').replace('_', ' ').lower()}"
    elif isinstance(cause, OSError) and cause.errno is not None:
        why = os.strerror(cause.errno)
    else:
        why = printable(str(cause), 300) or type(cause).__name__
    return f"{target} can't be reached: {why}"
