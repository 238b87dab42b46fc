"""Passwords that are tried out: each failure of an address costs more time, and so many lock it out.

Promises: the table is bounded, whoever tries from wherever; a user name can't be locked out by somebody else, since
only addresses are. An IPv6 client is known by its /64, for it has all addresses in there.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from relay.config.sources import Auth
from relay.intake.origin import neighbourhood

MAX_ADDRESSES = 10_000
"""Addresses that are remembered; the one that failed longest ago is forgotten first."""

DOUBLED = 4
"""How often the wait of an address is doubled."""


@dataclass(slots=True)
class _Record:
    """The failures of one address."""

    failures: int = 0
    since: float = 0.0
    "When the first of them was."
    locked_until: float = 0.0


class Lockout:
    """Who failed, and how often."""

    def __init__(self, settings: Auth, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def is_locked(self, address: str) -> bool:
        """Whether AUTH is not taken from an address now."""
        record = self._records.get(neighbourhood(address))
        return record is not None and self._clock() < record.locked_until

    def failed(self, address: str) -> float:
        """A password was wrong; gives the seconds after which the client is told."""
        now, key = self._clock(), neighbourhood(address)
        record = self._records.setdefault(key, _Record(since=now))
        self._records.move_to_end(key)
        if now - record.since > self._settings.within:
            record.failures, record.since = 0, now
        record.failures += 1
        if record.failures >= self._settings.max_failures:
            record.locked_until = now + self._settings.lock_for
        while len(self._records) > MAX_ADDRESSES:
            self._records.popitem(last=False)
        return self._settings.delay * 2.0 ** min(record.failures - 1, DOUBLED)

    def succeeded(self, address: str) -> None:
        """A password was right: what was before is forgotten."""
        self._records.pop(neighbourhood(address), None)

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._records)
