"""Several slips as one document: one below the other, with a dashed line between them.

Does: gives the profile of a strip, on which a slip is as long as what stands on it, as on a roll; says where strips
stand on sheets, or on one long piece of a roll; puts them there.
Promises: a slip is drawn as it was rendered, never smaller, and moved by whole dots of the printer, so that barcodes
stay as they were checked. Slips keep their order. One that is longer than a sheet was rendered on sheets of its own,
which have nothing else on them.
Refuses: what is no PDF, and more than fits one document (RenderError).
Known limit: what an operator's template puts into the margins of a page comes with each slip, or not at all.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from relay.config.kinds import paper_size
from relay.config.profiles import Profile
from relay.errors import RenderError
from relay.slips.page import LONGEST_ROLL_MM
from relay.slips.slip import Slip

PT_PER_MM = 72 / 25.4
SPACE_MM = 5.0
"""Between the line and what stands above and below it, at most; less where the profile's margins are less."""
_DASH_MM, _LINE_MM = 2.0, 0.25
_NEAR_MM = 0.1


@dataclass(frozen=True, slots=True)
class Piece:
    """A rendered slip: a strip of some length, or so many sheets of its own."""

    pages: int
    length_mm: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a piece stands: its first sheet, its upper edge there, and the line above it (None for none)."""

    sheet: int
    top_mm: float = 0.0
    line_mm: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Places of as many pieces as one document has room for."""

    places: tuple[Place, ...]
    sheets: int
    height_mm: float


def strip(profile: Profile) -> Profile:
    """The profile that lays a slip out as long as it is, on paper of the same width."""
    width, height = profile.page_size
    if height is None:
        return profile
    is_turned = width != paper_size(profile.paper)[0]
    changes = {
        "paper": f"{width:g}mm",
        "orientation": "portrait",
        "printable_width_mm": width if is_turned else profile.printable_width_mm or width,
        "margin_mm": tuple(profile.margins) if is_turned else profile.margin_mm,
        "duplex": "off",
    }
    return profile.model_copy(update=changes)


def is_strip(piece: Piece, profile: Profile) -> bool:
    """Whether a slip that was rendered on a strip may share a sheet: else it is rendered on sheets of its own."""
    height = profile.page_size[1]
    return height is None or (piece.pages == 1 and piece.length_mm < height - _NEAR_MM)


def plan(pieces: Sequence[Piece], profile: Profile, most_sheets: int) -> Plan:
    """Where the pieces stand, in their order: below the one before where there is room, else on a new sheet."""
    margins, dot = profile.margins, 25.4 / profile.dpi
    height = profile.page_size[1]
    room = LONGEST_ROLL_MM if height is None else height
    above, below = min(margins.top, SPACE_MM), min(margins.bottom, SPACE_MM)
    places: list[Place] = []
    sheets, end = 0, math.inf
    """Sheets so far, and where the last piece ends on the last of them; infinity when nothing goes below it."""
    for piece in pieces:
        shares = is_strip(piece, profile)
        line = end - margins.bottom + below
        top = math.ceil((line + above - margins.top) / dot) * dot if end < math.inf else 0.0
        if shares and end < math.inf and top + piece.length_mm <= room:
            places.append(Place(sheets - 1, top, line))
            end = top + piece.length_mm
            continue
        more = 1 if shares else piece.pages
        if places and (height is None or sheets + more > most_sheets):
            break
        places.append(Place(sheets))
        sheets += more
        end = piece.length_mm if shares else math.inf
    return Plan(tuple(places), sheets, height if height is not None else end)


def stack(pdfs: bytes, sizes: Sequence[int], profile: Profile, most_sheets: int) -> Slip:
    """The slips as one document: `pdfs` one after the other, each of so many bytes. Raises RenderError."""
    documents: list[pdfium.PdfDocument] = []
    made = pdfium.PdfDocument.new()
    try:
        start = 0
        for size in sizes:
            documents.append(pdfium.PdfDocument(pdfs[start : start + size]))
            start += size
        pieces = [Piece(len(document), document[0].get_height() / PT_PER_MM) for document in documents]
        planned = plan(pieces, profile, most_sheets)
        if not pieces or len(planned.places) < len(pieces):
            raise RenderError("the slips are more than fit one document")
        width = profile.page_size[0]
        pages = [made.new_page(width * PT_PER_MM, planned.height_mm * PT_PER_MM) for _ in range(planned.sheets)]
        for document, place in zip(documents, planned.places, strict=True):
            for number in range(len(document)):
                _put(made, pages[place.sheet + number], document, number, place.top_mm)
            if place.line_mm is not None:
                _draw_line(pages[place.sheet], place.line_mm, width, profile)
        for page in pages:
            page.gen_content()
        written = BytesIO()
        made.save(written)
        return Slip(written.getvalue(), planned.sheets, round(width, 2), round(planned.height_mm, 2))
    except pdfium.PdfiumError as error:
        raise RenderError("a slip can't be put into one document with others") from error
    finally:
        for document in [*documents, made]:
            document.close()


def _put(
    made: pdfium.PdfDocument, page: pdfium.PdfPage, document: pdfium.PdfDocument, number: int, top_mm: float
) -> None:
    drawn = document.page_as_xobject(number, made).as_pageobject()
    height = page.get_height() - document[number].get_height()  # PDF counts from the lower edge
    drawn.set_matrix(pdfium.PdfMatrix().translate(0, height - top_mm * PT_PER_MM))
    page.insert_obj(drawn)


def _draw_line(page: pdfium.PdfPage, at_mm: float, width_mm: float, profile: Profile) -> None:
    y = page.get_height() - at_mm * PT_PER_MM
    left, right = profile.margins.left, width_mm - profile.margins.right
    path = pdfium_c.FPDFPageObj_CreateNewPath(left * PT_PER_MM, y)
    pdfium_c.FPDFPath_LineTo(path, right * PT_PER_MM, y)
    pdfium_c.FPDFPageObj_SetStrokeColor(path, 0, 0, 0, 255)
    pdfium_c.FPDFPageObj_SetStrokeWidth(path, _LINE_MM * PT_PER_MM)
    dash = _DASH_MM * PT_PER_MM
    pdfium_c.FPDFPageObj_SetDashArray(path, (ctypes.c_float * 2)(dash, dash), 2, 0)
    pdfium_c.FPDFPath_SetDrawMode(path, pdfium_c.FPDF_FILLMODE_NONE, True)
    page.insert_obj(pdfium.PdfObject(path))
