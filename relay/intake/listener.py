"""The ports: opens each configured listener and makes a session per connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import time
from collections.abc import Callable

from relay.config.listeners import Listener
from relay.config.settings import Config
from relay.errors import StartError
from relay.intake.accept import Acceptance
from relay.intake.caller import Caller
from relay.intake.connections import Connections, Stoppable
from relay.intake.entrance import Entrance
from relay.intake.passwords import Passwords
from relay.intake.policy import Policy
from relay.intake.session import SmtpSession
from relay.intake.tls import ServerTls
from relay.maillog import MailLog

GOODBYE = 2.0
"""Seconds that a client gets to hear that the service stops."""

_BACKLOG = 1024
"""Connections that the system keeps while we are busy; as many as come in a burst."""

_OTHER_FILES = 1024
"""What the rest of the service may have open: connections to next hops, files, pipes."""


class Listeners:
    """All listeners of the service."""

    def __init__(self, config: Config, policy: Policy, acceptance: Acceptance, maillog: MailLog) -> None:
        """Raises StartError when a certificate can't be used."""
        self._config = config
        self._policy = policy
        self._passwords = Passwords(config, maillog)
        self._acceptance = acceptance
        self._maillog = maillog
        self._servers: list[asyncio.Server] = []
        self._sessions = Connections[Stoppable](config.intake, maillog.metrics)
        self._tls = {
            listener.name: ServerTls(listener, maillog, config.tls.warn_before)
            for listener in config.listeners
            if listener.tls_certificate is not None
        }
        self._asked_early = asyncio.Event()

    async def open(self) -> None:
        """Opens every port. Raises StartError when one can't be had; then none stays open."""
        self._allow_files()
        try:
            for listener in self._config.listeners:
                self._servers.append(await self._open(listener))
        except StartError:
            self.close()
            raise

    def _allow_files(self) -> None:
        """Each connection is a file to the system, which begins with a limit of 1024 for what can do with few."""
        wanted = self._config.intake.max_connections + _OTHER_FILES
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            if allowed < wanted:
                self._maillog.service("few-files", allowed=allowed, wanted=wanted, setting="intake.max_connections")

    async def _open(self, listener: Listener) -> asyncio.Server:
        tls, timeout = self._tls.get(listener.name), self._config.tls.handshake_timeout

        def session(caller: Caller) -> SmtpSession:
            return SmtpSession(
                self._config,
                listener,
                self._policy,
                self._passwords,
                self._acceptance,
                self._maillog,
                tls,
                caller,
                self._sessions,
            )

        def entrance() -> Entrance:
            return Entrance(listener, tls, timeout, self._sessions, self._maillog, session)

        try:
            server = await asyncio.get_running_loop().create_server(
                entrance, listener.address, listener.port, backlog=_BACKLOG
            )
        except OSError as error:
            meaning = os.strerror(error.errno) if error.errno else str(error)
            raise StartError(
                f"the listener {listener.name} can't use {listener.address} port {listener.port}: {meaning}"
            ) from None
        self._maillog.service("listening", listener=listener.name, address=listener.address, port=listener.port)
        return server

    async def watch_certificates(self) -> None:
        """Looks at the files of certificates now and again, until it is cancelled."""
        while True:
            for tls in self._tls.values():
                try:
                    await asyncio.to_thread(tls.look, time.time())
                except Exception as error:
                    self._maillog.fault("certificates", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.tls.look_every):
                    await self._asked_early.wait()
            self._asked_early.clear()

    def look_now(self) -> None:
        """Has the files looked at at once."""
        self._asked_early.set()

    def close(self) -> None:
        """Takes no more connections; those that are open go on."""
        for server in self._servers:
            server.close()

    async def drain(self, timeout: float) -> None:
        """Ends every session; one that is just taking a message gets `timeout` seconds to have it answered."""
        for session in self._sessions:
            session.retire()
        await self._until_gone(lambda session: not session.is_taking, min(timeout, GOODBYE))
        await self._until_gone(lambda session: True, timeout)

    async def _until_gone(self, which: Callable[[Stoppable], bool], timeout: float) -> None:
        """Waits for sessions to end, then cuts off those that did not."""
        deadline = asyncio.get_running_loop().time() + timeout
        # ASYNC110: sessions end in aiosmtpd's own time, and say so by leaving the set.
        while any(map(which, self._sessions)) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        for session in filter(which, self._sessions):
            session.cut_off()
