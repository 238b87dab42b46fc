"""The ports: opens each configured listener and makes a session per connection."""

from __future__ import annotations

import asyncio
import os
import resource
import ssl
from collections.abc import Callable

from relay.config.settings import Config, Listener
from relay.errors import StartError
from relay.intake.accept import Acceptance
from relay.intake.connections import Connections
from relay.intake.policy import Policy
from relay.intake.session import SmtpSession
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
        self._config = config
        self._policy = policy
        self._acceptance = acceptance
        self._maillog = maillog
        self._servers: list[asyncio.Server] = []
        self._sessions = Connections[SmtpSession](config.intake, maillog.metrics)

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
        tls = tls_context(listener)

        def session() -> SmtpSession:
            return SmtpSession(
                self._config, listener, self._policy, self._acceptance, self._maillog, tls, self._sessions
            )

        try:
            server = await asyncio.get_running_loop().create_server(
                session, listener.address, listener.port, backlog=_BACKLOG
            )
        except OSError as error:
            meaning = os.strerror(error.errno) if error.errno else str(error)
            raise StartError(
                f"the listener {listener.name} can't use {listener.address} port {listener.port}: {meaning}"
            ) from None
        self._maillog.service("listening", listener=listener.name, address=listener.address, port=listener.port)
        return server

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

    async def _until_gone(self, which: Callable[[SmtpSession], bool], timeout: float) -> None:
        """Waits for sessions to end, then cuts off those that did not."""
        deadline = asyncio.get_running_loop().time() + timeout
        # ASYNC110: sessions end in aiosmtpd's own time, and say so by leaving the set.
        while any(map(which, self._sessions)) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        for session in filter(which, self._sessions):
            session.cut_off()


def tls_context(listener: Listener) -> ssl.SSLContext | None:
    """The server side of TLS for a listener, or None when it has no certificate. Raises StartError when it is
    unusable.
    """
    if listener.tls_certificate is None or listener.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(listener.tls_certificate, listener.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise StartError(
            f"the listener {listener.name} can't use the certificate {listener.tls_certificate}: {error}"
        ) from None
    return context
