"""`send-test`: a test letter through the real journey, followed to its end, with every step and its time.

The running service writes and sends it, as it does with Alma's mail: the rules choose its way, it is signed and
verified, rewritten, tried again, printed, by the very parts that do so otherwise. This command orders it and looks on,
at the spool and at what the service noted of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from relay.cli import shapes
from relay.cli.options import as_duration, config_option, json_option, load_or_exit
from relay.cli.tables import clean
from relay.cli.waiting import Waiting
from relay.config.settings import Config
from relay.control.client import on_behalf_of, orders_for, trials_of
from relay.control.protocol import SendTest
from relay.errors import OrderError
from relay.printing.evidence import HANDED_OVER
from relay.routing.rules import DISCARD, PRINT, SORT
from relay.spool.engine import Place
from relay.spool.histories import AttemptLine, DeliveryHistory, MessageHistory, message_history
from relay.spool.records import OPEN, State

LOOK_EVERY = 0.2
"""Seconds between two looks at the spool."""

NOT_YET = 3
"""Exit code when the letter was not settled in time."""

Noted = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened to the letter."""

    at: float
    "Seconds since the epoch."
    what: str
    text: str


@click.command("send-test")
@config_option
@click.argument("address", required=False)
@click.option("--to-printer", "printer", default="", help="Instead of an address: the name of a printer.")
@click.option("--institution", default="", help="Whose letter it is, where there are several.")
@click.option("--wait", "seconds", default="60s", show_default=True, callback=as_duration, help="Longest wait.")
@json_option
def send_test(
    config_path: Path, address: str | None, printer: str, institution: str, seconds: float, as_json: bool
) -> None:
    """Send a test letter to an address or a printer, and show every step of its way.

    Exit code 0 when it was delivered or printed, 1 when it failed or is held, 3 when neither happened in time: it is
    still on its way then. The service has to run; who may give orders to it may send test letters.
    """
    if (address is None) == (printer == ""):
        raise click.UsageError("name an address, or a printer by --to-printer")
    config = load_or_exit(config_path)
    to = address if address is not None else _mailbox(config, printer)
    with orders_for(config) as give:
        queue_id = give(SendTest(to, institution, on_behalf_of())).done[0].key[0]
    history, steps = _follow(config, queue_id, seconds, quiet=as_json)
    verdict, why = _verdict(history, Waiting(config))
    if as_json:
        shapes.print_json({"id": queue_id, "verdict": verdict, "why": why, "steps": [asdict(step) for step in steps]})
    else:
        click.echo(clean(f"{verdict}: {why}"))
    raise SystemExit({"delivered": 0, "failed": 1, "not settled": NOT_YET}[verdict])


def _mailbox(config: Config, name: str) -> str:
    try:
        return config.printer(name).mailboxes[0]
    except KeyError:
        known = ", ".join(printer.name for printer in config.printers) or "none"
        raise click.BadParameter(
            f"there is no printer {name!r}; there are: {known}", param_hint="--to-printer"
        ) from None


def _follow(config: Config, queue_id: str, seconds: float, *, quiet: bool) -> tuple[MessageHistory, list[Step]]:
    """Looks until all deliveries of the letter are settled, or the time is over, and shows what is new each time."""
    place, deadline = Place.of(config.spool), time.monotonic() + seconds
    shown: list[Step] = []
    while True:
        history = message_history(place, queue_id)
        if history is None:
            raise OrderError(f"the letter {queue_id} is not in the spool any more")
        is_late = time.monotonic() >= deadline
        is_over = all(each.line.state not in OPEN for each in history.deliveries)
        for step in sorted(_steps(history, _noted(config, queue_id)), key=lambda each: each.at):
            if step not in shown:
                shown.append(step)
                if not quiet:
                    _show(step, history.message.received_at)
        if is_over or is_late:
            return history, shown
        time.sleep(LOOK_EVERY)


def _noted(config: Config, queue_id: str) -> Noted:
    """What the service noted; nothing when it was started anew meanwhile."""
    try:
        return trials_of(config).get(queue_id, ())
    except OrderError:
        return ()


