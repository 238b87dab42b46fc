"""`slip-relay printers` beside a real CUPS: queues made and put right, what is broken named, test pages on paper."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from tests.harness import toml
from tests.harness.appliance import command
from tests.harness.cupsd import Cupsd
from tests.harness.institution import Institution, Ports
from tests.harness.media import OFFICE_LASER, RECEIPT_ROLL
from tests.harness.printers import Bus, VirtualPrinter
from tests.harness.waiting import free_ports, until
from tests.unit.slips import scanners

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Ran(NamedTuple):
    """What a command did."""

    code: int
    text: str
    complaint: str


class Room:
    """A CUPS, a laser and a roll; each test has queues and a configuration of its own."""

    def __init__(self, cupsd: Cupsd, laser: VirtualPrinter, roll: VirtualPrinter, institution: Institution) -> None:
        self.cupsd = cupsd
        self.laser = laser
        self.roll = roll
        self._institution = institution
        self._config = institution.config

    def configure(self, *printers: dict[str, Any], cups: dict[str, Any] | None = None) -> None:
        """Has the configuration name these printers; what is not said of one is filled in."""
        tables = self._institution.tables()
        named = [
            {
                "institution": "demo",
                "mailboxes": [f"{printer['name']}@print.lib.example"],
                "queue": printer["name"],
                "profile": "a4",
                **printer,
            }
            for printer in printers
        ]
        self._config.write_text(
            toml.dumps(
                {**tables, "printers": named, "cups": {"server": self.cupsd.address, "poll": 0.2, **(cups or {})}}
            )
        )

    async def __call__(self, *words: str) -> Ran:
        """Runs `slip-relay printers`."""
        subcommand = [word for word in words[:1] if not word.startswith("-")]
        child = await asyncio.create_subprocess_exec(
            *command(),
            "printers",
            *subcommand,
            "-c",
            str(self._config),
            *words[len(subcommand) :],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, complaint = await child.communicate()
        assert child.returncode is not None
        assert b"Traceback" not in complaint
        return Ran(child.returncode, output.decode(), complaint.decode())

    async def queues(self) -> list[str]:
        """The queues CUPS has."""
        return (await self.cupsd.command("lpstat", "-e")).split()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def room(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Room]:
    folder, first = tmp_path_factory.mktemp("printers"), free_ports(Ports.COUNT)
    ports = Ports(first)
    async with (
        Bus() as bus,
        Cupsd(ports.cups) as cupsd,
        VirtualPrinter("laser", OFFICE_LASER, ports.printer("laser"), folder / "laser", bus) as laser,
        VirtualPrinter("roll", RECEIPT_ROLL, ports.printer("receipt"), folder / "roll", bus) as roll,
    ):
        yield Room(cupsd, laser, roll, Institution(folder / "library", ports))


async def test_from_an_empty_cups_to_a_test_page_that_scans(room: Room) -> None:
    room.configure(
        {"name": "first", "device": room.laser.device_uri},
        {"name": "second", "device": room.roll.device_uri, "profile": "receipt80"},
    )
    ran = await room()
    assert ran.code == 1
    assert "first: CUPS has no queue 'first'; `slip-relay printers setup first --apply`" in ran.text
    ran = await room("setup")
    assert ran.code == 0
    assert f"{room.laser.device_uri}?contimeout=4" in ran.text
    assert "--apply makes these changes" in ran.text
    assert not {"first", "second"} & set(await room.queues()), "a plan changes nothing"
    ran = await room("setup", "--apply")
    assert ran.code == 0, ran.complaint
    assert "first: the queue first is made" in ran.text
    for again in ((), ("--apply",)):
        ran = await room("setup", *again)
        assert (ran.code, ran.text) == (0, "nothing to change\n")
    ran = await room()
    assert (ran.code, ran.text.splitlines()[-1]) == (0, "nothing is wrong")
    assert ran.text.count("device-confirmed") == 2
    for name, printer, dpi, count in (("first", room.laser, 300, 6), ("second", room.roll, 203, 6)):
        before = len(printer.papers())
        ran = await room("test", name, "--wait", "60s")
        assert ran.code == 0, ran.complaint
        assert re.search(r"the printer completed it \(job \d+ of CUPS.*\): device-confirmed", ran.text), ran.text
        paper = (await printer.wait_for_papers(before + 1))[before]
        (page,) = scanners.pages(paper.read_bytes(), dpi)
        assert len(scanners.by_zxing(page)) == count
        assert set(scanners.by_zbar(page)) == {"SR39", "SR128"}
        assert re.fullmatch(r"test-[0-9a-f]{16}", printer.job_names()[-1]), "names of jobs say nothing"


BROKEN = {
    "paused": (["cupsdisable", "paused"], "the queue is paused", True),
    "rejecting": (["cupsreject", "rejecting"], "the queue rejects jobs", True),
    "policy": (["lpadmin", "-p", "policy", "-o", "printer-error-policy=stop-printer"], "CUPS pauses the queue", False),
    "held": (["lpadmin", "-p", "held", "-o", "job-hold-until-default=night"], "holds every job (night)", True),
    "banner": (["lpadmin", "-p", "banner", "-o", "job-sheets-default=standard,none"], "banner page (standard)", False),
    "contimeout": (["lpadmin", "-p", "contimeout", "-v", "DEVICE"], "has no contimeout", False),
    "driver": (["lpadmin", "-p", "driver", "-m", "raw"], "the queue has no driver", True),
}
"""By the name of the queue: the command that breaks it, what is said then, and whether it keeps slips from paper."""


async def test_what_is_broken_is_named_and_setup_mends_it(room: Room) -> None:
    room.configure(*({"name": name, "device": room.laser.device_uri} for name in BROKEN))
    ran = await room("setup", "--apply")
    assert ran.code == 0, ran.complaint
    for spoil, _, _ in BROKEN.values():
        await room.cupsd.command(*(word.replace("DEVICE", room.laser.device_uri) for word in spoil))
    ran = await room("--json")
    assert ran.code == 1
    for printer in json.loads(ran.text)["printers"]:
        _, said, stops = BROKEN[printer["name"]]
        (fault,) = printer["faults"]
        assert said in fault["what"]
        assert f"`slip-relay printers setup {printer['name']} --apply`" in fault["mend"]
        assert fault["stops"] is stops
    ran = await room("setup", "--apply")
    assert ran.code == 0, ran.complaint
    for name in BROKEN:
        assert f"{name}: the queue {name} is corrected" in ran.text
    assert (await room("setup")).text == "nothing to change\n"
    ran = await room()
    assert (ran.code, ran.text.splitlines()[-1]) == (0, "nothing is wrong")


async def test_what_does_not_keep_slips_from_paper_is_told_with_exit_code_0(room: Room) -> None:
    room.configure({"name": "later", "device": room.laser.device_uri})
    assert (await room("setup", "--apply")).code == 0
    await room.cupsd.lpadmin("-p", "later", "-o", "printer-error-policy=abort-job")
    ran = await room()
    assert ran.code == 0
    assert "later: the error policy is abort-job: when the device fails CUPS throws the slip away; `slip-" in ran.text


async def test_a_device_that_is_off_is_named_and_no_half_queue_is_made(room: Room) -> None:
    room.configure({"name": "off", "device": room.roll.device_uri, "profile": "receipt80"})
    assert (await room("setup", "--apply")).code == 0
    await room.roll.fault("offline")
    try:
        ran = await room()
        assert ran.code == 1
        assert "off: the device is away: localhost port" in ran.text
        assert "Connection refused; switch it on" in ran.text
        room.configure({"name": "late", "device": room.roll.device_uri, "profile": "receipt80"})
        ran = await room("setup", "--apply")
        assert ran.code == 1
        assert "late: CUPS has to ask the device for its abilities, and localhost port" in ran.complaint
        assert "late" not in await room.queues()
    finally:
        await room.roll.mend()
    assert (await room("setup", "--apply")).code == 0


async def test_a_queue_for_another_device_is_moved(room: Room) -> None:
    room.configure({"name": "moved", "device": room.laser.device_uri, "profile": "receipt80"})
    assert (await room("setup", "--apply")).code == 0
    ran = await room()
    assert ran.code == 1
    assert "moved: the queue does not know the paper 80mm of the profile 'receipt80'" in ran.text
    room.configure({"name": "moved", "device": room.roll.device_uri, "profile": "receipt80"})
    assert f"not on {room.roll.device_uri}" in (await room()).text
    assert (await room("setup", "--apply")).code == 0
    ran = await room()
    assert (ran.code, ran.text.splitlines()[-1]) == (0, "nothing is wrong")


async def test_without_a_device_setup_says_how_to_name_one(room: Room) -> None:
    room.configure({"name": "nameless"})
    ran = await room("setup", "--apply")
    assert ran.code == 1
    assert "nameless: CUPS has no queue 'nameless': name its device, as in device = " in ran.complaint
    ran = await room("setup", "nobody")
    assert ran.code == 2
    assert "there is no printer 'nobody'; there are: nameless" in ran.complaint


async def test_a_test_page_that_does_not_come_out_is_told(room: Room) -> None:
    room.configure({"name": "stuck", "device": room.laser.device_uri}, {"name": "absent"})
    assert (await room("setup", "stuck", "--apply")).code == 0
    before = len(room.laser.papers())
    await room.laser.fault("media-empty")
    try:
        ran = await room("test", "stuck", "--wait", "4s")
        assert ran.code == 1
        assert re.search(
            r"the test page of stuck did not come out within 4 s \(media-empty\S+\); job \d+", ran.complaint
        )
        assert "stuck: the printer says media-empty; fill in paper" in (await room()).text
    finally:
        await room.laser.mend()
    assert len(await room.laser.wait_for_papers(before + 1)) == before + 1, "the job stayed where it was"


async def test_a_test_page_that_somebody_cancels_is_told(room: Room) -> None:
    room.configure({"name": "cancelled", "device": room.laser.device_uri}, {"name": "absent"})
    assert (await room("setup", "cancelled", "--apply")).code == 0
    await room.cupsd.command("cupsdisable", "cancelled")
    running = asyncio.create_task(room("test", "cancelled"))

    async def waits() -> str:
        return (await room.cupsd.command("lpstat", "-o", "cancelled")).partition(" ")[0]

    await room.cupsd.command("cancel", await until(waits, "the job of the test page", seconds=30.0))
    ran = await running
    assert ran.code == 1
    assert re.search(r"the test page of cancelled did not come out: the print job \d+ was cancelled", ran.complaint)
    await room.cupsd.command("cupsreject", "cancelled")
    ran = await room("test", "cancelled")
    assert ran.code == 1
    assert "refused" in ran.complaint
    ran = await room("test", "absent")
    assert ran.code == 1
    assert "CUPS has no queue 'absent'; `slip-relay printers` says" in ran.complaint


async def test_programs_get_json(room: Room) -> None:
    room.configure({"name": "shape", "device": room.laser.device_uri}, {"name": "none", "profile": "a5"})
    assert (await room("setup", "shape", "--apply")).code == 0
    ran = await room("--json")
    assert ran.code == 1
    told = json.loads(ran.text)
    assert told["server"] == {"name": room.cupsd.address, "settings_read": True, "faults": []}
    shape, none = told["printers"]
    assert shape == {
        "name": "shape",
        "institution": "demo",
        "queue": "shape",
        "forward_to": [],
        "state": "idle",
        "device": f"{room.laser.device_uri}?contimeout=4",
        "evidence": "device-confirmed",
        "profile": "a4",
        "paper": "A4",
        "has_paper": True,
        "waiting": 0,
        "driver": "Printer - IPP Everywhere",
        "error_policy": "retry-job",
        "faults": [],
    }
    assert (none["state"], none["has_paper"], none["faults"][0]["stops"]) == ("missing", None, True)


async def test_settings_of_cupsd_are_looked_at(room: Room) -> None:
    async with Cupsd(free_ports(1)) as other:
        room.configure({"name": "desk"}, cups={"server": other.address})
        assert "MaxJobTime" not in (await room()).text
        await other.restart_with("MaxJobTime 3h")
        told = f"CUPS at {other.address}: MaxJobTime is 3h: CUPS cancels a slip whose printer is out of paper"
        assert told in (await room()).text
        await other.restart_with("PreserveJobHistory No")
        room.configure({"name": "desk", "device": room.laser.device_uri}, cups={"server": other.address})
        assert (await room("setup", "--apply")).code == 0
        assert "PreserveJobHistory is off: CUPS forgets what became of a job" in (await room()).text
        ran = await room("test", "desk")  # the device still knows what CUPS has forgotten
        assert ran.code == 0, ran.complaint
        assert ran.text.endswith(": device-confirmed\n")
    ran = await room()
    assert ran.code == 1
    assert f"slip-relay: CUPS at {other.address} can't be reached" in ran.complaint


async def test_a_cups_that_wants_a_password_is_told_with_what_to_do(room: Room) -> None:
    async with Cupsd(free_ports(1), guarded=True) as guarded:
        printer = {"name": "desk", "device": room.laser.device_uri}
        room.configure(printer, cups={"server": guarded.address})
        ran = await room()
        assert "are shown to its administrators only: compare its cupsd.conf with config/cupsd-snippet" in ran.complaint
        ran = await room("setup", "--apply")
        assert ran.code == 1
        assert "does not let the user 'slip-relay' do this without a password; name a user of CUPS's" in ran.complaint
        assert "cups.username and cups.password" in ran.complaint
        assert (await guarded.command("lpstat", "-e")) == ""
        if os.geteuid() == 0:  # SystemGroup of the private CUPS is root's
            room.configure(printer, cups={"server": str(guarded.socket)})
            ran = await room("setup", "--apply")
            assert ran.code == 0, ran.complaint
            assert (await room()).code == 0
