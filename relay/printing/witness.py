"""What the device behind one printer can be asked, and what is known of its habits.

Does: finds out which device a CUPS queue has, asks it for a slip's job, and remembers whether it ever showed one.
Promises: never fails: a device that can't be asked says nothing, and is not asked again for PAUSE. One that has said
nothing for REST is not waited for, nor is one that did not show a job which CUPS completed, until it shows one.
"""

from __future__ import annotations

import time

from relay.errors import PrintError
from relay.printing.cups import CupsServer
from relay.printing.device import Device, DeviceJob, DeviceState, speaks_ipp
from relay.printing.evidence import HANDED_OVER, grade_of

PAUSE = 3.0
"""Seconds for which a device that did not answer is let alone."""
REST = 60.0
"""Seconds without an answer after which nobody waits for one."""
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
        self._silent_since: float | None = None
        self._asked_at = 0.0
        self._hides = False
        self.grade = HANDED_OVER
        "What CUPS's word is worth on this queue."
        self.shows_jobs = False
        "Whether the device is known to show our jobs by their names."

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
        found = Device(asked) if speaks_ipp(asked) else None
        if found is None or found.uri != known:
            self._device, self.shows_jobs, self._hides, self._silent_since = found, False, False, None

    @property
    def is_worth_waiting_for(self) -> bool:
        """Whether a device that has not shown the job yet may still do so."""
        if self._device is None or self._hides:
            return False
        return self._silent_since is None or time.monotonic() - self._silent_since < REST

    async def jobs_named(self, name: str) -> tuple[DeviceJob, ...] | None:
        """The device's jobs of that name; None when it can't be asked or does not answer."""
        now = time.monotonic()
        if self._device is None or (self._silent_since is not None and now - self._asked_at < PAUSE):
            return None
        self._asked_at = now
        try:
            jobs = tuple(await self._device.jobs_named(name))
        except PrintError:
            self._silent_since = self._silent_since if self._silent_since is not None else now
            return None
        self._silent_since = None
        if jobs:
            self.shows_jobs, self._hides = True, False
        return jobs

    async def state(self) -> DeviceState | None:
        """What the device says of itself; None when it can't be asked or does not answer."""
        if self._device is None:
            return None
        try:
            return await self._device.state()
        except PrintError:
            return None

    def hid(self) -> None:
        """It was waited for in vain: CUPS completed a job that the device, asked, did not show."""
        self._hides = not self.shows_jobs
