"""What was used last, kept for the next slip; what is older goes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

KEPT = 24
MOST_PIXELS_KEPT = 100_000
"""Of a picture: at four bytes each all that are kept take at most 10 MB."""


class Recent(Generic[K, V]):
    """The `KEPT` values that were asked for or put last."""

    def __init__(self) -> None:
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value, which counts as used now; None when it is not kept."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    def put(self, key: K, value: V) -> V:
        """Keeps the value, and gives it back."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > KEPT:
            self._values.popitem(last=False)
        return value
