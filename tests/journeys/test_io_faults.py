"""A disk that fails, and one that is full: the client keeps what was not kept here, and nothing else is lost.

The real service has a bad disk (`tests.harness.faults`), and a small one. What it did is replayed (`power_loss`): at no
250 could a power cut have lost what was answered, whatever a sync said that came after one that had failed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import pytest_asyncio

from relay.config import settings
from relay.errors import StartError
from relay.spool.engine import Place
from relay.spool.store import Store
from tests.harness.faults import Faults
from tests.harness.letters_only import LettersOnly, body, letter
from tests.harness.postgres import Postgres
from tests.harness.power_loss import Event, Recording
from tests.harness.spool_file import Row, rows
from tests.harness.waiting import until
from tests.journeys.story import queue_id

pytestmark = pytest.mark.asyncio(loop_scope="session")

REFUSED = {(452, "4.3.1 the spool can't take the message now; try again later")}
MIB = 1024 * 1024
LARGE = 4_300_000
"""Two such letters are more than the service keeps in its log before it moves it into the database file."""


class Spool:
    """A running service, and what was said to its clients."""

    def __init__(self, letters: LettersOnly, path: Path) -> None:
        self.letters, self.path = letters, path
        self.answered: dict[str, tuple[str, bytes]] = {}
        "What was taken, by queue id: recipient and letter."
        self.refused: set[str] = set()
        "Recipients of what was not."

    async def submit(self, *marks: str, size: int = 2000) -> set[tuple[int, str]]:
        """Hands letters in, at a time; gives the different answers to those that were refused."""
        return set(filter(None, await asyncio.gather(*(self._submit(mark, size) for mark in marks))))

    async def _submit(self, mark: str, size: int) -> tuple[int, str] | None:
        recipient = f"{mark}@patron.example"
        message = letter(mark, recipient, size)
        code, text = await self.letters.submit(message, recipient)
        if code != 250:
            self.refused.add(recipient)
            return code, text
        self.answered[queue_id(text)] = (recipient, message)
        return None

    def rows(self) -> list[Row]:
        """Queue id, recipient, state and letter of all that is in the spool."""
        return rows(self.path)

    async def all_delivered(self, *, seconds: float = 20.0) -> None:
        """Waits until all that is in the spool is delivered; looks whether that is what was answered, whole and once.

        What was refused is neither in the spool nor at the next hop.
        """
        await until(
            lambda: {state for _, _, state, _ in self.rows()} == {"delivered"},
            lambda: f"all to be delivered; {[row[:3] for row in self.rows() if row[2] != 'delivered']}",
            seconds=seconds,
        )
        assert {number: (recipient, content) for number, recipient, _, content in self.rows()} == self.answered
        taken = [(each.rcpt_to[0], body(each.content)) for each in self.letters.next_hop.taken]
        assert sorted(taken) == sorted((recipient, body(content)) for recipient, content in self.answered.values())


class BadDisk(Spool):
    """A service whose disk does what it is told to."""

    def __init__(self, letters: LettersOnly, faults: Faults) -> None:
        super().__init__(letters, letters.spool)
        self.faults = faults

    async def nothing_can_be_lost(self, work: Path, *, since: int = 0) -> list[Event]:
        """Looks at each moment from the place `since` on for what a power cut would lose; gives the account."""
        recording = Recording(self.path, self.faults.events(), self.answered, names_are_certain=True)
        assert await asyncio.to_thread(recording.lost, work, since=since) == []
        return recording.events


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BadDisk]:
    """One service for all the faults that it has to get over without being started again."""
    folder = tmp_path_factory.mktemp("bad-disk")
    faults = Faults(folder, watch="/spool.db")
    async with LettersOnly(folder / "all", environment=faults.environment) as letters:
        yield BadDisk(letters, faults)


@pytest_asyncio.fixture(loop_scope="session")
async def own(tmp_path: Path) -> AsyncIterator[BadDisk]:
    """A service of the test's own, which may grow large."""
    faults = Faults(tmp_path, watch="/spool.db")
    async with LettersOnly(tmp_path / "all", environment=faults.environment) as letters:
        yield BadDisk(letters, faults)
        assert letters.appliance.starts == 1
        assert letters.appliance.alive
        faults.clear()


