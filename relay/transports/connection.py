"""Connections to next hops, kept for the next message (RFC 5321 4.1.4 allows many in one session).

A connection is lent to one attempt at a time. One that was idle longer than the setting, or that the peer closed, is
not lent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from dataclasses import dataclass

import aiosmtplib

from relay.config.next_hops import NextHop
from relay.transports.dialogue import Dialogue, Lost
from relay.transports.targets import Target
from relay.transports.tls_policy import Authorities, Start, TlsPolicy, UnwantedCertificate


@dataclass(slots=True)
class Connection:
    """An open session with a host; `kept` when it comes from an earlier transaction."""

    dialogue: Dialogue
    kept: bool = False
    data_begun: bool = False
    "Whether the message of this transaction may have been sent."
    idle_since: float = 0.0

    @property
    def is_stale(self) -> bool:
        """Whether its end says nothing about the mail: the peer ended a kept session before it saw the message."""
        return self.kept and not self.data_begun


class ConnectionPool:
    """The connections of one next hop, by target."""

    def __init__(self, hop: NextHop, hostname: str) -> None:
        self._hop = hop
        self._hostname = hostname
        self._idle: dict[Target, list[Connection]] = {}
        self._contexts: dict[Authorities | None, ssl.SSLContext] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def lend(self, target: Target, *, fresh: bool = False) -> Connection:
        """A connection to the target that is greeted, encrypted as its policy asks, and logged in as configured.

        Raises aiosmtplib.SMTPException, UnwantedCertificate or OSError when there is none to be had.
        """
        while not fresh and (idle := self._idle.get(target)):
            connection = idle.pop()
            if connection.dialogue.is_open and time.monotonic() - connection.idle_since < self._hop.idle_timeout:
                return connection
            connection.dialogue.close()
        client = await self._open(target)
        if not isinstance(client.transport, asyncio.Transport):
            raise aiosmtplib.SMTPServerDisconnected("the connection was lost")
        return Connection(Dialogue(client.transport, frozenset(client.esmtp_extensions)))

    async def _open(self, target: Target) -> aiosmtplib.SMTP:
        if target.tls.start is not Start.IF_OFFERED:
            return await self._open_as(target, target.tls.start)
        try:
            return await self._open_as(target, Start.IF_OFFERED)
        except _BrokenTls:
            # A peer whose TLS is broken is no worse than one that has none (RFC 7435 3).
            return await self._open_as(target, Start.NEVER)

    async def _open_as(self, target: Target, start: Start) -> aiosmtplib.SMTP:
        client = aiosmtplib.SMTP(
            hostname=target.tls.server_name or target.name,
            sock=await self._connect(target),
            local_hostname=self._hostname,
            timeout=self._hop.timeout,
            use_tls=start is Start.FIRST,
            start_tls=False,
            tls_context=self._context(target.tls) if start is not Start.NEVER else None,
        )
        try:
            await client.connect()
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
            await _greet(client)
            if self._hop.username is not None and self._hop.password is not None:
                await client.login(self._hop.username, self._hop.password.reveal())
        except BaseException:
            client.close()
            raise
        return client

    async def _connect(self, target: Target) -> socket.socket:
        family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            async with asyncio.timeout(self._hop.timeout):
                await asyncio.get_running_loop().sock_connect(connection, (target.address, target.port))
        except TimeoutError:
            connection.close()
            raise TimeoutError(f"no answer for {self._hop.timeout:g} s") from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _context(self, policy: TlsPolicy) -> ssl.SSLContext:
        """The context for a policy; those that trust the same authorities share one, which takes 20 ms to make."""
        context = self._contexts.get(policy.authorities)
        if context is None:
            context = self._contexts[policy.authorities] = policy.context()
        return context

    def give_back(self, target: Target, connection: Connection) -> None:
        """Keeps a connection on which a transaction ended cleanly."""
        connection.kept, connection.data_begun, connection.idle_since = True, False, time.monotonic()
        self._idle.setdefault(target, []).append(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._hop.idle_timeout, self._sweep)

    async def close(self) -> None:
        """Says goodbye on all idle connections."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        connections = [connection for idle in self._idle.values() for connection in idle]
        self._idle.clear()
        await asyncio.gather(*(_quit(connection) for connection in connections))

    def _sweep(self) -> None:
        """Closes what has been idle too long, so that next hops are not held open for nothing."""
        self._sweeper = None
        limit = time.monotonic() - self._hop.idle_timeout
        for target, idle in list(self._idle.items()):
            for connection in idle:
                if connection.idle_since <= limit:
                    connection.dialogue.close()
            self._idle[target] = [connection for connection in idle if connection.dialogue.is_open]
            if not self._idle[target]:
                del self._idle[target]
        if self._idle:
            self._sweeper = asyncio.get_running_loop().call_later(self._hop.idle_timeout, self._sweep)


class _BrokenTls(Exception):
    """STARTTLS was offered, and did not lead to TLS."""


def _verify(client: aiosmtplib.SMTP, policy: TlsPolicy) -> None:
    """Whether the session is what its policy asks for; the handshake has verified the authorities already."""
    peer = client.get_transport_info("ssl_object")
    if not isinstance(peer, ssl.SSLObject):
        raise UnwantedCertificate("the session is not encrypted")
    for each in policy.checks:
        each.check(peer)


async def _greet(client: aiosmtplib.SMTP) -> None:
    """EHLO where it is due: at the start, and again after STARTTLS (RFC 3207 4.2)."""
    if not client.is_ehlo_or_helo_needed:
        return
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError:
        await client.helo()


async def _quit(connection: Connection) -> None:
    with contextlib.suppress(Lost):
        connection.dialogue.say(b"QUIT\r\n")
        await connection.dialogue.reply(2.0)
    connection.dialogue.close()
