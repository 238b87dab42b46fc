"""Whoever does not want to send mail: legitimate mail still gets its 250 within 2 s, memory stays bounded, and
everything is closed at its limit.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from tests.harness import samples, toml
from tests.harness.appliance import Appliance
from tests.harness.institution import Institution, Ports
from tests.harness.waiting import LOCALHOST, free_ports, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

PLACES = 400
"""Sessions that there may be in the short form; 1,000 by `make prove`."""

PER_SESSION = 32 * 1024
"""Bytes of memory that a session may cost, whatever its client does, besides GROUND."""

GROUND = 16 * 1024 * 1024
PROMPT = 2.0
"""Seconds in which legitimate mail gets its 250."""

INTAKE = {"idle_timeout": "4s", "max_connections_per_address": 2000}


class Besieged:
    """An appliance without printers, and what can be asked about it."""

    def __init__(self, folder: Path, source: str | None = None, **intake: Any) -> None:
        """`source` is a network from which letters may be sent, besides the harness's own."""
        self.ports = Ports(free_ports(Ports.COUNT))
        institution = Institution(folder, self.ports)
        tables: dict[str, Any] = {**institution.tables(), "printers": [], "intake": {**INTAKE, **intake}}
        if source is not None:
            tables["sources"][0]["networks"] = [source]
        institution.config.write_text(toml.dumps(tables), encoding="utf-8")
        self.appliance = Appliance(institution.config, self.ports.smtp, folder)

    async def connect(self, source: str = "127.0.0.2") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client, who has heard the greeting."""
        reader, writer = await asyncio.open_connection(LOCALHOST, self.ports.smtp, local_addr=(source, 0))
        assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"220 ")
        return reader, writer

    async def letter(self) -> float:
        """Hands in a letter as a source does; the seconds until its 250."""
        began = time.monotonic()
        await self.appliance.submit(
            samples.patron_letter(recipient="anna@patron.example"), "circ@lib.example", ["anna@patron.example"]
        )
        return time.monotonic() - began

    @property
    def memory(self) -> int:
        """Bytes of the service that are in memory."""
        status = Path(f"/proc/{self.appliance.pid}/status").read_text()
        return int(re.findall(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)[0]) * 1024

    @property
    def sessions(self) -> int:
        """Connections that the service has on its port."""
        port = f":{self.ports.smtp:04X}"
        rows = [line.split() for line in Path(f"/proc/{self.appliance.pid}/net/tcp").read_text().splitlines()[1:]]
        return sum(row[1].endswith(port) and row[3] in ("01", "08") for row in rows)  # established, or close-wait

    async def until_empty(self, seconds: float = 20.0) -> None:
        """Waits until every session is over."""
        await until(lambda: not self.sessions, lambda: f"{self.sessions} sessions to end", seconds=seconds)

    def refusals(self, limit: str) -> int:
        """How often the log says that a limit was met."""
        return self.appliance.log.read_text(encoding="utf-8").count(f"limit={limit}\n")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def besieged(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Besieged]:
    found = Besieged(tmp_path_factory.mktemp("besieged"), max_connections=PLACES)
    await found.appliance.start()
    await found.letter()  # what is made once is made now
    yield found
    await found.appliance.stop()


async def all_places(folder: Path, count: int) -> None:
    besieged = Besieged(folder, max_connections=count, idle_timeout="15s")
    await besieged.appliance.start()
    guests: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        await besieged.letter()
        before = besieged.memory
        while len(guests) < count:  # some at a time: all of them have to be there before the first is sent away
            some = range(len(guests), min(len(guests) + 50, count))
            guests += await asyncio.gather(*(besieged.connect(f"127.0.1.{number % 200 + 1}") for number in some))
        assert besieged.sessions == count
        assert besieged.memory - before < count * PER_SESSION + GROUND
        reader, writer = await asyncio.open_connection(LOCALHOST, besieged.ports.smtp, local_addr=("127.0.0.9", 0))
        assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"421 4.7.0 too many connections")
        writer.close()
        assert max([await besieged.letter() for _ in range(5)]) < PROMPT
        heard = sorted(await asyncio.gather(*(asyncio.wait_for(reader.read(), 60) for reader, _ in guests)))
    finally:
        for _, writer in guests:
            writer.close()
        await besieged.until_empty()
        await besieged.appliance.stop()
    made_room = sum(words.startswith(b"421 4.7.0 ") for words in heard)
    assert 1 <= made_room <= 5, "the most silent stranger makes room for a source"
    assert all(words.startswith(b"421 4.4.2 ") for words in heard[:-made_room]), "the others are sent away in the end"
    assert besieged.refusals("max_connections") >= 2
    assert besieged.refusals("idle_timeout") >= count - 5


async def test_all_places_taken_by_strangers(tmp_path: Path) -> None:
    await all_places(tmp_path, PLACES)


@pytest.mark.prove
async def test_a_thousand_idle_connections(tmp_path: Path) -> None:
    await all_places(tmp_path, 1000)


async def drip(besieged: Besieged, number: int) -> float:
    """Says a command that never ends, a letter at a time; the seconds until it is sent away."""
    reader, writer = await besieged.connect(f"127.0.2.{number + 1}")
    began = time.monotonic()
    ended = asyncio.create_task(reader.read())
    while not ended.done():
        writer.write(b"x")
        await asyncio.wait([ended], timeout=0.2)
    assert (await ended).startswith(b"421 4.4.2 ")
    writer.close()
    return time.monotonic() - began


async def test_commands_a_letter_at_a_time(besieged: Besieged) -> None:
    dripping = [asyncio.create_task(drip(besieged, number)) for number in range(100)]
    while not all(task.done() for task in dripping):
        assert await besieged.letter() < PROMPT
        await asyncio.wait(dripping, timeout=0.5)
    assert max(await asyncio.gather(*dripping)) < 8.0, "a letter is no command: it buys no time"
    await besieged.until_empty()


async def dribble(besieged: Besieged, number: int) -> float:
    """A message that never ends, a letter at a time; the seconds until it is sent away."""
    reader, writer = await besieged.connect(f"127.0.4.{number + 1}")
    for words in (b"EHLO slow.example", b"MAIL FROM:<circ@lib.example>", b"RCPT TO:<anna@patron.example>", b"DATA"):
        writer.write(words + b"\r\n")
        while (await asyncio.wait_for(reader.readline(), 20))[3:4] == b"-":
            pass
    began = time.monotonic()
    ended = asyncio.create_task(reader.read())
    while not ended.done():
        writer.write(b"x")
        await asyncio.wait([ended], timeout=0.5)
    assert (await ended).startswith(b"421 4.4.2 ")
    writer.close()
    return time.monotonic() - began


@pytest.mark.prove
async def test_messages_a_letter_at_a_time(tmp_path: Path) -> None:
    # All from addresses of a source, since strangers come no further than RCPT.
    besieged = Besieged(tmp_path, source="127.0.0.0/8", min_data_rate="256")
    await besieged.appliance.start()
    try:
        before = besieged.memory
        dribbling = [asyncio.create_task(dribble(besieged, number)) for number in range(100)]
        while not all(task.done() for task in dribbling):
            assert await besieged.letter() < PROMPT
            assert besieged.memory - before < 100 * PER_SESSION + GROUND
            await asyncio.wait(dribbling, timeout=0.5)
        assert max(await asyncio.gather(*dribbling)) < 45.0, "slower than min_data_rate for half a minute"
        await besieged.until_empty()
    finally:
        await besieged.appliance.stop()


async def test_lines_without_end(besieged: Besieged) -> None:
    before, peak = besieged.memory, 0

    async def flood(number: int) -> bytes:
        reader, writer = await besieged.connect(f"127.0.3.{number + 1}")
        try:
            for _ in range(80):
                writer.write(b"x" * 64 * 1024)
                await asyncio.wait_for(writer.drain(), 10)
        except (ConnectionError, TimeoutError):
            pass
        try:
            return await asyncio.wait_for(reader.read(), 10)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    floods = [asyncio.create_task(flood(number)) for number in range(40)]
    while not all(task.done() for task in floods):
        peak = max(peak, besieged.memory)
        assert await besieged.letter() < PROMPT
    heard = await asyncio.gather(*floods)
    assert any(reply.startswith(b"500 5.5.2 ") for reply in heard)
    assert max(peak, besieged.memory) - before < len(floods) * 256 * 1024 + GROUND, "of 5 MB from each"
    assert besieged.refusals("line") >= len(floods)
    await besieged.until_empty()


async def test_ten_thousand_recipients(besieged: Besieged) -> None:
    before = besieged.memory
    reader, writer = await besieged.connect("127.0.0.1")
    replies: list[bytes] = []

    async def hear() -> None:
        while line := await reader.readline():
            replies.append(line[:9])

    hearing = asyncio.create_task(hear())
    writer.write(b"EHLO a.example\r\n")
    await until(lambda: any(reply.startswith(b"250 ") for reply in replies), "the answer to EHLO")
    replies.clear()
    try:
        writer.write(b"MAIL FROM:<circ@lib.example>\r\n")
        for number in range(10_000):
            writer.write(b"RCPT TO:<p%d@patron.example>\r\n" % number)
            if number % 1000 == 0:
                await writer.drain()
                assert await besieged.letter() < PROMPT
    except ConnectionError:
        pass  # it was sent away already
    await asyncio.wait_for(hearing, 20)
    writer.close()
    assert replies[0] == b"250 2.1.0"
    assert replies[1:1001] == [b"250 2.1.5"] * 1000
    assert set(replies[1001:-1]) == {b"452 4.5.3"}
    assert replies[-1] == b"421 4.7.0", "after max_commands of them"
    assert besieged.memory - before < GROUND


async def test_who_does_not_listen(besieged: Besieged) -> None:
    before = besieged.memory
    deaf = [await besieged.connect(f"127.0.4.{number + 1}") for number in range(20)]
    for _, writer in deaf:
        writer.write(b"EHLO a.example\r\n")
    for reader, writer in deaf:
        await reader.readuntil(b"250 STARTTLS\r\n")
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(b"HELP\r\n" * 200_000)
    assert max([await besieged.letter() for _ in range(3)]) < PROMPT
    await besieged.until_empty(30)
    assert besieged.memory - before < len(deaf) * 512 * 1024 + GROUND
    for _, writer in deaf:
        writer.transport.abort()


async def test_a_connection_for_each_command(besieged: Besieged) -> None:
    async def once(number: int) -> None:
        _, writer = await besieged.connect(f"127.0.5.{number % 200 + 1}")
        writer.write((b"EHLO a.example\r\n", b"QUIT\r\n", b"MAIL FROM:<a@b.example>\r\n", b"x")[number % 4])
        await writer.drain()
        if number % 2:
            writer.transport.abort()
        else:
            writer.close()

    for batch in range(6):
        await asyncio.gather(*(once(batch * 50 + number) for number in range(50)))
        assert await besieged.letter() < PROMPT
    await besieged.until_empty()
    assert "event=fault" not in besieged.appliance.log.read_text(encoding="utf-8")
