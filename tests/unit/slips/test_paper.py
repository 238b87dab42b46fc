"""Right on the paper: nothing cut off, as long as the content, readable on the narrowest roll."""

from __future__ import annotations

import pytest

from relay.config.profiles import BUILT_IN_PROFILES, Profile
from relay.errors import RenderError
from relay.slips.render import Renderer
from tests.unit.slips.letters import barcode, ink_mm, letter, picture, raster, size_of, text_of, word, words_of

PROFILES = {profile.name: profile for profile in BUILT_IN_PROFILES}
ROLLS = [PROFILES["receipt80"], PROFILES["receipt58"]]
RECEIPT = """<html><head><style>html, body {{ height: 100% }} .listing td {{ border-bottom: 1px solid #eee }}
</style></head><body><table width="600" cellspacing="0" cellpadding="5"><tr style="background-color:#f5f5f5">
<td><h1>Loan receipt</h1></td><td align="right">01/03/2026</td></tr></table>
<p>You have borrowed the following:</p>
<table class="listing" width="100%"><tr><th>Title</th><th nowrap>Due date</th></tr>
{rows}</table><p>Main library</p></body></html>"""
ROW = "<tr><td>The invented history of a small town in the hills, volume {n}</td><td nowrap>15/03/2026 23:59</td></tr>"


def receipt(count: int) -> bytes:
    return letter(RECEIPT.format(rows="".join(ROW.format(n=n) for n in range(count))))


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


def letters_of(pdf: bytes) -> str:
    """The text without spaces and without hyphens, which poppler takes out at the end of a line."""
    return "".join(text_of(pdf).split()).replace("-", "")


def ids(profile: Profile) -> str:
    return profile.name


@pytest.mark.parametrize("profile", ROLLS, ids=ids)
@pytest.mark.parametrize("count", [1, 40])
def test_a_receipt_is_one_piece_as_long_as_its_content(renderer: Renderer, profile: Profile, count: int) -> None:
    slip = renderer.render(receipt(count), profile)
    _, top, _, bottom = ink_mm(raster(slip.pdf))
    assert slip.pages == 1
    assert slip.height_mm == pytest.approx(bottom + profile.margins.bottom, abs=2)
    assert top < profile.margins.top + 6
    assert text_of(slip.pdf).count("invented history") == count
    assert "Main library" in text_of(slip.pdf)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=ids)
def test_a_receipt_has_as_many_words_as_on_a_much_wider_page(renderer: Renderer, profile: Profile) -> None:
    wide = renderer.render(receipt(3), Profile(name="wide", paper="900x900mm", min_font_size_pt=0))
    slip = renderer.render(receipt(3), profile)
    left, _, right, _ = ink_mm(raster(slip.pdf, 203), 203)
    assert sorted(text_of(slip.pdf).split()) == sorted(text_of(wide.pdf).split())
    assert left >= profile.margins.left - 0.5
    assert right <= slip.width_mm - profile.margins.right + 0.5


@pytest.mark.parametrize(
    "html",
    [
        "<div style='width:700px;height:20px;background:#000'></div><p>x</p>",
        "<table width='700' border='1'><tr><td>left</td><td align='right'>right</td></tr></table>",
        "<table style='width:700px'><tr><td style='width:500px'>one</td><td style='min-width:300px'>two</td></table>",
        "<p style='white-space:nowrap'>" + "nowrap " * 15 + "</p>",
        "<table><tr><td nowrap>" + "nowrap " * 9 + "</td></tr></table>",
        "<p>x</p><div style='position:absolute;left:150px;top:60px;width:300px;border:1px solid'>absolute</div>",
        "<div style='position:relative;left:120px'>moved by a good many pixels to the right</div>",
        "<div style='margin-left:200px'>indented by much</div>",
        "<div style='height:100%;overflow:hidden;width:50px'>overflowing-word-that-is-long</div>",
        "<div style='float:left;width:200px;border:1px solid'>one</div><div style='float:left;width:200px'>two</div>",
        "<div style='width:100%;padding:0 20px;border:1px solid'>padded</div>",
        "<div style='width:100%;padding:0 10px;border:1px solid'><p style='width:100%;padding:9px'>both</p></div>",
        "<pre>" + "x" * 60 + "</pre>",
        "<p style='padding:30px;font-size:40px'>Donaudampfschiffahrt</p>",
        "<img src='cid:b.png' width='600'>",
    ],
)
def test_nothing_is_cut_off_on_58_mm(renderer: Renderer, html: str) -> None:
    profile = PROFILES["receipt58"]
    parts = [picture(barcode(), "b.png")] if "cid:" in html else []
    slip = renderer.render(letter(html, *parts), profile)
    left, _, right, bottom = ink_mm(raster(slip.pdf, 203), 203)
    assert slip.width_mm == pytest.approx(58, abs=0.1)
    assert left >= profile.margins.left - 0.5
    assert right <= 58 - profile.margins.right + 0.5
    # On a page where all of it has room there is the same text.
    wide = renderer.render(letter(html, *parts), Profile(name="wide", paper="900x900mm"))
    assert letters_of(slip.pdf) == letters_of(wide.pdf)
    assert bottom <= slip.height_mm


