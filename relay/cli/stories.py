"""The story of a message for people: where it came from, and what happened to each of its deliveries."""

from __future__ import annotations

import click

from relay.cli.tables import clean, clock
from relay.cli.waiting import Waiting
from relay.spool.histories import AttemptLine, DeliveryHistory, MessageHistory, OrderLine
from relay.spool.records import PrintJob

_WAITS = ("queued", "deferred")


def tell(history: MessageHistory, waiting: Waiting) -> None:
    """Prints all that is known of a message, apart from its bytes."""
    message = history.message
    gone = "" if history.has_body else ", its bytes are gone"
    _line(f"{message.queue_id}  {message.size} bytes{gone}  Message-ID {message.message_id or 'none'}")
    if message.about:
        _line(f"made {clock(message.received_at)} by slip-relay: a DSN about {message.about}, of {message.institution}")
    elif not message.protocol:
        _line(f"made {clock(message.received_at)} by slip-relay, institution {message.institution}")
    else:
        _line(
            f"received {clock(message.received_at)} from {message.client} ({message.helo}) with {message.protocol}, "
            f"source {message.source}, institution {message.institution}"
        )
    asked = "".join(f"  {name}={value}" for name, value in (("RET", message.ret), ("ENVID", message.envid)) if value)
    asked += "  REQUIRETLS" if message.requiretls else ""
    _line(f"reverse-path <{message.reverse_path or ''}>{asked}")
    for delivery in history.deliveries:
        click.echo()
        _tell_delivery(delivery, waiting)


def _tell_delivery(delivery: DeliveryHistory, waiting: Waiting) -> None:
    line = delivery.line
    evidence = f" ({line.evidence})" if line.evidence else ""
    _line(f"to <{line.recipient}> by {line.route}: {line.state}{evidence}  {line.reason}")
    asked = "".join(f"  {name}={value}" for name, value in (("NOTIFY", line.notify), ("ORCPT", line.orcpt)) if value)
    made = f", made by a rule from {line.queue_id}/{line.copy_of}" if line.copy_of is not None else ""
    if line.reprint_of is not None:
        made += f", a {'marked' if line.marked else 'plain'} reprint of {line.queue_id}/{line.reprint_of}"
    printing = f"  profile {line.profile}" if line.profile else ""
    printing += f"  {line.copies} copies" if line.copies > 1 else ""
    printing += "  may be merged" if line.merge else ""
    _line(f"  delivery {line.queue_id}/{line.number}{made}{printing}{asked}")
    if delivery.job is not None:
        _line(f"  {_job(delivery.job)}")
    if line.bundle:
        _line(f"  a slip of the bundle {line.bundle}: one document with others")
    if delivery.slips:
        _line(f"  a bundle, one document of {len(delivery.slips)} slips: {', '.join(delivery.slips)}")
    if line.duplicate_of:
        _line(f"  a duplicate of {line.duplicate_of}, and no paper of its own")
    for duplicate in delivery.duplicates:
        _line(f"  came again as {duplicate}, which was not printed")
    if delivery.has_paper:
        _line("  what went to the printer is kept as a PDF")
    events = [(attempt.started_at, _attempt(attempt)) for attempt in delivery.attempts]
    events += [(order.at, _order(order)) for order in delivery.orders]
    for at, what in sorted(events):
        _line(f"  {clock(at)}  {what}")
    for dsn in delivery.dsns:
        _line(f"  told <{dsn.recipient}> with the DSN {dsn.queue_id}, which is {dsn.state}")
    hours = waiting.in_words(line.state, line.route, line.received_at)
    if hours:
        _line(f"  {hours}")
    elif line.state in _WAITS:
        _line(f"  next attempt {clock(line.next_attempt_at)}, given up {clock(line.expires_at)}")


def _attempt(attempt: AttemptLine) -> str:
    ended = f"{attempt.ended_at - attempt.started_at:.1f} s" if attempt.ended_at else "not ended"
    return f"{attempt.number}. {ended}  {attempt.outcome}  {attempt.reply or attempt.reason}"


def _order(order: OrderLine) -> str:
    return f"{order.who} said: {order.verb} (it was {order.was}){f': {order.why}' if order.why else ''}"


def _job(job: PrintJob) -> str:
    number = f"print job {job.job_id}" if job.job_id is not None else "print job without a number"
    sent = f"sent {clock(job.sent_at)}" if job.sent_at else "sent" if job.sent else "not known to be sent"
    ended = f", ended {clock(job.ended_at)}" if job.ended_at else ""
    sides = f", sides that came out: {job.impressions}" if job.impressions is not None else ""
    return f"{number} {job.name} of the queue {job.queue}, the document {sent}{ended}{sides}"


def _line(text: str) -> None:
    indent = len(text) - len(text.lstrip(" "))
    click.echo(" " * indent + _spaced(text[indent:]).rstrip())


def _spaced(text: str) -> str:
    """Cleaned, but with the two spaces kept that set parts apart."""
    return "  ".join(clean(part) for part in text.split("  "))
