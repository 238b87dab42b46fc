"""Queues made, or put right: what would be changed, and the change.

Does: compares a printer's queue with what slips need (`plan`, pure), and has CUPS change it (`carry_out`).
Promises: nothing is changed that the plan does not name, and a queue that is right has an empty plan. A new queue that
CUPS can't give a driver is taken away again; an old one then rejects jobs.
Refuses: to make queues for devices that do not speak IPP: only a person knows their driver.
Known limits: a quota is told (`diagnosis`) and not changed; pycups can't.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum

import cups

from relay.config.printers import Printer
from relay.errors import PrintError
from relay.printing.cups import CupsServer
from relay.printing.device_uris import bare, may_be_driverless, with_contimeout
from relay.printing.diagnosis import ERROR_POLICY
from relay.printing.queues import Queue, read_queues

DRIVER_SECONDS = 30.0
"""Longest wait until CUPS has asked a device for its abilities."""
_LOOK = 0.2

DRIVERLESS = "IPP Everywhere"


class Setting(Enum):
    """What of a queue is set, in the order in which it is."""

    QUEUE = "queue"
    DRIVER = "driver"
    DEVICE = "device"
    POLICY = "error policy"
    BANNERS = "banner pages"
    HOLD = "jobs are held"
    ACCEPTS = "takes jobs"
    ENABLED = "prints"


@dataclass(frozen=True, slots=True)
class Change:
    """A setting of a queue, as it is and as it is to be."""

    setting: Setting
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be changed about the queue of a printer; `obstacle` says what a person has to do instead, or first."""

    changes: tuple[Change, ...] = ()
    obstacle: str = ""
    device: str = ""
    "The device that the queue will have."


def plan(printer: Printer, queue: Queue | None) -> Plan:
    """What has to be changed for slips to come out of this queue, unattended."""
    if queue is None:
        return _creation(printer)
    device = queue.device
    is_moved = printer.device is not None and bare(printer.device) != bare(queue.device)
    if is_moved and printer.device is not None:
        device = printer.device
    needs_driver = may_be_driverless(device) and (is_moved or not queue.has_driver)
    obstacle = ""
    if is_moved and not may_be_driverless(device):
        obstacle = (
            f"the new device does not speak IPP: see that the driver fits it (`lpadmin -p {queue.name} -m MODEL`)"
        )
    elif not queue.has_driver and not needs_driver:
        obstacle = f"it needs the driver of its model: `lpinfo -m` lists them, `lpadmin -p {queue.name} -m MODEL`"
    wanted = [
        (Setting.DRIVER, queue.driver if queue.has_driver else "none", DRIVERLESS if needs_driver else None),
        (Setting.DEVICE, queue.device, with_contimeout(device)),
        (Setting.POLICY, queue.error_policy, ERROR_POLICY),
        (Setting.BANNERS, ", ".join(queue.banners) or "none", "none"),
        (Setting.HOLD, queue.hold_until, "no-hold"),
        (Setting.ACCEPTS, "yes" if queue.accepts else "no", "yes"),
        (Setting.ENABLED, "no" if queue.is_paused else "yes", "yes"),
    ]
    changes = [
        Change(setting, old, new)
        for setting, old, new in wanted
        if new is not None and (old != new or setting is Setting.DRIVER)
    ]
    return Plan(tuple(changes), obstacle, with_contimeout(device))


def _creation(printer: Printer) -> Plan:
    if printer.device is None:
        return Plan(
            obstacle=f"CUPS has no queue {printer.queue!r}: name its device, as in "
            'device = "ipp://10.0.0.5/ipp/print", in its [[printers]] table, and setup makes it'
        )
    if not may_be_driverless(printer.device):
        return Plan(
            obstacle=f"CUPS has no queue {printer.queue!r}, and its device does not speak IPP: it needs the driver of "
            f"its model: `lpadmin -p {printer.queue} -E -v {printer.device} -m MODEL` makes it (`lpinfo -m` lists the "
            "models); after that setup sees to the rest"
        )
    device = with_contimeout(printer.device)
    changes = (
        Change(Setting.QUEUE, "missing", f"{printer.queue}, not shared"),
        Change(Setting.DRIVER, "none", DRIVERLESS),
        Change(Setting.DEVICE, "none", device),
        Change(Setting.POLICY, "none", ERROR_POLICY),
        Change(Setting.ACCEPTS, "no", "yes"),
        Change(Setting.ENABLED, "no", "yes"),
    )
    return Plan(changes, device=device)


async def carry_out(server: CupsServer, name: str, steps: Plan) -> None:
    """Changes the queue `name` as planned. Raises PrintError; what was changed before the fault stays changed."""
    todo = {change.setting for change in steps.changes}
    if Setting.DRIVER in todo:
        await _make_driverless(server, name, steps.device, is_new=Setting.QUEUE in todo)

    def change(connection: cups.Connection) -> None:
        if Setting.QUEUE in todo:
            connection.setPrinterShared(name, False)
        if todo & {Setting.DEVICE, Setting.DRIVER}:  # what the driver was asked for under is bare
            connection.setPrinterDevice(name, steps.device)
        if Setting.POLICY in todo:
            connection.setPrinterErrorPolicy(name, ERROR_POLICY)
        if Setting.BANNERS in todo:
            connection.setPrinterJobSheets(name, "none", "none")
        if Setting.HOLD in todo:
            connection.addPrinterOptionDefault(name, "job-hold-until", "no-hold")
        if Setting.ACCEPTS in todo:
            connection.acceptJobs(name)
        if Setting.ENABLED in todo:
            connection.enablePrinter(name)

    await server.ask(change)


async def _make_driverless(server: CupsServer, name: str, device: str, *, is_new: bool) -> None:
    """Has CUPS ask the device for its abilities and make a driver of them.

    CUPS asks in the background and says nothing when that fails; and it asks under the whole URI, while a device does
    not know itself with options in its name.
    """

    def add(connection: cups.Connection) -> None:
        if not is_new:  # without a driver, so that the new one is told from the old one
            connection.addPrinter(name, ppdname="raw")
        connection.addPrinter(name, ppdname="everywhere", device=bare(device))

    await server.ask(add)
    try:
        async with asyncio.timeout(DRIVER_SECONDS):
            while not _has_abilities((await read_queues(server, [name]))[name]):  # noqa: ASYNC110 - CUPS tells nobody
                await asyncio.sleep(_LOOK)
    except TimeoutError:
        if is_new:
            await server.ask(lambda connection: connection.deletePrinter(name))
        else:  # without a driver it would send PDF to a device that may print it as text
            await server.ask(lambda connection: connection.rejectJobs(name))
        raise PrintError(
            f"CUPS could not ask the device {bare(device)} for its abilities within {DRIVER_SECONDS:g} s, so the queue "
            f"{name!r} {'was taken away again' if is_new else 'has no driver, and rejects jobs until it has one'}: "
            "is the device switched on, and is the address right?"
        ) from None


def _has_abilities(queue: Queue | None) -> bool:
    return queue is not None and queue.has_driver and bool(queue.media)
