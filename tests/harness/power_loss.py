"""What would be on the disk if the power failed now: an account of the calls that a process made, replayed.

`Disk` knows what a file system promises and nothing more: what was written is there for certain when a sync of the file
that began afterwards has said yes; a name in a folder, when a sync of the folder has. All the rest may be there or not.
A sync that says no settles nothing, and a later one that says yes does not make up for it: the kernel may have dropped
what it could not write. Only bytes that are written anew count anew.

`read_strace` makes the account from a trace, `tests.harness.faults` from its log. `Recording` looks for what was
answered with 250 on such disks.
"""

from __future__ import annotations

import ast
import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.spool_file import stored_bodies

STRACE = (
    *("strace", "-D", "-f", "-yy", "-q", "--seccomp-bpf", "-s", "100000000", "-e"),
    "trace=openat,write,pwrite64,pwritev,writev,fsync,fdatasync,sendto,sendmsg,rename,renameat2,unlink,ftruncate",
    *("-e", "signal=none"),
)
"""How a program is to be traced; `-o FILE` and the program come behind. It stays the child of its parent."""

REPLY = b"250 2.0.0 queued as "


@dataclass(frozen=True, slots=True)
class Event:
    """One call: `create`, `write`, `ftruncate`, `rename`, `unlink`, `sync-begin`, `sync`; or `reply`, a 250 that left.

    `offset` is the new size in an ftruncate; `data` the new path in a rename and the text in a reply.
    """

    name: str
    path: str
    offset: int = -1
    data: bytes = b""
    ok: bool = True


@dataclass(slots=True)
class _Change:
    """One write (or, without data, one change of size), and what is known of it."""

    offset: int
    data: bytes | None
    state: str = "open"  # "syncing": a sync has begun since; "certain"; "doubtful": a sync of it has failed

    def apply(self, content: bytearray) -> None:
        if self.data is None:
            content[self.offset :] = bytes(max(0, self.offset - len(content)))
            return
        content.extend(bytes(max(0, self.offset - len(content))))
        content[self.offset : self.offset + len(self.data)] = self.data


@dataclass(slots=True)
class _File:
    base: bytearray = field(default_factory=bytearray)
    changes: list[_Change] = field(default_factory=list)

    def sync(self, *, ok: bool) -> None:
        for change in self.changes:
            if change.state == "syncing":
                change.state = "certain" if ok else "doubtful"
        while self.changes and self.changes[0].state == "certain":
            self.changes.pop(0).apply(self.base)

    def content(self, keep: Callable[[], bool]) -> bytes:
        content = bytearray(self.base)
        for change in self.changes:
            if change.state == "certain" or keep():
                change.apply(content)
        return bytes(content)


class Disk:
    """The files of one folder. With `names_are_certain`, folders need no sync (the account does not tell of them)."""

    def __init__(self, folder: Path, *, names_are_certain: bool = False) -> None:
        self._folder = str(folder)
        self._names_are_certain = names_are_certain
        self._now: dict[str, _File] = {}
        self._certain: dict[str, _File] = {}
        self._at_sync: dict[str, _File] = {}

    def play(self, event: Event) -> None:
        """One more call was made."""
        if event.path == self._folder:
            if event.name == "sync-begin":
                self._at_sync = dict(self._now)
            elif event.name == "sync" and event.ok:
                self._certain = self._at_sync
        elif event.path.startswith(self._folder + "/") and (event.ok or event.name == "sync"):
            self._play(event)
            if self._names_are_certain:
                self._certain = dict(self._now)

    def _play(self, event: Event) -> None:
        if event.name in ("create", "write", "ftruncate"):
            file = self._now.setdefault(event.path, _File())
            if event.name != "create":
                assert event.offset >= 0, f"a write to {event.path} without an offset"
                file.changes.append(_Change(event.offset, event.data if event.name == "write" else None))
        elif event.name == "unlink":
            self._now.pop(event.path, None)
        elif event.name == "rename":
            self._now[event.data.decode()] = self._now.pop(event.path, _File())
        elif event.path in self._now:
            file = self._now[event.path]
            if event.name == "sync-begin":
                for change in file.changes:
                    change.state = "syncing" if change.state == "open" else change.state
            else:
                file.sync(ok=event.ok)

    def certain(self) -> dict[str, bytes]:
        """The files, by name, as they are if all is lost that may be lost."""
        return self._image(self._certain, lambda: False)

    def lucky(self) -> dict[str, bytes]:
        """The files as they are if nothing is lost."""
        return self._image(self._now, lambda: True)

    def torn(self, seed: int) -> dict[str, bytes]:
        """The files as they are if some is lost and some is not, whatever the order it was written in."""
        dice = random.Random(seed)
        return self._image(self._now if dice.random() < 0.5 else self._certain, lambda: dice.random() < 0.5)

    def _image(self, files: dict[str, _File], keep: Callable[[], bool]) -> dict[str, bytes]:
        return {Path(path).name: file.content(keep) for path, file in files.items()}


