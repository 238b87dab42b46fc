"""Header and footer lines: what the profile says, filled in with the occasion.

Does: splits a line at | into its parts and replaces {desk}, {institution}, {queue_id}, {received}, {printed}, {page}
and {pages}. The last two become elements that the layout counts.
Promises: everything else is escaped. Times are written as 2026-03-01 14:05, in the time zone they came with.
"""

from __future__ import annotations

from datetime import datetime
from string import Formatter

from markupsafe import Markup, escape

from relay.slips.slip import Occasion


def fill_in(line: str, occasion: Occasion) -> list[Markup]:
    """The parts of a line from left to right: one, two or three; none for an empty line."""
    values: dict[str, Markup] = {
        "desk": escape(occasion.desk),
        "institution": escape(occasion.institution),
        "queue_id": escape(occasion.queue_id),
        "received": escape(_shown(occasion.received_at)),
        "printed": escape(_shown(occasion.printed_at)),
        "page": Markup("<relay-page></relay-page>"),
        "pages": Markup("<relay-pages></relay-pages>"),
    }
    return [_part(part, values) for part in line.split("|")] if line.strip() else []


def _part(part: str, values: dict[str, Markup]) -> Markup:
    filled = Markup("")
    for text, name, _, _ in Formatter().parse(part.strip()):
        filled += escape(text)
        if name is not None:
            filled += values[name]
    return filled


def _shown(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M") if moment is not None else ""
