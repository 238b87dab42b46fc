"""What the device behind one printer can be asked, and what is known of its habits.

Does: finds out which device a CUPS queue has, asks it for a slip's job, and remembers whether it ever showed one.
Promises: never fails: a device that can't be asked says nothing, and is not asked again for PAUSE. One that answers at
other times is waited for up to REST when it is away, and PATIENCE when it does not show a job yet; one that never
answered, or did not show a job which CUPS completed, is not waited for a second time.
"""

from __future__ import annotations

import time

from relay.errors import PrintError
from relay.printing.cups import CupsServer
from relay.printing.device import Device, DeviceJob, DeviceState, speaks_ipp
from relay.printing.evidence import HANDED_OVER, grade_of
from relay.printing.jobs import JobEnd

PAUSE = 3.0
"""Seconds for which a device that did not answer is let alone."""
PATIENCE = 5.0
"""Seconds that a device gets to show a job which CUPS has ended."""
REST = 60.0
"""Seconds that a device gets to come back which was there before."""
LOOK_AGAIN = 300.0
"""Seconds after which the queue is asked again for its device."""


class Witness:
    """The device of one CUPS queue."""

    def __init__(self, cups: CupsServer, queue: str, device_uri: str | None = None) -> None:
        """`device_uri` when the configuration says it; else CUPS is asked."""
        self._cups = cups
        self._queue = queue
        self._configured = device_uri
        self._device: Device | None = None
        self._looked_at: float | None = None
        self._is_silent = self._is_mute = False
        self._asked_at = 0.0
        self._hides = False
        self.grade = HANDED_OVER
        "What CUPS's word is worth on this queue."
        self.shows_jobs = False
        "Whether the device is known to show our jobs by their names."
        self.remembers = False
        "Whether the device is known to show jobs that it has completed."
        self.answers = False
        "Whether the device ever answered."

    async def find(self) -> None:
        """Looks which device the queue has, unless that was done a short while ago."""
        now = time.monotonic()
        if self._looked_at is not None and now - self._looked_at < LOOK_AGAIN:
            return
        try:
            uri = await self._cups.device_uri(self._queue)
        except PrintError:
            return
        self._looked_at = now
        self.grade = grade_of(uri)
        asked = self._configured or uri
        known = self._device.uri if self._device is not None else ""
        found = Device(asked, self._cups.user) if speaks_ipp(asked) else None
        if found is None or found.uri != known:
            self._device, self.shows_jobs, self._hides = found, False, False
            self.answers = self.remembers = self._is_silent = self._is_mute = False

    def may_still_tell(self, jobs: tuple[DeviceJob, ...] | None, seconds: float) -> bool:
        """Whether its word about a job is worth waiting for that CUPS ended `seconds` ago; `jobs` is its last one."""
        if self._device is None or jobs:
            return False
        if jobs is None and self.answers:
            return seconds < REST
        return not self._hides and seconds < PATIENCE and (jobs is not None or not self._is_mute)

    async def jobs_named(self, name: str) -> tuple[DeviceJob, ...] | None:
        """The device's jobs of that name; None when it can't be asked or does not answer."""
        now = time.monotonic()
        if self._device is None or (self._is_silent and now - self._asked_at < PAUSE):
            return None
        self._asked_at = now
        try:
            jobs = tuple(await self._device.jobs_named(name))
        except PrintError:
            self._is_silent = True
            return None
        self._is_silent, self.answers = False, True
        if jobs:
            self.shows_jobs, self._hides = True, False
            self.remembers = self.remembers or any(job.end is JobEnd.COMPLETED for job in jobs)
        return jobs

    async def state(self) -> DeviceState | None:
        """What the device says of itself; None when it can't be asked or does not answer."""
        if self._device is None:
            return None
        try:
            state = await self._device.state()
        except PrintError:
            return None
        self.answers = True
        return state

    def hid(self) -> None:
        """It was waited for in vain: CUPS completed a job, and the device never showed it, or never said a word."""
        self._hides = not self.shows_jobs and self.answers
        self._is_mute = not self.answers
