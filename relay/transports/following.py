"""A print job that was handed over, followed until it is known what became of the paper.

Does: asks CUPS and, where it can be asked, the device itself, again and again; lets a queue go on that CUPS stopped by
itself; says what keeps the slip from paper meanwhile.
Promises: the end is judged by `relay.printing.evidence` and nobody else. What the device completed is in the spool
before anything else is done, and is not left in CUPS, which would try it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, replace

from relay.errors import Interrupted, PrintError
from relay.maillog import MailLog
from relay.printing.cups import CupsServer
from relay.printing.evidence import DEVICE_CONFIRMED, Judgement, Verdict
from relay.printing.jobs import JobStatus, QueueStatus
from relay.printing.watching import JobWatch
from relay.printing.witness import Witness
from relay.spool.records import Delivery, PrintJob
from relay.spool.store import Store

GRACE = 10.0
"""Seconds that CUPS gets to notice that the device has completed a job, before the job is taken from it."""
HURRY = 0.05
"""Seconds between two questions to a CUPS that is away, and will begin with what is on paper when it is back."""
RESUME_EVERY = 10.0
"""Seconds between two tries to let a queue go on."""
QUEUE_EVERY = 5.0
"""Seconds between two questions about a queue while CUPS says the same of its job: pycups keeps 400 bytes of each."""


@dataclass(frozen=True, slots=True)
class Followed:
    """How a job ended, and what is known of it."""

    judgement: Judgement
    job: PrintJob


class Follower:
    """Follows the jobs of one printer."""

    def __init__(
        self, printer: str, cups: CupsServer, witness: Witness, store: Store, maillog: MailLog, poll: float
    ) -> None:
        self._printer = printer
        self._cups = cups
        self._witness = witness
        self._store = store
        self._maillog = maillog
        self._poll = poll
        self._interrupted = asyncio.Event()
        self._resumed_at = 0.0
        self._queue: QueueStatus | None = None
        self._queue_at = 0.0
        self._status: JobStatus | None = None
        self.trouble = ""
        "What keeps the job from paper that is followed now."

    def interrupt(self) -> None:
        """Following a job can go on after the start: its id is in the spool."""
        self._interrupted.set()

    async def follow(self, delivery: Delivery, job: PrintJob, job_id: int, *, watched: bool) -> Followed:
        """Waits for the end of a job whose document was handed over; as long as the printer is out of paper.

        `watched` when that was just now, so that the device could not do anything unseen. Raises Interrupted.
        """
        try:
            return await self._follow(delivery, job, job_id, watched=watched)
        finally:
            self.trouble = ""

    async def _follow(self, delivery: Delivery, job: PrintJob, job_id: int, *, watched: bool) -> Followed:
        if not job.sent or job.sent_at is None:
            job = replace(job, sent=True, sent_at=time.time())
            delivery = await self._store.record_job(delivery, job)
        await self._witness.find()
        watch = JobWatch(self._cups, self._witness, job_id, job.name, watched=watched)
        trouble = None
        while True:
            judgement = await watch.look()
            if judgement is not None:
                job = replace(job, ended_at=time.time(), impressions=judgement.impressions)
                if judgement.grade == DEVICE_CONFIRMED:
                    await self._store.record_job(delivery, job)
                    await self._take_from_cups(watch, job_id, job.name)
                return Followed(judgement, job)
            silent = "the printer does not answer" if watch.device_is_away else ""
            self.trouble = await self._trouble(watch, job) or silent
            if self.trouble != trouble:
                trouble = self.trouble
                delivery = await self._store.pending(delivery, trouble)
            await self._rest(job_id)

    async def finish(self, job_id: int, job: PrintJob) -> Followed:
        """A job of which the spool knows that the device completed it: nothing is left to do but to tidy up."""
        watch = JobWatch(self._cups, self._witness, job_id, job.name, watched=False)
        await watch.ask_cups()
        await self._take_from_cups(watch, job_id, job.name)
        why = f"the printer completed it (job {job_id} of CUPS)"
        return Followed(Judgement(Verdict.PRINTED, why, DEVICE_CONFIRMED, job.impressions), job)

    async def _take_from_cups(self, watch: JobWatch, job_id: int, name: str) -> None:
        """Sees a job off that is on paper: what CUPS has not ended by then it would print again one day."""
        since = time.monotonic()
        while watch.status is not None and watch.status.end is None and not self._interrupted.is_set():
            is_away = watch.status.state == 0
            if not is_away and (watch.began_again or watch.status.is_waiting or time.monotonic() - since > GRACE):
                with contextlib.suppress(PrintError):
                    await self._cups.cancel_job(job_id, name)
                    self._maillog.service("job-taken-from-cups", printer=self._printer, job_id=job_id)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self._poll, HURRY) if is_away else self._poll):
                    await self._interrupted.wait()
            await watch.ask_cups()

    async def _trouble(self, watch: JobWatch, job: PrintJob) -> str:
        """What keeps the job from paper; a queue that CUPS stopped by itself is let go on, and begins the job again."""
        status = watch.status
        if status is None or not status.is_waiting:
            return status.trouble if status is not None else ""
        queue = None
        try:
            queue = await self._queue_beside(status, job.queue)
            rested = time.monotonic() - self._resumed_at > RESUME_EVERY
            if rested and watch.may_begin_again and queue.was_stopped_by_cups(status):
                self._resumed_at = time.monotonic()
                self._queue = None
                await self._cups.resume_queue(job.queue)
                self._maillog.service("queue-resumed", printer=self._printer, queue=job.queue)
        except PrintError as error:
            return f"{queue.trouble}: {error}" if queue is not None else str(error)
        return queue.trouble or status.trouble

    async def _queue_beside(self, status: JobStatus, name: str) -> QueueStatus:
        """How the queue stood when CUPS began to say this of the job, or some seconds ago."""
        now = time.monotonic()
        if self._queue is None or status != self._status or now - self._queue_at > QUEUE_EVERY:
            self._queue = await self._cups.queue_status(name)
            self._queue_at, self._status = now, status
        return self._queue

    async def _rest(self, job_id: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._poll):
                await self._interrupted.wait()
            raise Interrupted(f"the print job {job_id} is followed after the next start")
