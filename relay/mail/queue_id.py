"""Queue ids: what a message is called in the 250 reply, in every log line and on the slip.

Thirteen characters of Crockford's base 32, the first ten of them the time in microseconds: they sort by arrival, can
be read over the telephone, and tell nothing about the mail.
"""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_queue_id(now: float | None = None) -> str:
    """A new queue id; `now` is seconds since the epoch, the present when it is not given."""
    microseconds = int((time.time() if now is None else now) * 1_000_000)
    number = (microseconds << 14) | secrets.randbits(14)
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(60, -1, -5))
