"""What `--json` prints: one shape for each thing, wherever it stands. Times are seconds since the epoch.

- a group (`queue`): `{state, route, count, oldest, waits_until}`, inside `{"unfinished": COUNT, "groups": [...]}`.
- a delivery (`queue list`): the fields of `relay.spool.queries.DeliveryLine`, `id`, which is QUEUE-ID/NUMBER, and
  `waits_until`, when its printer's hours let it out (null where it does not wait for them; of a group it is the
  oldest's).
- a message (`queue show`, and a list of them from `queue trace`): the fields of `relay.spool.records.Message`,
  `has_body`, and `deliveries`, which have besides `history` (attempts), `orders`, `dsns`, `job` (null for none),
  `duplicates` (ids of deliveries that are the same slip and were not printed), `has_paper` (its PDF is kept) and
  `slips` (ids of those that a bundle is the document of).
- printers (`printers`): `{"server": {name, settings_read, faults}, "printers": [...]}`; a printer is `{name,
  institution, queue, forward_to, state, device, evidence, profile, paper, has_paper, waiting, driver, error_policy,
  faults}`, a fault `{what, mend, stops}`. What is not known, because the queue is missing, is null.
- what the DNS says (`dns`): `[{institution, findings}]`, the institution null for the appliance itself; a finding is
  `{topic, name, must, says, verdict, advice, record}` (`relay.dns.findings`), its record null or `{name, kind, text,
  zone_line}`.
- a test letter (`send-test`): `{id, verdict, why, steps}`, the verdict `delivered`, `failed` or `not settled`, a step
  `{at, what, text}`.
- the keys of a folder (`dkim rotate`): `{domain, signs, next, retired}`; of the next ones `{selector, name, zone_line,
  says}`, of the others `{selector, record_until}`.
- what came of an order (`queue hold` and so on): `{"done": [{id, was, state}], "refused": [{id, why}]}`; what `reprint`
  did has `reprint` as well, the id of the delivery that was made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:  # who prints one of these shapes need not load the parts that all the others come from
    from relay.cli.waiting import Waiting
    from relay.config.printers import Printer
    from relay.config.profiles import Profile
    from relay.printing.diagnosis import Fault
    from relay.printing.queues import Queue
    from relay.spool.histories import DeliveryHistory, MessageHistory
    from relay.spool.orders import Result
    from relay.spool.queries import DeliveryLine, Group

Json = dict[str, Any]


def groups(found: Sequence[Group], waiting: Waiting) -> Json:
    """The summary of the queue."""
    shown = [asdict(each) | {"waits_until": waiting.until(each.state, each.route, each.oldest)} for each in found]
    return {"unfinished": sum(group.count for group in found), "groups": shown}


def delivery(line: DeliveryLine, waiting: Waiting) -> Json:
    """One delivery."""
    waits_until = waiting.until(line.state, line.route, line.received_at)
    return {"id": f"{line.queue_id}/{line.number}", **asdict(line), "waits_until": waits_until}


def message(history: MessageHistory, waiting: Waiting) -> Json:
    """A message with its deliveries and their histories."""
    return {
        **asdict(history.message),
        "has_body": history.has_body,
        "deliveries": [_with_history(each, waiting) for each in history.deliveries],
    }


def result(found: Result) -> Json:
    """What came of an order."""
    return {
        "done": [
            {
                "id": f"{done.key[0]}/{done.key[1]}",
                "was": done.was.value,
                "state": done.now.value,
                **({"reprint": f"{done.key[0]}/{done.made}"} if done.made is not None else {}),
            }
            for done in found.done
        ],
        "refused": [{"id": f"{each.key[0]}/{each.key[1]}", "why": each.why} for each in found.refused],
    }


def cups_server(name: str, faults: Sequence[Fault], *, was_read: bool) -> Json:
    """The CUPS server."""
    return {"name": name, "settings_read": was_read, "faults": [asdict(fault) for fault in faults]}


def printer(
    configured: Printer,
    profile: Profile | None,
    queue: Queue | None,
    faults: Sequence[Fault],
    evidence: str,
    has_paper: bool,
) -> Json:
    """A printer with its queue."""
    return {
        "name": configured.name,
        "institution": configured.institution,
        "queue": configured.queue or None,
        "forward_to": list(configured.forward_to),
        "state": queue.shown_state if queue is not None else "missing" if configured.queue else "by mail",
        "device": queue.device if queue is not None else configured.device,
        "evidence": evidence or None,
        "profile": profile.name if profile is not None else None,
        "paper": profile.paper if profile is not None else None,
        "has_paper": has_paper if queue is not None else None,
        "waiting": queue.waiting if queue is not None else None,
        "driver": queue.driver if queue is not None else None,
        "error_policy": queue.error_policy if queue is not None else None,
        "faults": [asdict(fault) for fault in faults],
    }


def print_json(shape: Json | list[Json]) -> None:
    """Prints it for a program."""
    click.echo(json.dumps(shape, ensure_ascii=False, indent=1))


def _with_history(history: DeliveryHistory, waiting: Waiting) -> Json:
    return {
        **delivery(history.line, waiting),
        "history": [asdict(attempt) for attempt in history.attempts],
        "orders": [asdict(order) for order in history.orders],
        "dsns": [asdict(dsn) for dsn in history.dsns],
        "job": asdict(history.job) if history.job is not None else None,
        "duplicates": list(history.duplicates),
        "has_paper": history.has_paper,
        "slips": list(history.slips),
    }
