"""Large letters: what they cost as they come in and go out; and that nothing is left of those that did not come in."""

from __future__ import annotations

import asyncio
import base64
import smtplib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
import pytest_asyncio

from relay.spool.engine import Place
from relay.spool.queries import list_deliveries
from tests.harness.faults import Faults
from tests.harness.letters_only import LettersOnly, body, letter
from tests.harness.segment_client import SegmentClient
from tests.harness.spool_file import stored_bodies
from tests.harness.waiting import until

MIB = 1024 * 1024
EXTRA = {"intake": {"max_message_size": "64MiB"}, "delivery": {"retry_first": "1s"}}


class Peak:
    """The most memory that a process has had since it was last asked to begin anew, in bytes."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def begin(self) -> int:
        """Forgets what was before; gives what it has now."""
        (self._folder / "clear_refs").write_text("5")
        return self._value("VmRSS")

    def value(self) -> int:
        """The peak."""
        return self._value("VmHWM")

    def _value(self, name: str) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def submit(port: int, message: bytes, recipient: str) -> str:
    with smtplib.SMTP("127.0.0.1", port, local_hostname="x.example", timeout=60) as client:
        client.ehlo()
        client.mail("alma@exlibrisgroup.example", [f"size={len(message)}"])
        client.rcpt(recipient)
        code, text = client.data(message)
        assert code == 250, text
        return text.decode().split()[-1]


@pytest.mark.asyncio
async def test_a_letter_of_50_mb_costs_no_100_mb(tmp_path: Path) -> None:
    # Behind one that could not be sent a letter waits in the spool until somebody asks: so there is time to look.
    async with LettersOnly(tmp_path / "large", extra={**EXTRA, "delivery": {"retry_first": "10m"}}) as letters:
        hop = letters.next_hop
        await letters.submit(letter("warm", "warm@patron.example"), "warm@patron.example")
        await hop.wait_for(1)
        hop.refuse_next(421, at="connect", times=1000)
        hop.drop_connections()
        await letters.submit(letter("first", "first@patron.example"), "first@patron.example")
        await until(
            lambda: any("421" in line.reason for line in list_deliveries(Place.file(letters.spool), limit=10)),
            "the first one to be put off",
        )
        large = letter("large", "large@patron.example", 50_000_000)
        peak = Peak(letters.appliance.pid)
        before = peak.begin()
        await asyncio.to_thread(submit, letters.appliance.port, large, "large@patron.example")
        accepted = peak.value() - before
        before = peak.begin()
        hop.take_again()
        assert (await letters.queue("retry", "--all"))[0] == 0
        await hop.wait_for(3, seconds=60)
        sent = peak.value() - before
        taken = next(each for each in hop.taken if "large@patron.example" in each.rcpt_to)
        assert body(taken.content) == body(large)
    assert accepted < 12 * MIB, "until its 250"
    assert sent < 90 * MIB, "until it was sent: as a whole, once"


@pytest.mark.asyncio
async def test_a_large_letter_that_is_converted_costs_less_than_four_times_its_size(tmp_path: Path) -> None:
    header, line = b"Content-Type: text/plain; charset=utf-8\r\n", ("ö" * 20 + "x" * 20).encode() + b"\r\n"
    async with LettersOnly(tmp_path / "large", extra=EXTRA) as letters:
        letters.next_hop.eight_bit = False
        warm = letter("warm", "warm@patron.example")
        await letters.submit(warm, "warm@patron.example")
        await letters.next_hop.wait_for(1)
        large = header + warm.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + line * (25_000_000 // len(line))
        peak = Peak(letters.appliance.pid)
        before = peak.begin()
        await asyncio.to_thread(submit, letters.appliance.port, large, "large@patron.example")
        taken = (await letters.next_hop.wait_for(2, seconds=60))[1]
        spent = peak.value() - before
        assert taken.content.isascii()
        assert base64.b64decode(body(taken.content)) == body(large)
    assert spent < 4 * len(large)


@pytest.mark.asyncio
async def test_all_letters_that_come_in_have_a_bound_together(tmp_path: Path) -> None:
    """Small ones too: 30 clients that stop in the middle of 240 KiB, and 30 in the middle of 2 MiB."""
    async with (
        LettersOnly(tmp_path / "many", extra={"intake": {"max_memory": "4MiB"}}) as letters,
        AsyncExitStack() as s,
    ):
        await letters.submit(letter("warm", "warm@patron.example"), "warm@patron.example")
        peak = Peak(letters.appliance.pid)
        before = peak.begin()
        for number in range(60):
            client = await s.enter_async_context(SegmentClient.greeted(letters.appliance.port))
            await client.begin(b"half@patron.example")
            await client.send(letter("half", "half@patron.example", (240 if number % 2 else 2048) * 1024))
            await client.was_read()
        grown = peak.value() - before
        code, _ = await letters.submit(letter("after", "after@patron.example"), "after@patron.example")
        assert code == 250
    assert grown < 24 * MIB, "of 67 MiB"


# --- clients that vanish, and disks that fail


class Bench:
    """A service with a disk that does what it is told to, and what it has kept."""

    def __init__(self, letters: LettersOnly, faults: Faults) -> None:
        self.letters, self.faults = letters, faults

    def stored(self) -> list[bytes]:
        """What is in the spool."""
        with closing(sqlite3.connect(f"file:{self.letters.spool}?mode=ro", uri=True)) as database:
            return list(stored_bodies(database).values())

    def files(self) -> list[str]:
        """Files without a name that the service has open in the folder of its spool."""
        names = []
        for link in Path(f"/proc/{self.letters.appliance.pid}/fd").iterdir():
            try:
                names.append(str(link.readlink()))
            except OSError:
                continue  # closed meanwhile
        return [name for name in names if name.startswith(f"{self.letters.spool.parent}/") and "deleted" in name]

    async def nothing_is_left(self, stored: int) -> None:
        await until(lambda: self.files() == [], lambda: f"the files to be closed: {self.files()}")
        assert len(self.stored()) == stored
        number = len(self.letters.next_hop.taken)
        code, _ = await self.letters.submit(letter("after", "after@patron.example"), "after@patron.example")
        assert code == 250
        await self.letters.next_hop.wait_for(number + 1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    folder = tmp_path_factory.mktemp("large")
    faults = Faults(folder)
    async with LettersOnly(folder / "all", environment=faults.environment, extra=EXTRA) as letters:
        yield Bench(letters, faults)
        assert letters.appliance.starts == 1


@pytest.fixture
def bench(shared: Bench) -> Iterator[Bench]:
    """The shared service, with a good disk."""
    yield shared
    shared.faults.clear()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("half", [False, True], ids=["vanishes", "half-closes"])
@pytest.mark.parametrize("size", [1000, 5 * MIB])
async def test_a_client_that_goes_away_in_the_middle_leaves_nothing(bench: Bench, size: int, half: bool) -> None:
    stored = len(bench.stored())
    message = letter("lost", "lost@patron.example", size)
    for place in (0, 10, size // 2, len(message) - 3, len(message)):
        async with SegmentClient.greeted(bench.letters.appliance.port) as client:
            await client.begin(b"lost@patron.example")
            await client.send(message[:place])
            await client.was_read()
            if place > MIB:
                await until(bench.files, "the letter to be on its way to the disk")
            client.vanish(half=half)
            await bench.nothing_is_left(stored)
            stored += 1


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("size", [1000, 5 * MIB])
async def test_a_client_that_goes_away_before_its_250_leaves_a_whole_letter_or_none(bench: Bench, size: int) -> None:
    """Whichever it is, it is whole: nobody can know, and the client sends it again."""
    before = bench.stored()
    taken = len(bench.letters.next_hop.taken)
    bench.faults.set("fsync delay:300 /spool.db-wal")
    message = letter("doubt", "doubt@patron.example", size)
    async with SegmentClient.greeted(bench.letters.appliance.port) as client:
        await client.begin(b"doubt@patron.example")
        await client.send(message + b".\r\n")
        await client.was_read()
        client.vanish(half=False)
    bench.faults.clear()
    await until(lambda: bench.files() == [], "the files to be closed")
    later = letter("later", "later@patron.example")
    code, _ = await bench.letters.submit(later, "later@patron.example")
    assert code == 250, "and with it all that waited before is decided"
    new = [content for content in bench.stored() if content not in (*before, later)]
    assert new in ([], [message])
    wanted = taken + len(new) + 1
    await until(lambda: len(bench.letters.next_hop.taken) == wanted, "what is in the spool to be delivered")
    await bench.nothing_is_left(len(before) + len(new) + 1)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("fault", ["write ENOSPC /spool/#", "write EIO /spool/#"])
async def test_a_large_letter_that_can_t_be_written_stays_with_the_client(bench: Bench, fault: str) -> None:
    stored = len(bench.stored())
    message = letter("full", "full@patron.example", 3 * MIB)
    bench.faults.set(fault)
    code, text = await bench.letters.submit(message, "full@patron.example")
    assert (code, text.split()[0]) == (452, "4.3.1")
    assert "event=fault where=intake error=OSError" in bench.letters.appliance.log.read_text(encoding="utf-8")
    small, _ = await bench.letters.submit(letter("small", "small@patron.example"), "small@patron.example")
    assert small == 250
    bench.faults.clear()
    await bench.nothing_is_left(stored + 1)
    code, _ = await bench.letters.submit(message, "full@patron.example")
    assert code == 250
    assert message in bench.stored()
