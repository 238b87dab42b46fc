"""A reprint that says it is one: a line put onto the pages of a PDF that was rendered before.

Does: looks for white room of the size of the line near the edges of each page, and puts it there; a roll gets a strip
before it instead, and a slip whose first page has no room anywhere a page of its own before it.
Promises: nothing of the slip is covered, moved on its sheet, or drawn anew: barcodes stay as they were checked.
Refuses: what is no PDF (RenderError).
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from io import BytesIO

import pypdfium2 as pdfium
from PIL import Image

from relay.config.profiles import Profile, Sides
from relay.errors import RenderError
from relay.slips.layout import Engine
from relay.slips.page import LONGEST_ROLL_MM, Page
from relay.slips.slip import Slip

PT_PER_MM = 72 / 25.4
LINE_MM = (80.0, 4.5)
"""Width and height of the line on a sheet."""
STRIP_MM = 12.0
"""What a roll becomes longer by."""
EDGE_MM = 4.5
"""What office printers don't reach at the edges of a sheet."""
AROUND_MM = 0.5
"""White that stays around the line."""
_STEP_MM = 4.0
_WHITE = 250
_SCALE = 2.0
"""Pixels for each point, when room is looked for."""


def mark(engine: Engine, pdf: bytes, text: str, profile: Profile) -> Slip:
    """The PDF with the text on it, at the size of paper that it has now."""
    try:
        document = pdfium.PdfDocument(pdf)
    except pdfium.PdfiumError as error:
        raise RenderError("the PDF that was kept can't be read") from error
    try:
        width, height = document[0].get_size()
        if profile.page_size[1] is None and height / PT_PER_MM + STRIP_MM <= LONGEST_ROLL_MM:
            _before_a_roll(engine, document, text, profile)
        else:
            line = _text_page(engine, text, *LINE_MM, size_pt=8.0)
            found = [_on_sheet(document, page, line) for page in range(len(document))]
            if not found[0]:
                _page_before(engine, document, text, width, height)
        written = BytesIO()
        document.save(written)
        width, height = document[0].get_size()
        sizes = round(width / PT_PER_MM, 2), round(height / PT_PER_MM, 2)
        return Slip(written.getvalue(), len(document), *sizes)
    finally:
        document.close()


def _before_a_roll(engine: Engine, document: pdfium.PdfDocument, text: str, profile: Profile) -> None:
    """A strip above the slip; what the page shows keeps its place, counted in dots from the lower edge."""
    page = document[0]
    left, bottom, right, top = page.get_mediabox()
    dot = 25.4 / profile.dpi
    strip = round(STRIP_MM / dot) * dot * PT_PER_MM
    for set_box in (page.set_mediabox, page.set_cropbox):
        set_box(left, bottom, right, top + strip)
    margins = profile.margins
    across = (right - left) / PT_PER_MM - margins.left - margins.right
    line = _text_page(engine, text, across, strip / PT_PER_MM, size_pt=9.0, above_mm=max(margins.top, 2.0))
    _put(document, page, line, left + margins.left * PT_PER_MM, top)


def _page_before(engine: Engine, document: pdfium.PdfDocument, text: str, width: float, height: float) -> None:
    page = document.new_page(width, height, 0)
    across, along = width / PT_PER_MM - 2 * EDGE_MM, height / PT_PER_MM - 2 * EDGE_MM
    line = _text_page(engine, text, across, along, size_pt=12.0)
    _put(document, page, line, EDGE_MM * PT_PER_MM, EDGE_MM * PT_PER_MM)


def _on_sheet(document: pdfium.PdfDocument, number: int, line: pdfium.PdfDocument) -> bool:
    """Puts the line where there is room for it; whether there was."""
    page = document[number]
    seen: Image.Image = page.render(scale=_SCALE, grayscale=True).to_pil().convert("L")
    width, height = page.get_size()
    for x, y, is_upright in _places(width / PT_PER_MM, height / PT_PER_MM):
        across, along = LINE_MM[::-1] if is_upright else LINE_MM
        if _is_white(seen, x, y, across, along):
            origin_y = height - (y + along) * PT_PER_MM  # PDF counts from the lower edge
            _put(document, page, line, x * PT_PER_MM, origin_y, is_upright=is_upright)
            return True
    return False


def _places(width: float, height: float) -> Iterator[tuple[float, float, bool]]:
    """Upper left corners for the line, in millimetres, the best first, and whether it runs upwards there."""
    long, thick = LINE_MM
    across = [place for place in (width - EDGE_MM - long, (width - long) / 2, EDGE_MM) if place >= 0]
    below = height - EDGE_MM - thick
    for y in (EDGE_MM, below):
        yield from ((x, y, False) for x in across)
    if height > long + 2 * EDGE_MM:
        yield from ((x, (height - long) / 2, True) for x in (EDGE_MM, width - EDGE_MM - thick))
    y = below - _STEP_MM  # a letter mostly ends before its page does
    while y > EDGE_MM:
        yield from ((x, y, False) for x in across[:1])
        y -= _STEP_MM


def _is_white(seen: Image.Image, x: float, y: float, across: float, along: float) -> bool:
    scale = _SCALE * PT_PER_MM
    corners = (x - AROUND_MM, y - AROUND_MM, x + across + AROUND_MM, y + along + AROUND_MM)
    left, top, right, bottom = (round(corner * scale) for corner in corners)
    if left < 0 or top < 0 or right > seen.width or bottom > seen.height:
        return False
    darkest, _ = seen.crop((left, top, right, bottom)).getextrema()
    return float(darkest) >= _WHITE  # type: ignore[arg-type]  # one band has one number


def _put(
    document: pdfium.PdfDocument,
    page: pdfium.PdfPage,
    line: pdfium.PdfDocument,
    x: float,
    y: float,
    *,
    is_upright: bool = False,
) -> None:
    """Draws the page of `line` with its lower left corner at a place of the page, in points."""
    drawn = line.page_as_xobject(0, document).as_pageobject()
    matrix = pdfium.PdfMatrix()
    if is_upright:
        matrix = matrix.rotate(-90).translate(line[0].get_height(), 0)
    drawn.set_matrix(matrix.translate(x, y))
    page.insert_obj(drawn)
    page.gen_content()


def _text_page(
    engine: Engine, text: str, width: float, height: float, *, size_pt: float, above_mm: float = 0.0
) -> pdfium.PdfDocument:
    """A page in millimetres with nothing but the text."""
    style = (
        f"@page {{ size: {width}mm {height}mm; margin: {min(above_mm, height / 3)}mm 0 0 }}"
        f"body {{ margin: 0; font: bold {size_pt}pt/1.3 'Liberation Sans', 'DejaVu Sans', sans-serif; color: black }}"
    )
    whole = f"<html><head><style>{style}</style></head><body>{html.escape(text)}</body></html>"
    page = Page(width, height, Sides(0, 0, 0, 0), is_roll=False)
    engine.serve({})
    return pdfium.PdfDocument(engine.lay_out(whole, page, 1).pdf(zoom=1.0))