@pytest_asyncio.fixture(loop_scope="session")
async def spool(shared: BadDisk) -> AsyncIterator[BadDisk]:
    """The shared service, with a good disk; it has not been started again."""
    shared.faults.clear()
    yield shared
    shared.faults.clear()
    assert shared.letters.appliance.starts == 1
    assert shared.letters.appliance.alive


@pytest.mark.parametrize(
    "fault",
    [
        "fsync EIO /spool.db-wal",
        "fsync ENOSPC /spool.db-wal",  # a file system that finds room only as it writes
        "write EIO /spool.db-wal",
        "write ENOSPC /spool.db-wal",
    ],
)
async def test_what_can_t_be_written_stays_with_the_client(spool: BadDisk, tmp_path: Path, fault: str) -> None:
    mark, since = "-".join(fault.split()[:2]).lower(), len(spool.faults.events())
    assert await spool.submit(*(f"{mark}-before{number}" for number in range(6))) == set()
    spool.faults.set(fault)
    for _ in range(2):
        assert await spool.submit(*(f"{mark}-during{number}" for number in range(6))) == REFUSED
    spool.faults.clear()
    assert await spool.submit(*(f"{mark}-after{number}" for number in range(6))) == set()
    await spool.all_delivered()
    await spool.nothing_can_be_lost(tmp_path / "disk", since=since)


async def test_one_sync_that_fails_is_not_made_up_for_by_one_that_does_not(spool: BadDisk, tmp_path: Path) -> None:
    assert await spool.submit("before-one") == set()
    await spool.all_delivered()
    since = len(spool.faults.events())
    spool.faults.set("fsync EIO /spool.db-wal 1")
    # Whatever is written next has to bear it: what the runner does each second, or this.
    await spool.submit("with-the-one")
    assert await spool.submit("after-the-one") == set()
    events = (await spool.nothing_can_be_lost(tmp_path / "disk", since=since))[since:]
    log = f"{spool.path}-wal"
    failed = events.index(Event("sync", log, ok=False))
    reply = next(place for place, event in enumerate(events) if place > failed and event.name == "reply")
    synced = events.index(Event("sync", log), failed, reply)
    anew = [event for event in events[failed:synced] if event.path == log and event.name == "write"]
    doubtful = next(event for event in reversed(events[:failed]) if event.path == log and event.name == "write")
    assert anew[0].offset == 0
    assert [each.offset + len(each.data) for each in anew[:-1]] == [each.offset for each in anew[1:]]
    assert anew[-1].offset + len(anew[-1].data) >= doubtful.offset + len(doubtful.data), "the whole log"
    assert Event("sync", log) in events[synced + 1 : reply], "what was answered is synced too"
    await spool.all_delivered()


@pytest.mark.parametrize("fault", ["fsync EIO /spool.db$", "write EIO /spool.db$", "ftruncate EIO /spool.db$"])
async def test_a_log_that_can_t_be_moved_is_not_written_on(own: BadDisk, tmp_path: Path, fault: str) -> None:
    own.faults.set(fault)
    for number in range(2):
        await own.submit(f"large{number}", size=LARGE)
    assert await own.submit("during") == REFUSED
    own.faults.clear()
    assert await own.submit("after") == set()
    events = await own.nothing_can_be_lost(tmp_path / "disk")
    failed = max(place for place, event in enumerate(events) if not event.ok)
    reply = max(place for place, event in enumerate(events) if event.name == "reply")
    assert Event("sync", str(own.path)) in events[failed:reply], "it is moved before anything is answered"
    await own.all_delivered()


async def test_a_log_that_finds_no_room_in_the_database_file_does_for_a_while(own: BadDisk, tmp_path: Path) -> None:
    own.faults.set("write ENOSPC /spool.db$")
    for number in range(2):
        assert await own.submit(f"large{number}", size=LARGE) == set()
    assert await own.submit("during") == set()
    await own.all_delivered()
    events = own.faults.events()
    assert Event("write", str(own.path), 0, ok=False) in events, "it was tried"
    own.faults.clear()
    assert await own.submit("after") == set()
    await own.all_delivered()
    after = await own.nothing_can_be_lost(tmp_path / "disk")
    assert Event("sync", str(own.path)) in after[len(events) :]


