"""A private PostgreSQL server: a cluster of its own in a folder under /tmp, gone when it is closed.

It is Debian's real server with fsync on, since durability is what we ask it about. It listens on a socket in a folder
that nobody else may enter, and on a port of 127.0.0.1 when it is given one; nobody is asked for a password. PostgreSQL
refuses to run as root: as root it runs as user `postgres`, or `nobody`. Its folder lies in /tmp because every parent
must be reachable by that user, and because the path of a socket may have no more than 107 characters.

Promises: `start` returns when it takes connections; what was committed is there after `kill` and `start`. When the
bench dies by whatever cause the server ends, and then its folder is removed: a watchman waits for both.

Use it from async code (`async with Postgres() as postgres:`) or from plain code (`with Postgres() as postgres:`):
whatever waits has a form for each. Start it from the main thread (`tests.harness.process`).
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psycopg
from psycopg import sql

from tests.harness.process import Missing, Process, find_program
from tests.harness.waiting import LOCALHOST, TookTooLong, until

Mode = Literal["fast", "immediate"]

USER = "relay"
"""The only user of the cluster; it may do anything."""

SOCKET_NUMBER = 5432
"""What the socket is named by when there is no port."""

START_SECONDS = 30.0
STOP_SECONDS = 20.0
CLEAN_UP_SECONDS = 600.0
"""Hundreds of databases were made: on a busy machine removing them takes its time."""

POSTGRESQL_CONF = """
listen_addresses = '{address}'
port = {port}
unix_socket_directories = '{folder}'
unix_socket_permissions = 0700
fsync = on
synchronous_commit = on
full_page_writes = on
max_connections = 60
shared_buffers = 16MB
max_wal_size = 256MB
dynamic_shared_memory_type = mmap
log_line_prefix = '%m [%p] '
log_statement = {log_statement}
lc_messages = 'C'
"""

WATCHMAN = """
read -r _
postmaster=$1/data/postmaster.pid
turns=0
while [ $turns -lt 400 ] &&
    pid=$(head -n 1 "$postmaster" 2>/dev/null) && [ "$(readlink "/proc/$pid/cwd")" = "$1/data" ]; do
    sleep 0.05
    turns=$((turns + 1))
done
memory=$(sed -n '7s/^ *[0-9]* *//p' "$postmaster" 2>/dev/null)
[ -z "$memory" ] || ipcrm -m "$memory" 2>/dev/null
rm -rf "$1"
"""
"""Runs until its standard input ends, which it does with the bench. Then waits for the server's end, and cleans up."""


