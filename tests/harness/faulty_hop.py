"""A next hop with one fault: what a well-behaved server never does, at one stage of the dialogue.

It is good for deliveries to a single fault; for everything else there is `next_hop`. A fault strikes at its stage, at
the first `times` occasions (or always): it answers with a reply of its own, hangs, or closes the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from tests.harness.waiting import LOCALHOST

Stage = Literal["connect", "ehlo", "starttls", "mail", "rcpt", "data", "body"]
"""`data` is the command, `body` is after the final dot."""

HANG, CLOSE = b"hang", b"close"
_GOOD = {"ehlo": b"250 hop.example", "data": b"354 go ahead"}
_VERBS: dict[bytes, Stage] = {
    b"EHLO": "ehlo",
    b"HELO": "ehlo",
    b"STARTTLS": "starttls",
    b"MAIL": "mail",
    b"RCPT": "rcpt",
    b"DATA": "data",
}


@dataclass(slots=True)
class FaultyHop:
    """The server. `async with hop.listening() as port:`."""

    stage: Stage = "connect"
    does: bytes = b""
    "HANG, CLOSE, or the reply that is given; empty for no fault."
    times: float = float("inf")
    "Occasions at which the fault strikes."
    only: bytes = b""
    "What a command has in it that the fault strikes."
    offers: tuple[bytes, ...] = ()
    "Extensions it names in the answer to EHLO."
    wait: float = 0.0
    "Seconds between the final dot and the answer."
    taken: list[bytes] = field(default_factory=list)
    "Messages that it had whole, also those whose answer it kept to itself."
    seen: list[bytes] = field(default_factory=list)
    "Commands, as they came."
    _conversations: set[asyncio.StreamWriter] = field(default_factory=set)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Gives its port."""
        server = await asyncio.start_server(self._serve, LOCALHOST, 0)
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for writer in self._conversations:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._conversations.add(writer)
        try:
            reply = await self._answer(writer, "connect", b"220 hop.example")
            while _goes_on(reply) and (line := await reader.readline()):
                self.seen.append(line.rstrip(b"\r\n"))
                stage = _VERBS.get(line[:8].upper().split()[0] if line.strip() else b"")
                reply = await self._answer(writer, stage if self.only in line else None, self._good(stage))
                if stage == "data" and reply.startswith(b"354"):
                    self.taken.append(await reader.readuntil(b"\r\n.\r\n"))
                    await asyncio.sleep(self.wait)
                    reply = await self._answer(writer, "body", b"250 2.0.0 taken")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._conversations.discard(writer)
            writer.close()

    def _good(self, stage: Stage | None) -> bytes:
        if stage == "ehlo" and self.offers:
            lines = [b"hop.example", *self.offers]
            return b"\r\n".join([*(b"250-" + line for line in lines[:-1]), b"250 " + lines[-1]])
        return b"250 ok" if stage is None else _GOOD.get(stage, b"250 ok")

    async def _answer(self, writer: asyncio.StreamWriter, stage: Stage | None, good: bytes) -> bytes:
        """Says what is to be said at a stage, and gives it."""
        reply = good
        if stage == self.stage and self.does and self.times > 0:
            self.times -= 1
            reply = self.does
        if reply == HANG:
            await asyncio.Event().wait()
        if reply != CLOSE:
            writer.write(reply + b"\r\n")
            await writer.drain()
        return reply


def _goes_on(reply: bytes) -> bool:
    return reply != CLOSE and not reply.startswith(b"421")
