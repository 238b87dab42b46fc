"""What became of the slips of a weekend: paper, spool and clock laid side by side; and what the services weighed.

Nothing is taken from the service's word alone: a slip is where its mark stands on paper, read from the documents that
the printers completed, and when it came out is the time of that file, by the clock that the test moved.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pypdf
from sqlalchemy import text

from relay.spool.engine import Place, reading_engine
from relay.spool.records import FINAL
from tests.harness.weekend import ZONE, Desk, Weekend

MARK = re.compile(r"W\d{5}")
LOOK = 2.0
"""Seconds within which a service that is busy notices that the clock shows the end of the hours."""
QUERY = text(
    "SELECT queue_id, route, state, evidence, reason, received_at, duplicate_of, message_id "
    "FROM deliveries JOIN messages USING (queue_id) ORDER BY queue_id"
)
BEGINNINGS = text("SELECT queue_id, attempt, started_at, reason FROM attempts ORDER BY queue_id, number, attempt")


@dataclass(frozen=True, slots=True)
class Line:
    """A delivery as the spool has it."""

    queue_id: str
    route: str
    state: str
    evidence: str
    reason: str
    received_at: float
    duplicate_of: str
    message_id: str


@dataclass(slots=True)
class Account:
    """What was found; `faults` is empty when all is well."""

    faults: list[str] = field(default_factory=list)
    papers: int = 0
    separators: int = 0
    duplicates: int = 0
    "Slips that were accepted twice and are on paper once."
    evidence: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"{self.papers} slips on paper, {self.separators} separators, {self.duplicates} accepted again and printed "
            f"once, evidence {dict(self.evidence)}; {len(self.faults)} faults"
        )


def lines(place: Place) -> list[Line]:
    """All deliveries of the spool, in order of arrival."""
    engine = reading_engine(place)
    try:
        with engine.connect() as connection:
            return [Line(**row) for row in connection.execute(QUERY).mappings()]
    finally:
        engine.dispose()


def beginnings(place: Place) -> dict[str, list[float]]:
    """When attempts of a message were begun, but for those that took up what was cut off (of one that only followed a
    job there is no record).
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    engine = reading_engine(place)
    try:
        with engine.connect() as connection:
            ended: dict[str, int] = {}
            for queue_id, attempt, started_at, reason in connection.execute(BEGINNINGS):
                if ended.get(queue_id, 0) == attempt - 1:
                    found[queue_id].append(started_at)
                ended[queue_id] = attempt if reason != "cut off" else -1
    finally:
        engine.dispose()
    return found


def unfinished(weekend: Weekend, *desks: str) -> int:
    """Slips of some desks, or of all, that are not at their end."""
    routes = {f"print:{name}" for name in desks or weekend.printers}
    return sum(line.route in routes and line.state not in FINAL for line in lines(weekend.place))


def account(weekend: Weekend) -> Account:
    """Lays everything side by side. All has to be settled."""
    found = Account()
    rows = lines(weekend.place)
    by_mark: defaultdict[str, list[Line]] = defaultdict(list)
    for row in rows:
        by_mark[row.message_id.strip("<>").partition("@")[0]].append(row)
    for item in weekend.slips:
        _row_of(item.mark, by_mark[item.mark], found)
    begun = beginnings(weekend.place)
    for desk in weekend.desks:
        printer = weekend.printers[desk.name]
        came = [(mark, paper.stat().st_mtime) for paper in printer.papers() for mark in _marks(paper)]
        marks = [mark for mark, _ in came if mark]
        found.papers += len(marks)
        found.separators += len(came) - len(marks)
        handed_in = [item.mark for item in weekend.slips if item.recipients == (desk.mailbox,)]
        found.faults += _compared(desk.name, handed_in, marks)
        for mark, at in came:
            if mark:
                found.faults += _in_hours(desk, mark, weekend.clock.showed(at), by_mark[mark], begun)
    return found


def _marks(paper: Path) -> Iterator[str]:
    """The mark of a slip; "" for a separator."""
    said = {mark for page in pypdf.PdfReader(str(paper)).pages for mark in MARK.findall(page.extract_text() or "")}
    yield from said or {""}


def _row_of(mark: str, rows: list[Line], found: Account) -> None:
    printed = [row for row in rows if row.state == "delivered"]
    again = [row for row in rows if row.duplicate_of]
    found.duplicates += len(again)
    if len(printed) != 1 or len(printed) + len(again) != len(rows):
        found.faults.append(f"{mark} is in the spool as {[(row.queue_id, row.state, row.reason) for row in rows]}")
    found.evidence.update(row.evidence for row in printed)


def _compared(desk: str, handed_in: list[str], came: list[str]) -> Iterator[str]:
    times = Counter(came)
    yield from (f"{desk}: {mark} is not on paper" for mark in handed_in if not times[mark])
    yield from (f"{desk}: {mark} is on paper {count} times" for mark, count in times.items() if count > 1)
    if sorted(came) == sorted(handed_in) and came != handed_in:
        late = [mark for mark, due in zip(came, handed_in, strict=True) if mark != due]
        yield f"{desk}: not in order of arrival: {late[:20]}, {len(late)} out of place"


def _in_hours(desk: Desk, mark: str, came_at: float, rows: list[Line], begun: dict[str, list[float]]) -> Iterator[str]:
    """A slip that was at the printer when it closed may come out after that; none begins then."""
    for row in rows:
        if row.state != "delivered":
            continue
        for at in begun[row.queue_id]:
            if not any(desk.may_begin(row.received_at, at - back) for back in (0.0, LOOK)):
                yield f"{desk.name}: {mark}, on paper at {_words(came_at)}, was begun at {_words(at)}: it was closed"


def _words(at: float) -> str:
    return datetime.fromtimestamp(at, ZONE).strftime("%A %H:%M:%S")


class Scales:
    """Weighs a service and all its children every other second, from entering to the end of the block."""

    def __init__(self, weekend: Weekend, node: int = 0) -> None:
        self._weekend = weekend
        self._node = node
        self._task: asyncio.Task[None] | None = None
        self.killed_at = 0
        "Documents on paper when it was started again the last time."
        self.service: list[tuple[int, float]] = []
        "Documents on paper by then, and MiB (PSS) of the service itself."
        self.children: list[tuple[int, float]] = []
        "The same of its children together."

    async def __aenter__(self) -> Scales:
        self._task = asyncio.create_task(self._weigh(), name="scales")
        return self

    async def __aexit__(self, *of_error: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _weigh(self) -> None:
        before = self._weekend.nodes[self._node].pid
        while True:
            pid, papers = self._weekend.nodes[self._node].pid, self._weekend.on_paper()
            if pid != before:
                before, self.killed_at = pid, papers
            if own := proportional(pid):
                self.service.append((papers, own))
                self.children.append((papers, sum(proportional(child) for child in offspring(pid))))
            await asyncio.sleep(2.0)


def most(weights: list[tuple[int, float]], first: int, last: int) -> float:
    """The most that was weighed between two numbers of documents on paper."""
    return max(weight for papers, weight in weights if first <= papers <= last)


def offspring(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    try:
        found = [
            int(each)
            for path in Path(f"/proc/{pid}/task").iterdir()
            for each in (path / "children").read_text().split()
        ]
    except OSError:
        return []
    return found + [each for child in found for each in offspring(child)]


def proportional(pid: int) -> float:
    """The proportional set size of a process, in MiB; 0 when it has gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0.0)
