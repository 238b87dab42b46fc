"""A private CUPS scheduler on 127.0.0.1, with folders of its own under /tmp, gone when it stops.

It is the system's real /usr/sbin/cupsd with the settings that slip-relay asks for: no time limit on jobs, no kept
documents, a kept history, retries soon. Anybody on this machine may do anything to it; it asks for no password, unless
it is `guarded`: then it does before its queues and settings are touched, as an ordinary CUPS would.
The folders lie in /tmp because every parent must be reachable by user `lp` (a test's own folder is not).

Promises: `add_queue` returns when the queue has its driverless PPD and takes jobs. After `kill` and `start` queues and
jobs are still there (every change is written at once, unlike on an ordinary CUPS, which waits half a minute).
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness.process import MARK, Process, find_program
from tests.harness.waiting import LOCALHOST, until

FOLDERS = ("server", "spool", "cache", "state", "tmp", "log", "ssl")

CUPSD_CONF = """\
Listen {address}
Listen {socket}
LogLevel {log_level}
MaxLogSize 0
Browsing No
WebInterface No
DefaultAuthType None
DefaultPaperSize A4
MaxJobs 0
MaxJobTime 0
MaxHoldTime 0
PreserveJobFiles No
PreserveJobHistory Yes
ErrorPolicy retry-job
JobRetryLimit 0
JobRetryInterval {retry_seconds}
DirtyCleanInterval 3600
<Location />
  Order allow,deny
  Allow from 127.0.0.1
</Location>
<Policy default>
  JobPrivateAccess all
  JobPrivateValues none
  SubscriptionPrivateAccess all
  SubscriptionPrivateValues none
{limits}  <Limit All>
    Order allow,deny
    Allow all
  </Limit>
</Policy>
"""

ADMINISTRATORS_ONLY = """\
  <Limit CUPS-Add-Modify-Printer CUPS-Delete-Printer CUPS-Accept-Jobs CUPS-Reject-Jobs Pause-Printer Resume-Printer>
    AuthType Basic
    Require user @SYSTEM
    Order deny,allow
  </Limit>
"""
SETTINGS_OF_ADMINISTRATORS = """\
<Location /admin/conf>
  AuthType Basic
  Require user @SYSTEM
  Order allow,deny
  Allow all
