"""The next hop of the comparison: takes every message as fast as it can, and counts.

    python -m bench.sink

Prints its port, then reads lines from standard input. `expect RUN COUNT` begins a new count; once COUNT different
letters of that run came in, or `report` is read, it prints one line of JSON: how many `letters` and `copies` (letters
that came more than once), how many were `signed`, when the `last` was taken (seconds of the monotonic clock, which all
processes share), and a `sample`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from typing import cast

_END = b"\r\n.\r\n"
_EHLO = b"250-sink.example\r\n250-PIPELINING\r\n250-SIZE 50000000\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
_OK = b"250 2.0.0 ok\r\n"


class Count:
    """What came in of one run."""

    def __init__(self) -> None:
        self._begin("", 0)

    def _begin(self, run: str, wanted: int) -> None:
        self._mark, self._wanted = f"\r\nMessage-ID: <{run}.".encode(), wanted
        self._seen: set[bytes] = set()
        self._copies = self._signed = 0
        self._last = 0.0
        self._sample = b""

    def command(self, line: str) -> None:
        """Obeys a line of standard input."""
        words = line.split()
        if words[:1] == ["expect"]:
            self._begin(words[1], int(words[2]))
        elif words == ["report"]:
            self._report()

    def take(self, message: bytes) -> None:
        """Counts a message."""
        start = message.find(self._mark)
        if start < 0:
            return
        identity = message[start : message.find(b">", start)]
        if identity in self._seen:
            self._copies += 1
            return
        self._seen.add(identity)
        self._signed += message.find(b"DKIM-Signature:", 0, start) >= 0
        self._last, self._sample = time.monotonic(), message
        if len(self._seen) == self._wanted:
            self._report()

    def _report(self) -> None:
        facts = {
            "letters": len(self._seen),
            "copies": self._copies,
            "signed": self._signed,
            "last": self._last,
            "sample": base64.b64encode(self._sample).decode(),
        }
        print(json.dumps(facts), flush=True)


class Session(asyncio.Protocol):
    """One connection; commands may be pipelined."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._buffer = bytearray()
        self._in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greets."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"220 sink.example ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        """Takes what came, and answers all of it at once."""
        self._buffer += data
        answers = []
        while (answer := self._message() if self._in_data else self._line()) is not None:
            answers.append(answer)
        if answers:
            self._transport.write(b"".join(answers))

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return None
        command = bytes(self._buffer[:4]).upper()
        del self._buffer[: end + 2]
        if command == b"EHLO":
            return _EHLO
        if command == b"DATA":
            self._in_data = True
            return b"354 go on\r\n"
        if command == b"QUIT":
            asyncio.get_running_loop().call_soon(self._transport.close)
            return b"221 2.0.0 bye\r\n"
        return _OK

    def _message(self) -> bytes | None:
        end = self._buffer.find(_END)
        if end < 0:
            return None
        message = bytes(self._buffer[: end + 2])
        del self._buffer[: end + len(_END)]
        self._in_data = False
        self._count.take(message)
        return _OK


async def main() -> None:
    """Serves until standard input ends."""
    loop, count, ended = asyncio.get_running_loop(), Count(), asyncio.Event()
    server = await loop.create_server(lambda: Session(count), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    rest = b""

    def read() -> None:
        nonlocal rest
        data = os.read(sys.stdin.fileno(), 65536)
        if not data:
            loop.remove_reader(sys.stdin.fileno())
            ended.set()
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            count.command(line.decode())

    loop.add_reader(sys.stdin.fileno(), read)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
