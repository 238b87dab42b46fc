"""Decides what is to be told now, from how it stands and what was told before. Pure but for its memory of one look.

Promises: each thing is told once, and once that it is over. It is over only when two looks one after the other found it
well, so that what comes and goes does not make mail each time. Slips that are late because their printer is in
trouble are no second notice; the trouble is over when they are on paper too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from relay.notices.conditions import Condition
from relay.spool.notices import Told


@dataclass(frozen=True, slots=True)
class Step:
    """Something to be told: that it is so, or, with what was told before, that it is over."""

    condition: Condition
    known: Told | None = None
    "What was told before."


class Watch:
    """The decisions of one node."""

    def __init__(self) -> None:
        self._well: frozenset[str] = frozenset()
        "What was told, and found well by the last look."

    def decide(self, conditions: Iterable[Condition], told: Mapping[str, Told]) -> list[Step]:
        """What follows from one look."""
        found = {condition.key: condition for condition in conditions}
        well = frozenset(key for key in told.keys() & found.keys() if _is_well(found[key], found))
        steps = [*self._bad(found, told), *(Step(found[key], told[key]) for key in sorted(well & self._well))]
        self._well = well
        return steps

    def _bad(self, found: Mapping[str, Condition], told: Mapping[str, Told]) -> Iterator[Step]:
        for key, condition in found.items():
            if condition.is_bad and key not in told and not _is_part_of_trouble(condition, found, told):
                yield Step(condition)


def _is_well(condition: Condition, found: Mapping[str, Condition]) -> bool:
    late = found.get(f"printer:{condition.name}:waiting") if condition.kind == "trouble" else None
    return condition.is_well and not (late is not None and late.is_bad)


def _is_part_of_trouble(condition: Condition, found: Mapping[str, Condition], told: Mapping[str, Told]) -> bool:
    trouble = f"printer:{condition.name}:trouble"
    return condition.kind == "waiting" and (trouble in told or (trouble in found and found[trouble].is_bad))
