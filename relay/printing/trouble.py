"""What keeps a printer from printing, in one word, whoever said it: the device, CUPS, or we, who got no answer.

The words are what the configuration names (`alternate_for`); the sentence is for people.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relay.config.printers import Trouble as Kind
from relay.printing.device import DeviceState
from relay.printing.jobs import QueueStatus

_SIGNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    # Keywords of printer-state-reasons (RFC 8011 5.4.12), and the sentences of CUPS's backends.
    ("paper", re.compile(r"media-(empty|needed)|out of paper|paper tray is empty", re.IGNORECASE)),
    ("jam", re.compile(r"media-jam|paper jam", re.IGNORECASE)),
    ("cover", re.compile(r"(cover|door|interlock)-open|(cover|door) is open", re.IGNORECASE)),
    ("supply", re.compile(r"(toner|marker-supply|marker-waste)-(empty|full)|(toner|ink) is empty", re.IGNORECASE)),
    ("paused", re.compile(r"\bpaused\b|not accepting jobs|has no queue", re.IGNORECASE)),
    (
        "offline",
        re.compile(
            r"offline|not respond|not answer|unavailable|may not exist|unreachable|connecting-to-device|timed-out"
            r"|can't be (asked|reached)|shutdown",
            re.IGNORECASE,
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong, and the sentence that says so."""

    kind: Kind
    words: str


def trouble_of(words: str) -> Trouble | None:
    """What a sentence or keywords of CUPS or a device mean; None when nothing is said."""
    if not words:
        return None
    return Trouble(next((kind for kind, sign in _SIGNS if sign.search(words)), "other"), words)


def of_queue(status: QueueStatus, queue: str) -> Trouble | None:
    """What is wrong with a CUPS queue."""
    if not status.accepts_jobs:
        return Trouble("paused", f"the queue {queue} is not accepting jobs")
    return Trouble("paused", status.trouble) if status.trouble else None


def of_device(state: DeviceState) -> Trouble | None:
    """What keeps a device from printing: only what has stopped it, since printers complain of much that does not."""
    errors = [reason for reason in state.reasons if reason.endswith("-error")]
    if state.state != "stopped" and not errors:
        return None
    return trouble_of(", ".join(errors or state.reasons)) or Trouble("other", "the printer has stopped")
