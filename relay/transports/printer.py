"""A slip onto paper: rendered, created as a CUPS job under a unique name, handed over, followed to its end.

Promises (the durability contract, 5): the job's name is committed before the job is created, and its id before the
document is sent; after a crash CUPS is asked what became of it before anything is sent again; where nobody can tell,
the delivery is `uncertain` and a person decides. A slip that can't be rendered is held with its reason. One slip of a
printer is under way at a time, so slips come out in the order in which they arrived (at each of several nodes).
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime

from relay.config.printers import Printer
from relay.config.profiles import Profile
from relay.config.settings import Config
from relay.errors import Interrupted, JobRefused, JobUnknown, PrintError, RenderError, RendererUnavailable
from relay.maillog import MailLog
from relay.printing.cups import CupsServer
from relay.printing.jobs import JobEnd, JobStatus, job_options
from relay.routing.rules import PRINT
from relay.slips.pool import RenderPool
from relay.slips.slip import Occasion, Slip
from relay.spool.records import Delivery, Outcome, PrintJob, State
from relay.spool.store import Store
from relay.transports import Limits

LONGEST_WAIT = 15.0
"""Seconds until a slip is tried again for which CUPS was not to be had; those behind it wait too."""


class PrinterTransport:
    """Deliveries to one printer."""

    limits = Limits(total=1, per_destination=1)

    def __init__(
        self, printer: Printer, config: Config, store: Store, renderer: RenderPool, cups: CupsServer, maillog: MailLog
    ) -> None:
        self._printer = printer
        self._config = config
        self._poll = config.cups.poll
        self._shut_for = min(config.delivery_for(PRINT + printer.name).retry_first, LONGEST_WAIT)
        self._store = store
        self._renderer = renderer
        self._cups = cups
        self._maillog = maillog
        self._interrupted = asyncio.Event()

    async def deliver(self, delivery: Delivery, content: bytes) -> Outcome:
        """Prints the slip, or goes on where an earlier attempt was cut off."""
        try:
            if delivery.job is not None:
                return await self._resume(delivery, delivery.job, content)
            return await self._print(delivery, content)
        except RenderError as error:
            return Outcome(State.HELD, f"can't be rendered: {error}")
        except JobRefused as error:
            return Outcome(State.HELD, str(error))
        except (PrintError, RendererUnavailable) as error:
            return Outcome(State.DEFERRED, str(error), shut_for=self._shut_for)

    def interrupt(self) -> None:
        """Following a job can go on after the start: its id is in the spool."""
        self._interrupted.set()

    async def close(self) -> None:
        """Nothing to let go of: the renderer and CUPS belong to all printers."""

    async def _print(self, delivery: Delivery, content: bytes) -> Outcome:
        profile = self._profile(delivery)
        slip = await self._renderer.render(content, profile, self._occasion(delivery))
        self._maillog.rendered(
            delivery.message.queue_id,
            delivery.number,
            printer=self._printer.name,
            good=slip.barcodes.good,
            failed=slip.barcodes.failed,
            missing_glyphs=slip.missing_glyphs,
        )
        name = f"slip-{delivery.message.queue_id}-{delivery.number}-{delivery.attempts}"
        job = PrintJob(name, self._printer.queue)
        delivery = await self._store.record_job(delivery, job)
        return await self._create(delivery, job, slip, profile)

    def _profile(self, delivery: Delivery) -> Profile:
        """What lays the slip out: what a rule said, while the configuration has it, else the printer's own."""
        if delivery.profile:
            with contextlib.suppress(KeyError):
                return self._config.profile(delivery.profile)
        return self._config.profile(self._printer.profile)

    async def _create(self, delivery: Delivery, job: PrintJob, slip: Slip, profile: Profile) -> Outcome:
        # The copies are a rule's word; else what the profile says.
        options = job_options(profile, (slip.width_mm, slip.height_mm), slip.pages, delivery.copies or None)
        try:
            job_id = await self._cups.create_job(job.queue, job.name, options)
        except JobUnknown:
            raise PrintError(f"CUPS has no queue {job.queue!r}") from None
        job = PrintJob(job.name, job.queue, job_id)
        delivery = await self._store.record_job(delivery, job)
        self._log(delivery, job, "created")
        return await self._send(delivery, job, job_id, slip)

    async def _send(self, delivery: Delivery, job: PrintJob, job_id: int, slip: Slip) -> Outcome:
        await self._cups.send_document(job.queue, job_id, job.name, slip.pdf)
        self._log(delivery, job, "sent")
        return await self._follow(delivery, job, job_id, slip.notes)

    async def _follow(self, delivery: Delivery, job: PrintJob, job_id: int, notes: tuple[str, ...] = ()) -> Outcome:
        """Waits until CUPS says how the job ended. This takes as long as the printer is out of paper."""
        delivery = await self._store.record_job(delivery, PrintJob(job.name, job.queue, job_id, sent=True))
        trouble: str | None = None
        while True:
            try:
                status = await self._cups.job(job_id)
            except JobUnknown:
                return _uncertain(job_id)
            except PrintError:
                # CUPS is away. The job is in its spool and will come back with it.
                status = JobStatus(state=0, message="CUPS does not answer")
            if status.is_empty and status.end is None:
                return _uncertain(job_id, "has lost the document of")  # as after a crash of its own
            if status.trouble != trouble:
                trouble = status.trouble
                delivery = await self._store.pending(delivery, trouble)
            if status.end is not None:
                self._log(delivery, job, status.end.value)
                return _outcome(job_id, status, notes)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._interrupted.wait(), self._poll)
                raise Interrupted(f"the print job {job_id} is followed after the next start")

    async def _resume(self, delivery: Delivery, job: PrintJob, content: bytes) -> Outcome:
        """Asks CUPS what became of a job that an earlier attempt left behind, and goes on from there."""
        job_id = job.job_id if job.job_id is not None else await self._cups.find_job(job.name)
        if job_id is None:
            # The id is committed before the document is sent: a job that never was has no paper.
            return await self._print(await self._store.forget_job(delivery), content)
        if job.sent:
            return await self._follow(delivery, job, job_id)
        try:
            status = await self._cups.job(job_id)
            if status.is_empty and status.end is None:
                # Whoever was to send the document may be late and not dead. CUPS decides who was first: a document
                # that comes for a cancelled job is not printed.
                status = await self._cups.cancel_job(job_id)
        except JobUnknown:
            return _uncertain(job_id)
        if status.is_empty:
            return await self._print(await self._store.forget_job(delivery), content)
        return await self._follow(delivery, job, job_id)

    def _occasion(self, delivery: Delivery) -> Occasion:
        message = delivery.message
        return Occasion(
            desk=self._printer.desk or self._printer.name,
            queue_id=message.queue_id,
            institution=message.institution,
            received_at=datetime.fromtimestamp(message.received_at).astimezone(),
            printed_at=datetime.now().astimezone(),
        )

    def _log(self, delivery: Delivery, job: PrintJob, event: str) -> None:
        self._maillog.job(
            delivery.message.queue_id,
            delivery.number,
            printer=self._printer.name,
            job=job.name,
            job_id=job.job_id,
            event=event,
        )


def _uncertain(job_id: int, what: str = "does not know any more") -> Outcome:
    return Outcome(State.UNCERTAIN, f"CUPS {what} the print job {job_id}: look whether the slip is at the printer")


def _outcome(job_id: int, status: JobStatus, notes: tuple[str, ...]) -> Outcome:
    if status.end is JobEnd.COMPLETED:
        return Outcome(State.DELIVERED, f"CUPS completed job {job_id}", evidence="spooler-confirmed", notes=notes)
    how = f"{status.end.value if status.end else 'ended'}{f' ({status.message})' if status.message else ''}"
    if status.began:
        # Whatever the message says: part of it or all of it may be on paper, and printers do finish cancelled pages.
        reason = f"the print job {job_id} was begun and then {how}: look whether the slip is at the printer"
        return Outcome(State.UNCERTAIN, reason, notes=notes)
    return Outcome(State.HELD, f"the print job {job_id} was {how} before it was printed", notes=notes)
