"""Connections to next hops, kept for the next message (RFC 5321 4.1.4 allows many in one session).

A connection is lent to one attempt at a time. One that was idle longer than the setting, or that the peer closed, is
not lent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from dataclasses import dataclass
from functools import cached_property

import aiosmtplib

from relay.config.next_hops import NextHop
from relay.errors import StartError
from relay.transports.dialogue import Dialogue, Lost


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
    """The connections of one next hop, by host."""

    def __init__(self, hop: NextHop, hostname: str) -> None:
        self._hop = hop
        self._hostname = hostname
        self._idle: dict[str, list[Connection]] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def lend(self, host: str, *, fresh: bool = False) -> Connection:
        """A connection to the host that is greeted, encrypted and logged in as configured.

        Raises aiosmtplib.SMTPException or OSError when there is none to be had.
        """
        while not fresh and (idle := self._idle.get(host)):
            connection = idle.pop()
            if connection.dialogue.is_open and time.monotonic() - connection.idle_since < self._hop.idle_timeout:
                return connection
            connection.dialogue.close()
        client = await self._open(host)
        if not isinstance(client.transport, asyncio.Transport):
            raise aiosmtplib.SMTPServerDisconnected("the connection was lost")
        return Connection(Dialogue(client.transport, frozenset(client.esmtp_extensions)))

    async def _open(self, host: str) -> aiosmtplib.SMTP:
        if self._hop.tls != "opportunistic":
            client = self._client(host, start_tls=self._hop.tls == "required")
            await client.connect()
            await _greet(client)
            return client
        client = self._client(host, start_tls=False)
        await client.connect()
        await _greet(client)
        if not client.supports_extension("starttls"):
            return client
        try:
            await client.starttls(tls_context=self._tls)
            await _greet(client)
        except (aiosmtplib.SMTPException, OSError):
            # A peer whose TLS is broken is no worse than one that has none (RFC 7435 3).
            client.close()
            client = self._client(host, start_tls=False)
            await client.connect()
            await _greet(client)
        return client

    def _client(self, host: str, *, start_tls: bool) -> aiosmtplib.SMTP:
        return aiosmtplib.SMTP(
            hostname=host,
            port=self._hop.port,
            local_hostname=self._hostname,
            timeout=self._hop.timeout,
            use_tls=self._hop.tls == "implicit",
            start_tls=start_tls,
            tls_context=self._tls,
            username=self._hop.username,
            password=self._hop.password.reveal() if self._hop.password else None,
        )

    def give_back(self, host: str, connection: Connection) -> None:
        """Keeps a connection on which a transaction ended cleanly."""
        connection.kept, connection.data_begun, connection.idle_since = True, False, time.monotonic()
        self._idle.setdefault(host, []).append(connection)
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
        for host, idle in list(self._idle.items()):
            for connection in idle:
                if connection.idle_since <= limit:
                    connection.dialogue.close()
            self._idle[host] = [connection for connection in idle if connection.dialogue.is_open]
            if not self._idle[host]:
                del self._idle[host]
        if self._idle:
            self._sweeper = asyncio.get_running_loop().call_later(self._hop.idle_timeout, self._sweep)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        context = verifying_context(self._hop)
        if self._hop.tls == "opportunistic":  # RFC 7435: against listeners only; any certificate is better than none
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def verifying_context(hop: NextHop) -> ssl.SSLContext:
    """The client side of TLS for a next hop. Raises StartError when its authorities can't be used."""
    try:
        context = ssl.create_default_context(cafile=hop.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"the authorities in {hop.ca_file} can't be used: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


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
