"""When the next attempt is due."""

from __future__ import annotations

from relay.config.next_hops import Delivery as DeliverySettings
from relay.delivery.retry import delay


def test_delays_double_up_to_the_longest() -> None:
    settings = DeliverySettings(retry_first=60, retry_longest=1000)
    delays = [delay(settings, attempts) for attempts in range(1, 8)]
    for got, wanted in zip(delays, [60, 120, 240, 480, 960, 1000, 1000], strict=True):
        assert wanted <= got <= wanted * 1.1
    assert delay(settings, 10_000) <= 1100
