"""What became of what was answered: spool, next hop, paper and diary laid side by side after everything has settled.

Nothing is taken from the service's word alone: a letter counts as delivered when the next hop has it, a slip when its
paper lies in the printer. A duplicate is explained when a process died (or lost its lease) between writing the letter
to the next hop and committing what came of it; a message that was accepted twice, when one died between taking it and
its 250. What is not explained is a fault.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import text

from relay.spool.engine import Place, reading_engine
from relay.spool.records import FINAL, OPEN, State
from tests.harness.letters_only import body
from tests.harness.next_hop import Taken
from tests.harness.traffic import Item

_VERP = re.compile(r"b-([0-9a-z]{13})-(\d+)-")
_JOB = re.compile(r"slip-([0-9A-Z]{13})-(\d+)-\d+")
_MESSAGE_ID = re.compile(rb"^Message-ID:\s*(\S+)", re.MULTILINE | re.IGNORECASE)
_FINAL_LOG_ID = re.compile(rb"^Final-Log-ID: (\S+)", re.MULTILINE)
_FINAL_RECIPIENT = re.compile(rb"^Final-Recipient: \S+; ?(\S+)", re.MULTILINE)

Deaths = Mapping[int, str]
"""How each process that was killed came to its end, by process id."""


@dataclass(frozen=True, slots=True)
class Row:
    """One delivery as the spool has it, with its message."""

    queue_id: str
    number: int
    recipient: str
    route: str
    state: State
    reason: str
    attempts: int
    message_id: str
    source: str
    duplicate_of: str

    @property
    def name(self) -> str:
        """As the log names it."""
        return f"{self.queue_id}/{self.number}"

    def __str__(self) -> str:
        return f"{self.name} by {self.route}: {self.state.value} after {self.attempts} ({self.reason})"


@dataclass(slots=True)
class Verdict:
    """What was found. The lists of faults are empty when all is well."""

    lost: list[str] = field(default_factory=list)
    "Answered with 250, and neither delivered nor shown to anybody."
    printed_twice: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    "Ended otherwise than it should; a body that is not the one that came; a DSN too many or too few."
    uncertain: list[str] = field(default_factory=list)
    "Slips that a person has to look for: no fault."
    answered: int = 0
    letters: int = 0
    slips: int = 0
    notices: int = 0
    duplicates: Counter[str] = field(default_factory=Counter)
    "Letters that the next hop has once more than it should, by what explains them."
    slips_handed_in_twice: int = 0
    "Slips that were accepted twice and are on paper once."
    accepted_again: Counter[str] = field(default_factory=Counter)
    "Messages that their client had to offer again, though they had been taken, by what explains them."

    @property
    def faults(self) -> list[str]:
        """All that must not be."""
        return [*self.lost, *self.printed_twice, *self.unsettled, *self.unexplained, *self.wrong]

    def summary(self) -> str:
        """In a few words."""
        return (
            f"{self.answered} messages answered with 250; {self.letters} letters and {self.notices} DSNs at the next "
            f"hop, {self.slips} slips on paper; {self.duplicates.total()} letters twice, "
            f"{self.accepted_again.total()} messages accepted again, {self.slips_handed_in_twice} of them slips and "
            f"printed once, {len(self.uncertain)} slips uncertain; {len(self.faults)} faults"
        )


class Diary:
    """The lines that the processes wrote about themselves, as `crash_points` does."""

    def __init__(self, path: Path) -> None:
        self.lines: list[tuple[int, str, str]] = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            pid, what, of = line.split(" ", 2)
            self.lines.append((int(pid), what, of))
        self._dots = self._doubts("dot", "settled")
        self._taken = self._doubts("taking", "answered")
        self._fenced = {of for _, what, of in self.lines if what == "lease-lost"}

    def died(self) -> dict[int, str]:
        """The point at which each process died that did so by itself."""
        return {pid: of for pid, what, of in self.lines if what == "died"}

    def node(self, pid: int) -> str:
        """The name by which a process holds deliveries."""
        return next(of for whose, what, of in self.lines if what == "node" and whose == pid)

    def doubts_about_sending(self, delivery: str, deaths: Deaths) -> list[str]:
        """What may have made a duplicate of a letter: one entry for each occasion."""
        found = [deaths[pid] for pid in self._dots[delivery] if pid in deaths]
        return [*found, "lease lost"] if delivery in self._fenced else found

    def doubts_about_taking(self, queue_id: str, deaths: Deaths) -> list[str]:
        """The death that kept a 250 from its client."""
        return [deaths[pid] for pid in self._taken[queue_id] if pid in deaths]

    def _doubts(self, begun: str, ended: str) -> defaultdict[str, list[int]]:
        """The processes that wrote that something began, and not that it ended."""
        open_ones: dict[tuple[int, str], bool] = {}
        for pid, what, of in self.lines:
            if what in (begun, ended):
                open_ones[pid, of] = what == begun
        doubts: defaultdict[str, list[int]] = defaultdict(list)
        for (pid, of), is_open in open_ones.items():
            if is_open:
                doubts[of].append(pid)
        return doubts


def read_rows(place: Place) -> list[Row]:
    """All deliveries of a spool."""
    query = text(
        "SELECT queue_id, number, recipient, route, state, reason, attempts, message_id, source, duplicate_of "
        "FROM deliveries JOIN messages USING (queue_id) ORDER BY queue_id, number"
    )
    engine = reading_engine(place)
    try:
        with engine.connect() as connection:
            return [Row(**{**row, "state": State(row["state"])}) for row in connection.execute(query).mappings()]
    finally:
        engine.dispose()


def held_by(place: Place, node: str) -> dict[str, str]:
    """The deliveries that a node holds, by name, with their recipients."""
    engine = reading_engine(place)
    try:
        with engine.connect() as connection:
            query = text("SELECT queue_id, number, recipient FROM deliveries WHERE lease_owner = :node")
            rows = connection.execute(query, {"node": node})
            return {f"{queue_id}/{number}": recipient for queue_id, number, recipient in rows}
    finally:
        engine.dispose()


def under_way(place: Place) -> int:
    """How many deliveries the service still has work with."""
    states = ", ".join(f"'{state.value}'" for state in OPEN)
    engine = reading_engine(place)
    try:
        with engine.connect() as connection:
            found = connection.execute(text(f"SELECT count(*) FROM deliveries WHERE state IN ({states})"))
            return int(found.scalar_one())
    finally:
        engine.dispose()


def judge(
    items: Sequence[Item],
    place: Place,
    taken: Sequence[Taken],
    job_names: Iterable[str],
    diary: Diary,
    deaths: Deaths,
) -> Verdict:
    """Lays everything side by side. All has to be settled, and the service at rest."""
    verdict = Verdict()
    rows = read_rows(place)
    bodies = {item.message_id: body(item.message) for item in items}
    at_next_hop, notices = _sorted(taken, bodies, verdict)
    papers = Counter(f"{match[1]}/{match[2]}" for match in map(_JOB.fullmatch, job_names) if match)
    verdict.slips, verdict.letters = papers.total(), sum(at_next_hop.values())
    _accepted(items, rows, diary, deaths, verdict)
    for row in rows:
        if row.route.startswith("print:"):
            _slip(row, papers[row.name], papers[row.duplicate_of], verdict)
        else:
            count = notices[row.message_id] if row.source == "slip-relay" else at_next_hop[row.name]
            _letter(row, count, diary.doubts_about_sending(row.name, deaths), verdict)
    _dsns(rows, place, verdict)
    return verdict


def delivery_of(taken: Taken) -> str:
    """The delivery that a letter at the next hop belongs to, by its envelope; "" for a DSN."""
    match = _VERP.match(taken.mail_from)
    assert match or not taken.mail_from, taken.mail_from
    return f"{match[1].upper()}/{match[2]}" if match else ""


def _sorted(taken: Sequence[Taken], bodies: Mapping[str, bytes], verdict: Verdict) -> tuple[Counter[str], Counter[str]]:
    """What the next hop has: letters by delivery (their envelope names it), DSNs by Message-ID."""
    letters: Counter[str] = Counter()
    notices: Counter[str] = Counter()
    for each in taken:
        content = each.content
        found = _MESSAGE_ID.search(content)
        message_id = found[1].decode() if found else ""
        if not each.mail_from:
            notices[message_id] += 1
            continue
        letters[delivery_of(each)] += 1
        if body(content) != bodies.get(message_id):
            verdict.wrong.append(f"{each.path.name} of {message_id} is not what was handed in")
    verdict.notices = notices.total()
    return letters, notices


def _accepted(items: Sequence[Item], rows: Sequence[Row], diary: Diary, deaths: Deaths, verdict: Verdict) -> None:
    kept: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        kept[row.message_id].add(row.queue_id)
    for item in items:
        found = kept[item.message_id]
        if item.answered:
            verdict.answered += 1
            if item.answered not in found:
                verdict.lost.append(f"{item.mark} was answered with 250 as {item.answered} and is not in the spool")
        for queue_id in found - {item.answered}:
            why = diary.doubts_about_taking(queue_id, deaths)
            if why and item.cut_off:
                verdict.accepted_again[why[0]] += 1
            else:
                verdict.unexplained.append(f"{item.mark} was accepted as {queue_id} too, for no reason")


def _slip(row: Row, papers: int, papers_of_twin: int, verdict: Verdict) -> None:
    if papers > 1:
        verdict.printed_twice.append(f"{row}: {papers} times on paper")
    if row.state is State.UNCERTAIN:
        verdict.uncertain.append(f"{row}; {papers} on paper")
    elif row.state in OPEN:
        verdict.unsettled.append(str(row))
    elif row.duplicate_of:
        verdict.slips_handed_in_twice += 1
        if papers or not papers_of_twin:
            verdict.wrong.append(f"{row}: {papers} times on paper, and {papers_of_twin} times as {row.duplicate_of}")
    elif row.state is not State.DELIVERED:
        verdict.wrong.append(str(row))
    elif not papers:
        verdict.lost.append(f"{row}, and there is no paper")


def _letter(row: Row, count: int, doubts: Sequence[str], verdict: Verdict) -> None:
    expected = State.DELIVERED
    if row.recipient.startswith(("permfail", "tempfail")):
        expected = State.FAILED if row.recipient.startswith("permfail") else State.EXPIRED
    if row.state not in FINAL:
        verdict.unsettled.append(str(row))
    elif row.state is not expected:
        verdict.wrong.append(str(row))
    elif expected is State.DELIVERED and not count:
        verdict.lost.append(f"{row}, and the next hop does not have it")
    for place in range(1, count):
        if place <= len(doubts):
            verdict.duplicates[doubts[place - 1]] += 1
        else:
            verdict.unexplained.append(f"{row}: {count} times at the next hop, for {len(doubts)} reasons")


def _dsns(rows: Sequence[Row], place: Place, verdict: Verdict) -> None:
    """Each delivery that failed or expired has one DSN that says so, and no other has one."""
    engine = reading_engine(place)
    try:
        with engine.connect() as connection:
            query = text("SELECT content FROM bodies JOIN messages USING (queue_id) WHERE source = 'slip-relay'")
            contents = [bytes(content) for (content,) in connection.execute(query)]
    finally:
        engine.dispose()
    told: Counter[tuple[str, str]] = Counter()
    for content in contents:
        about, whom = _FINAL_LOG_ID.search(content), _FINAL_RECIPIENT.search(content)
        if b"\nAction: failed" in content:
            assert about, content
            assert whom, content
            told[about[1].decode(), whom[1].decode()] += 1
    for row in rows:
        due = int(row.state in (State.FAILED, State.EXPIRED) and row.source != "slip-relay")
        if told[row.queue_id, row.recipient] != due:
            verdict.wrong.append(f"{row}: {told[row.queue_id, row.recipient]} DSNs instead of {due}")
