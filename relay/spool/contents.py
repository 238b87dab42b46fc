"""The bytes of a message on their way into the spool and out of it: in memory when they are few, else in parts.

In the database the first part stands in `bodies`, what is more in `body_parts`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

SMALL = 256 * 1024
"""Bytes up to which a message is held in memory as it comes in, and read where an attempt of it is recorded."""

PART = 1024 * 1024
"""Bytes of one row."""


class LargeContent:
    """Content that is too large for memory: a file without a name, gone when it is closed or the process dies.

    Written by one thread, then read by others. It is not synced, for nobody needs it once the process is gone.
    """

    def __init__(self, folder: Path | None) -> None:
        """`folder` is where the file is made as soon as there is something to write; None for the system's own."""
        self._folder = folder
        self._file: FileIO | None = None
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, data: bytes) -> None:
        """Writes bytes at the end. Raises OSError when the disk is full or fails."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder, prefix="slip-relay-", buffering=0)  # noqa: SIM115
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._size += len(data)

    def read(self, start: int, size: int) -> bytes:
        """The bytes at a place. Raises OSError, or ValueError once it is closed."""
        assert self._file is not None
        data = os.pread(self._file.fileno(), size, start)
        if len(data) != size:
            raise OSError("a temporary file is shorter than what was written to it")
        return data

    def close(self) -> None:
        """Gives its room on the disk back. May be called twice."""
        if self._file is not None:
            self._file.close()


Content = bytes | LargeContent


def parts(content: Content) -> Iterator[bytes]:
    """Content in the rows of the database; an empty one has one too."""
    size = len(content)
    for start in range(0, size or 1, PART):
        if isinstance(content, LargeContent):
            yield content.read(start, min(PART, size - start))
        else:
            yield content if size <= PART else content[start : start + PART]
