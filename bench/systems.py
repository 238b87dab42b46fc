"""The systems under test: slip-relay, and Postfix with OpenDKIM as its milter, each private and on loopback ports.

Both take mail from 127.0.0.1, give it an Envelope-From of the institution, sign or don't sign, and send it on to the
sink over at most 20 kept connections. slip-relay makes a VERP address for each delivery, Postfix one fixed address.
Both log to a file. Postfix is otherwise as Debian ships it, its queue in a folder of the bench like slip-relay's spool.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import smtplib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.letters import SIGNED, UNSIGNED
from tests.harness import toml
from tests.harness.appliance import Appliance
from tests.harness.postfix import SERVICES
from tests.harness.process import SYSTEM_PATH, Process, find_program
from tests.harness.waiting import LOCALHOST, free_ports, port_is_open, until

SELECTOR = "bench"
CONNECTIONS = 20
"""Connections to the sink at the most."""

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Place:
    """What a system is given: a folder of its own, the key to sign with, and the sink's port."""

    folder: Path
    key: Path
    sink: int


class System(Protocol):
    """A relay that can be measured."""

    name: str

    async def start(self) -> None:
        """Starts it; returns when it takes mail."""
        ...

    def port(self, domain: str) -> int:
        """Where mail of a domain is handed in."""
        ...

    def cpu(self) -> float:
        """Seconds of processor time (user and system) that its processes have used, with those that ended."""
        ...

    async def stop(self) -> None:
        """Ends it."""
        ...


class SlipRelay:
    """The real process, from one configuration: an institution with a key and one without."""

    name = "slip-relay"

    def __init__(self, place: Place) -> None:
        self._port = free_ports(1)
        (place.folder / "spool").mkdir()
        secret, config = place.folder / "secret", place.folder / "relay.toml"
        secret.write_text("not a secret: for the bench only\n")
        institution = {"envelope_from": "verp"}
        key = {"domain": SIGNED, "selector": SELECTOR, "key_file": str(place.key)}
        tables = {
            "server": {"hostname": "relay.example", "secret": {"file": str(secret)}},
            "spool": {"url": f"sqlite:///{place.folder}/spool/spool.db"},
            "listeners": [{"name": "relay", "address": LOCALHOST, "port": self._port, "kind": "relay"}],
            "institutions": [
                {"name": "signed", "domains": [SIGNED], "bounce_domain": f"b.{SIGNED}", "dkim": [key], **institution},
                {"name": "plain", "domains": [UNSIGNED], "bounce_domain": f"b.{UNSIGNED}", **institution},
            ],
            "sources": [{"name": "alma", "institutions": ["signed", "plain"], "networks": [f"{LOCALHOST}/32"]}],
            "next_hops": [
                {"name": "default", "host": LOCALHOST, "port": place.sink, "tls": "none",
                 "max_connections": CONNECTIONS}
            ],
        }  # fmt: skip
        config.write_text(toml.dumps(tables))
        self._process = Appliance(config, self._port, place.folder)

    async def start(self) -> None:
        """Starts it."""
        await self._process.start()

    def port(self, domain: str) -> int:
        """One port for all: the From domain says whether to sign."""
        return self._port

    def cpu(self) -> float:
        """Of the process and its rendering children."""
        return cpu_of_tree(self._process.pid)

    async def stop(self) -> None:
        """Ends it."""
        await self._process.stop()


