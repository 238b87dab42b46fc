"""An SMTP client that says what it is told to, in TCP segments that arrive one by one, and goes away when it likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.harness.waiting import LOCALHOST, until

SECONDS = 20.0


class SegmentClient:
    """One connection. `async with SegmentClient.greeted(port) as client:`; it has said EHLO then."""

    def __init__(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._ends = f":{port:04X}", f":{writer.get_extra_info('sockname')[1]:04X}"

    @classmethod
    @asynccontextmanager
    async def greeted(cls, port: int) -> AsyncIterator[SegmentClient]:
        """Opens one, and cuts it off in the end."""
        reader, writer = await asyncio.open_connection(LOCALHOST, port)
        client = cls(port, reader, writer)
        try:
            assert (await client.reply()).startswith(b"220 ")
            await client.say(b"EHLO app02.eu07.example")
            yield client
        finally:
            writer.transport.abort()

    async def reply(self) -> bytes:
        """The last line of the next reply."""
        while True:
            line = await asyncio.wait_for(self._reader.readline(), SECONDS)
            if line[3:4] != b"-":
                return line

    async def say(self, *lines: bytes) -> list[bytes]:
        """Says commands, each after the reply to the one before."""
        replies = []
        for line in lines:
            self._writer.write(line + b"\r\n")
            replies.append(await self.reply())
        return replies

    async def begin(self, recipient: bytes, *parameters: bytes, data: bool = True) -> None:
        """Says all that comes before a message, DATA included, if it is to come by that."""
        sender = b" ".join([b"MAIL FROM:<alma@exlibrisgroup.example>", *parameters])
        replies = await self.say(sender, b"RCPT TO:<%s>" % recipient, *([b"DATA"] if data else []))
        assert [reply[:3] for reply in replies] == [b"250", b"250", *([b"354"] if data else [])], replies

    async def send(self, *segments: bytes) -> None:
        """Sends segments; each, but for the last one, has been read when the next one is sent."""
        for number, segment in enumerate(segments, 1):
            self._writer.write(segment)
            if number < len(segments):
                await self.was_read()

    async def was_read(self) -> None:
        """Waits until the other side has read all that was sent."""
        await until(self._is_read, "what was sent to be read", every=0.001)

    async def letter(self, recipient: bytes, segments: Sequence[bytes], *parameters: bytes) -> bytes:
        """Hands one in; gives the reply, after which nothing else is said by the other side."""
        await self.begin(recipient, *parameters)
        await self.send(*segments)
        reply = await self.reply()
        (noop,) = await self.say(b"NOOP")
        assert noop.startswith(b"250 2.0.0"), (reply, noop)
        return reply

    async def chunks(self, recipient: bytes, chunks: Sequence[bytes]) -> bytes:
        """Hands a letter in by BDAT (RFC 3030), all at once; gives the last reply, after which nothing is said."""
        await self.begin(recipient, data=False)
        commands = b"".join(b"BDAT %d\r\n" % len(chunk) + chunk for chunk in chunks)
        self._writer.write(commands + b"BDAT 0 LAST\r\n")
        replies = [await self.reply() for _ in (*chunks, b"")]
        assert all(reply.startswith(b"250 2.0.0") for reply in replies[:-1]), replies
        (noop,) = await self.say(b"NOOP")
        assert noop.startswith(b"250 2.0.0"), (replies, noop)
        return replies[-1]

    def vanish(self, *, half: bool) -> None:
        """Cuts the connection off; or only ends what this side says."""
        if half:
            self._writer.write_eof()
        else:
            self._writer.transport.abort()

    def _is_read(self) -> bool:
        server, client = self._ends
        for line in Path("/proc/net/tcp").read_text().splitlines():
            words = line.split()
            if words[1].endswith(server) and words[2].endswith(client):
                return words[4].endswith(":00000000") and self._writer.transport.get_write_buffer_size() == 0
        return True
