"""The power fails right after a 250: what was answered is on the disk by then, whatever else is lost.

The real service runs under strace. From the trace it is known what a disk must hold at the moment each 250 left, and
what it may have lost; such disks are made, and the messages looked for on them. No power cut could be timed so well.
"""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness.letters_only import LettersOnly, body, letter
from tests.harness.power_loss import STRACE, TRACE_ENDS, Disk, Event, Recording, read_strace
from tests.harness.process import find_program
from tests.harness.waiting import until
from tests.journeys.story import queue_id

pytestmark = pytest.mark.asyncio(loop_scope="session")

SINGLE, BURST, LARGE = 5, 20, 3
SLOW_DISK = ("-e", "inject=fdatasync:delay_enter=20000")  # microseconds: so that what comes at a time has to wait
LARGE_SIZE = 3_200_000
"""Together more than the service keeps in its log before it moves it into the database file."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def recording(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Recording]:
    if not _may_trace():
        pytest.skip("strace may not trace here (the container withholds ptrace)")
    folder = tmp_path_factory.mktemp("power-loss")
    trace = folder / "trace"
    answered: dict[str, tuple[str, bytes]] = {}
    async with LettersOnly(folder / "all", wrapper=[*STRACE, *SLOW_DISK, "-o", str(trace)]) as letters:

        async def submit(mark: str, size: int = 2000) -> None:
            recipient = f"{mark}@patron.example"
            message = letter(mark, recipient, size)
            code, text = await letters.submit(message, recipient)
            assert code == 250, (code, text)
            answered[queue_id(text)] = (recipient, message)

        for number in range(SINGLE):
            await submit(f"single{number}")
        await asyncio.gather(*(submit(f"burst{number}") for number in range(BURST)))
        for number in range(LARGE):
            await submit(f"large{number}", LARGE_SIZE)
        await submit("after-the-checkpoint")
        await letters.end()
        await until(lambda: _end_of(trace).endswith(TRACE_ENDS), "strace to end")
    yield Recording(letters.spool, read_strace(trace), answered)
    trace.unlink()


def _may_trace() -> bool:
    probe = [find_program("strace"), "-o", "/dev/null", "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _end_of(trace: Path) -> str:
    with trace.open("rb") as file:
        file.seek(max(0, trace.stat().st_size - 100))
        return file.read().decode()


def begun_too_soon(events: Sequence[Event], spool: Path) -> list[int]:
    """Places in an account where the log is begun anew, or cut, while what was moved out of it is not synced yet."""
    database, log = str(spool), f"{spool}-wal"
    found = []
    clean, syncing = True, False
    for place, event in enumerate(events):
        if event.path == database and event.name in ("write", "ftruncate"):
            clean = syncing = False
        elif event == Event("sync-begin", database):
            syncing = True
        elif event == Event("sync", database):
            clean = clean or syncing
        elif event.path == log and (event.name in ("ftruncate", "unlink") or event.offset == 0) and not clean:
            found.append(place)
    return found


async def test_what_was_answered_250_survives_whatever_else_is_lost(recording: Recording, tmp_path: Path) -> None:
    assert len(recording.replies()) == len(recording.answered) == SINGLE + BURST + LARGE + 1
    database = str(recording.spool)
    last = recording.events[: recording.replies()[-1]]
    assert Event("sync", database) in last[_place(last, b"large0 00000000", database) :], "there was no checkpoint"
    assert await asyncio.to_thread(recording.lost, tmp_path / "disk") == []


@pytest.mark.prove
async def test_the_power_may_fail_at_any_moment(recording: Recording, tmp_path: Path) -> None:
    assert await asyncio.to_thread(recording.lost, tmp_path / "disk", torn=4, every=11) == []


async def test_each_250_leaves_after_its_bytes_were_written_and_synced(recording: Recording) -> None:
    """The same in the plainest words, without a model of the disk."""
    for place in recording.replies():
        number = recording.number(place)
        mark = recording.answered[number][0].partition("@")[0]
        first = mark.encode() + b" 00000000."
        before = recording.events[:place]
        written = [n for n, event in enumerate(before) if event.name == "write" and first in event.data]
        assert written, f"{mark} was not written before its 250"
        file = before[written[0]].path
        assert file.startswith(str(recording.spool))
        after = before[written[0] :]
        begun = after.index(Event("sync-begin", file))
        assert Event("sync", file) in after[begun:], f"{mark} was not synced before its 250"


async def test_the_folder_is_synced_before_the_first_250(recording: Recording) -> None:
    folder, before = str(recording.spool.parent), recording.events[: recording.replies()[0]]
    for name in (recording.spool.name, f"{recording.spool.name}-wal"):
        created = before.index(Event("create", f"{folder}/{name}"))
        begun = before.index(Event("sync-begin", folder), created)
        assert Event("sync", folder) in before[begun:], f"the name of {name} may be lost"


async def test_messages_that_come_at_a_time_share_a_sync(recording: Recording) -> None:
    log, replies = f"{recording.spool}-wal", recording.replies()
    alone = [
        place
        for before, place in zip([0, *replies], replies, strict=False)
        if Event("sync", log) in recording.events[before:place]
    ]
    assert SINGLE + LARGE < len(alone) < len(replies)


async def test_the_log_is_begun_anew_once_what_it_held_is_synced(recording: Recording) -> None:
    database = str(recording.spool)
    assert begun_too_soon(recording.events, recording.spool) == []
    unsynced = [event for event in recording.events if event != Event("sync", database)]
    assert begun_too_soon(unsynced, recording.spool) != [], "a check that can't fail shows nothing"


async def test_the_service_goes_on_with_such_a_disk(recording: Recording, tmp_path: Path) -> None:
    place = recording.replies()[SINGLE + BURST - 1]
    disk = Disk(recording.spool.parent)
    for event in recording.events[: place + 1]:
        disk.play(event)
    letters = LettersOnly(tmp_path / "all")
    for name, content in disk.certain().items():
        (letters.spool.parent / name).write_bytes(content)
    numbers = [recording.number(n) for n in recording.replies() if n <= place]
    async with letters:
        wanted = {recording.answered[number][0]: recording.answered[number][1] for number in numbers}
        open_ones = await _undelivered(letters, wanted)
        assert (await letters.queue("list"))[0] == 0
    assert open_ones == []


async def _undelivered(letters: LettersOnly, wanted: dict[str, bytes]) -> list[str]:
    """Waits until the spool has nothing under way; gives those whose letter is not delivered, then or before."""

    def settled() -> bool:
        with closing(sqlite3.connect(f"file:{letters.spool}?mode=ro", uri=True)) as database:
            states = database.execute("SELECT DISTINCT state FROM deliveries").fetchall()
        return states == [("delivered",)]

    await until(settled, "all to be delivered", seconds=20)
    with closing(sqlite3.connect(f"file:{letters.spool}?mode=ro", uri=True)) as database:
        delivered = {row[0] for row in database.execute("SELECT recipient FROM deliveries WHERE state = 'delivered'")}
    whole = {
        taken.rcpt_to[0] for taken in letters.next_hop.taken if body(taken.content) == body(wanted[taken.rcpt_to[0]])
    }
    assert len(whole) == len(letters.next_hop.taken)
    return sorted(set(wanted) - delivered)


def _place(events: Sequence[Event], text: bytes, path: str) -> int:
    """Where in the account a text is first written to a file."""
    return next(n for n, event in enumerate(events) if event.path == path and text in event.data)


async def test_a_250_without_a_sync_before_it_would_be_found(recording: Recording, tmp_path: Path) -> None:
    """The account is doctored: a check that can't fail shows nothing."""
    place = recording.replies()[2]
    log = f"{recording.spool}-wal"
    last_sync = max(n for n, event in enumerate(recording.events[:place]) if event == Event("sync", log))
    events = recording.events[: place + 1]
    number = recording.number(place)
    removed = [event for n, event in enumerate(events) if n != last_sync]
    failed = [replace(event, ok=False) if n == last_sync else event for n, event in enumerate(events)]
    too_soon = [*events[:last_sync], events[place], *events[last_sync:place]]
    for doctored in (removed, failed, too_soon):
        found = await asyncio.to_thread(recording.lost, tmp_path / "disk", events=doctored)
        assert f"at the reply after {number}, if all is lost: {number}" in found


async def test_a_folder_that_was_not_synced_would_be_found(recording: Recording, tmp_path: Path) -> None:
    folder = str(recording.spool.parent)
    events = [event for event in recording.events[: recording.replies()[0] + 1] if event.path != folder]
    found = await asyncio.to_thread(recording.lost, tmp_path / "disk", events=events)
    assert any("if all is lost: the spool can't be read" in line for line in found)
