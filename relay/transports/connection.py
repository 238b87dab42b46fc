"""Connections to next hops, kept for the next message (RFC 5321 4.1.4 allows many in one session).

A connection is lent to one attempt at a time. One that was idle longer than the setting, or that the peer closed, is
not lent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

from relay.transports.dialogue import Dialogue, Lost
from relay.transports.opening import Opener
from relay.transports.targets import Target


@dataclass(slots=True)
class Connection:
    """An open session with a host; `kept` when it comes from an earlier transaction."""

    dialogue: Dialogue
    security: str
    "How it is encrypted, for the log."
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

    def __init__(self, opener: Opener, idle_timeout: float) -> None:
        """A connection that was idle for longer than `idle_timeout` seconds is not lent again."""
        self._opener = opener
        self._idle_timeout = idle_timeout
        self._idle: dict[Target, list[Connection]] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def lend(self, target: Target, *, fresh: bool = False) -> Connection:
        """A connection to the target that is greeted, encrypted as its policy asks, and logged in as configured.

        Raises NoSession when there is none to be had, and CredentialsMissing.
        """
        while not fresh and (idle := self._idle.get(target)):
            connection = idle.pop()
            if connection.dialogue.is_open and time.monotonic() - connection.idle_since < self._idle_timeout:
                return connection
            connection.dialogue.close()
        opened = await self._opener.open(target)
        return Connection(opened.dialogue, opened.security)

    def give_back(self, target: Target, connection: Connection) -> None:
        """Keeps a connection on which a transaction ended cleanly."""
        connection.kept, connection.data_begun, connection.idle_since = True, False, time.monotonic()
        self._idle.setdefault(target, []).append(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._idle_timeout, self._sweep)

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
        limit = time.monotonic() - self._idle_timeout
        for target, idle in list(self._idle.items()):
            for connection in idle:
                if connection.idle_since <= limit:
                    connection.dialogue.close()
            self._idle[target] = [connection for connection in idle if connection.dialogue.is_open]
            if not self._idle[target]:
                del self._idle[target]
        if self._idle:
            self._sweeper = asyncio.get_running_loop().call_later(self._idle_timeout, self._sweep)


async def _quit(connection: Connection) -> None:
    with contextlib.suppress(Lost):
        connection.dialogue.say(b"QUIT\r\n")
        await connection.dialogue.reply(2.0)
    connection.dialogue.close()
