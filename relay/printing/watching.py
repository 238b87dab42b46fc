"""One print job, looked at again and again: what CUPS and the device say of it, put together for `evidence`.

Promises: never fails: who does not answer says nothing.
"""

from __future__ import annotations

import asyncio
import time

from relay.errors import JobUnknown, PrintError
from relay.printing.cups import CupsServer
from relay.printing.device import DeviceJob
from relay.printing.evidence import Judgement, Seen, Verdict, judge
from relay.printing.jobs import JobEnd, JobStatus
from relay.printing.witness import Witness


class JobWatch:
    """What was seen of a job so far."""

    def __init__(self, cups: CupsServer, witness: Witness, job_id: int, name: str, *, watched: bool) -> None:
        """`watched` when its document was handed over just now, so that the device could not do anything unseen."""
        self._cups = cups
        self._witness = witness
        self._job_id = job_id
        self._name = name
        self._watched = watched
        self._was_seen = self._was_silent = False
        self._over_since: float | None = None
        self._devices: tuple[DeviceJob, ...] | None = None
        self._processing_at = 0
        self.status: JobStatus | None = None
        "CUPS's last word; None when it does not know the job."
        self.began_again = False
        "Whether CUPS was away, or began the job a second time: it may be about to print what is on paper already."

    async def look(self) -> Judgement | None:
        """Asks both, and says what follows; None to look again later."""
        status, devices = await asyncio.gather(self.ask_cups(), self._witness.jobs_named(self._name))
        self._devices = devices
        self._watched = self._watched and devices is not None
        self._was_seen = self._was_seen or bool(devices)
        self._was_silent = self._was_silent or self.device_is_away
        is_over = status is None or status.end is not None or status.is_empty
        self._over_since = (self._over_since or time.monotonic()) if is_over else None
        seconds = time.monotonic() - self._over_since if self._over_since is not None else 0.0
        seen = Seen(
            status,
            devices,
            waits_for_device=is_over and self._witness.may_still_tell(devices, seconds),
            shows_jobs=self._witness.shows_jobs,
            watched=self._watched,
            was_seen=self._was_seen,
            was_silent=self._was_silent,
            remembers=self._witness.remembers,
            grade=self._witness.grade,
        )
        judgement = judge(seen, self._job_id)
        if judgement is not None and judgement.verdict is Verdict.PRINTED and not devices:
            self._witness.hid()
        return judgement

    async def ask_cups(self) -> JobStatus | None:
        """CUPS's word. While CUPS is away the job is in its spool."""
        try:
            self.status = await self._cups.job(self._job_id, self._name)
        except JobUnknown:
            self.status = None
        except PrintError:
            self.status = JobStatus(state=0, message="CUPS does not answer")
            self.began_again = True
        else:
            # By CUPS's clock, which may be set back meanwhile.
            known, now = self._processing_at, self.status.processing_at
            self.began_again = self.began_again or (known > 0 and now > 0 and known != now)
            self._processing_at = self.status.processing_at
        return self.status

    @property
    def may_begin_again(self) -> bool:
        """Whether nothing of it is at the device, as that says itself, unless it never says a word."""
        if self._devices is None:
            return not self._witness.answers
        return all(job.end not in (None, JobEnd.COMPLETED) for job in self._devices)

    @property
    def device_is_away(self) -> bool:
        """Whether a device that answers at other times does not just now."""
        return self._devices is None and self._witness.answers
