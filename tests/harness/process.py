"""A child process that can't outlive the bench.

Each child runs in a session of its own, with its output in a log file, and gets a signal when the bench dies by
whatever cause (`setpriv --pdeathsig`). All that it starts in turn inherits a mark in its environment, so that `stop`
can end what the child left behind and nothing else: a process is only ever signalled after its mark was read.

Limit: the death signal is tied to the thread that starts the child, so start children from the main thread.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.harness.waiting import TookTooLong, until

MARK = "SLIP_RELAY_BENCH"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Missing(RuntimeError):
    """A program that the bench needs is not installed. The message says which package has it."""


class DiedEarly(RuntimeError):
    """A child ended, or did not start, when it should be running. The message has the end of its log."""


class Process:
    """One child, which can be started again after it ended."""

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        death_signal: str = "TERM",
    ) -> None:
        self.argv = list(argv)
        self.log = log
        self.mark = uuid.uuid4().hex
        self._environment = dict(environment or {})
        self._death_signal = death_signal
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """The program's name, for messages."""
        return Path(self.argv[0]).name

    @property
    def pid(self) -> int:
        """Process id of the running, or last run, child."""
        if self._popen is None:
            raise DiedEarly(f"{self.name} was not started")
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether the child runs now."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit code (negative: the signal that ended it) of an ended child."""
        return None if self._popen is None else self._popen.poll()

    def start(self) -> None:
        """Start the child; returns at once. Raises Missing when the program is not installed."""
        program = find_program(self.argv[0])
        environment = {**os.environ, **self._environment, MARK: self.mark}
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                [find_program("setpriv"), "--pdeathsig", self._death_signal, program, *self.argv[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    async def until_gone(self, seconds: float) -> bool:
        """Wait for the child's end; False when it is still running after `seconds`."""
        try:
            await until(lambda: not self.alive, "the end of a child", seconds=seconds)
        except TookTooLong:
            return False
        return True

    async def stop(self, seconds: float = 15.0) -> int | None:
        """SIGTERM, after `seconds` SIGKILL, then SIGKILL to whatever it left behind; gives its exit code."""
        self.signal(signal.SIGTERM)
        await self.until_gone(seconds)
        await self.kill()
        return self.exit_code

    async def kill(self) -> None:
        """SIGKILL to the child and to all that it started, at the same moment."""
        if self.alive:  # not reaped yet, so the group is still its own
            os.killpg(self.pid, signal.SIGKILL)
        await until(lambda: not self.alive and not _kill_marked(self.mark), f"{self.name} to die", seconds=10.0)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child alone; nothing happens when it has ended."""
        if self.alive and self._popen is not None:
            self._popen.send_signal(number)

    def log_tail(self, lines: int = 25) -> str:
        """The end of the child's log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def died(self, doing: str) -> DiedEarly:
        """The error that says that the child ended while `doing` something, with the end of its log."""
        return DiedEarly(f"{self.name} ended with {self.exit_code} while {doing}; its log ends:\n{self.log_tail()}")


def find_program(name: str) -> str:
    """Path of a program, looked for in the system's folders too; raises Missing."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")
    if path is None:
        raise Missing(
            f"the program {name} is not installed (packages: cups-daemon cups-client cups-ipp-utils "
            "cups-filters dbus-daemon util-linux poppler-utils gcc strace)"
        )
    return path


def _kill_marked(mark: str) -> bool:
    """SIGKILL to every process that carries the mark; whether there was one."""
    found = False
    for process in _processes():
        found = _kill_if_marked(process, mark) or found
    return found


def _processes() -> Iterator[int]:
    own = os.getpid()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != own:
            yield int(entry)


def _kill_if_marked(process: int, mark: str) -> bool:
    try:
        descriptor = os.pidfd_open(process)
    except OSError:
        return False
    try:
        environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        if f"{MARK}={mark}".encode() not in environment:
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