</Location>
"""

CUPS_FILES_CONF = """\
{accounts}ServerRoot {folder}/server
RequestRoot {folder}/spool
CacheDir {folder}/cache
StateDir {folder}/state
TempDir {folder}/tmp
ServerKeychain {folder}/ssl
AccessLog {folder}/log/access_log
ErrorLog {folder}/log/error_log
PageLog {folder}/log/page_log
PassEnv {mark}
"""


class CommandFailed(RuntimeError):
    """A CUPS command said no. The message is what it said."""


class Cupsd:
    """The scheduler. `async with Cupsd(port) as cupsd:`, or start() and stop()."""

    def __init__(
        self,
        port: int,
        *,
        retry_seconds: int = 2,
        log_level: str = "info",
        guarded: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is added to its own."""
        self.port = port
        self.address = f"{LOCALHOST}:{port}"
        self.folder = Path(tempfile.mkdtemp(prefix="slip-relay-cups-", dir="/tmp"))
        self.socket = self.folder / "sock"
        "Where it knows who is there without a password, as on an ordinary CUPS."
        self.error_log = self.folder / "log" / "error_log"
        conf, files = self.folder / "cupsd.conf", self.folder / "cups-files.conf"
        self._process = Process(
            ["cupsd", "-f", "-c", str(conf), "-s", str(files)],
            self.folder / "output.log",
            environment={
                "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.folder}/no-bus",
                "HOME": str(self.folder),
                **(environment or {}),
            },
        )
        self.folder.chmod(0o755)
        for name in FOLDERS:
            (self.folder / name).mkdir()
        settings = CUPSD_CONF.format(
            address=self.address,
            socket=self.socket,
            retry_seconds=retry_seconds,
            log_level=log_level,
            limits=ADMINISTRATORS_ONLY if guarded else "",
        )
        conf.write_text(settings + (SETTINGS_OF_ADMINISTRATORS if guarded else ""))
        files.write_text(CUPS_FILES_CONF.format(accounts=_accounts(), folder=self.folder, mark=MARK))

    @property
    def pid(self) -> int:
        """Process id of the running scheduler."""
        return self._process.pid

    async def start(self) -> None:
        """Start, or start again; returns when it answers."""
        self._process.start()
        await until(self._answers, lambda: f"cupsd; its log ends:\n{self.log_tail()}", seconds=15.0)

    async def stop(self) -> None:
        """End it as a service manager would, keeping queues and jobs; `start` brings it back."""
        await self._process.stop()

    async def restart_with(self, directive: str) -> None:
        """Start it again with one more line in its configuration."""
        await self.stop()
        with (self.folder / "cupsd.conf").open("a", encoding="utf-8") as conf:
            conf.write(directive + "\n")
        await self.start()

    async def kill(self) -> None:
        """End it and its backends at once, as a power cut would."""
        await self._process.kill()

    async def close(self) -> None:
        """End it and remove its folders."""
        await self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def add_queue(self, name: str, device_uri: str, *, options: str = "contimeout=4") -> None:
        """A driverless queue for the IPP printer at `device_uri`, which must be answering.

        CUPS asks the printer in the background and says nothing when that fails: it leaves a queue without a PPD. It
        also asks under the whole URI, and a printer does not know itself with options in its name. So the queue is
        made with the bare URI, and gets its options when the PPD is there.
        """
        await self.lpadmin(
            "-p",
            name,
            "-v",
            device_uri,
            "-m",
            "everywhere",
            "-o",
            "printer-error-policy=retry-job",
            "-o",
            "printer-is-shared=false",
        )
        ppd = self.folder / "server" / "ppd" / f"{name}.ppd"
        await until(
            lambda: ppd.exists() and "cupsFilter2" in ppd.read_text(errors="replace"),
            lambda: f"the PPD of queue {name}; cupsd's log ends:\n{self.log_tail()}",
        )
        await until(lambda: self._says(f'Printer "{name}" is now available'), f"queue {name} to be available")
        await self.lpadmin("-p", name, "-v", f"{device_uri}?{options}" if options else device_uri, "-E")

    async def lpadmin(self, *arguments: str) -> str:
        """Run lpadmin against this scheduler; gives its output, raises CommandFailed."""
        return await self.command("lpadmin", *arguments)

    async def command(self, program: str, *arguments: str) -> str:
        """Run a CUPS command (lp, lpstat, cancel, cupsdisable, ...) against this scheduler."""
        child = await asyncio.create_subprocess_exec(
            find_program(program),
            "-h",
            self.address,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(self.folder)},
        )
        output = (await child.communicate())[0].decode(errors="replace").strip()
        if child.returncode != 0:
            raise CommandFailed(f"{program} {' '.join(arguments)}: {output or f'exit code {child.returncode}'}")
        return output

    def log_tail(self, lines: int = 25) -> str:
        """The end of its error log, and of what it wrote before it had one."""
        said = self.error_log.read_text(errors="replace").splitlines() if self.error_log.exists() else []
        return "\n".join([self._process.log_tail(5), *said[-lines:]])

    def _says(self, text: str) -> bool:
        return self.error_log.exists() and text in self.error_log.read_text(errors="replace")

    async def _answers(self) -> bool:
        if not self._process.alive:
            raise self._process.died("starting")
        try:
            return "is running" in await self.command("lpstat", "-r")
        except CommandFailed:
            return False


def _accounts() -> str:
    """As root: filters run as lp. As anybody else: everything runs as that user."""
    if os.geteuid() == 0:
        return "User lp\nGroup lp\nSystemGroup root\n"
    return f"User {pwd.getpwuid(os.geteuid()).pw_name}\nSystemGroup root\n"
