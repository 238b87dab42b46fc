"""A reprint says that it is one, and nothing of the slip is covered, moved or drawn anew."""

from __future__ import annotations

from io import BytesIO

import pypdf
import pypdfium2 as pdfium
import pytest
from PIL import Image, ImageChops

from relay.config.profiles import BUILT_IN_PROFILES, Profile
from relay.errors import RenderError
from relay.slips.layout import Engine
from relay.slips.mark import mark
from relay.slips.render import Renderer
from relay.slips.slip import Slip
from tests.harness import paper_checks, samples

TEXT = "REPRINT 2026-11-25 19:10, rendered again"
FULL_MARGINS = Profile(name="lines", paper="A4", header="left|middle|right", footer="left|middle|right")
LANDSCAPE = Profile(name="across", paper="A5", orientation="landscape", margin_mm=5)
PROFILES = (*BUILT_IN_PROFILES, FULL_MARGINS, LANDSCAPE)
SLIP = samples.request_slip(recipient="a@b.example")

ENGINE = Engine()
RENDERER = Renderer(engine=ENGINE)


def pages(pdf: bytes, dpi: int = 203) -> list[Image.Image]:
    """By the engine that prints it in the end, not the one that marked it."""
    return paper_checks.rasters(pdf, dpi)


def text(pdf: bytes) -> str:
    return " ".join("".join(page.extract_text() for page in pypdf.PdfReader(BytesIO(pdf)).pages).split())


@pytest.mark.parametrize("profile", PROFILES, ids=lambda each: each.name)
def test_the_mark_is_there_and_takes_nothing_away(profile: Profile) -> None:
    slip = RENDERER.render(SLIP, profile)
    marked = mark(ENGINE, slip.pdf, TEXT, profile)
    assert TEXT in text(marked.pdf)
    assert marked.pages == slip.pages
    before, after = pages(slip.pdf)[0], pages(marked.pdf)[0]
    if profile.page_size[1] is None:
        assert 11.8 < marked.height_mm - slip.height_mm < 12.2
        after = after.crop((0, after.height - before.height, before.width, after.height))
    assert (marked.width_mm, after.size) == (slip.width_mm, before.size)
    # Black that was there is there still, dot for dot; on a sheet a little was added.
    assert ImageChops.subtract(after, before).getbbox() is None
    assert paper_checks.read_by_zbar(after) == paper_checks.read_by_zbar(before) != set()
    if profile.page_size[1] is not None:
        assert paper_checks.edge_is_white(pages(marked.pdf)[0], 203, 3.0), "printers don't reach the edge"


def test_each_page_of_a_long_slip_is_marked() -> None:
    profile = BUILT_IN_PROFILES[0]
    slip = RENDERER.render(samples.loan_receipt(recipient="a@b.example", items=150), profile)
    assert slip.pages > 2
    marked = mark(ENGINE, slip.pdf, TEXT, profile)
    found = [page.extract_text() for page in pypdf.PdfReader(BytesIO(marked.pdf)).pages]
    assert [TEXT in " ".join(page.split()) for page in found] == [True] * slip.pages


def test_a_sheet_without_room_gets_a_page_before_it() -> None:
    profile = Profile(name="full", paper="100x150mm", margin_mm=0)
    black = b"<div style='background:#000;color:#fff;height:149mm'>full</div>"
    slip = RENDERER.render(b"From: a@b.example\r\nContent-Type: text/html\r\n\r\n" + black, profile)
    marked = mark(ENGINE, slip.pdf, TEXT, profile)
    assert (slip.pages, marked.pages) == (1, 2)
    reader = pypdf.PdfReader(BytesIO(marked.pdf))
    assert [TEXT in " ".join(page.extract_text().split()) for page in reader.pages] == [True, False]
    assert reader.pages[0].mediabox == reader.pages[1].mediabox
    assert (marked.width_mm, marked.height_mm) == (100.0, 150.0)


def test_what_is_no_pdf_is_refused() -> None:
    with pytest.raises(RenderError, match="can't be read"):
        mark(ENGINE, b"%PDF-1.7 torn off", TEXT, BUILT_IN_PROFILES[0])


def test_the_mark_is_text_and_its_font_is_in_the_file() -> None:
    slip: Slip = RENDERER.render(SLIP, BUILT_IN_PROFILES[0])
    document = pdfium.PdfDocument(mark(ENGINE, slip.pdf, TEXT, BUILT_IN_PROFILES[0]).pdf)
    assert "REPRINT" in document[0].get_textpage().get_text_range()
    document.close()
    assert paper_checks.missing_glyphs(slip.pdf) == ""
