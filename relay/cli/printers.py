"""`printers`: the configured printers as CUPS has them, what is wrong and how to mend it; their queues made or put
right; a test page. Needs CUPS, not the running service.

What is printed for programs (`--json`) has one shape everywhere, see `relay.cli.shapes`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from relay.cli import shapes
from relay.cli.options import config_option, json_option, load_or_exit
from relay.cli.printer_orders import ORDERS
from relay.cli.tables import Column, show_table
from relay.config.printers import Printer
from relay.config.profiles import Profile
from relay.config.settings import Config
from relay.printing.cups import CupsServer
from relay.printing.device_uris import trouble_reaching
from relay.printing.diagnosis import Fault, has_paper, queue_faults, server_faults
from relay.printing.evidence import expected
from relay.printing.queues import Queue, read_queues, read_settings

_PRINTERS = (
    Column("printer"),
    Column("state"),
    Column("queue"),
    Column("device", folds=True),
    Column("evidence"),
    Column("profile"),
    Column("paper"),
    Column("jobs", right=True),
)


@dataclass(frozen=True, slots=True)
class Look:
    """A printer as it was found: its queue (None when there is none) and what is wrong.

    One that has only an address of its own has no profile either, and nothing that could be looked at.
    """

    printer: Printer
    profile: Profile | None
    queue: Queue | None
    faults: tuple[Fault, ...]

    @property
    def evidence(self) -> str:
        """The best evidence its slips can have; "" where no device is known."""
        device = self.queue.device if self.queue is not None else self.printer.device
        return expected(device) if device else ""

    @property
    def has_paper(self) -> bool:
        """Whether its queue knows the paper of its profile."""
        return self.queue is not None and self.profile is not None and has_paper(self.profile, self.queue.media)

    def shape(self) -> shapes.Json:
        """For programs."""
        return shapes.printer(self.printer, self.profile, self.queue, self.faults, self.evidence, self.has_paper)


@click.group(invoke_without_command=True)
@config_option
@json_option
@click.pass_context
def printers(context: click.Context, config_path: Path, as_json: bool) -> None:
    """Look at the printers and their CUPS queues, set queues up, print test pages.

    Without a command: each printer, and what is wrong with it. Exit code 1 when something keeps slips from paper.
    """
    if context.invoked_subcommand is not None:
        context.default_map = {name: {"config_path": str(config_path)} for name in printers.commands}
        return
    config = load_or_exit(config_path)
    looks, settings = asyncio.run(_look(config))
    of_server = server_faults(settings) if settings is not None else []
    if as_json:
        server = shapes.cups_server(config.cups.server, of_server, was_read=settings is not None)
        shapes.print_json({"server": server, "printers": [look.shape() for look in looks]})
    else:
        _show(config, looks, of_server, was_read=settings is not None)
    if any(fault.stops for look in looks for fault in look.faults):
        raise SystemExit(1)


async def _look(config: Config) -> tuple[list[Look], dict[str, str] | None]:
    """Every printer as it is now, and the settings of cupsd where they may be read."""
    server = CupsServer(config.cups)
    queues = await read_queues(server, [printer.queue for printer in config.queues])
    settings = await read_settings(server)
    # Another machine's CUPS may reach devices that this one does not.
    devices = {queue.device for queue in queues.values() if queue is not None} if config.cups.is_local else set()
    troubles = dict(zip(devices, await asyncio.gather(*map(trouble_reaching, devices)), strict=True))
    looks = []
    for printer in config.printers:
        if not printer.queue:
            looks.append(Look(printer, None, None, ()))
            continue
        profile, queue = config.profile(printer.profile), queues[printer.queue]
        unreachable = troubles.get(queue.device, "") if queue is not None else ""
        faults = tuple(queue_faults(printer, profile, queue, unreachable))
        looks.append(Look(printer, profile, queue, faults))
    return looks, settings


def _show(config: Config, looks: Sequence[Look], of_server: Sequence[Fault], *, was_read: bool) -> None:
    show_table(_PRINTERS, [_row(look) for look in looks])
    for look in looks:
        for fault in look.faults:
            click.echo(f"{look.printer.name}: {fault}")
        if look.profile is not None and look.printer.forward_to:
            click.echo(f"{look.printer.name}: its slips go to {', '.join(look.printer.forward_to)} as well")
    for fault in of_server:
        click.echo(f"CUPS at {config.cups.server}: {fault}")
    if not was_read:
        click.echo(
            f"the settings of CUPS at {config.cups.server} are shown to its administrators only: compare its "
            "cupsd.conf with config/cupsd-snippet.conf",
            err=True,
        )
    if not looks:
        click.echo("no printers are configured")
    elif not of_server and not any(look.faults for look in looks):
        click.echo("nothing is wrong")


def _row(look: Look) -> tuple[str, ...]:
    if look.profile is None:
        return (look.printer.name, "by mail", "", ", ".join(look.printer.forward_to), "", "", "", "")
    paper = look.profile.paper if look.has_paper else f"{look.profile.paper} (not in the queue)"
    if look.queue is None:
        device, state, waiting = look.printer.device or "", "missing", ""
        paper = look.profile.paper
    else:
        device, state, waiting = look.queue.device, look.queue.shown_state, str(look.queue.waiting)
    return (
        look.printer.name,
        state,
        look.printer.queue,
        device,
        look.evidence,
        look.profile.name,
        paper,
        waiting,
    )


for _order in ORDERS:
    printers.add_command(_order)
