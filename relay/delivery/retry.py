"""When to try again: the wait doubles with each failed attempt, up to a longest, with some jitter."""

from __future__ import annotations

import random

from relay.config.next_hops import Delivery as DeliverySettings


def delay(settings: DeliverySettings, attempts: int) -> float:
    """Seconds to wait after the `attempts`-th failed attempt (1 is the first): up to a tenth more than the schedule
    says.
    """
    doubled = settings.retry_first * 2.0 ** min(max(attempts - 1, 0), 32)
    # Jitter keeps a thousand letters that failed together from coming back together. S311: no secret is made here.
    return min(doubled, settings.retry_longest) * (1 + random.random() / 10)  # noqa: S311
