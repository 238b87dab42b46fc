"""What a letter becomes, a `Slip`, and when and where that happens, its `Occasion`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Occasion:
    """When, where and for whom a slip is printed: what headers, footers and own templates may say besides the letter.

    The times carry the time zone of the machine; None is a time that is not known.
    """

    desk: str = ""
    queue_id: str = ""
    institution: str = ""
    received_at: datetime | None = None
    printed_at: datetime | None = None
    note: str = ""
    "What is to be said of this slip, above it."


@dataclass(frozen=True, slots=True)
class Barcodes:
    """How many barcodes of a slip were read again from its pages, and what is wrong with each of the others.

    No reason has a value in it, so they are fit for logs.
    """

    good: int = 0
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Slip:
    """A rendered slip. The size is that of its first page; `notes` say in whole sentences what is missing on it.

    `wanted` are the allowed URLs of pictures on other servers that the letter refers to.
    """

    pdf: bytes
    pages: int
    width_mm: float
    height_mm: float
    notes: tuple[str, ...] = ()
    missing_glyphs: int = 0
    "How many characters no font of this machine has; `notes` says it too."
    barcodes: Barcodes = Barcodes()
    wanted: tuple[str, ...] = ()
    content: str = ""
    "Digest of what it says (`relay.slips.content`); empty for a PDF that was not rendered from a letter."