async def test_what_was_moved_while_somebody_read_is_written_anew_after_a_failed_sync(
    own: BadDisk, tmp_path: Path
) -> None:
    """SQLite moves what no reader needs without a sync, and never again: a sync that fails later has lost it."""
    assert await own.submit("first", size=LARGE) == set()
    with closing(sqlite3.connect(f"file:{own.path}?mode=ro", uri=True, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchone()
        assert await own.submit("second", size=LARGE) == set()
        await until(lambda: _was_moved(own, b"first 000"), "a part of the log to be moved", every=0.2)
        moved = len(own.faults.events())
    own.faults.set("fsync EIO /spool.db$ 1")
    for number in range(2):
        await own.submit(f"large{number}", size=LARGE)
    assert await own.submit("after") == set()
    events = await own.nothing_can_be_lost(tmp_path / "disk")
    synced = next(event for event in events[moved:] if event.name == "sync" and event.path == str(own.path))
    assert not synced.ok, "it was synced before"
    await own.all_delivered()


def _was_moved(spool: BadDisk, text: bytes) -> bool:
    return any(event.path == str(spool.path) and text in event.data for event in spool.faults.events())


async def test_a_service_that_starts_after_a_failed_sync_trusts_no_log(tmp_path: Path) -> None:
    """The log has bytes that may never have got onto the disk, and reads well; nothing may be written behind them."""
    faults = Faults(tmp_path, watch="/spool.db")
    letters = LettersOnly(tmp_path / "all", environment=faults.environment)
    async with letters:
        spool = BadDisk(letters, faults)
        assert await spool.submit("before") == set()
        faults.set("fsync EIO /spool.db-wal")
        assert await spool.submit("refused") == REFUSED
        with faults.between_records():
            await letters.appliance.kill()
        faults.clear()
        await letters.appliance.start()
        assert await spool.submit("after") == set()
        await spool.nothing_can_be_lost(tmp_path / "disk")
        wanted = {recipient for recipient, _ in spool.answered.values()}
        await until(
            lambda: wanted <= {each.rcpt_to[0] for each in letters.next_hop.taken}, "what was answered to be delivered"
        )
        # What was refused may have got into the log before the crash: then it is delivered too, and whole.
        for each in letters.next_hop.taken:
            mark = each.rcpt_to[0].partition("@")[0]
            assert body(each.content) == body(letter(mark, each.rcpt_to[0]))


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(3))
async def test_a_disk_that_fails_now_and_then_and_a_service_that_is_killed_on_it(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    faults = Faults(tmp_path, watch="/spool.db")
    async with LettersOnly(tmp_path / "all", environment=faults.environment) as letters:
        spool = BadDisk(letters, faults)
        for number in range(30):
            call, error = dice.choice(["write", "fsync", "fsync", "ftruncate"]), dice.choice(["EIO", "ENOSPC"])
            faults.set(f"{call} {error} /spool.db{dice.choice(['-wal', '$', ''])} {dice.choice([1, 3, -1])}")
            await asyncio.gather(
                spool.submit(*(f"r{number}-{each}" for each in range(6))), spool.submit(f"r{number}-large", size=MIB)
            )
            if dice.random() < 0.3:
                with faults.between_records():
                    await letters.appliance.kill()
                faults.clear()
                await letters.appliance.start()
            faults.clear()
            assert await spool.submit(f"r{number}-good") == set()
        await until(
            lambda: {state for _, _, state, _ in spool.rows()} == {"delivered"},
            "all to be delivered",
            seconds=120,
            every=1,
        )
        stored = {number: (recipient, content) for number, recipient, _, content in spool.rows()}
        taken = {(each.rcpt_to[0], body(each.content)) for each in letters.next_hop.taken}
        await spool.nothing_can_be_lost(tmp_path / "disk")
    assert spool.answered.items() <= stored.items()
    assert taken == {(recipient, body(content)) for recipient, content in stored.values()}
    back = {recipient for number, (recipient, _) in stored.items() if number not in spool.answered}
    assert back <= spool.refused
    print(
        f"{len(spool.answered)} taken, {len(spool.refused)} refused, {letters.appliance.starts - 1} kills; "
        f"{len(back)} of the refused were kept all the same, {len(letters.next_hop.taken) - len(taken)} delivered twice"
    )


async def test_a_database_server_that_believes_a_second_sync_is_refused() -> None:
    """PostgreSQL ends, and reads its log again, when a sync has failed; unless it was told to try once more."""
    async with Postgres() as server:
        url = server.create_database()
        with server.connect() as connection:
            connection.autocommit = True
            connection.execute("ALTER SYSTEM SET data_sync_retry = on")
        await server.restart()
        with pytest.raises(StartError, match="data_sync_retry = on and would lose mail"):
            Store(Place.of(settings.Spool(url=url))).open()


# --- a disk that is full

IS_ROOT = os.geteuid() == 0
MOUNTING = ["unshare", "--mount", *([] if IS_ROOT else ["--user", "--map-root-user"])]
ENTERING = ["nsenter", "--mount", *([] if IS_ROOT else ["--user", "--preserve-credentials"])]
MOUNT = 'mount -t tmpfs -o size=24m tmpfs "$0" && exec "$@"'


class SmallDisk(Spool):
    """A service whose spool has a file system of its own: a tmpfs that only the service sees, and that goes with it.

    It is seen from outside below /proc, and a file there takes its room.
    """

    def __init__(self, letters: LettersOnly, mount: Path) -> None:
        super().__init__(letters, mount / "spool.db")
        self._root = Path(f"/proc/{letters.appliance.pid}/root{mount}")

    def rows(self) -> list[Row]:
        """The same, read by a process that sees the file system: SQLite takes a path below /proc for another one."""
        command = [
            *ENTERING,
            "--target",
            str(self.letters.appliance.pid),
            sys.executable,
            "-m",
            "tests.harness.spool_file",
        ]
        run = subprocess.run([*command, str(self.path)], capture_output=True, text=True, check=True)
        return [
            (number, recipient, state, bytes.fromhex(content))
            for number, recipient, state, content in json.loads(run.stdout)
        ]

    @property
    def free(self) -> int:
        """Bytes of room."""
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize

    def fill(self, *, leave: int) -> None:
        """Takes all room but for some bytes."""
        (self._root / "ballast").write_bytes(bytes(self.free - leave))

    def empty(self) -> None:
        """Gives the room back."""
        (self._root / "ballast").unlink()


def _may_mount(mount: Path) -> bool:
    probe = [*MOUNTING, "sh", "-c", MOUNT, str(mount), "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@asynccontextmanager
async def small_disk(folder: Path, *, min_free: int) -> AsyncIterator[SmallDisk]:
    mount = folder / "disk"
    mount.mkdir()
    if not _may_mount(mount):
        pytest.skip("no file system can be mounted here (the container withholds it)")
    async with LettersOnly(
        folder / "all",
        spool=mount / "spool.db",
        extra={"spool": {"min_free": min_free}},
        wrapper=[*MOUNTING, "sh", "-c", MOUNT, str(mount)],
    ) as letters:
        yield SmallDisk(letters, mount)


async def test_a_full_disk_refuses_what_it_has_no_room_for_and_goes_on_once_it_has(tmp_path: Path) -> None:
    async with small_disk(tmp_path, min_free=0) as spool:
        assert await spool.submit("before") == set()
        spool.fill(leave=MIB * 3 // 4)
        assert await spool.submit(*(f"at-once{number}" for number in range(8)), size=MIB // 5) == REFUSED
        assert len(spool.answered) > 1, "there was room for one"
        assert (free := spool.free) < MIB * 5 // 8
        assert await spool.submit(*(f"large{number}" for number in range(8)), size=MIB // 2) == REFUSED
        assert spool.free > free - MIB // 8, "what was on its way is gone"
        spool.empty()
        assert await spool.submit("after", size=MIB) == set()
        await spool.all_delivered()
        assert spool.letters.appliance.starts == 1


async def test_a_disk_that_is_nearly_full_takes_no_more_but_settles_what_it_has(tmp_path: Path) -> None:
    async with small_disk(tmp_path, min_free=8 * MIB) as spool:
        spool.letters.next_hop.refuse_next(450)
        assert await spool.submit("waits", size=MIB) == set()
        spool.fill(leave=4 * MIB)
        assert await spool.submit("during") == REFUSED
        await spool.all_delivered()
        assert spool.free < 8 * MIB
        spool.empty()
        assert await spool.submit("after") == set()
        await spool.all_delivered()
        assert spool.letters.appliance.starts == 1
