"""Postfix as a neighbour: private, on loopback ports. Its master needs root, and its folder has to be one that the user
`postfix` can reach, which pytest's are not: so it is in /tmp, and goes away when Postfix is stopped.

`settings` go into main.cf, `listeners` are lines of master.cf for its SMTP servers.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.harness.process import SYSTEM_PATH, Process, find_program
from tests.harness.waiting import LOCALHOST, port_is_open, until

SERVICES = """
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
"""Debian's services, as far as a relay uses them, without chroot."""


NO_POSTFIX = "needs root, and Postfix, which the set-up does not put in the place of another mail server"


def can_run_postfix() -> bool:
    """Whether Postfix is here and may be started."""
    return os.geteuid() == 0 and shutil.which("postfix", path=SYSTEM_PATH) is not None


class Postfix:
    """One instance, which listens on `ports` of 127.0.0.1."""

    def __init__(self, ports: Sequence[int], settings: Mapping[str, object], listeners: str | None = None) -> None:
        self.ports = tuple(ports)
        self._folder = folder = Path(tempfile.mkdtemp(prefix="slip-relay-postfix-"))
        folder.chmod(0o755)
        for name in ("etc", "queue", "data"):
            (folder / name).mkdir()
        everything = {
            "compatibility_level": "3.6",
            "queue_directory": folder / "queue",
            "data_directory": folder / "data",
            "maillog_file": folder / "postfix.log",
            "maillog_file_prefixes": folder,
            "mydestination": "",
            "local_recipient_maps": "",
            "alias_maps": "",
            "inet_interfaces": LOCALHOST,
            "inet_protocols": "ipv4",
            **settings,
        }
        lines = "".join(f"{name} = {value}\n" for name, value in everything.items())
        (folder / "etc" / "main.cf").write_text(lines)
        if listeners is None:
            listeners = "".join(f"{LOCALHOST}:{port} inet n - n - - smtpd\n" for port in ports)
        (folder / "etc" / "master.cf").write_text(listeners + SERVICES)
        ask = [find_program("postconf"), "-d", "-h", "daemon_directory"]
        master = subprocess.run(ask, check=True, capture_output=True, text=True)
        # Not by `postfix start-fg`, which is a shell that leaves the master alone when it is told to end.
        self._master = Process(
            [f"{master.stdout.strip()}/master", "-c", str(folder / "etc"), "-s"],
            folder / "master.log",
            environment={"PATH": SYSTEM_PATH},
        )

    @property
    def log(self) -> str:
        """What it has logged."""
        path = self._folder / "postfix.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @property
    def configuration(self) -> Path:
        """The folder of its main.cf, for `sendmail -C`."""
        return self._folder / "etc"

    async def start(self) -> None:
        """Starts it; returns when it answers."""
        shutil.chown(self._folder / "data", "postfix", "postfix")
        check = [find_program("postfix"), "-c", str(self.configuration), "check"]  # makes the folders of the queue
        await asyncio.to_thread(subprocess.run, check, check=True, env=os.environ | {"PATH": SYSTEM_PATH})
        self._master.start()
        await until(self._answers, lambda: f"Postfix; its log ends:\n{self.log[-2000:]}{self._master.log_tail()}")

    async def stop(self) -> None:
        """Ends it."""
        if self._master.alive:
            await self._master.stop()
        shutil.rmtree(self._folder)

    def _answers(self) -> bool:
        if not self._master.alive:
            raise self._master.died("starting")
        return all(port_is_open(port) for port in self.ports)
