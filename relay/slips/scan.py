"""The finished page seen as a scanner will see it.

Does: rasterises the places of barcodes from the PDF, black and white, at the printer's resolution, and reads them.
Promises: what is read is what is in the PDF, nothing of how it came there.
Known limits: paper, toner and heat are not looked at; pages of other programs are not expected to be here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ctypes import c_float
from dataclasses import dataclass
from math import ceil, floor

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from PIL import Image

from relay.slips import symbols

AROUND_MM = 1.0
"""Seen beside a barcode as well: what stands there may spoil it."""
LARGEST = 40_000_000
"""Dots of one place."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A place on a page in points from its top left corner, and the values and symbologies to be read there."""

    page: int
    x: float
    y: float
    width: float
    height: float
    values: tuple[str, ...]
    kinds: tuple[str, ...]
    is_upright: bool = False


def unread(pdf: bytes, spots: Sequence[Spot], dpi: int) -> list[Spot]:
    """Those of the places that do not give their values. Raises pypdfium2.PdfiumError when this is no PDF."""
    document = pdfium.PdfDocument(pdf)
    try:
        failed: list[Spot] = []
        for number in sorted({spot.page for spot in spots}):
            page = document[number]
            for spot in (spot for spot in spots if spot.page == number):
                seen = symbols.values(dots_of(page, spot, dpi), spot.kinds, upright=spot.is_upright)
                failed += [] if set(spot.values) <= seen else [spot]
            page.close()
        return failed
    finally:
        document.close()


def dots_of(page: pdfium.PdfPage, spot: Spot, dpi: int) -> Image.Image:
    """A place of a page in black and white, one pixel for each dot of the printer."""
    scale, around = dpi / 72, AROUND_MM * dpi / 25.4
    left, top = max(0, floor(spot.x * scale - around)), max(0, floor(spot.y * scale - around))
    page_width, page_height = page.get_size()
    right = min(ceil(page_width * scale), ceil((spot.x + spot.width) * scale + around))
    bottom = min(ceil(page_height * scale), ceil((spot.y + spot.height) * scale + around))
    width, height = right - left, bottom - top
    if width <= 0 or height <= 0 or width * height > LARGEST:
        return Image.new("L", (1, 1), 255)
    bitmap = pdfium.PdfBitmap.new_native(width, height, pdfium_c.FPDFBitmap_Gray)
    bitmap.fill_rect((255, 255, 255, 255), 0, 0, width, height)
    # The exact scale: FPDF_RenderPageBitmap stretches a page to whole dots, and bars would not be whole any more.
    matrix = pdfium_c.FS_MATRIX(*(c_float(n).value for n in (scale, 0, 0, scale, -left, -top)))
    clip = pdfium_c.FS_RECTF(0, 0, width, height)
    pdfium_c.FPDF_RenderPageBitmapWithMatrix(bitmap, page, matrix, clip, 0)
    picture: Image.Image = bitmap.to_pil().point(_BLACK_AND_WHITE)
    bitmap.close()
    return picture


_BLACK_AND_WHITE = [0 if value < symbols.MIDDLE else 255 for value in range(256)]


def reasons(failed: Iterable[Spot]) -> tuple[str, ...]:
    """What to say of them, without their values."""
    return tuple(f"{'/'.join(sorted(set(spot.kinds)))} does not read on the page" for spot in failed)
