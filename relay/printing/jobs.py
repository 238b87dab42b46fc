"""What CUPS is asked for with a job, and what it says about one (RFC 8011 5.3.7), in the words of this project."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from relay.config.kinds import NAMED_PAPERS, paper_size
from relay.config.profiles import Profile


class JobEnd(Enum):
    """How a job ended, as far as CUPS knows."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    ABORTED = "aborted"


_NO_TROUBLE = ("Idle", "Printing", "Ready")
_STOPPED = 6
_BY_A_PERSON = ("Paused", "Canceling", *_NO_TROUBLE)
"""What CUPS says of a queue that a person paused, if not the reason that he gave, or nothing: in the middle of a job it
is the backend's last word.
"""
_HELD = {
    "auth-info-required": "the queue wants a user name and password, which CUPS must be told",
    "cups-held-for-authentication": "the queue wants a user name and password, which CUPS must be told",
    "job-hold-until-specified": "the job is held in CUPS",
}
"""What a person has to do something about in CUPS, by `job-state-reasons`."""
_ENDS = {7: JobEnd.CANCELLED, 8: JobEnd.ABORTED, 9: JobEnd.COMPLETED}


@dataclass(frozen=True, slots=True)
class JobStatus:
    """State of a job: IPP's `job-state`, `job-state-reasons` and the printer's message for it."""

    state: int
    reasons: tuple[str, ...] = ()
    message: str = ""
    began: bool = False
    "Whether CUPS ever began to send it to the printer (`time-at-processing`)."
    processing_at: int = 0
    "When CUPS last began, in seconds since the epoch by its clock; 0 when it did not."
    is_empty: bool = False
    "Whether CUPS never got a document for it (`job-k-octets` is 0): nothing of it can be on paper."
    printer_reasons: tuple[str, ...] = ()
    "What was wrong with the printer while the job was there, as in `media-empty-warning`."

    @property
    def is_waiting(self) -> bool:
        """Whether CUPS keeps it for later: pending, held, or stopped (RFC 8011 5.3.7: 3, 4 and 6)."""
        return self.state in (3, 4, _STOPPED)

    @property
    def trouble(self) -> str:
        """What keeps the job from being printed, in CUPS's words; "" when nothing does."""
        reasons = [reason for reason in self.printer_reasons if not reason.startswith(("cups-", "none"))]
        reasons += [words for reason, words in _HELD.items() if reason in self.reasons]
        message = "" if self.message.startswith(_NO_TROUBLE) else self.message
        return "; ".join([*reasons, message] if message else reasons)

    @property
    def end(self) -> JobEnd | None:
        """How it ended, or None while it has not."""
        if self.state == _STOPPED and "completed-with-errors" in self.reasons:
            return JobEnd.ABORTED  # a filter failed on it: CUPS keeps such a job for ever without trying again
        return ended(self.state)


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """State of a CUPS queue (RFC 8011 5.4.11): whether it prints, and why not."""

    is_stopped: bool
    accepts_jobs: bool
    message: str = ""
    "What CUPS, or whoever stopped it, said last."

    def was_stopped_by_cups(self, job: JobStatus) -> bool:
        """Whether CUPS stopped it by itself, because of that job, and not a person: the backend said what is wrong."""
        said = self.message if self.message == job.message else ""
        return self.is_stopped and job.began and bool(said) and not said.startswith(_BY_A_PERSON)

    @property
    def trouble(self) -> str:
        """Why it prints nothing; "" when it does."""
        if not self.is_stopped:
            return ""
        said = f" ({self.message})" if self.message not in ("", "Paused") else ""
        return f"the queue is paused in CUPS{said}"


def ended(state: int) -> JobEnd | None:
    """What IPP's `job-state` says of the end of a job (RFC 8011 5.3.7); None while it has none."""
    return _ENDS.get(state)


def job_options(
    profile: Profile, size_mm: tuple[float, float], pages: int, copies: int | None = None
) -> dict[str, str]:
    """The options of a job: the paper, how it is turned, taken and cut, and how many of it. Numbers are text.

    A sheet is named, everything else goes by its measure: without a size CUPS takes the queue's default, which on a
    roll can be two metres. `PageSize` is exact where `media` is cut to whole points (CUPS 2.4.2). A landscape page goes
    with the portrait sheet's size and nothing else: CUPS turns it, and would turn it twice with orientation-requested.

    `sides`, `InputSlot`, `print-color-mode`, `copies` and `CutMedia` are understood by queues with a driver and, in
    IPP's own words (media-source, finishings), by the devices behind driverless ones; what a queue does not know it
    ignores. `copies` given here counts instead of the profile's.
    """
    width, height = size_mm
    if profile.orientation == "landscape" and width > height:
        width, height = height, width
    size = profile.paper if profile.paper in NAMED_PAPERS else f"Custom.{width:.2f}x{height:.2f}mm"
    options = {"PageSize": size, "print-scaling": "none"}
    if paper_size(profile.paper)[1] is not None:
        # With two sides CUPS adds an empty page to a single one.
        options["sides"] = "one-sided" if profile.duplex == "off" or pages == 1 else f"two-sided-{profile.duplex}"
    if profile.monochrome:
        options["print-color-mode"] = "monochrome"
    if profile.tray is not None:
        options["InputSlot"] = profile.tray
    if profile.cut is not None:
        options["CutMedia"] = "EndOfJob" if profile.cut == "job" else "None"
    if (count := copies or profile.copies) > 1:
        options["copies"] = str(count)
    return options | profile.options
