"""What somebody may be told of, and for how long it has been so. Pure.

Does: makes of what the spool shows the conditions of each printer (trouble, waiting, held) and institution (silent),
with their age in the time in which slips could come out.
Promises: what is not known (an institution without any mail so far) is no condition, and changes nothing.
Known limits: silence of an institution is counted in the hours of that of its printers that was open longest. Slips
that wait to be read by the rules are not yet a printer's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from relay.config.printers import Printer
from relay.config.settings import Config
from relay.notices.hours import Hours
from relay.routing.rules import PRINT
from relay.spool.standing import Standing

Kind = Literal["trouble", "waiting", "held", "silent"]
"""What is told, as the templates call it: a printer's slips do not come out; one is late; one waits for a person; no
mail comes.
"""


@dataclass(frozen=True, slots=True)
class Condition:
    """How it stands with one thing that may be told."""

    kind: Kind
    name: str
    "Of the printer, or of the institution."
    after: float
    "Seconds after which it is told; 0 for never."
    age: float = 0.0
    "For how many seconds it has been so, in the time that counts; 0 when it is not so."
    since: float = 0.0
    "Since when, in seconds since the epoch."
    count: int = 0
    "How many slips it is about."
    reason: str = ""
    "In the words of CUPS or of the spool."

    @property
    def key(self) -> str:
        """Names it in the spool."""
        return f"{'institution' if self.kind == 'silent' else 'printer'}:{self.name}:{self.kind}"

    @property
    def is_bad(self) -> bool:
        """Whether it has been so for long enough to be told."""
        return 0 < self.after < self.age

    @property
    def is_well(self) -> bool:
        """Whether it is surely not so: what is about as old as may be is neither, so that nobody is told to and fro."""
        return self.age <= self.after / 2


def conditions(
    config: Config,
    standings: Mapping[str, Standing],
    last_mail: Mapping[str, float],
    now: float,
    running_since: float,
    hours: Hours,
) -> Iterator[Condition]:
    """All that may be told, of every printer and institution.

    While the service runs for less than `silent_after`, mail that came last before its start says nothing of silence:
    it was this service that was away.
    """
    for printer in config.queues:
        yield from _of_printer(config, printer, standings.get(PRINT + printer.name, Standing()), now, hours)
    silent_after = config.notices.silent_after
    for institution in config.institutions:
        since = last_mail.get(institution.name)
        if since is not None and not since < running_since > now - silent_after:
            age = hours.of_institution(institution.name, since, now)
            yield Condition("silent", institution.name, silent_after, age, since)


def _of_printer(config: Config, printer: Printer, standing: Standing, now: float, hours: Hours) -> Iterator[Condition]:
    def condition(kind: Kind, after: float, since: float | None, count: int, reason: str = "") -> Condition:
        if since is None:
            return Condition(kind, printer.name, after, count=count)
        counted = hours.in_queue if kind == "waiting" else hours.at_printer
        return Condition(kind, printer.name, after, counted(printer.name, since, now), since, count, reason)

    notices = config.notices
    trouble_after = notices.trouble_after if printer.trouble_after is None else printer.trouble_after
    waiting_after = notices.waiting_after if printer.waiting_after is None else printer.waiting_after
    yield condition("trouble", trouble_after, standing.tried_since, standing.open, standing.reason)
    yield condition("waiting", waiting_after, standing.oldest_at, standing.open, standing.reason)
    yield condition("held", waiting_after, standing.for_a_person_since, standing.for_a_person)