class Postgres:
    """The server. `port` is one of 127.0.0.1 to listen on besides the socket; `log_statement` is `none` to `all`."""

    def __init__(self, *, port: int | None = None, log_statement: str = "none") -> None:
        self.port = port
        self.folder = Path(tempfile.mkdtemp(prefix="slip-relay-pg-", dir="/tmp"))
        self.data = self.folder / "data"
        self._watchman = subprocess.Popen(
            ["sh", "-c", WATCHMAN, "watchman", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._conf = POSTGRESQL_CONF.format(
            address=LOCALHOST if port else "", port=self._number, folder=self.folder, log_statement=log_statement
        )
        self._account = _account()
        if self._account is not None:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        self._process = Process(
            [*self._as_account("--pdeathsig", "QUIT"), str(programs() / "postgres"), "-D", str(self.data)],
            self.folder / "output.log",
            environment={"LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": str(self.folder)},
            death_signal="QUIT",
        )

    @property
    def url(self) -> str:
        """The database that is there from the start, over the socket, as SQLAlchemy names it."""
        return self.url_of("postgres")

    @property
    def pid(self) -> int:
        """Process id of the running postmaster."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs now."""
        return self._process.alive

    def url_of(self, database: str) -> str:
        """A database, over the socket, as SQLAlchemy names it."""
        port = f"&port={self._number}" if self._number != SOCKET_NUMBER else ""
        return f"postgresql+psycopg://{USER}@/{database}?host={self.folder}{port}"

    def url_over_tcp(self, database: str, *, port: int | None = None) -> str:
        """A database, over TCP; `port` is that of a proxy, if there is one between."""
        assert self.port, "a server without a port"
        return f"postgresql+psycopg://{USER}@{LOCALHOST}:{port or self.port}/{database}"

    def create_database(self, name: str | None = None) -> str:
        """A fresh, empty database; gives its URL (over the socket). Takes some hundredths of a second."""
        name = name or f"fresh_{uuid.uuid4().hex[:12]}"
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        return self.url_of(name)

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection of the bench's own, over the socket, that commits each statement by itself."""
        return psycopg.connect(
            host=str(self.folder), port=self._number, user=USER, dbname=database, autocommit=True, connect_timeout=10
        )

    async def start(self) -> None:
        """Start, or start again; returns when it takes connections. Raises DiedEarly, or TookTooLong."""
        if not self.data.exists():
            await asyncio.to_thread(self._initialise)
        self._spawn()
        await until(self._is_ready, self._not_ready, seconds=START_SECONDS)

    def start_sync(self) -> None:
        """`start` for plain code."""
        if not self.data.exists():
            self._initialise()
        self._spawn()
        _until_sync(self._is_ready, self._not_ready, START_SECONDS)

    async def stop(self, mode: Mode = "fast") -> None:
        """End it: `fast` cuts all sessions and writes what it has; `immediate` is a crash in good order."""
        self._order(mode)
        await until(self._all_gone, "PostgreSQL to end", seconds=STOP_SECONDS)

    def stop_sync(self, mode: Mode = "fast") -> None:
        """`stop` for plain code."""
        self._order(mode)
        _until_sync(self._all_gone, "PostgreSQL to end", STOP_SECONDS)

    async def restart(self, mode: Mode = "fast") -> None:
        """`stop` and `start`."""
        await self.stop(mode)
        await self.start()

    async def kill(self) -> None:
        """SIGKILL to all its processes at the same moment; returns when they are gone. `start` brings it back."""
        self._kill_all()
        await until(self._all_gone, "PostgreSQL to die", seconds=STOP_SECONDS)

    def kill_sync(self) -> None:
        """`kill` for plain code."""
        self._kill_all()
        _until_sync(self._all_gone, "PostgreSQL to die", STOP_SECONDS)

    async def close(self) -> None:
        """End it and remove its folder."""
        if self.alive:
            await self.stop("immediate")
        self._dismiss_watchman()
        await until(lambda: self._watchman.poll() is not None, "the watchman to clean up", seconds=CLEAN_UP_SECONDS)

    def close_sync(self) -> None:
        """`close` for plain code."""
        if self.alive:
            self.stop_sync("immediate")
        self._dismiss_watchman()
        self._watchman.wait(CLEAN_UP_SECONDS)

    def leave_sync(self) -> None:
        """End it, and leave its folder to the watchman: hundreds of databases take minutes to remove."""
        if self.alive:
            self.stop_sync("immediate")
        self._dismiss_watchman()
        self._watchman.returncode = 0  # it goes on without us: nothing is to be waited for, or warned of

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __enter__(self) -> Self:
        try:
            self.start_sync()
        except BaseException:
            self.close_sync()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_sync()

    def log_tail(self, lines: int = 25) -> str:
        """The end of its log."""
        return self._process.log_tail(lines)

    @property
    def _number(self) -> int:
        return self.port or SOCKET_NUMBER

    def _as_account(self, *options: str) -> list[str]:
        """How a program is run as the server's user. The signal of death does not survive the change of user."""
        if self._account is None:
            return []
        user, group = str(self._account.pw_uid), str(self._account.pw_gid)
        return [find_program("setpriv"), "--reuid", user, "--regid", group, "--clear-groups", *options]

    def _initialise(self) -> None:
        initdb = [
            *(str(programs() / "initdb"), "-D", str(self.data), "-U", USER, "-A", "trust", "-E", "UTF8"),
            *("--locale=C", "--no-sync", "--no-instructions", "--wal-segsize=4"),
        ]
        done = subprocess.run(
            [*self._as_account(), *initdb],
            cwd=self.folder,
            env={**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            shutil.rmtree(self.data, ignore_errors=True)
            raise RuntimeError(f"initdb could not make a cluster: {done.stdout.strip()}")
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.write(self._conf)

    def _spawn(self) -> None:
        if self.alive:
            raise RuntimeError("PostgreSQL runs already")
        self._process.start()

    def _is_ready(self) -> bool:
        if not self._process.alive:
            raise self._process.died("starting")
        try:
            status = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        return len(status) >= 8 and status[0] == str(self.pid) and status[7].strip() == "ready"

    def _not_ready(self) -> str:
        return f"PostgreSQL; its log ends:\n{self.log_tail()}"

    def _order(self, mode: Mode) -> None:
        self._process.signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)

    def _kill_all(self) -> None:
        """The postmaster first, so that it does not see its children go and begin to recover."""
        self._process.signal(signal.SIGKILL)
        for process in self._processes():
            _kill_if_in(process, self.data)

    def _all_gone(self) -> bool:
        return not self._process.alive and not self._processes()

    def _processes(self) -> list[int]:
        """Its processes. Each works in the data folder; of the bench's mark they keep nothing in their environment."""
        return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _works_in(int(entry), self.data)]

    def _dismiss_watchman(self) -> None:
        assert self._watchman.stdin is not None
        self._watchman.stdin.close()


def programs() -> Path:
    """The folder of the newest server's programs; raises Missing."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found:
        raise Missing("PostgreSQL's server is not installed (package: postgresql)")
    return max(found, key=lambda path: int(path.parent.name))


def _account() -> pwd.struct_passwd | None:
    """As root: whom to run it as. As anybody else: None."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _works_in(process: int, folder: Path) -> bool:
    try:
        return os.readlink(f"/proc/{process}/cwd") == str(folder)
    except OSError:
        return False


def _kill_if_in(process: int, folder: Path) -> None:
    try:
        descriptor = os.pidfd_open(process)
    except OSError:
        return
    try:
        if _works_in(process, folder):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _until_sync(condition: Callable[[], bool], what: str | Callable[[], str], seconds: float) -> None:
    """`until` for plain code."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise TookTooLong(f"waited {seconds:g} s for {what() if callable(what) else what}")
        time.sleep(0.02)
