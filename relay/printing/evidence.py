"""What is known of a slip's paper, and what follows from it. Pure: the table of the three promises for printing.

CUPS says how it ended with a job; where the device can be asked (`device`), it says what it did with it, and it counts:
on some queues CUPS calls a job completed that the printer threw away. Judged is what both say at one moment.

* The device completed a job of that name: it is on paper (`device-confirmed`), whatever CUPS says.
* It has one that has not ended: wait, however long.
* It ended all it has of that name in another way: nothing is on paper that counts. Aborted without a side that came out
  is printed again; cancelled, or with sides that came out, is for a person to look at.
* It has none: where it is known to show its jobs and was asked all the while, the slip never reached it. Where it was
  away meanwhile, or had the job and has lost it, it may have been switched off with the slip in it, and a person has to
  look. Else CUPS's word stands:
  `spooler-confirmed`, or `handed-over` where CUPS itself can't know.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit

from relay.printing.device import DeviceJob, speaks_ipp
from relay.printing.jobs import JobEnd, JobStatus

DEVICE_CONFIRMED = "device-confirmed"
"""The device itself says that the job is completed."""
SPOOLER_CONFIRMED = "spooler-confirmed"
"""CUPS says so, and its backend waited for the device's word."""
HANDED_OVER = "handed-over"
"""CUPS says so, and its backend only got rid of the bytes."""

_WAITS_FOR_DEVICE = frozenset({"ipp", "ipps", "dnssd", "implicitclass", "hp", "cups-pdf"})
"""Backends of CUPS that follow a job to its end. `socket`, `lpd`, `usb` and `file` end when the bytes are gone."""


class Verdict(Enum):
    """What follows."""

    PRINTED = "printed"
    AGAIN = "again"
    "Surely not on paper, and nobody wanted it so."
    REFUSED = "refused"
    "Surely not on paper, because a person or a filter ended it: again only by a person's word."
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, its grade of evidence when printed, and a sentence that says why."""

    verdict: Verdict
    why: str
    grade: str = ""
    impressions: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What CUPS and the device say of a job at one moment, and what was seen of it before."""

    cups: JobStatus | None
    "None when CUPS does not know the job."
    device: tuple[DeviceJob, ...] | None = None
    "The device's jobs of that name; None when it can't be asked or did not answer."
    waits_for_device: bool = False
    "Whether the device may still say something: it can be asked, and there is time."
    shows_jobs: bool = False
    "Whether this device is known to show our jobs by their names."
    watched: bool = False
    "Whether the device answered all the while since the document was handed over."
    was_seen: bool = False
    "Whether the device ever had a job of that name."
    was_silent: bool = False
    "Whether a device that does answer at other times did not, at some time since then."
    remembers: bool = False
    "Whether this device is known to show jobs that it has completed, for a while."
    grade: str = SPOOLER_CONFIRMED
    "What CUPS's word is worth on this queue."


def grade_of(device_uri: str) -> str:
    """What "completed" is worth for a CUPS queue with a device of that URI, before the device is asked."""
    return SPOOLER_CONFIRMED if urlsplit(device_uri).scheme in _WAITS_FOR_DEVICE else HANDED_OVER


def expected(device_uri: str) -> str:
    """The best evidence that a slip can have on a CUPS queue with a device of that URI."""
    return DEVICE_CONFIRMED if speaks_ipp(device_uri) else grade_of(device_uri)


def judge(seen: Seen, job_id: int) -> Judgement | None:
    """What follows from what was seen; None to go on waiting. `job_id` is that of CUPS."""
    jobs = seen.device or ()
    for job in jobs:
        if job.end is JobEnd.COMPLETED:
            count = job.impressions or None
            sides = f", {_sides(count)}" if count else ""
            why = f"the printer completed it (job {job_id} of CUPS{sides})"
            return Judgement(Verdict.PRINTED, why, DEVICE_CONFIRMED, count)
    if any(job.end is None for job in jobs):
        return None
    if seen.cups is None or (seen.cups.is_empty and seen.cups.end is None):
        return _left_by_cups(seen, job_id, jobs)
    if seen.cups.end is None:
        return None  # it is with CUPS, which may try again what the device ended
    if jobs:
        return _ended_by_device(jobs, job_id)
    if seen.waits_for_device:
        return None
    return _by_cups(seen, seen.cups, job_id)


def _left_by_cups(seen: Seen, job_id: int, jobs: tuple[DeviceJob, ...]) -> Judgement | None:
    """CUPS does not know the job, or has lost its document, as after a crash of its own."""
    if jobs:
        return _ended_by_device(jobs, job_id)
    if seen.waits_for_device:
        return None
    what = "does not know any more" if seen.cups is None else "has lost the document of"
    return _look(f"CUPS {what} the print job {job_id}")


def _ended_by_device(jobs: tuple[DeviceJob, ...], job_id: int) -> Judgement:
    # What a person cancels in CUPS is cancelled at the device, too; CUPS calls what the device aborted by any name.
    sides = max(job.impressions or 0 for job in jobs)
    last = max(jobs, key=lambda job: job.job_id)
    cancelled = last.end is JobEnd.CANCELLED
    how = "was cancelled at the printer" if cancelled else "was aborted by the printer"
    why = f"the print job {job_id} {how}{_because(last)}"
    if sides:
        return _look(f"{why} after {_sides(sides)}")
    # Somebody who cancels may have it in his hands already: printers do finish cancelled pages.
    return _look(why) if cancelled else Judgement(Verdict.AGAIN, why)


def _by_cups(seen: Seen, cups: JobStatus, job_id: int) -> Judgement:
    message = f" ({cups.message})" if cups.message else ""
    if cups.began and (seen.was_silent or (seen.was_seen and seen.remembers)):
        assert cups.end is not None
        return _look(f"the printer was away with the print job {job_id}, and CUPS says {cups.end.value}")
    never_came = seen.device is not None and seen.shows_jobs and seen.watched and not seen.was_seen
    if cups.end is JobEnd.COMPLETED:
        if never_came:
            return _look(f"CUPS completed the print job {job_id}, but the printer shows none of it")
        return Judgement(Verdict.PRINTED, f"CUPS completed job {job_id}", seen.grade)
    assert cups.end is not None
    how = f"{cups.end.value}{message}"
    if not cups.began:
        # Persons cancel. CUPS by itself gives up a job whose document is late by its clock, and still takes that then.
        given_up = cups.end is JobEnd.ABORTED and not cups.is_empty
        verdict = Verdict.AGAIN if given_up else Verdict.REFUSED
        return Judgement(verdict, f"the print job {job_id} was {how} before it was printed")
    if never_came:
        verdict = Verdict.AGAIN if cups.end is JobEnd.ABORTED else Verdict.REFUSED
        return Judgement(verdict, f"the print job {job_id} was {how} before it reached the printer")
    # Whatever the message says: part of it or all of it may be on paper.
    return _look(f"the print job {job_id} was begun and then {how}")


def _look(why: str) -> Judgement:
    return Judgement(Verdict.UNCERTAIN, f"{why}: look whether the slip is at the printer")


def _sides(count: int) -> str:
    return f"{count} side{'s' if count > 1 else ''}"


def _because(job: DeviceJob) -> str:
    reasons = [
        reason for reason in job.reasons if reason not in ("none", "aborted-by-system", "processing-to-stop-point")
    ]
    return f" ({', '.join(reasons)})" if reasons else ""
