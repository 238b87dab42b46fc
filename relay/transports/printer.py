"""A slip onto paper: rendered, created as a CUPS job under a unique name, handed over, followed to its end.

Promises (the durability contract, 5): the job's name is committed before the job is created, and its id before the
document is sent; after a crash CUPS and the device are asked what became of it before anything is sent again; where
nobody can tell, the delivery is `uncertain` and a person decides. What the printer threw away is printed again. A slip
that can't be rendered is held with its reason. One slip of a printer is under way at a time, at one node, so slips come
out in the order in which they arrived.
The same slip a second time (the printer's `duplicates`) waits until the first one is settled: when that is on paper it
is cancelled as its duplicate, else it is printed. What a person had printed once more is never taken for a duplicate.
A bundle is a slip like any other here: one delivery, one job; what its document shows are the slips that are in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from relay.config.printers import Printer
from relay.config.profiles import Profile
from relay.config.settings import Config
from relay.errors import JobRefused, JobUnknown, PrintError, RenderError, RendererUnavailable
from relay.maillog import MailLog
from relay.printing.cups import CupsServer
from relay.printing.evidence import Verdict
from relay.printing.jobs import job_options
from relay.printing.trouble import Trouble, of_device, of_queue, trouble_of
from relay.printing.witness import Witness
from relay.routing.calendar import Calendar
from relay.routing.rules import PRINT
from relay.slips.pool import RenderPool
from relay.slips.slip import Occasion, Slip
from relay.spool.records import (
    DUPLICATE,
    Delivery,
    Key,
    NewDelivery,
    Onward,
    Outcome,
    Paper,
    PrintJob,
    Sameness,
    State,
    Twin,
)
from relay.spool.store import Store
from relay.transports import Limits
from relay.transports.following import Follower
from relay.transports.merging import Merger
from relay.transports.reprint import reprinted
from relay.transports.standing_in import Desk, Move, StandIns

MOST_ABORTS = 3
"""Times that a printer may throw a slip away before it is held."""

_STATES = {Verdict.PRINTED: State.DELIVERED, Verdict.REFUSED: State.HELD, Verdict.UNCERTAIN: State.UNCERTAIN}

LONGEST_WAIT = 15.0
"""Seconds until a slip is tried again for which CUPS was not to be had; those behind it wait too."""


class PrinterTransport:
    """Deliveries to one printer."""

    def __init__(
        self,
        printer: Printer,
        config: Config,
        store: Store,
        renderer: RenderPool,
        cups: CupsServer,
        maillog: MailLog,
        desks: Mapping[str, Desk] | None = None,
    ) -> None:
        """`desks` are all printers by name, for those that stand in for others; it may be filled later."""
        self.printer = self._printer = printer
        # One slip at the printer, and one that looks for another printer.
        places = 2 if printer.alternates or printer.shares_with else 1
        self.limits = Limits(total=places, per_destination=places, is_probed=False, by_one_node=True)
        self._config = config
        self._shut_for = min(config.delivery_for(PRINT + printer.name).retry_first, LONGEST_WAIT)
        same = printer.duplicates
        self._sameness = Sameness(message_id=same.message_id, content=same.content)
        self._store = store
        self._renderer = renderer
        self._cups = cups
        self._maillog = maillog
        self._witness = Witness(cups, printer.queue, printer.device)
        self._follower = Follower(printer.name, cups, self._witness, store, maillog, config.cups.poll)
        self._calendar = Calendar.of(printer, config.server.time_zone)
        self._stand_ins = StandIns(self, desks or {}) if places > 1 else None
        self._merger = Merger(store, renderer, config.rendering.max_pages)
        self._door, self._turn = asyncio.Lock(), asyncio.Lock()
        self._aborted: dict[Key, int] = {}
        "How often slips were thrown away by the printer that wait to be printed again."

    async def deliver(self, delivery: Delivery, content: bytes) -> Outcome:
        """Prints the slip, or goes on where an earlier attempt was cut off; or sends it to a printer that stands in."""
        try:
            # Whoever comes first decides first, and has the printer first.
            async with self._door:
                if delivery.job is None and self._stand_ins is not None:
                    move = await self._stand_ins.turn(moved=bool(delivery.moved_from))
                    if move is not None:
                        return self._moved(delivery, move)
                await self._turn.acquire()
            try:
                if delivery.job is not None:
                    return await self._resume(delivery, delivery.job, content)
                return await self._print(delivery, content)
            finally:
                self._turn.release()
        except RenderError as error:
            return Outcome(State.HELD, f"can't be rendered: {error}")
        except JobRefused as error:
            return Outcome(State.HELD, str(error))
        except (PrintError, RendererUnavailable) as error:
            return Outcome(State.DEFERRED, str(error), shut_for=self._shut_for)

    def interrupt(self) -> None:
        """What is followed is taken up at the next start."""
        self._follower.interrupt()
        if self._stand_ins is not None:
            self._stand_ins.interrupt()

    async def close(self) -> None:
        """Nothing to let go of: the renderer and CUPS belong to all printers."""

    @property
    def is_busy(self) -> bool:
        """Whether a slip is at the printer, or on its way there."""
        return self._turn.locked()

    @property
    def is_open(self) -> bool:
        """Whether slips may come out of it now, by its own hours."""
        return self._calendar is None or self._calendar.is_open(time.time())

    async def trouble(self) -> Trouble | None:
        """What keeps the printer from printing now, as far as CUPS and the device say."""
        if self.is_busy:
            return trouble_of(self._follower.trouble)
        try:
            queue = of_queue(await self._cups.queue_status(self._printer.queue), self._printer.queue)
        except JobUnknown:
            return trouble_of(f"CUPS has no queue {self._printer.queue!r}")
        except PrintError as error:
            return trouble_of(str(error))
        await self._witness.find()
        state = await self._witness.state()
        if state is None:
            return queue or (trouble_of("the printer does not answer") if self._witness.answers else None)
        return queue or of_device(state)

    def _moved(self, delivery: Delivery, move: Move) -> Outcome:
        route = PRINT + move.to.name
        way = NewDelivery(
            recipient=delivery.recipient,
            route=route,
            destination=route,
            notify=delivery.notify,
            orcpt=delivery.orcpt,
            warn_at=delivery.warn_at,
            expires_at=delivery.expires_at,
            profile=delivery.profile,
            copies=delivery.copies,
            copy_of=delivery.copy_of,
            moved_from=self._printer.name if move.for_trouble else delivery.moved_from,
            merge=delivery.merge,
        )
        onward = Onward(way, at_once=True)  # its own printer's hours have let it out
        return Outcome(State.QUEUED, f"moved to the printer {move.to.name}: {move.why}", onward=onward)

    async def _print(self, delivery: Delivery, content: bytes) -> Outcome:
        profile = self._profile(delivery)
        name = f"slip-{delivery.message.queue_id}-{delivery.number}-{delivery.attempts}"
        job = PrintJob(name, self._printer.queue)
        if delivery.is_bundle:
            return await self._print_bundle(delivery, job, profile)
        slip = await self._slip(delivery, content, profile)
        self._log_rendered(delivery, slip)
        begun = await self._store.begin_job(delivery, job, self._paper(slip, profile), self._sameness)
        if isinstance(begun, Twin):
            return self._same_as(begun, delivery)
        return await self._create(begun, job, slip, profile)

    async def _print_bundle(self, bundle: Delivery, job: PrintJob, profile: Profile) -> Outcome:
        with self._queue_known(job):
            status = await self._cups.queue_status(job.queue)
        if not status.accepts_jobs:  # fifty slips are not rendered for nothing, again and again
            raise PrintError(f"the queue {job.queue!r} of CUPS is not accepting jobs")
        parts = await self._merger.parts(str(bundle), profile, self._occasion)
        for member, slip in parts.slips:
            self._log_rendered(member, slip)
        slips, leaving = parts.slips, parts.leaving
        while True:
            if leaving:
                await self._store.part(bundle, leaving)
                self._log_parted(leaving)
            if not slips:
                return Outcome(State.CANCELLED, "none of its slips is to be printed with others")
            document = await self._merger.document(slips, profile)
            papers = [(member, self._paper(slip, profile)) for member, slip in slips]
            paper = self._paper(document, profile)
            begun = await self._store.begin_bundle(bundle, job, paper, papers, self._sameness)
            if isinstance(begun, Delivery):
                return await self._create(begun, job, document, profile)
            leaving = [(member, self._same_as(twin, member)) for member, twin in begun]
            gone = {member.key for member, _ in leaving}
            slips = [(member, slip) for member, slip in slips if member.key not in gone]

    async def _slip(self, delivery: Delivery, content: bytes, profile: Profile) -> Slip:
        async def render() -> Slip:
            return await self._renderer.render(content, profile, self._occasion(delivery))

        async def again() -> Slip:
            bundle = f"{delivery.message.queue_id}/{delivery.reprint_of}"
            return await self._merger.again(bundle, profile, self._occasion) or await render()

        if delivery.reprint_of is None:
            return await render()
        slip, is_kept = await reprinted(delivery, profile, self._store, self._renderer, again)
        self._maillog.reprinted(
            delivery.message.queue_id,
            delivery.number,
            printer=self._printer.name,
            of=f"{delivery.message.queue_id}/{delivery.reprint_of}",
            source="kept" if is_kept else "rendered",
        )
        return slip

    def _paper(self, slip: Slip, profile: Profile) -> Paper:
        spool = self._config.spool
        # On a disk that is nearly full the room is for settling what is there.
        kept = spool.pdfs_kept_for and len(slip.pdf) <= spool.max_pdf_size and self._store.has_room(len(slip.pdf))
        pdf = slip.pdf if kept else None
        return Paper(self._printer.name, slip.content, profile.name, slip.pages, slip.width_mm, slip.height_mm, pdf)

    def _same_as(self, twin: Twin, delivery: Delivery) -> Outcome:
        """Another delivery is this slip. Only what is on paper settles it: should that one be held, this one prints."""
        if not twin.is_printed:
            return Outcome(State.DEFERRED, f"waits for {twin}, which is the same slip and is to be printed once")
        self._maillog.duplicate(
            delivery.message.queue_id, delivery.number, printer=self._printer.name, of=str(twin), by=twin.by
        )
        by = "it came in again" if twin.by == "message-id" else "another message with the same content"
        reason = f"the same slip as {twin}, which is printed once: {by}"
        return Outcome(State.CANCELLED, reason, evidence=DUPLICATE, duplicate_of=str(twin))

    def _profile(self, delivery: Delivery) -> Profile:
        """What lays the slip out: what a rule said, while the configuration has it, else the printer's own."""
        if delivery.profile:
            with contextlib.suppress(KeyError):
                return self._config.profile(delivery.profile)
        return self._config.profile(self._printer.profile)

    async def _create(self, delivery: Delivery, job: PrintJob, slip: Slip, profile: Profile) -> Outcome:
        # The copies are a rule's word; else what the profile says.
        options = job_options(profile, (slip.width_mm, slip.height_mm), slip.pages, delivery.copies or None)
        with self._queue_known(job):
            job_id = await self._cups.create_job(job.queue, job.name, options)
        job = PrintJob(job.name, job.queue, job_id)
        delivery = await self._store.record_job(delivery, job)
        self._log(delivery, job, "created")
        return await self._send(delivery, job, job_id, slip)

    @contextlib.contextmanager
    def _queue_known(self, job: PrintJob) -> Iterator[None]:
        try:
            yield
        except JobUnknown:
            raise PrintError(f"CUPS has no queue {job.queue!r}") from None

    async def _send(self, delivery: Delivery, job: PrintJob, job_id: int, slip: Slip) -> Outcome:
        try:
            await self._cups.send_document(job.queue, job_id, job.name, slip.pdf)
        except JobUnknown as error:  # before it had a document: the next attempt makes another one
            await self._store.forget_job(delivery)
            raise PrintError(f"{error}; nothing of it was printed") from None
        self._log(delivery, job, "sent")
        return await self._follow(delivery, job, job_id, slip.notes, watched=True)

    async def _follow(
        self, delivery: Delivery, job: PrintJob, job_id: int, notes: tuple[str, ...] = (), *, watched: bool = False
    ) -> Outcome:
        if job.ended_at is not None:
            followed = await self._follower.finish(job_id, job)
        else:
            followed = await self._follower.follow(delivery, job, job_id, watched=watched)
        judgement, job = followed.judgement, followed.job
        self._log(delivery, job, judgement.verdict.value)
        if judgement.verdict is Verdict.AGAIN:
            return await self._again(delivery, judgement.why, notes)
        self._aborted.pop(delivery.key, None)
        if judgement.verdict is Verdict.PRINTED and self._stand_ins is not None:
            self._stand_ins.is_well()
        state = _STATES[judgement.verdict]
        return Outcome(state, judgement.why, evidence=judgement.grade, notes=notes, job=job)

    async def _again(self, delivery: Delivery, why: str, notes: tuple[str, ...]) -> Outcome:
        """Surely not on paper: printed again in its place; but a slip that no printer takes does not stop the rest."""
        count = self._aborted.get(delivery.key, 0) + 1
        if count >= MOST_ABORTS:
            self._aborted.pop(delivery.key, None)
            return Outcome(State.HELD, f"{why}, {count} times one after the other", notes=notes)
        self._aborted[delivery.key] = count
        # Without its job the next attempt begins anew; with it, it would only find out the same.
        await self._store.forget_job(delivery)
        return Outcome(State.DEFERRED, f"{why}; it is printed again", notes=notes, shut_for=self._shut_for)

    async def _resume(self, delivery: Delivery, job: PrintJob, content: bytes) -> Outcome:
        """Asks CUPS what became of a job that an earlier attempt left behind, and goes on from there."""
        job_id = job.job_id if job.job_id is not None else await self._cups.find_job(job.name)
        if job_id is None:
            # The id is committed before the document is sent: a job that never was has no paper.
            return await self._print(await self._store.forget_job(delivery), content)
        if job.sent:
            return await self._follow(delivery, job, job_id)
        with contextlib.suppress(JobUnknown):
            status = await self._cups.job(job_id, job.name)
            if status.is_empty and status.end is None:
                # Whoever was to send the document may be late and not dead. CUPS decides who was first: a document
                # that comes for a cancelled job is not printed.
                status = await self._cups.cancel_job(job_id, job.name)
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
            note=self._note(delivery),
        )

    def _note(self, delivery: Delivery) -> str:
        """What a slip says of the printer that it was meant for."""
        if not delivery.moved_from:
            return ""
        with contextlib.suppress(KeyError):
            from_ = self._config.printer(delivery.moved_from)
            return from_.moved_note.format(desk=from_.desk or from_.name)
        return delivery.moved_from

    def _log_rendered(self, delivery: Delivery, slip: Slip) -> None:
        self._maillog.rendered(
            delivery.message.queue_id,
            delivery.number,
            printer=self._printer.name,
            good=slip.barcodes.good,
            failed=slip.barcodes.failed,
            missing_glyphs=slip.missing_glyphs,
        )

    def _log_parted(self, leaving: Sequence[tuple[Delivery, Outcome]]) -> None:
        for member, outcome in leaving:
            self._maillog.attempt_ended(
                member.message.queue_id,
                member.number,
                route=member.route,
                recipient=member.recipient,
                state=outcome.state.value,
                attempt=member.attempts,
                seconds=time.time() - (member.begun_at or time.time()),
                reason=outcome.reason,
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
