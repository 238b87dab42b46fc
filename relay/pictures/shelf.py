"""The copies of pictures, in a folder: for each URL its bytes, and a note beside them.

Does: keeps and finds copies, remembers when each is to be compared with its server again, and makes room.
Promises: a copy is there whole or not at all, readable by this account only; at most MAX_COPIES and MAX_BYTES.
Refuses: nothing; what can't be read in a note counts as no note.
Known limits: one service writes to a folder. `slip-relay pictures fetch` may write beside it: the last one wins.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from relay.config.pictures import copy_name

MAX_COPIES = 200
MAX_BYTES = 64 * 1024 * 1024
NOTE = ".json"


@dataclass(frozen=True, slots=True)
class Note:
    """What is known of a URL. Times are seconds since 1970; `size` is that of the copy, 0 when there is none yet."""

    url: str
    size: int = 0
    etag: str = ""
    modified: str = ""
    fetched: float = 0.0
    asked: float = 0.0
    due: float = 0.0
    failures: int = 0
    trouble: str = ""


class Shelf:
    """The folder of copies. It is made when it is first written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def note(self, url: str) -> Note | None:
        """What is known of a URL; None when it was never tried."""
        return self._read(self.folder / (copy_name(url) + NOTE))

    def notes(self) -> Iterator[Note]:
        """All of them, in the order of their URLs."""
        found = [note for path in self.folder.glob("*" + NOTE) if (note := self._read(path)) is not None]
        return iter(sorted(found, key=lambda note: note.url))

    def keep(self, note: Note, content: bytes | None = None) -> None:
        """Writes a note, with the new bytes of its copy if there are any, and removes what there is no room for."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = copy_name(note.url)
        if content is not None:
            self._write(name, content)
        self._write(name + NOTE, json.dumps(asdict(note)).encode())
        self._make_room(note)

    def _make_room(self, kept: Note) -> None:
        """Those that were asked for longest ago go first; the new one stays."""
        others = sorted((note for note in self.notes() if note.url != kept.url), key=lambda note: -note.asked)
        count, size = 1, kept.size
        for note in others:
            count, size = count + 1, size + note.size
            if count > MAX_COPIES or size > MAX_BYTES:
                for path in (self.folder / copy_name(note.url), self.folder / (copy_name(note.url) + NOTE)):
                    path.unlink(missing_ok=True)

    def _read(self, path: Path) -> Note | None:
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Note(**json.loads(path.read_bytes()))
        return None

    def _write(self, name: str, content: bytes) -> None:
        number, path = tempfile.mkstemp(dir=self.folder, prefix=".new-")
        try:
            with os.fdopen(number, "wb") as file:
                file.write(content)
            owner = self.folder.stat()
            if os.geteuid() == 0:  # the command, run by root, for a service that is not
                os.chown(path, owner.st_uid, owner.st_gid)
            os.replace(path, self.folder / name)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise
