"""What CUPS says about a job (RFC 8011 5.3.7), in the words of this project."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class JobEnd(Enum):
    """How a job ended, as far as CUPS knows."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    ABORTED = "aborted"


_NAMED_SHEETS = ("A4", "A5", "Letter")
_NO_TROUBLE = ("Idle", "Printing", "Ready")
_STOPPED = 6
_ENDS = {7: JobEnd.CANCELLED, 8: JobEnd.ABORTED, 9: JobEnd.COMPLETED}


@dataclass(frozen=True, slots=True)
class JobStatus:
    """State of a job: IPP's `job-state`, `job-state-reasons` and the printer's message for it."""

    state: int
    reasons: tuple[str, ...] = ()
    message: str = ""
    began: bool = False
    "Whether CUPS ever began to send it to the printer (`time-at-processing`)."
    is_empty: bool = False
    "Whether CUPS never got a document for it (`job-k-octets` is 0): nothing of it can be on paper."
    printer_reasons: tuple[str, ...] = ()
    "What was wrong with the printer while the job was there, as in `media-empty-warning`."

    @property
    def trouble(self) -> str:
        """What keeps the job from being printed, in CUPS's words; "" when nothing does."""
        reasons = [reason for reason in self.printer_reasons if not reason.startswith(("cups-", "none"))]
        message = "" if self.message.startswith(_NO_TROUBLE) else self.message
        return "; ".join([*reasons, message] if message else reasons)

    @property
    def end(self) -> JobEnd | None:
        """How it ended, or None while it has not."""
        if self.state == _STOPPED and "completed-with-errors" in self.reasons:
            return JobEnd.ABORTED  # a filter failed on it: CUPS keeps such a job for ever without trying again
        return _ENDS.get(self.state)


def page_options(width_mm: float, height_mm: float, paper: str) -> dict[str, str]:
    """The options of a job that keep a page at its size: a sheet by its name, everything else by its measure.

    Without a size CUPS takes the queue's default, which on a roll can be two metres. `PageSize` is exact where `media`
    is cut to whole points (CUPS 2.4.2).
    """
    size = paper if paper in _NAMED_SHEETS else f"Custom.{width_mm:.2f}x{height_mm:.2f}mm"
    return {"PageSize": size, "print-scaling": "none"}
