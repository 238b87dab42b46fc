"""A wall clock that the test moves, for real processes: a library stands between them and the machine's (clock.c).

Give `environment` to each process that is to live by it, and to all that it starts. Only the wall clock moves; timers,
which count by the monotonic clock, go on, as on a machine whose clock is set, or which was suspended. A move is seen at
once, by all at the same moment. The times of files stay the machine's.
"""

from __future__ import annotations

import bisect
import mmap
import shutil
import struct
import tempfile
import time
from datetime import datetime
from pathlib import Path

from tests.harness.preload import compiled

SOURCE = Path(__file__).with_suffix(".c")


class Clock:
    """Shows another time than the machine's, from the beginning on. `close` removes its folder."""

    def __init__(self, shows: datetime) -> None:
        # Under /tmp, and for everybody: the filters of CUPS run as another user.
        self._folder = Path(tempfile.mkdtemp(prefix="slip-relay-clock-", dir="/tmp"))
        self._folder.chmod(0o755)
        file = self._folder / "offset"
        file.write_bytes(struct.pack("q", 0))
        with file.open("r+b") as opened:
            self._offset = mmap.mmap(opened.fileno(), 8)
        self._moved_at: list[float] = []
        self._offsets: list[float] = []
        self.environment = {"LD_PRELOAD": str(compiled(SOURCE, self._folder)), "BENCH_CLOCK": str(file)}
        "What a process needs in its environment."
        self.set(shows)

    def set(self, shows: datetime) -> None:
        """It shows this now, and goes on from there."""
        now = time.time()
        offset = shows.timestamp() - now
        self._offset[:] = struct.pack("q", int(offset * 1e9))
        self._moved_at.append(now)
        self._offsets.append(offset)

    def now(self) -> float:
        """What it shows, in seconds since the epoch."""
        return time.time() + self._offsets[-1]

    def showed(self, at: float) -> float:
        """What it showed at a moment of the machine's own clock."""
        return at + self._offsets[max(bisect.bisect_right(self._moved_at, at) - 1, 0)]

    def close(self) -> None:
        """Removes its file; whoever still lives by it goes on by what it showed."""
        self._offset.close()
        shutil.rmtree(self._folder, ignore_errors=True)