@dataclass(frozen=True, slots=True)
class Recording:
    """A run of the service: what was answered with 250, by queue id, as recipient and message; and the account.

    The account grows on while the service runs, and so may `answered`.
    """

    spool: Path
    events: list[Event] = field(default_factory=list)
    answered: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    names_are_certain: bool = False

    def replies(self) -> list[int]:
        """The places of the 250s in the account."""
        return [place for place, event in enumerate(self.events) if event.name == "reply"]

    def number(self, place: int) -> str:
        """The queue id in a 250."""
        return _queue_id(self.events[place])

    def lost(
        self,
        work: Path,
        *,
        events: Sequence[Event] | None = None,
        since: int = 0,
        torn: int = 2,
        every: int | None = None,
    ) -> list[str]:
        """What a power cut would lose of what was answered: one line for each find.

        It is looked for at the moment of each 250, at each step of moving the log into the database file and beginning
        it anew, and at each `every`-th call, from the place `since` on; on a disk that lost all it may lose, one that
        lost nothing, and `torn` between them.
        `work` is a folder for the disks; `events` stands in for the account.
        """
        disk = Disk(self.spool.parent, names_are_certain=self.names_are_certain)
        database, log = str(self.spool), f"{self.spool}-wal"
        began_anew = False
        answered: list[str] = []
        found = []
        for place, event in enumerate(self.events if events is None else events):
            disk.play(event)
            if event.name == "reply":
                answered.append(_queue_id(event))
            began_anew = began_anew or (event.name == "write" and event.path == log and event.offset == 0)
            is_step = event.name == "sync" and (event.path == database or began_anew)
            began_anew = began_anew and not is_step
            is_moment = event.name in ("reply", "ftruncate") or is_step or (every is not None and place % every == 0)
            if not is_moment or place < since or not answered:
                continue
            images = {"all is lost": disk.certain(), "nothing is lost": disk.lucky()}
            images |= {f"torn, {seed}": disk.torn(place + seed) for seed in range(torn)}
            for how, image in images.items():
                missing = self._missing(answered, image, work)
                if missing:
                    found.append(f"at the {event.name} after {answered[-1]}, if {how}: {missing}")
        return found

    def _missing(self, answered: Sequence[str], image: dict[str, bytes], work: Path) -> str:
        """What is wrong with the spool on such a disk; "" when every answered message is there, whole."""
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        for name, content in image.items():
            if not name.endswith(("-shm", ".lock")):
                (work / name).write_bytes(content)
        try:
            with closing(sqlite3.connect(f"file:{work / self.spool.name}?mode=rw", uri=True)) as database:
                bad = database.execute("PRAGMA quick_check").fetchall()
                bodies = stored_bodies(database)
                recipients = database.execute("SELECT queue_id, recipient FROM deliveries")
                stored = {number: (recipient, bodies.get(number)) for number, recipient in recipients}
        except sqlite3.Error as error:
            return f"the spool can't be read: {error}"
        if bad != [("ok",)]:
            return f"the spool is damaged: {bad[:3]}"
        return ", ".join(number for number in answered if stored.get(number) != self.answered[number])