def test_two_columns_stay_side_by_side_and_readable_on_58_mm(renderer: Renderer) -> None:
    rows = "".join(
        f"<tr><td><b>{label}:</b></td><td>{value}</td></tr>"
        for label, value in (
            ("Barcode", "31188000602306"),
            ("Location", "Closed stacks level two"),
            ("Patron", "Invented, Jane"),
        )
    )
    slip = renderer.render(letter(f"<table width='100%'>{rows}</table>"), PROFILES["receipt58"])
    for label, value in (("Barcode:", "31188000602306"), ("Location:", "Closed"), ("Patron:", "Invented,")):
        assert word(slip.pdf, label).right < word(slip.pdf, value).left
        assert word(slip.pdf, label).top == pytest.approx(word(slip.pdf, value).top, abs=0.5)
    least = min(each.bottom - each.top for each in words_of(slip.pdf))
    assert least >= 6 * 25.4 / 72, "no line is lower than text of 6 points"


def test_no_text_of_a_wide_table_is_smaller_than_the_profile_allows(renderer: Renderer) -> None:
    cells = "".join(f"<td nowrap style='font-size:8px'>column {n}</td>" for n in range(8))
    slip = renderer.render(letter(f"<table><tr>{cells}</tr></table>"), PROFILES["receipt58"])
    assert min(each.bottom - each.top for each in words_of(slip.pdf)) >= 5 * 25.4 / 72
    assert ink_mm(raster(slip.pdf))[2] <= 53.5


@pytest.mark.parametrize("profile", [PROFILES["receipt58"], PROFILES["a5"]], ids=ids)
def test_what_can_t_be_made_to_fit_is_drawn_smaller_as_a_whole(renderer: Renderer, profile: Profile) -> None:
    html = "<p>first</p><p style='padding-left:3000px'>X</p><p>last</p>"
    slip = renderer.render(letter(html), profile)
    assert size_of(slip.pdf) == pytest.approx((slip.width_mm, slip.height_mm), abs=0.2)
    assert slip.width_mm == pytest.approx(profile.page_size[0], abs=0.1)
    assert word(slip.pdf, "X").right <= slip.width_mm - profile.margins.right + 0.5
    assert word(slip.pdf, "first").left == pytest.approx(profile.margins.left, abs=0.5)
    assert slip.notes


def test_a_wrapper_that_hides_what_stands_over_is_not_blank(renderer: Renderer) -> None:
    html = "<div style='width:600px;overflow:hidden'><p>seen</p></div>"
    assert "seen" in text_of(renderer.render(letter(html), PROFILES["a4"]).pdf)
    hidden = "<div style='height:0;overflow:hidden'><p>hidden</p></div>"
    with pytest.raises(RenderError, match="stay blank"):
        renderer.render(letter(hidden), PROFILES["a4"])


@pytest.mark.parametrize("paper", ["A6", "Legal", "4x6in"])
def test_further_papers(renderer: Renderer, paper: str) -> None:
    profile = Profile(name="p", paper=paper, margin_mm=5)
    slip = renderer.render(letter("<p>hello</p>"), profile)
    assert size_of(slip.pdf) == pytest.approx(profile.page_size, abs=0.2)


def test_margins_of_each_side(renderer: Renderer) -> None:
    html = "<div style='border:2px solid;height:255mm'>x</div>"
    slip = renderer.render(letter(html), Profile(name="p", paper="A4", margin_mm=(10, 20, 30, 40)))
    left, top, right, bottom = ink_mm(raster(slip.pdf))
    assert (left, top, right) == pytest.approx((40, 10, 190), abs=0.5)
    assert bottom <= 267.5