class Postfix:
    """Postfix with two SMTP servers, of which one hands its mail through OpenDKIM over a unix socket. Needs root."""

    name = "Postfix + OpenDKIM"

    def __init__(self, place: Place) -> None:
        self._first_port = free_ports(2)
        folder = place.folder
        for name in ("etc", "queue", "data", "milter"):
            (folder / name).mkdir()
        self._socket = folder / "milter" / "opendkim.sock"
        (folder / "etc" / "main.cf").write_text(_main_cf(folder, place.sink))
        (folder / "etc" / "master.cf").write_text(_master_cf(self._first_port, self._socket))
        (folder / "opendkim.conf").write_text(
            f"Mode s\nDomain {SIGNED}\nSelector {SELECTOR}\nKeyFile {place.key}\nRequireSafeKeys no\n"
            f"Canonicalization relaxed/relaxed\nSignatureAlgorithm rsa-sha256\nOversignHeaders From\n"
            f"Socket local:{self._socket}\nUMask 000\nInternalHosts {LOCALHOST}\nSyslog no\nBackground no\n"
        )
        environment = {"PATH": SYSTEM_PATH}
        self._milter = Process(
            ["opendkim", "-f", "-x", str(folder / "opendkim.conf")], folder / "opendkim.log", environment=environment
        )
        self._configuration = folder / "etc"
        ask = [find_program("postconf"), "-d", "-h", "daemon_directory"]
        master = subprocess.run(ask, check=True, capture_output=True, text=True)  # noqa: S603 - a fixed command
        # Not by `postfix start-fg`, which is a shell that leaves the master alone when it is told to end.
        self._master = Process(
            [f"{master.stdout.strip()}/master", "-c", str(self._configuration), "-s"],
            folder / "master.log",
            environment=environment,
        )

    async def start(self) -> None:
        """Starts both."""
        shutil.chown(self._configuration.parent / "data", "postfix", "postfix")
        check = [find_program("postfix"), "-c", str(self._configuration), "check"]  # makes the folders of the queue
        await asyncio.to_thread(subprocess.run, check, check=True, env=os.environ | {"PATH": SYSTEM_PATH})
        self._milter.start()
        await until(self._socket.exists, lambda: f"OpenDKIM; its log ends:\n{self._milter.log_tail()}")
        self._master.start()
        await until(self._answers, lambda: f"Postfix; its log ends:\n{self._master.log_tail()}")
        for port in (self._first_port, self._first_port + 1):
            await asyncio.to_thread(_say_hello, port)

    def port(self, domain: str) -> int:
        """The first port signs, the second doesn't."""
        return self._first_port + (domain == UNSIGNED)

    def cpu(self) -> float:
        """Of Postfix' master, all its children, and OpenDKIM."""
        return cpu_of_tree(self._master.pid) + cpu_of_tree(self._milter.pid)

    async def stop(self) -> None:
        """Ends both."""
        for process in (self._master, self._milter):
            if process.alive:
                await process.stop()

    def _answers(self) -> bool:
        if not self._master.alive:
            raise self._master.died("starting")
        return port_is_open(self._first_port) and port_is_open(self._first_port + 1)


def _main_cf(folder: Path, sink: int) -> str:
    settings = {
        "compatibility_level": "3.6",
        "queue_directory": folder / "queue",
        "data_directory": folder / "data",
        "maillog_file": folder / "postfix.log",
        "maillog_file_prefixes": folder,
        "myhostname": "relay.example",
        "mydestination": "",
        "local_recipient_maps": "",
        "alias_maps": "",
        "inet_interfaces": LOCALHOST,
        "inet_protocols": "ipv4",
        "mynetworks": f"{LOCALHOST}/32",
        "relayhost": f"[{LOCALHOST}]:{sink}",
        "sender_canonical_maps": f"static:bounces@b.{SIGNED}",
        "sender_canonical_classes": "envelope_sender",
        "default_destination_concurrency_limit": CONNECTIONS,
        "smtpd_tls_security_level": "none",
        "smtp_tls_security_level": "none",
    }
    return "".join(f"{name} = {value}\n" for name, value in settings.items())


def _master_cf(first_port: int, milter: Path) -> str:
    """Two SMTP servers."""
    return f"""
{LOCALHOST}:{first_port} inet n - n - - smtpd -o smtpd_milters=unix:{milter} -o milter_default_action=tempfail
{LOCALHOST}:{first_port + 1} inet n - n - - smtpd
{SERVICES}"""


def _say_hello(port: int) -> None:
    with smtplib.SMTP(LOCALHOST, port, timeout=20) as client:
        client.noop()


def cpu_of_tree(root: int) -> float:
    """Processor seconds of a process and all below it, with those of children that were waited for."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            text = Path(f"/proc/{entry}/stat").read_text()
        except OSError:
            continue  # it ended just now
        fields = text[text.rindex(")") + 2 :].split()  # proc(5): the third field, `state`, comes first here
        parents[int(entry)] = int(fields[1])
        ticks[int(entry)] = sum(map(int, fields[11:15]))
    return sum(ticks[process] for process in ticks if _is_below(process, root, parents)) / _TICKS


def _is_below(process: int, root: int, parents: dict[int, int]) -> bool:
    while process > 1:
        if process == root:
            return True
        process = parents.get(process, 0)
    return False


def can_run_postfix() -> bool:
    """Whether Postfix and OpenDKIM are here, and may be started: the master needs to be root."""
    if os.geteuid() != 0:
        return False
    for program in ("postfix", "opendkim"):
        find_program(program)
    return True
