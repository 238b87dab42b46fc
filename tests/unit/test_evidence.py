"""What follows from what CUPS and the device say of a print job: every row of the table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from relay.printing.device import DeviceJob
from relay.printing.evidence import (
    DEVICE_CONFIRMED,
    HANDED_OVER,
    SPOOLER_CONFIRMED,
    Judgement,
    Seen,
    Verdict,
    grade_of,
    judge,
)
from relay.printing.jobs import JobStatus, QueueStatus

PROCESSING = JobStatus(state=5, began=True)
PENDING = JobStatus(state=3)
COMPLETED = JobStatus(state=9, began=True)
CANCELLED = JobStatus(state=7, began=True)
CANCELLED_EARLY = JobStatus(state=7)
ABORTED = JobStatus(state=8, began=True, message="Filter failed")
GIVEN_UP = JobStatus(state=8)
GIVEN_UP_EMPTY = JobStatus(state=8, is_empty=True)
LOST = JobStatus(state=3, is_empty=True)

D_PROCESSING = DeviceJob(1, 5)
D_COMPLETED = DeviceJob(2, 9, impressions=2)
D_ABORTED = DeviceJob(1, 8, ("aborted-by-system",))
D_ABORTED_LATE = DeviceJob(1, 8, impressions=1)
D_CANCELLED = DeviceJob(1, 7, ("job-canceled-at-device",))


def judged(cups: JobStatus | None, *device: DeviceJob, **known: Any) -> Judgement | None:
    return judge(Seen(cups, None if known.pop("silent", False) else device, **known), 12)


@pytest.mark.parametrize("cups", [PENDING, PROCESSING, COMPLETED, CANCELLED, ABORTED, LOST, None])
def test_what_the_device_completed_is_on_paper_whatever_cups_says(cups: JobStatus | None) -> None:
    judgement = judged(cups, D_ABORTED, D_COMPLETED)
    assert judgement is not None
    assert (judgement.verdict, judgement.grade, judgement.impressions) == (Verdict.PRINTED, DEVICE_CONFIRMED, 2)
    assert judgement.why == "the printer completed it (job 12 of CUPS, 2 sides)"


@pytest.mark.parametrize("cups", [PENDING, PROCESSING, COMPLETED, CANCELLED, ABORTED, LOST, None])
def test_what_the_device_has_not_ended_is_waited_for(cups: JobStatus | None) -> None:
    assert judged(cups, D_PROCESSING) is None
    assert judged(cups, D_ABORTED, DeviceJob(2, 3)) is None


@pytest.mark.parametrize("device", [(), (D_ABORTED,), (D_CANCELLED,)])
@pytest.mark.parametrize("cups", [PENDING, PROCESSING])
def test_what_cups_has_not_ended_it_may_try_again(cups: JobStatus, device: tuple[DeviceJob, ...]) -> None:
    assert judged(cups, *device) is None


@pytest.mark.parametrize(
    ("cups", "device", "verdict"),
    [
        (COMPLETED, D_ABORTED, Verdict.AGAIN),  # the lie
        (ABORTED, D_ABORTED, Verdict.AGAIN),
        (None, D_ABORTED, Verdict.AGAIN),
        (LOST, D_ABORTED, Verdict.AGAIN),
        (COMPLETED, D_ABORTED_LATE, Verdict.UNCERTAIN),
        (None, D_ABORTED_LATE, Verdict.UNCERTAIN),
        (CANCELLED, D_ABORTED, Verdict.AGAIN),  # as CUPS now and then says of what the printer aborted
        (COMPLETED, D_CANCELLED, Verdict.UNCERTAIN),
        (CANCELLED, D_CANCELLED, Verdict.UNCERTAIN),
    ],
)
def test_what_the_device_ended_otherwise(cups: JobStatus | None, device: DeviceJob, verdict: Verdict) -> None:
    judgement = judged(cups, device)
    assert judgement is not None
    assert judgement.verdict is verdict
    assert ("look whether" in judgement.why) == (verdict is Verdict.UNCERTAIN)


def test_the_last_job_of_that_name_says_how_it_ended() -> None:
    judgement = judged(COMPLETED, DeviceJob(9, 7), DeviceJob(10, 8))
    assert judgement is not None
    assert judgement.verdict is Verdict.AGAIN


@pytest.mark.parametrize("cups", [COMPLETED, CANCELLED, ABORTED, LOST, None])
def test_a_device_that_may_still_say_something_is_waited_for(cups: JobStatus | None) -> None:
    assert judged(cups, waits_for_device=True) is None
    assert judged(cups, silent=True, waits_for_device=True) is None


@pytest.mark.parametrize(
    ("cups", "known", "verdict"),
    [
        # Nobody asks the device, or it shows nothing to anybody: CUPS's word.
        (COMPLETED, {"silent": True}, Verdict.PRINTED),
        (COMPLETED, {}, Verdict.PRINTED),
        (COMPLETED, {"watched": True}, Verdict.PRINTED),
        # It shows its jobs, and was asked all the while: this one never came.
        (COMPLETED, {"shows_jobs": True, "watched": True}, Verdict.UNCERTAIN),
        (ABORTED, {"shows_jobs": True, "watched": True}, Verdict.AGAIN),
        (CANCELLED, {"shows_jobs": True, "watched": True}, Verdict.REFUSED),
        # It may have forgotten, or had it once.
        (COMPLETED, {"shows_jobs": True}, Verdict.PRINTED),
        (COMPLETED, {"shows_jobs": True, "watched": True, "was_seen": True}, Verdict.PRINTED),
        (ABORTED, {"shows_jobs": True, "watched": True, "was_seen": True}, Verdict.UNCERTAIN),
        # It was away meanwhile, perhaps with the slip in it.
        (COMPLETED, {"shows_jobs": True, "was_silent": True}, Verdict.UNCERTAIN),
        (COMPLETED, {"was_silent": True, "silent": True}, Verdict.UNCERTAIN),
        (CANCELLED_EARLY, {"was_silent": True, "silent": True}, Verdict.REFUSED),
        # It had the job, keeps those that it completed, and has this one no more: it was switched off and on.
        (COMPLETED, {"shows_jobs": True, "watched": True, "was_seen": True, "remembers": True}, Verdict.UNCERTAIN),
        (CANCELLED, {}, Verdict.UNCERTAIN),
        (ABORTED, {"silent": True}, Verdict.UNCERTAIN),
        (CANCELLED_EARLY, {"silent": True}, Verdict.REFUSED),
        (LOST, {"shows_jobs": True, "watched": True}, Verdict.UNCERTAIN),
        (None, {"shows_jobs": True, "watched": True}, Verdict.UNCERTAIN),
    ],
)
def test_the_device_has_no_such_job(cups: JobStatus | None, known: dict[str, bool], verdict: Verdict) -> None:
    judgement = judged(cups, **known)
    assert judgement is not None
    assert judgement.verdict is verdict


def test_the_word_of_cups_is_worth_what_its_backend_knows() -> None:
    judgement = judged(COMPLETED, silent=True, grade=HANDED_OVER)
    assert judgement is not None
    assert judgement.grade == HANDED_OVER
    for uri in ("ipp://10.0.0.5/ipp/print?contimeout=4", "ipps://p.example:443/ipp", "dnssd://Office._ipp._tcp.local/"):
        assert grade_of(uri) == SPOOLER_CONFIRMED
    for uri in ("socket://10.0.0.5:9100", "lpd://10.0.0.5/q", "usb://EPSON/TM-T20", "file:///dev/null", "nobody", ""):
        assert grade_of(uri) == HANDED_OVER


def test_what_cups_gave_up_before_it_began_is_printed_again_if_its_document_is_there() -> None:
    """Its clock was set between job and document. Where the document is gone, CUPS may have printed it and crashed."""
    again = judged(GIVEN_UP)
    assert again is not None
    assert (again.verdict, again.why) == (Verdict.AGAIN, "the print job 12 was aborted before it was printed")
    refused = judged(GIVEN_UP_EMPTY)
    assert refused is not None
    assert refused.verdict is Verdict.REFUSED


def test_a_queue_was_stopped_by_cups_where_the_backend_said_why() -> None:
    words = "The printer is not responding."
    job = JobStatus(state=3, began=True, message=words)
    assert QueueStatus(True, True, words).was_stopped_by_cups(job)
    assert not QueueStatus(False, True, words).was_stopped_by_cups(job)
    assert not QueueStatus(True, True, "Toner is ordered").was_stopped_by_cups(job), "a person's reason"
    assert not QueueStatus(True, True, words).was_stopped_by_cups(replace(job, began=False))
    for said in ("", "Paused", "Idle.", "Printing.", "Canceling print job."):
        assert not QueueStatus(True, True, said).was_stopped_by_cups(replace(job, message=said)), said
