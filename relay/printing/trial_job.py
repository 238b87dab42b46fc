"""One document printed outside of the service, and followed to its end.

Does: creates the job under a name of its own, sends the document, and asks CUPS and the device until it is known what
became of it.
Promises: one job, never a second one; the end is judged by `evidence`, as that of a slip. When time is up the job is
left where it is, and its id is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from relay.errors import JobUnknown, PrintError
from relay.printing.cups import CupsServer
from relay.printing.evidence import Judgement, Seen, judge
from relay.printing.jobs import JobStatus
from relay.printing.witness import Witness


@dataclass(frozen=True, slots=True)
class TrialJob:
    """A job that was printed for a trial."""

    job_id: int
    judgement: Judgement | None
    "What became of it; None when that was not known in time."
    trouble: str = ""
    "What kept it from paper when it was last looked at."


async def print_trial(
    server: CupsServer,
    queue: str,
    name: str,
    pdf: bytes,
    options: Mapping[str, str],
    *,
    poll: float,
    seconds: float,
    tell: Callable[[str], None],
) -> TrialJob:
    """Prints a document and waits for its end, `seconds` at the most; `tell` hears what happens. Raises PrintError."""
    witness = Witness(server, queue)
    await witness.find()
    try:
        job_id = await server.create_job(queue, name, options)
    except JobUnknown:
        raise PrintError(f"CUPS has no queue {queue!r}") from None
    await server.send_document(queue, job_id, name, pdf)
    tell(f"CUPS has taken job {job_id} ({name})")
    return await _follow(server, witness, name, job_id, poll=poll, seconds=seconds, tell=tell)


async def _follow(
    server: CupsServer,
    witness: Witness,
    name: str,
    job_id: int,
    *,
    poll: float,
    seconds: float,
    tell: Callable[[str], None],
) -> TrialJob:
    """The job at its end, or when `seconds` have passed; `tell` hears what keeps it meanwhile."""
    deadline, trouble, over_since = time.monotonic() + seconds, "", None
    watched, was_seen, was_silent = True, False, False
    while True:
        status, devices = await asyncio.gather(_status(server, job_id), witness.jobs_named(name))
        watched, was_seen = watched and devices is not None, was_seen or bool(devices)
        was_silent = was_silent or (devices is None and witness.answers)
        is_over = status is None or status.end is not None
        over_since = (over_since or time.monotonic()) if is_over else None
        since = time.monotonic() - over_since if over_since is not None else 0.0
        seen = Seen(
            status,
            devices,
            waits_for_device=is_over and witness.may_still_tell(devices, since),
            shows_jobs=witness.shows_jobs,
            watched=watched,
            was_seen=was_seen,
            was_silent=was_silent,
            grade=witness.grade,
        )
        judgement = judge(seen, job_id)
        if judgement is not None:
            return TrialJob(job_id, judgement)
        if status is not None and status.trouble != trouble:
            trouble = status.trouble
            tell(trouble or "printing")
        if time.monotonic() >= deadline:
            return TrialJob(job_id, None, trouble)
        await asyncio.sleep(min(poll, max(deadline - time.monotonic(), 0.05)))


async def _status(server: CupsServer, job_id: int) -> JobStatus | None:
    """CUPS's word; None when it does not know the job."""
    try:
        return await server.job(job_id)
    except JobUnknown:
        return None
