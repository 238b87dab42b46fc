"""Whether files have changed since they were last read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

Stamp = tuple[tuple[int, int, int], ...]
"""What changes when files change: for each its inode, size and time."""


def stamp_of(files: Iterable[Path | None]) -> Stamp:
    """The stamp of some files; one that is not there has a stamp too, and None has none."""
    return tuple(_of(file) for file in files if file is not None)


def _of(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns
