"""The sender of the comparison: hands in letters over some connections, one command at a time, as Alma's mailer does.

    python -m bench.load PORT CONNECTIONS COUNT DOMAIN RUN

Each connection stays open for many messages. Prints one line of JSON: when the `first` command was sent and the `last`
letter answered with 250 (seconds of the monotonic clock). Ends with an error when an answer is not the one expected.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import cast

from bench.letters import letter, recipient, sender


class Client(asyncio.Protocol):
    """One connection: hands in letters until there are no more."""

    def __init__(self, domain: str, run: str, numbers: Iterator[int], ended: asyncio.Future[None]) -> None:
        self._domain, self._run, self._numbers, self._ended = domain, run, numbers, ended
        self._mail = f"MAIL FROM:<{sender(domain)}>\r\n".encode()
        self._reply = b""
        self._steps = self._dialogue()
        self._expected = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Waits for the greeting."""
        self._transport = cast(asyncio.Transport, transport)
        self._expected = next(self._steps)

    def data_received(self, data: bytes) -> None:
        """Takes the step that an answer allows."""
        self._reply += data
        if not self._reply.endswith(b"\r\n") or self._reply[self._reply.rfind(b"\n", 0, -2) + 1 :][3:4] == b"-":
            return
        reply, self._reply = self._reply, b""
        if not reply.startswith(self._expected):
            self._fail(f"{self._expected.decode()} was expected, and {reply.decode(errors='replace').strip()} came")
            return
        try:
            self._expected = next(self._steps)
        except StopIteration:
            self._transport.close()
            self._done(None)

    def connection_lost(self, error: Exception | None) -> None:
        """It is an error unless all was done."""
        self._fail(f"the connection was lost: {error or 'closed by the server'}")

    def _dialogue(self) -> Iterator[bytes]:
        """Sends one command after the other; gives the code that has to come before the next."""
        send = self._transport.write
        yield b"220"
        send(b"EHLO app02.eu07.example\r\n")
        yield b"250"
        for number in self._numbers:
            send(self._mail)
            yield b"250"
            send(f"RCPT TO:<{recipient(number)}>\r\n".encode())
            yield b"250"
            send(b"DATA\r\n")
            yield b"354"
            send(letter(self._domain, self._run, number) + b".\r\n")
            yield b"250"
        send(b"QUIT\r\n")
        yield b"221"

    def _fail(self, reason: str) -> None:
        self._transport.abort()
        self._done(RuntimeError(reason))

    def _done(self, error: Exception | None) -> None:
        if self._ended.done():
            return
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)


async def hand_in(port: int, connections: int, count: int, domain: str, run: str) -> dict[str, float]:
    """Hands in letters number 0 to `count`; gives when it began and ended."""
    loop, numbers = asyncio.get_running_loop(), iter(range(count))
    first = time.monotonic()
    ends = []
    for _ in range(connections):
        ended: asyncio.Future[None] = loop.create_future()
        await loop.create_connection(partial(Client, domain, run, numbers, ended), "127.0.0.1", port)
        ends.append(ended)
    await asyncio.gather(*ends)
    return {"first": first, "last": time.monotonic()}


def main() -> None:
    """Reads the command line and prints what came of it."""
    port, connections, count, domain, run = sys.argv[1:]
    print(json.dumps(asyncio.run(hand_in(int(port), int(connections), int(count), domain, run))))


if __name__ == "__main__":
    main()
