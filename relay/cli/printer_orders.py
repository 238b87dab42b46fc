"""`printers setup` and `printers test`: what changes something in CUPS, or puts something on paper."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click

from relay.cli.options import as_duration, config_option, load_or_exit
from relay.cli.tables import Column, show_table
from relay.config.printers import Printer
from relay.config.settings import Config
from relay.errors import NotPermitted, PrintError
from relay.printing.cups import CupsServer
from relay.printing.device_uris import trouble_reaching
from relay.printing.evidence import HANDED_OVER, Judgement, Verdict
from relay.printing.jobs import job_options
from relay.printing.queues import Queue, read_queues
from relay.printing.setup import Plan, Setting, carry_out, plan
from relay.printing.trial_job import TrialJob, print_trial
from relay.slips.pool import RenderPool
from relay.slips.slip import Occasion, Slip
from relay.slips.test_page import write_test_page

_CHANGES = (Column("printer"), Column("queue"), Column("what"), Column("is", folds=True), Column("will be", folds=True))


@click.command()
@config_option
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--apply", "is_applied", is_flag=True, help="Make the changes; without it they are only shown.")
def setup(config_path: Path, names: tuple[str, ...], is_applied: bool) -> None:
    """Make or correct the CUPS queues of these printers (of all, without a name). Shows what it would change.

    Exit code 1 when a queue is not right afterwards and setup can't make it so.
    """
    config = load_or_exit(config_path)
    chosen = [_with_queue(config, name) for name in dict.fromkeys(names)] or list(config.queues)
    if not asyncio.run(_set_up(config, chosen, is_applied=is_applied)):
        raise SystemExit(1)


@click.command()
@config_option
@click.argument("name")
@click.option(
    "--wait", "seconds", default="60s", show_default=True, callback=as_duration, help="Longest wait for the page."
)
def test(config_path: Path, name: str, seconds: float) -> None:
    """Print a test page on a printer, as its profile lays it out, and wait until it is out.

    Exit code 1 when it did not come out.
    """
    config = load_or_exit(config_path)
    printer = _with_queue(config, name)
    asyncio.run(_test(config, printer, seconds))


ORDERS: tuple[click.Command, ...] = (setup, test)


def _printer(config: Config, name: str) -> Printer:
    try:
        return config.printer(name)
    except KeyError:
        known = ", ".join(printer.name for printer in config.printers) or "none"
        raise click.BadParameter(f"there is no printer {name!r}; there are: {known}", param_hint="NAME") from None


def _with_queue(config: Config, name: str) -> Printer:
    printer = _printer(config, name)
    if not printer.queue:
        hint = f"it has no queue, but an address of its own: `slip-relay send-test --to-printer {name}` writes to it"
        raise click.BadParameter(hint, param_hint=name)
    return printer


async def _set_up(config: Config, chosen: Sequence[Printer], *, is_applied: bool) -> bool:
    """Shows the plans and carries them out; whether nothing is left that stands in the way."""
    server = CupsServer(config.cups)
    # Several printers may share a queue: the one that names its device speaks for it.
    by_queue = {printer.queue: printer for printer in sorted(chosen, key=lambda printer: printer.device is not None)}
    queues = await read_queues(server, by_queue)
    plans = {name: plan(printer, queues[name]) for name, printer in by_queue.items()}
    rows = [
        (by_queue[queue].name, queue, change.setting.value, change.old, change.new)
        for queue, steps in plans.items()
        for change in steps.changes
    ]
    if rows:
        show_table(_CHANGES, rows)
    is_good = True
    for queue, steps in plans.items():
        if steps.obstacle:
            click.echo(f"{by_queue[queue].name}: {steps.obstacle}", err=True)
            is_good = False
    if not rows:
        click.echo("nothing to change" if is_good else "nothing that setup can change")
    elif not is_applied:
        click.echo("nothing is changed yet; --apply makes these changes")
    else:
        for queue, steps in plans.items():
            if steps.changes:
                is_good &= await _apply(config, server, by_queue[queue], queues[queue], steps)
        click.echo(
            "CUPS may take an hour to write queues to its disk: restart it now, so that no power cut undoes this"
        )
    return is_good


async def _apply(config: Config, server: CupsServer, printer: Printer, queue: Queue | None, steps: Plan) -> bool:
    """Carries a plan out and looks at what came of it. A fault is told, so that the other queues get their turn."""
    try:
        asks_device = any(change.setting is Setting.DRIVER for change in steps.changes)
        if config.cups.is_local and asks_device and (trouble := await trouble_reaching(steps.device)):
            raise PrintError(f"CUPS has to ask the device for its abilities, and {trouble}; nothing was changed")
        await carry_out(server, printer.queue, steps)
        left = plan(printer, (await read_queues(server, [printer.queue]))[printer.queue]).changes
    except NotPermitted as error:
        click.echo(f"{printer.name}: {error}; {_permission(config)}", err=True)
        return False
    except PrintError as error:
        click.echo(f"{printer.name}: {error}", err=True)
        return False
    for change in left:
        click.echo(f"{printer.name}: {change.setting.value} is still {change.old}, not {change.new}", err=True)
    if not left:
        click.echo(f"{printer.name}: the queue {printer.queue} is {'made' if queue is None else 'corrected'}")
    return not left


def _permission(config: Config) -> str:
    named = "name a user of CUPS's SystemGroup (lpadmin, as a rule) by cups.username and cups.password"
    if config.cups.server.startswith("/"):
        return f"run this as root or as a user in the group lpadmin, or {named}"
    return named


async def _test(config: Config, printer: Printer, seconds: float) -> None:
    server = CupsServer(config.cups)
    queue = (await read_queues(server, [printer.queue]))[printer.queue]
    if queue is None:
        raise PrintError(f"CUPS has no queue {printer.queue!r}; `slip-relay printers` says how to mend that")
    profile = config.profile(printer.profile)
    slip = await _render(config, printer)
    for note in slip.notes:
        click.echo(f"note: {note}")
    job = await print_trial(
        server,
        printer.queue,
        f"test-{secrets.token_hex(8)}",
        slip.pdf,
        job_options(profile, (slip.width_mm, slip.height_mm), slip.pages, copies=1),
        device=printer.device,
        poll=config.cups.poll,
        seconds=seconds,
        tell=click.echo,
    )
    judgement = job.judgement
    if judgement is None or judgement.verdict is not Verdict.PRINTED:
        raise PrintError(f"the test page of {printer.name} did not come out{_failure(job, judgement, seconds)}")
    click.echo(f"{judgement.why}: {judgement.grade}")
    if judgement.grade == HANDED_OVER:
        click.echo("the device does not say what becomes of it: look whether the page is there")


async def _render(config: Config, printer: Printer) -> Slip:
    """The test page as a slip, made by a child that is started for it."""
    now = datetime.now().astimezone()
    page = write_test_page(config.profile(printer.profile), printer=printer.name, queue=printer.queue, at=now)
    occasion = Occasion(
        desk=printer.desk or printer.name, institution=printer.institution, received_at=now, printed_at=now
    )
    pool = RenderPool(config.rendering.model_copy(update={"children": 1}))
    await pool.start()
    try:
        return await pool.render(page, config.profile(printer.profile), occasion)
    finally:
        await pool.stop()


def _failure(job: TrialJob, judgement: Judgement | None, seconds: float) -> str:
    if judgement is not None:
        return f": {judgement.why}"
    why = job.trouble or "nobody says why"
    return (
        f" within {seconds:g} s ({why}); job {job.job_id} is still with CUPS: `cancel {job.job_id}` takes it back, "
        "`slip-relay printers` may say what is wrong"
    )
