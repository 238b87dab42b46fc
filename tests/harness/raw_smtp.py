"""An SMTP client that says what it is told to, byte for byte, from whatever address of this machine."""

from __future__ import annotations

import asyncio
import re
import ssl
from types import TracebackType
from typing import Self

from tests.harness.waiting import LOCALHOST

SECONDS = 30.0

_LAST = re.compile(rb"\d\d\d(?: .*)?\r\n", re.DOTALL)


class RawSmtp:
    """One connection. `async with RawSmtp(port, source="127.0.0.9") as client:`; it has been greeted then."""

    def __init__(
        self,
        port: int,
        *,
        source: str = LOCALHOST,
        host: str = LOCALHOST,
        first: bytes = b"",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`first` is sent before all else (a PROXY header); with `tls` the handshake follows it."""
        self.greeting = b""
        self._port, self._source, self._host = port, source, host
        self._first, self._tls = first, tls
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        local = (self._source, 0) if ":" not in self._host else None
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port, local_addr=local)
        try:
            self._writer.write(self._first)
            if self._tls is not None:
                await self.secure(self._tls)
            self.greeting = await self.reply()
        except BaseException:
            self._writer.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.transport.abort()

    async def reply(self) -> bytes:
        """One reply, whole; empty when the connection was closed."""
        whole = b""
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    line = await self._reader.readline()
                except ConnectionError:
                    return b""
                whole += line
                if not line or _LAST.fullmatch(line):
                    return whole

    async def say(self, line: bytes | str) -> bytes:
        """Sends a line, and gives the reply; empty when the connection is closed."""
        self.send(line if isinstance(line, bytes) else line.encode("utf-8"))
        return await self.reply()

    def send(self, line: bytes) -> None:
        """Sends a line and waits for nothing."""
        self._writer.write(line + b"\r\n")

    async def start_tls(self, context: ssl.SSLContext, *, injected: bytes = b"") -> None:
        """STARTTLS, with bytes behind it in the clear."""
        self._writer.write(b"STARTTLS\r\n" + injected)
        reply = await self.reply()
        assert reply.startswith(b"220"), reply
        await self.secure(context)

    async def rest(self) -> bytes:
        """All that comes until the other side closes."""
        async with asyncio.timeout(SECONDS):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""

    async def secure(self, context: ssl.SSLContext) -> None:
        """The client's side of the handshake."""
        async with asyncio.timeout(SECONDS):
            await self._writer.start_tls(context, server_hostname="relay.lib.example")


def trusting() -> ssl.SSLContext:
    """TLS of a client that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
