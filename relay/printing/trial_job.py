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
from relay.printing.evidence import Judgement
from relay.printing.watching import JobWatch
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
    device: str | None = None,
    poll: float,
    seconds: float,
    tell: Callable[[str], None],
) -> TrialJob:
    """Prints a document and waits for its end, `seconds` at the most; `tell` hears what happens. Raises PrintError.

    `device` is the URI of the queue's device, where it is another one than CUPS says.
    """
    witness = Witness(server, queue, device)
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
    deadline, trouble = time.monotonic() + seconds, ""
    watch = JobWatch(server, witness, job_id, name, watched=True)
    while True:
        judgement = await watch.look()
        if judgement is not None:
            return TrialJob(job_id, judgement)
        if watch.status is not None and watch.status.trouble != trouble:
            trouble = watch.status.trouble
            tell(trouble or "printing")
        if time.monotonic() >= deadline:
            return TrialJob(job_id, None, trouble)
        await asyncio.sleep(min(poll, max(deadline - time.monotonic(), 0.05)))
