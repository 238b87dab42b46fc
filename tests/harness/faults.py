"""A bad disk, for one process: a library that makes its calls on some files fail, and logs them (faults.c).

It is compiled when it is first wanted, and loaded with LD_PRELOAD: give `environment` to the process. Rules hold from
the next call on, in that process and in all that it starts; each process counts for itself:

    faults.set("fsync EIO spool.db-wal 1", "write delay:20 spool.db")

is call (write, fsync, ftruncate), errno or delay in milliseconds, a fragment of the path (with $ at its end: the end of
the path), and, if wanted, how often. fsync stands for fdatasync too, write for all its forms. A call that fails is not
made at all: a failed fsync leaves what it should have synced wherever it was.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.power_loss import Event
from tests.harness.preload import compiled

SOURCE = Path(__file__).with_suffix(".c")


class Faults:
    """The rules of one process. With `watch`, calls on paths that have this fragment are logged."""

    def __init__(self, folder: Path, *, watch: str | None = None) -> None:
        self._control, self._log = folder / "faults.rules", folder / "faults.log"
        library = compiled(SOURCE, folder)
        self.environment = {"LD_PRELOAD": str(library), "BENCH_FAULTS": str(self._control)}
        "What the process needs in its environment."
        if watch is not None:
            self.environment |= {"BENCH_FAULTS_LOG": str(self._log), "BENCH_FAULTS_WATCH": watch}
        self.clear()

    def set(self, *rules: str) -> None:
        """From now on these rules hold, and no others."""
        fresh = self._control.with_suffix(".new")
        fresh.write_text("".join(f"{rule}\n" for rule in rules), encoding="utf-8")
        os.replace(fresh, self._control)

    def clear(self) -> None:
        """From now on the disk is a good one."""
        self.set()

    @contextmanager
    def between_records(self) -> Iterator[None]:
        """No record is being written in here: a process that is killed leaves none half."""
        with self._log.open("ab") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            yield

    def events(self) -> list[Event]:
        """What was logged, in order. A failed call is an event that is not `ok`."""
        return _read(self._log.read_bytes()) if self._log.exists() else []


def _read(log: bytes) -> list[Event]:
    events, start = [], 0
    while start < len(log):
        end = log.index(b"\n", start)
        name, path, offset, result, _errno, size = log[start:end].decode().split("\t")
        start = end + 1 + int(size)
        events.append(Event(name, path, int(offset), log[end + 1 : start], ok=int(result) >= 0))
    return events
