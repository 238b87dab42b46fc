"""The bad disk does what its rules say, to the process that has it; the account of what is on the disk is strict."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.harness.faults import Faults
from tests.harness.power_loss import Disk, Event

CHILD = """
import os, sys, sqlite3
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
calls = {
    "write": lambda: os.write(file, b"ab\\n\\tcd"), "pwrite": lambda: os.pwrite(file, b"efg", 100),
    "pwritev": lambda: os.pwritev(file, [b"hi", b"jkl"], 200), "fsync": lambda: os.fsync(file),
    "fdatasync": lambda: os.fdatasync(file), "ftruncate": lambda: os.ftruncate(file, 4),
}
for word in sys.stdin:
    try:
        calls[word.strip()]()
        print(0, flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""


class Child:
    """A process with a bad disk, that makes the calls it is told to on one file."""

    def __init__(self, path: Path, faults: Faults) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path)],
            env={**os.environ, **faults.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def call(self, *names: str) -> list[int]:
        """What each call ended with: an errno, or 0."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        answers = []
        for name in names:
            self.process.stdin.write(name + "\n")
            answers.append(int(self.process.stdout.readline()))
        return answers

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.terminate()


def test_only_the_calls_and_the_files_of_a_rule_fail_and_only_while_it_holds(tmp_path: Path) -> None:
    faults = Faults(tmp_path)
    with Child(tmp_path / "spool.db", faults) as spool, Child(tmp_path / "other", faults) as other:
        assert spool.call("write", "pwrite", "pwritev", "fsync", "fdatasync", "ftruncate") == [0] * 6
        faults.set("write ENOSPC spool.db")
        assert spool.call("write", "pwrite", "pwritev") == [errno.ENOSPC] * 3
        assert spool.call("fsync", "fdatasync", "ftruncate") == [0] * 3
        assert other.call("write", "fsync") == [0] * 2
        faults.set("fsync EIO spool.db", "ftruncate EROFS spool.db")
        assert spool.call("write", "fsync", "fdatasync", "ftruncate") == [0, errno.EIO, errno.EIO, errno.EROFS]
        faults.clear()
        assert spool.call("write", "pwrite", "pwritev", "fsync", "fdatasync", "ftruncate") == [0] * 6


def test_a_rule_can_count_and_can_ask_for_the_end_of_the_path(tmp_path: Path) -> None:
    faults = Faults(tmp_path)
    with Child(tmp_path / "spool.db", faults) as database, Child(tmp_path / "spool.db-wal", faults) as log:
        faults.set("fsync EIO spool.db$ 2")
        assert log.call("fsync") == [0]
        assert database.call("fsync", "fsync", "fsync") == [errno.EIO, errno.EIO, 0]
        faults.set("fsync EIO spool.db$ 1")
        assert database.call("fsync", "fsync") == [errno.EIO, 0]


def test_a_rule_can_make_a_call_slow(tmp_path: Path) -> None:
    faults = Faults(tmp_path)
    with Child(tmp_path / "spool.db", faults) as spool:
        spool.call("fsync")
        faults.set("fsync delay:150 spool.db 1", "fsync EIO spool.db 1")
        began = time.monotonic()
        assert spool.call("fsync") == [errno.EIO]
        assert time.monotonic() - began >= 0.15


def test_the_log_has_what_was_written_and_what_failed(tmp_path: Path) -> None:
    faults = Faults(tmp_path, watch="spool.db")
    path = tmp_path / "spool.db"
    with Child(path, faults) as spool, Child(tmp_path / "other", faults) as other:
        other.call("write")
        spool.call("write", "pwrite", "pwritev", "ftruncate")
        faults.set("fsync EIO spool.db 1", "write EIO spool.db")
        spool.call("fsync", "fdatasync", "pwrite")
    assert faults.events() == [
        Event("write", str(path), -1, b"ab\n\tcd"),
        Event("write", str(path), 100, b"efg"),
        Event("write", str(path), 200, b"hijkl"),
        Event("ftruncate", str(path), 4),
        Event("sync-begin", str(path)),
        Event("sync", str(path), ok=False),
        Event("sync-begin", str(path)),
        Event("sync", str(path)),
        Event("write", str(path), 100, ok=False),
    ]


def _played(*events: Event, names_are_certain: bool = True) -> Disk:
    disk = Disk(Path("/d"), names_are_certain=names_are_certain)
    for event in events:
        disk.play(event)
    return disk


BEGIN, SYNC, FAILED = Event("sync-begin", "/d/a"), Event("sync", "/d/a"), Event("sync", "/d/a", ok=False)


def _write(data: bytes, offset: int = 0) -> Event:
    return Event("write", "/d/a", offset, data)


def test_only_what_was_written_before_a_sync_began_is_certain() -> None:
    disk = _played(_write(b"12345"), BEGIN, _write(b"x", 1), SYNC, _write(b"y", 7))
    assert disk.certain() == {"a": b"12345"}
    assert disk.lucky() == {"a": b"1x345\0\0y"}


def test_a_sync_that_says_no_is_not_made_up_for_by_one_that_says_yes() -> None:
    doubtful = _played(_write(b"12345"), BEGIN, FAILED, BEGIN, SYNC)
    assert doubtful.certain() == {"a": b""}
    assert doubtful.lucky() == {"a": b"12345"}
    assert _played(_write(b"12345"), BEGIN, FAILED, _write(b"12345"), BEGIN, SYNC).certain() == {"a": b"12345"}


def test_a_change_of_size_is_certain_after_a_sync_too() -> None:
    shortened = Event("ftruncate", "/d/a", 2)
    disk = _played(_write(b"12345"), BEGIN, SYNC, shortened)
    assert disk.certain() == {"a": b"12345"}
    disk.play(BEGIN)
    disk.play(SYNC)
    assert disk.certain() == {"a": b"12"}


def test_a_name_is_certain_after_a_sync_of_the_folder() -> None:
    disk = _played(_write(b"1"), BEGIN, SYNC, names_are_certain=False)
    assert disk.certain() == {}
    disk.play(Event("sync-begin", "/d"))
    disk.play(Event("create", "/d/late"))
    disk.play(Event("sync", "/d"))
    assert disk.certain() == {"a": b"1"}
    disk.play(Event("unlink", "/d/a"))
    assert disk.certain() == {"a": b"1"}
    assert disk.lucky() == {"late": b""}


def test_a_torn_disk_is_between_the_two() -> None:
    disk = _played(_write(b"1"), BEGIN, SYNC, _write(b"2", 1), _write(b"3", 2))
    assert {disk.torn(seed)["a"] for seed in range(50)} == {b"1", b"12", b"1\x003", b"123"}


def test_a_call_that_failed_changed_nothing() -> None:
    assert _played(Event("write", "/d/a", 0, b"1", ok=False)).lucky() == {}


def test_a_write_nobody_knows_the_place_of_is_an_error() -> None:
    with pytest.raises(AssertionError, match="without an offset"):
        _played(Event("write", "/d/a", -1, b"1"))
