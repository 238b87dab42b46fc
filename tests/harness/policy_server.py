"""A host of MTA-STS policies: HTTPS at 127.0.0.1, with whatever answer a test wants.

Every path but that of policies is 404. Names and certificates are the test's business.
"""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Self

from aiohttp import web

from tests.harness.certificates import Made
from tests.harness.waiting import LOCALHOST


class PolicyServer:
    """The server. `async with PolicyServer(port, certificate) as policies:`."""

    def __init__(self, port: int, certificate: Made) -> None:
        self.port = port
        self.asked: list[str] = []
        "Names of the hosts that were asked for a policy."
        self.status = 200
        self.headers = {"Content-Type": "text/plain"}
        self.body = b""
        self.bodies: dict[str, bytes] = {}
        "What single hosts answer instead of that, by name."
        self.hangs = False
        "Whether nothing is answered."
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate.certificate, certificate.key)
        self._runner: web.AppRunner | None = None

    def show(self, mode: str, *mx: str, max_age: int = 86400, host: str | None = None) -> None:
        """Publish a policy, at all hosts or at one."""
        lines = ["version: STSv1", f"mode: {mode}", *(f"mx: {name}" for name in mx), f"max_age: {max_age}", ""]
        body = "\r\n".join(lines).encode()
        if host is None:
            self.body = body
        else:
            self.bodies[host] = body

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/.well-known/mta-sts.txt", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOCALHOST, self.port, ssl_context=self._tls).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Nobody answers there any more."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.Response:
        host = request.url.host or ""
        self.asked.append(host)
        if self.hangs:
            await asyncio.Event().wait()
        return web.Response(status=self.status, headers=self.headers, body=self.bodies.get(host, self.body))
