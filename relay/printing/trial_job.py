"""One document printed outside of the service, and followed to its end.

Does: creates the job under a name of its own, sends the document, and asks until CUPS says how it ended.
Promises: one job, never a second one; when time is up the job is left where it is, and its id is told.
Known limits: CUPS's word is all there is; a device that throws the page away is believed to have printed it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from relay.errors import JobUnknown, PrintError
from relay.printing.cups import CupsServer
from relay.printing.jobs import JobEnd, JobStatus


@dataclass(frozen=True, slots=True)
class TrialJob:
    """A job that was printed for a trial. `status.end` is None when it had not ended in time."""

    name: str
    job_id: int
    status: JobStatus

    @property
    def came_out(self) -> bool:
        """Whether CUPS says that it was printed."""
        return self.status.end is JobEnd.COMPLETED


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
    try:
        job_id = await server.create_job(queue, name, options)
    except JobUnknown:
        raise PrintError(f"CUPS has no queue {queue!r}") from None
    await server.send_document(queue, job_id, name, pdf)
    tell(f"CUPS has taken job {job_id} ({name})")
    return TrialJob(name, job_id, await follow(server, job_id, poll=poll, seconds=seconds, tell=tell))


async def follow(
    server: CupsServer, job_id: int, *, poll: float, seconds: float, tell: Callable[[str], None]
) -> JobStatus:
    """The state of a job at its end, or when `seconds` have passed; `tell` hears what keeps it meanwhile."""
    loop = asyncio.get_running_loop()
    deadline, trouble = loop.time() + seconds, ""
    while True:
        try:
            status = await server.job(job_id)
        except JobUnknown:
            raise PrintError(
                f"CUPS has forgotten job {job_id} (PreserveJobHistory is off, or somebody purged it): look whether it "
                "is on paper"
            ) from None
        if status.end is not None:
            return status
        if status.trouble != trouble:
            trouble = status.trouble
            tell(trouble or "printing")
        if loop.time() >= deadline:
            return status
        await asyncio.sleep(min(poll, max(deadline - loop.time(), 0.05)))
