"""What a letter becomes: a `Slip`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slip:
    """A rendered slip. The size is that of its first page; `notes` say in whole sentences what is missing on it."""

    pdf: bytes
    pages: int
    width_mm: float
    height_mm: float
    notes: tuple[str, ...] = ()
