"""Virtual IPP printers that can be broken and mended by writing into a file.

Each is the real `ippeveprinter` of CUPS on 127.0.0.1 (a D-Bus of its own stands in for the system's). Its print
command, `print_command.sh`, reads the printer's fault file:

    media-empty      the job waits, the printer reports media-empty, until it is mended; media-jam and cover-open too
    abort            the job is aborted, its document thrown away
    slow <seconds>   the job takes that long
    offline          the printer is switched off (killed) until it is mended
    (empty)          healthy

Promises: `paper_dir` holds the documents that were completed and no others, file names in order of completion, also
across restarts of the printer. A fault is noticed within 0.3 s.

Limits, all of ippeveprinter: one job at a time (others are told "busy"); job ids begin again at 1 when it restarts;
it forgets completed jobs after 60 s; printer-state-reasons change only while a job is there.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness.media import Media, attributes
from tests.harness.process import DiedEarly, Process, find_program
from tests.harness.waiting import TookTooLong, port_is_open, until

COMMAND = Path(__file__).with_name("print_command.sh")
WATCH_SECONDS = 0.1

BUS_CONF = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""

CANCELLED_TEST = """\
{
  NAME "Was the job cancelled?"
  OPERATION Get-Job-Attributes
  GROUP operation-attributes-tag
  ATTR charset attributes-charset utf-8
  ATTR naturalLanguage attributes-natural-language en
  ATTR uri job-uri $uri
  ATTR keyword requested-attributes job-state-reasons
  STATUS successful-ok
  EXPECT job-state-reasons WITH-VALUE "processing-to-stop-point"
}
"""


class Bus:
    """A D-Bus for the printers alone, in a folder of its own: a socket's path must be short."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slip-relay-bus-", dir="/tmp"))
        self.socket = self.folder / "bus"
        self.address = f"unix:path={self.socket}"
        self.ask = self.folder / "cancelled.test"
        self.ask.write_text(CANCELLED_TEST)
        conf = self.folder / "bus.conf"
        conf.write_text(BUS_CONF.format(socket=self.socket))
        self._process = Process(
            ["dbus-daemon", f"--config-file={conf}", "--nofork", "--nopidfile"], self.folder / "log"
        )

    async def __aenter__(self) -> Self:
        self._process.start()
        await until(self.socket.exists, lambda: f"dbus-daemon; its log ends:\n{self._process.log_tail()}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class VirtualPrinter:
    """One printer. `async with VirtualPrinter(...) as printer:`."""

    def __init__(self, name: str, media: Media, port: int, folder: Path, bus: Bus) -> None:
        self.name = name
        self.folder = folder
        self.paper_dir = folder / "paper"
        self.fault_file = folder / "fault"
        self.device_uri = f"ipp://localhost:{port}/ipp/print"
        self.port = port
        spool, conf = folder / "spool", folder / "attributes.conf"
        for path in (self.paper_dir, spool, folder / "keys"):
            path.mkdir(parents=True, exist_ok=True)
        conf.write_text(attributes(media, f"slip-relay virtual {name}"))
        self.fault_file.touch()
        self._process = Process(
            [
                "ippeveprinter",
                "-r",
                "off",
                "-n",
                "localhost",
                "-p",
                str(port),
                "-K",
                str(folder / "keys"),
                "-d",
                str(spool),
                "-c",
                str(COMMAND),
                "-a",
                str(conf),
                name,
            ],
            folder / "log",
            environment={
                "DBUS_SYSTEM_BUS_ADDRESS": bus.address,
                "HOME": str(folder),
                "BENCH_PRINTER": str(folder),
                "BENCH_ASK": str(bus.ask),
            },
            death_signal="KILL",
        )
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        find_program("ipptool")
        await self._switch_on()
        self._watcher = asyncio.create_task(self._watch(), name=f"fault file of {self.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self._switch_off()

    @property
    def is_on(self) -> bool:
        """Whether the printer is switched on."""
        return self._process.alive

    async def fault(self, what: str) -> None:
        """Break it (`media-empty`, `abort`, `slow 3`, `offline`); returns when it is so."""
        self._break(what)
        if what == "offline":
            await until(lambda: not self.is_on, f"printer {self.name} to go offline")

    async def mend(self) -> None:
        """Make it healthy; returns when it takes jobs."""
        self._break("")
        await until(lambda: self.is_on and port_is_open(self.port), f"printer {self.name} to come back")

    def hang(self) -> None:
        """It takes connections and says nothing, until `go_on`: a printer whose firmware has crashed."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """The end of `hang`."""
        os.kill(self._process.pid, signal.SIGCONT)

    def papers(self) -> list[Path]:
        """The documents it completed, in order of completion."""
        return sorted(self.paper_dir.iterdir())

    def job_names(self) -> list[str]:
        """Names of the completed jobs, in order of completion."""
        log = self.folder / "printed.log"
        done = {path.name for path in self.papers()}
        entries = [line.partition(" ") for line in log.read_text().splitlines()] if log.exists() else []
        return [name for file, _, name in entries if file in done]

    def asked(self, paper: Path) -> dict[str, str]:
        """The IPP attributes of the job of a completed document: IPP_COPIES, IPP_SIDES, IPP_MEDIA_COL, ..."""
        lines = (self.folder / "asked" / paper.name).read_text(errors="replace").splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    async def wait_for_papers(self, count: int, *, seconds: float = 20.0) -> list[Path]:
        """The completed documents, once there are at least `count`."""
        await until(
            lambda: len(self.papers()) >= count,
            lambda: f"{count} papers of printer {self.name}; there are {len(self.papers())}",
            seconds=seconds,
        )
        return self.papers()

    async def _switch_on(self) -> None:
        self._process.start()
        await until(self._answers, lambda: f"printer {self.name}; its log ends:\n{self._process.log_tail()}")

    async def _switch_off(self) -> None:
        await self._process.kill()
        (self.folder / "coming").unlink(missing_ok=True)

    def _break(self, what: str) -> None:
        """In one step: between two faults the file must never be read as empty, which prints what waits."""
        new = self.folder / "fault.new"
        new.write_text(f"{what}\n")
        new.replace(self.fault_file)

    def _answers(self) -> bool:
        if not self._process.alive:
            raise self._process.died("starting")
        return port_is_open(self.port)

    async def _watch(self) -> None:
        """Switch the printer off (pull the plug: its jobs are lost) and on as the fault file says, until cancelled."""
        while True:
            offline = self._reads("offline")
            try:
                if offline and self.is_on:
                    await self._switch_off()
                elif not offline and not self.is_on:
                    await self._switch_on()
            except (DiedEarly, TookTooLong) as error:
                print(error, file=sys.stderr, flush=True)
            await asyncio.sleep(WATCH_SECONDS)

    def _reads(self, fault: str) -> bool:
        try:
            return self.fault_file.read_text(errors="replace").split()[:1] == [fault]
        except OSError:
            return False
