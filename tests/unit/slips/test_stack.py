"""Several slips as one document: what shares a sheet, and that each slip on it is the one that was checked."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from math import ceil, floor

import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops

from relay.config.profiles import BUILT_IN_PROFILES, Profile
from relay.errors import RenderError
from relay.slips.layout import Engine
from relay.slips.page import LONGEST_ROLL_MM
from relay.slips.render import Renderer
from relay.slips.slip import Occasion, Slip
from relay.slips.stack import SPACE_MM, Piece, is_strip, plan, stack, strip
from tests.harness import paper_checks, samples
from tests.unit.slips import scanners

A4 = BUILT_IN_PROFILES[0]
RECEIPT = next(each for each in BUILT_IN_PROFILES if each.name == "receipt80")
LINES = Profile(name="lines", paper="A4", header="{desk}|{queue_id}", footer="|{page} of {pages}", dpi=203)
LANDSCAPE = Profile(name="across", paper="A5", orientation="landscape", margin_mm=5)
OFF_CENTRE = Profile(name="off", paper="A4", margin_mm=(3.0, 15.0, 21.0, 9.0), dpi=600)
PROFILES = (*BUILT_IN_PROFILES, LINES, LANDSCAPE, OFF_CENTRE)

ENGINE = Engine()
RENDERER = Renderer(engine=ENGINE)
TO = "desk@print.lib.example"
LETTERS = [
    samples.transit_slip(TO, item=samples.Item(barcode=f"SB-2041773{n}"), external=f"TR-55002{n}")
    if n % 2
    else samples.request_slip(TO, item=samples.Item(barcode=f"SB-2041773{n}"), request=f"2931044881760{n}")
    for n in range(5)
]


def rendered(letter: bytes, profile: Profile, **occasion: str) -> Slip:
    """As `relay.transports.merging` has it."""
    slip = RENDERER.render(letter, strip(profile), Occasion(**occasion))  # type: ignore[arg-type]
    return slip if is_strip(Piece(slip.pages, slip.height_mm), profile) else RENDERER.render(letter, profile)


def stacked(slips: list[Slip], profile: Profile, most: int = 50) -> Slip:
    return stack(b"".join(slip.pdf for slip in slips), [len(slip.pdf) for slip in slips], profile, most)


def pieces(slips: list[Slip]) -> list[Piece]:
    return [Piece(slip.pages, slip.height_mm) for slip in slips]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda each: each.name)
def test_each_slip_stands_on_the_document_dot_for_dot_as_it_was_checked(profile: Profile) -> None:
    profile = profile.model_copy(update={"monochrome": True})  # the dots of a grey depend on where it stands
    slips = [rendered(letter, profile) for letter in LETTERS]
    document, planned = stacked(slips, profile), plan(pieces(slips), profile, 50)
    width, height = profile.page_size
    assert (document.pages, document.width_mm) == (planned.sheets, round(width, 2))
    assert document.pages == 1 if height is None else document.height_mm == round(height, 2)
    # By the engine that prints it in the end, not the one that made it.
    sheets = paper_checks.rasters(document.pdf, profile.dpi)
    free = [sheet.copy() for sheet in sheets]
    margins = profile.margins
    for slip, place in zip(slips, planned.places, strict=True):
        (alone,) = paper_checks.rasters(slip.pdf, profile.dpi)
        dots = place.top_mm * profile.dpi / 25.4
        assert abs(dots - round(dots)) < 1e-6, "moved by whole dots"
        # Without the margins, which may overlap, and where the line stands; a glyph may reach into them a little.
        up, down = (floor((side - 0.5) * profile.dpi / 25.4) for side in (margins.top, margins.bottom))
        box = (0, min(up, alone.height // 2), alone.width, max(alone.height - down, alone.height // 2))
        there = (0, round(dots) + box[1], alone.width, round(dots) + box[3])
        sheet = sheets[place.sheet]
        difference = ImageChops.difference(alone.crop(box), sheet.crop(there).resize(alone.crop(box).size))
        assert difference.getbbox() is None
        free[place.sheet].paste(255, there)
    lines = [place for place in planned.places if place.line_mm is not None]
    assert len(lines) == len(slips) - document.pages
    for number, sheet in enumerate(free):  # beside the slips there are the lines, and nothing else
        found = sum(1 for place in lines if place.sheet == number)
        assert bands(sheet) == found


def bands(page: Image.Image) -> int:
    """Stretches of rows that are not white."""
    rows = [page.crop((0, y, page.width, y + 1)).getextrema()[0] < 250 for y in range(page.height)]  # type: ignore[operator]
    return sum(1 for before, now in zip([False, *rows], rows, strict=False) if now and not before)


@pytest.mark.parametrize(
    "profile", [*PROFILES, A4.model_copy(update={"printable_width_mm": 72.0}), Profile(name="in", paper="3.5x5in")]
)
def test_a_strip_is_a_profile_with_the_same_width_and_margins(profile: Profile) -> None:
    changed = strip(profile)
    assert Profile.model_validate(changed.model_dump(mode="json")) == changed
    assert (round(changed.page_size[0], 2), changed.page_size[1]) == (round(profile.page_size[0], 2), None)
    assert changed.margins == profile.margins
    assert (changed.name, changed.dpi, changed.template) == (profile.name, profile.dpi, profile.template)


@pytest.mark.parametrize("dpi", [203, 300])
@pytest.mark.parametrize("name", ["a4", "receipt80"])
def test_each_barcode_reads_once_and_the_text_is_in_order(name: str, dpi: int) -> None:
    profile = next(each for each in BUILT_IN_PROFILES if each.name == name).model_copy(update={"dpi": dpi})
    slips = [rendered(letter, profile) for letter in LETTERS]
    document = stacked(slips, profile)
    assert document.pages == (3 if name == "a4" else 1)
    wanted = Counter(value for letter in LETTERS for value in paper_checks.barcodes_in_source(letter))
    for scan in (scanners.by_zxing, scanners.by_zbar):
        assert Counter(value for page in scanners.pages(document.pdf, dpi) for value in scan(page)) == wanted
    reader = pypdf.PdfReader(BytesIO(document.pdf))
    text = " ".join("".join(page.extract_text() for page in reader.pages).split())
    assert [text.count("Resource request"), text.count("In transit")] == [3, 2]
    assert text.index("Resource request") < text.index("In transit") < text.rindex("Resource request")
    assert paper_checks.missing_glyphs(document.pdf) == ""


def test_header_and_footer_are_those_of_each_slip() -> None:
    slips = [rendered(letter, LINES, desk="Main desk", queue_id=f"QUEUEID{n}") for n, letter in enumerate(LETTERS)]
    reader = pypdf.PdfReader(BytesIO(stacked(slips, LINES).pdf))
    text = " ".join("".join(page.extract_text() for page in reader.pages).split())
    assert [text.count(f"QUEUEID{n}") for n in range(5)] == [1] * 5


def test_a_slip_longer_than_a_sheet_has_sheets_of_its_own() -> None:
    long = rendered(samples.loan_receipt(TO, items=60), A4)
    short = rendered(LETTERS[1], A4)
    assert long.pages > 1
    slips = [short, long, short, short]
    planned = plan(pieces(slips), A4, 50)
    after = 1 + long.pages
    assert [place.sheet for place in planned.places] == [0, 1, after, after]
    document = stacked(slips, A4)
    assert document.pages == after + 1
    sheets = paper_checks.rasters(document.pdf, 203)
    alone = paper_checks.rasters(long.pdf, 203)
    for sheet, page in zip(sheets[1:after], alone, strict=True):
        assert ImageChops.difference(sheet, page).getbbox() is None


@given(
    lengths=st.lists(st.floats(25, 400), min_size=1, max_size=30),
    profile=st.sampled_from(PROFILES),
    most=st.integers(1, 12),
)
def test_wherever_slips_stand_they_are_whole_apart_and_in_order(
    lengths: list[float], profile: Profile, most: int
) -> None:
    height = profile.page_size[1]
    wanted = [
        Piece(1, length) if height is None or length < height - 1 else Piece(ceil(length / height), height)
        for length in lengths
    ]
    planned = plan(wanted, profile, most)
    margins, room = profile.margins, height or LONGEST_ROLL_MM
    assert planned.places, "the first one always has room"
    assert planned.places[0].line_mm is None
    assert planned.sheets <= max(most, wanted[0].pages)
    for number, (piece, place) in enumerate(zip(wanted, planned.places, strict=False)):
        assert place.top_mm + piece.length_mm <= room + 1e-6
        if place.line_mm is None:
            assert place.top_mm == 0
            continue
        before, above = wanted[number - 1], planned.places[number - 1]
        assert above.sheet == place.sheet
        assert before.pages == 1
        ink_ends = above.top_mm + before.length_mm - margins.bottom
        ink_begins = place.top_mm + margins.top
        assert ink_ends + min(SPACE_MM, margins.bottom) == pytest.approx(place.line_mm)
        assert ink_begins - place.line_mm >= min(SPACE_MM, margins.top) - 1e-6
        assert ink_begins - ink_ends <= 2 * SPACE_MM + 25.4 / profile.dpi + 1e-6
    rest = wanted[len(planned.places) :]
    if rest:  # it had no room: with it there would be too many sheets, or too much of a roll
        with_one_more = plan(wanted[: len(planned.places) + 1], profile, 10**6)
        assert with_one_more.sheets > most or height is None


def test_a_roll_ends_where_paper_does() -> None:
    slip = rendered(LETTERS[0], RECEIPT)
    most = len(plan([Piece(1, slip.height_mm)] * 100, RECEIPT, 50).places)
    assert 40 < most < 50
    assert stacked([slip] * most, RECEIPT).height_mm <= LONGEST_ROLL_MM
    with pytest.raises(RenderError, match="more than fit one document"):
        stacked([slip] * (most + 1), RECEIPT)


@pytest.mark.parametrize("pdf", [b"%PDF-1.7 torn off", b""])
def test_what_is_no_pdf_is_refused(pdf: bytes) -> None:
    good = rendered(LETTERS[1], A4).pdf
    with pytest.raises(RenderError):
        stack(good + pdf, [len(good), len(pdf)], A4, 50)


def test_without_slips_there_is_no_document() -> None:
    with pytest.raises(RenderError):
        stack(b"", [], A4, 50)