def _queue_id(reply: Event) -> str:
    return reply.data.decode().split()[-1]


TRACE_ENDS = " +++\n"
"""How a trace ends once the program has."""

_LINE = re.compile(r"(\d+) +(?:<\.\.\. \w+ resumed>)?(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(.*)", re.DOTALL)
_FD = re.compile(r"(?:\d+|AT_FDCWD)<(.*?)>(?:\(deleted\))?(?:, |\)|$)")
_NAMELESS = re.compile(r"\d+<[^>]*>\(deleted\)")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"(\.\.\.)?')


def read_strace(trace: Path) -> list[Event]:
    """The account of a trace made with STRACE: replies and syncs as they begin, all other calls as they end."""
    events: list[Event] = []
    begun: dict[str, str] = {}
    for line in trace.read_text(encoding="ascii").split("\n")[:-1]:
        match = _LINE.fullmatch(line)
        assert match, f"strace said: {line[:200]}"
        thread, text = match.groups()
        resumed = begun.pop(thread, None)
        if text.endswith("<unfinished ...>"):
            begun[thread] = text.removesuffix("<unfinished ...>").rstrip()
            events.extend(_beginning(begun[thread]))
            continue
        if resumed is None:
            events.extend(_beginning(text))
        call = _CALL.fullmatch((resumed or "") + text)
        if call is not None:  # else the end of a thread
            events.extend(_end(*call.groups()))
    return events


def _beginning(text: str) -> Iterator[Event]:
    name, _, arguments = text.partition("(")
    if name in ("fsync", "fdatasync"):
        yield Event("sync-begin", _path(arguments))
    elif name in ("sendto", "sendmsg", "write", "writev") and f'"{REPLY.decode()}' in arguments:
        yield Event("reply", "-", data=_data(arguments))


def _end(name: str, arguments: str, result: str, tail: str) -> Iterator[Event]:
    ok = not result.startswith("-")
    if name in ("fsync", "fdatasync"):
        yield Event("sync", _path(arguments), ok=ok)
    elif _NAMELESS.match(arguments):
        pass  # a file without a name: nothing of it is there after a power cut
    elif name in ("write", "pwrite64", "writev", "pwritev"):
        path = _path(arguments)
        if path.startswith("/"):  # else a socket or a pipe
            offset = int(arguments.rpartition(", ")[2]) if name == "pwrite64" else -1
            yield Event("write", path, offset, _data(arguments)[: max(0, int(result))], ok=ok)
    elif name == "ftruncate":
        yield Event("ftruncate", _path(arguments), int(arguments.rpartition(", ")[2]), ok=ok)
    elif name == "openat" and "O_CREAT" in arguments and ok:
        yield Event("create", tail[1:].rpartition(">")[0])
    elif name == "unlink":
        yield Event("unlink", _data(arguments).decode(), ok=ok)
    elif name in ("rename", "renameat2"):
        old, new = (ast.literal_eval(f'b"{text}"') for text, _ in _TEXT.findall(arguments))
        yield Event("rename", old.decode(), data=new, ok=ok)


def _path(arguments: str) -> str:
    match = _FD.match(arguments)
    assert match, f"no path in {arguments[:200]}"
    return match.group(1)


def _data(arguments: str) -> bytes:
    match = _TEXT.search(arguments)
    assert match is not None, f"no text in {arguments[:200]}"
    assert match.group(2) is None, "strace has shortened what was written"
    data: bytes = ast.literal_eval(f'b"{match.group(1)}"')
    return data