def _show(step: Step, since: float) -> None:
    moment = datetime.fromtimestamp(step.at).astimezone()
    after = max(0.0, step.at - since)
    click.echo(f"{moment:%H:%M:%S}  +{after:7.3f} s  {step.what:<9}  {clean(step.text)}")


def _steps(history: MessageHistory, noted: Noted) -> Iterator[Step]:
    """All that has happened so far."""
    message = history.message
    yield Step(
        message.received_at, "accepted", f"{message.queue_id}, {message.size} bytes, a letter of {message.institution}"
    )
    for delivery in history.deliveries:
        line = delivery.line
        made = message.received_at if line.copy_of is None else _sorted_at(history, line.copy_of)
        if not line.route.startswith(SORT):
            yield Step(made, "way", f"{line.queue_id}/{line.number} to {line.recipient} by {line.route}")
        for page in noted:
            if page["delivery"] == line.number:
                yield from _leaving(page)
        for attempt in delivery.attempts:
            if attempt.ended_at is not None and attempt.outcome:
                yield Step(attempt.ended_at, _called(delivery, attempt), attempt.reply or attempt.reason)
                if attempt.reply and attempt.reason:
                    yield Step(attempt.ended_at, "next hop", attempt.reason)
        yield from _paper(delivery)


def _sorted_at(history: MessageHistory, number: int) -> float:
    """When the delivery was sorted from which others were made."""
    ended = [each.ended_at for each in history.deliveries[number].attempts if each.ended_at is not None]
    return ended[0] if ended else history.message.received_at


def _leaving(page: Mapping[str, Any]) -> Iterator[Step]:
    at, fault = page["at"], page["fault"]
    if fault:
        yield Step(at, "signed", fault)
        return
    yield Step(at, "envelope", f"MAIL FROM:<{page['envelope_from']}> RCPT TO:<{page['to']}>")
    checked = ", verified with our public key" if page["verified"] else ""
    for each in page["signatures"]:
        yield Step(at, "signed", f"{each.get('algorithm')} d={each.get('domain')} s={each.get('selector')}{checked}")
    if not page["signatures"]:
        yield Step(at, "signed", "not at all: the institution has no key (institutions.dkim)")


def _called(delivery: DeliveryHistory, attempt: AttemptLine) -> str:
    if attempt.reason.startswith("sorted"):
        return "sorted"
    return "printer" if delivery.line.route.startswith(PRINT) else str(attempt.outcome)


def _paper(delivery: DeliveryHistory) -> Iterator[Step]:
    job, line = delivery.job, delivery.line
    if job is not None and job.job_id is not None and job.sent_at is not None:
        yield Step(job.sent_at, "print job", f"{job.job_id} ({job.name}) of the queue {job.queue}, the document sent")
    if line.evidence and line.settled_at is not None:
        sides = f", {job.impressions} sides" if job is not None and job.impressions is not None else ""
        hint = "; look whether it is there: this printer does not say" if line.evidence == HANDED_OVER else ""
        yield Step(line.settled_at, "paper", f"{line.evidence}{sides}{hint}")


def _verdict(history: MessageHistory, waiting: Waiting) -> tuple[str, str]:
    """`delivered`, `failed` or `not settled`, and the sentence that says why."""
    lines = [each.line for each in history.deliveries]
    bad = [line for line in lines if line.state not in OPEN and line.state != State.DELIVERED]
    bad += [line for line in lines if line.state == State.DELIVERED and line.route == DISCARD]
    if bad:
        return "failed", f"{bad[0].queue_id}/{bad[0].number} is {bad[0].state}: {bad[0].reason}"
    open_ = [line for line in lines if line.state in OPEN]
    if open_:
        hours = waiting.in_words(open_[0].state, open_[0].route, open_[0].received_at)
        reason = hours or open_[0].reason or "it waits for its turn"
        return "not settled", f"{open_[0].queue_id}/{open_[0].number} is {open_[0].state}: {reason}"
    took = max((line.settled_at or 0.0 for line in lines), default=0.0) - history.message.received_at
    return "delivered", f"in {took:.1f} s"
