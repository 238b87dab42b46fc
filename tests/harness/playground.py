"""The playground: the appliance as a real process among real neighbours, on 127.0.0.1, in one folder.

    python -m tests.harness.playground --dir DIR --ports FIRST [--config FILE]

DIR has to be empty or absent; FIRST to FIRST+20 have to be free. When all is ready one line of JSON goes to standard
output, everything else to standard error. SIGTERM or SIGINT ends it: no process and no temporary folder is left, what
happened stays in DIR (relay.toml, spool/, next-hop/, printers/, log/).

Promises: the appliance is started again when it dies. When the playground itself is killed, all its children go too;
only then two folders slip-relay-* stay in /tmp.

In tests: `async with Playground(folder) as playground:`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tomllib
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.harness.appliance import Appliance
from tests.harness.cupsd import CommandFailed, Cupsd
from tests.harness.dns_server import DnsServer
from tests.harness.institution import DOMAIN, PROFILES, RELAY_FROM, USER, Institution, Ports
from tests.harness.media import OFFICE_LASER, RECEIPT_ROLL, SMALL_LASER
from tests.harness.next_hop import NextHop
from tests.harness.printers import Bus, VirtualPrinter
from tests.harness.process import DiedEarly, Missing
from tests.harness.waiting import LOCALHOST, TookTooLong, busy_ports, free_ports

MEDIA = {"laser": OFFICE_LASER, "a5": SMALL_LASER, "receipt": RECEIPT_ROLL}


class CannotStart(RuntimeError):
    """The playground can't start here; the message says what is in the way."""


class Playground:
    """Everything together. With `start_appliance=False` all but the appliance; start it with `appliance.start()`."""

    def __init__(
        self,
        folder: Path,
        first_port: int | None = None,
        *,
        extra: Mapping[str, Any] | None = None,
        start_appliance: bool = True,
        supervised: bool = True,
    ) -> None:
        self.folder = _empty(folder)
        self.ports = Ports(first_port if first_port is not None else free_ports(Ports.COUNT))
        busy = busy_ports(range(self.ports.first, self.ports.first + Ports.COUNT))
        if busy:
            raise CannotStart(f"these ports are in use: {', '.join(map(str, busy))}; choose another first port")
        log = self.folder / "log"
        log.mkdir()
        self.institution = Institution(self.folder, self.ports)
        try:
            self.institution.write_config(extra)
        except TypeError as error:
            raise CannotStart(f"the extra configuration can't be used: {error}") from None
        self.dns = DnsServer(self.ports.dns)
        self.next_hop = NextHop(
            self.ports.next_hop,
            self.folder / "next-hop",
            certificate=(self.institution.certificate, self.institution.certificate_key),
        )
        self.printers: dict[str, VirtualPrinter] = {}
        self.appliance = Appliance(self.institution.config, self.ports.smtp, log)
        self.cupsd: Cupsd
        self._start_appliance = start_appliance
        self._supervised = supervised
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        """Start the neighbours, then the appliance; the stack stops them in reverse order."""
        self.institution.publish(self.dns)
        await stack.enter_async_context(self.dns)
        await stack.enter_async_context(self.next_hop)
        bus = await stack.enter_async_context(Bus())
        self.cupsd = Cupsd(self.ports.cups)
        stack.push_async_callback(self.cupsd.close)
        await self.cupsd.start()
        for name in PROFILES:
            printer = VirtualPrinter(name, MEDIA[name], self.ports.printer(name), self.folder / "printers" / name, bus)
            self.printers[name] = await stack.enter_async_context(printer)
            await self.cupsd.add_queue(name, printer.device_uri)
        stack.push_async_callback(self.appliance.stop)
        if self._start_appliance:
            await self.appliance.start()
            if self._supervised:
                self.appliance.supervise()

    def description(self) -> dict[str, Any]:
        """What the line of JSON says."""
        return {
            "smtp": f"{LOCALHOST}:{self.ports.smtp}",
            "submission": f"{LOCALHOST}:{self.ports.submission}",
            "submission_user": USER,
            "submission_password": self.institution.password,
            "sender_domain": DOMAIN,
            "relay_from": RELAY_FROM,
            "dns": self.dns.address,
            "web": None,
            "config": str(self.institution.config),
            "spool": str(self.institution.spool),
            "pid": self.appliance.pid,
            "pid_file": str(self.appliance.pid_file),
            "next_hop_dir": str(self.next_hop.folder),
            "printers": {
                name: {
                    "mailbox": self.institution.mailbox(name),
                    "queue": name,
                    "device_uri": printer.device_uri,
                    "paper_dir": str(printer.paper_dir),
                    "fault_file": str(printer.fault_file),
                }
                for name, printer in self.printers.items()
            },
        }


def extra_tables(path: Path) -> dict[str, Any]:
    """The tables of an extra configuration file; CannotStart when it can't be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CannotStart(f"the extra configuration {path} can't be used: {error}") from None


def _empty(folder: Path) -> Path:
    """The folder, made when it is absent; CannotStart when there is something in it."""
    whole = folder.expanduser().resolve()
    try:
        whole.mkdir(parents=True, exist_ok=True)
        occupied = any(whole.iterdir())
    except OSError as error:
        raise CannotStart(f"the folder {whole} can't be used: {error.strerror}") from None
    if occupied or not os.access(whole, os.W_OK):
        raise CannotStart(f"the folder {whole} is not {'empty' if occupied else 'writable'}; choose another one")
    return whole


async def _run(folder: Path, first_port: int, config: Path | None) -> None:
    extra = extra_tables(config) if config is not None else None
    async with Playground(folder, first_port, extra=extra) as playground:
        print(json.dumps(playground.description()), flush=True)
        print(f"ready; everything is in {playground.folder}; stop with Ctrl-C or SIGTERM", file=sys.stderr, flush=True)
        await asyncio.Event().wait()


async def _until_signal(folder: Path, first_port: int, config: Path | None) -> None:
    """Run until the first SIGTERM or SIGINT; later ones don't disturb the cleaning up."""
    running = asyncio.current_task()
    assert running is not None
    asked = False

    def stop() -> None:
        nonlocal asked
        if not asked:
            asked = True
            running.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGINT:  # nohup ignores SIGHUP
            loop.add_signal_handler(number, stop)
    try:
        await _run(folder, first_port, config)
    except asyncio.CancelledError:
        if not asked:
            raise
    print("stopped; nothing is left running", file=sys.stderr, flush=True)


def main() -> int:
    """The command; gives its exit code."""
    parser = argparse.ArgumentParser(prog="playground", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, required=True, help="an empty or absent folder")
    parser.add_argument("--ports", type=int, required=True, help="the first of 21 free ports")
    parser.add_argument("--config", type=Path, help="extra TOML to merge into the appliance's configuration")
    options = parser.parse_args()
    if not 1024 <= options.ports <= 65535 - Ports.COUNT:
        parser.error("--ports has to be between 1024 and 65514")
    try:
        asyncio.run(_until_signal(options.dir, options.ports, options.config))
    except (CannotStart, Missing, DiedEarly, TookTooLong, CommandFailed, OSError) as error:
        print(f"the playground can't run: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
