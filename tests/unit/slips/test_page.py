"""What a profile says about a page: sizes of text, header and footer, the large code, own style sheets, templates."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader

from relay.config.profiles import Profile
from relay.errors import RenderError
from relay.slips import trial
from relay.slips.render import Renderer
from relay.slips.slip import Occasion
from tests.unit.slips.letters import (
    barcode,
    colors,
    ink_mm,
    letter,
    picture,
    raster,
    size_of,
    text_of,
    word,
    words_of,
)

ZONE = timezone(timedelta(hours=2))
OCCASION = Occasion(
    desk="Desk <1> & Co",
    queue_id="01ABC",
    institution="demo",
    received_at=datetime(2026, 3, 1, 8, 5, tzinfo=ZONE),
    printed_at=datetime(2026, 3, 1, 14, 7, tzinfo=ZONE),
)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


def profile(paper: str = "A4", **settings: Any) -> Profile:
    return Profile.model_validate({"name": "p", "paper": paper, **settings})


def height(pdf: bytes, text: str) -> float:
    """Height of a word's line of text in millimetres: it grows with the size of the font."""
    found = word(pdf, text)
    return found.bottom - found.top


# --- Size of text


def test_small_text_is_enlarged_and_no_other(renderer: Renderer) -> None:
    html = """<style>.c { font-size: 0.5em } td { font-size: 7px }</style>
    <p style='font-size:12pt'>large</p><p style='font-size:10pt'>usual</p><p style='font-size:3px'>tiny</p>
    <p style='font-size:6pt'>outer <span class=c>inner</span></p><table><tr><td>cell</td></tr></table>
    <p><font size=1>font</font></p>"""
    free = renderer.render(letter(html), profile(min_font_size_pt=0)).pdf
    least = renderer.render(letter(html), profile(min_font_size_pt=10)).pdf
    for text in ("tiny", "outer", "inner", "cell"):
        assert height(free, text) < height(least, text) == pytest.approx(height(least, "usual"), rel=0.01)
    assert height(least, "large") == pytest.approx(height(free, "large"))
    assert height(least, "large") == pytest.approx(1.2 * height(least, "usual"), rel=0.01)


def test_enlarged_text_does_not_overlap(renderer: Renderer) -> None:
    html = "<p style='font-size:4px; line-height:4px'>first<br>second</p>"
    pdf = renderer.render(letter(html), profile(min_font_size_pt=9)).pdf
    assert word(pdf, "second").top - word(pdf, "first").top >= 9 * 25.4 / 72


def test_least_size_holds_on_paper_when_the_letter_is_made_smaller(renderer: Renderer) -> None:
    html = "<p style='font-size:7pt'>small</p><p style='width:900px;font-size:20px'>wide " + "words " * 20 + "</p>"
    slip = renderer.render(letter(html), profile("80mm", margin_mm=4, min_font_size_pt=7))
    free = renderer.render(letter(html), profile("80mm", margin_mm=4, min_font_size_pt=0))
    reference = renderer.render(letter("<p style='font-size:7pt'>small</p>"), profile())
    assert height(slip.pdf, "small") >= 0.99 * height(reference.pdf, "small")
    assert height(free.pdf, "small") <= height(slip.pdf, "small")


def test_text_that_is_meant_to_be_hidden_stays_so(renderer: Renderer) -> None:
    slip = renderer.render(letter("<p>seen</p><p style='font-size:1px'>hidden</p>"), profile(min_font_size_pt=20))
    assert height(slip.pdf, "hidden") < 1


@pytest.mark.parametrize("percent", [50, 150])
def test_scale_makes_text_larger_and_paper_not(renderer: Renderer, percent: int) -> None:
    html = "<p>text</p>" + "<p>more words for the page</p>" * 3
    plain = renderer.render(letter(html), profile(min_font_size_pt=0))
    scaled = renderer.render(letter(html), profile(scale_percent=percent, min_font_size_pt=0))
    assert height(scaled.pdf, "text") == pytest.approx(height(plain.pdf, "text") * percent / 100, rel=0.02)
    assert size_of(scaled.pdf) == pytest.approx((210, 297), abs=0.2)
    assert word(scaled.pdf, "text").left == pytest.approx(12, abs=0.3)
    assert scaled.notes == ()


def test_scale_leaves_barcodes_at_their_size(renderer: Renderer) -> None:
    slip = renderer.render(letter("<img src='cid:b.png'>", picture(barcode(300), "b.png")), profile(scale_percent=70))
    left, _, right, _ = ink_mm(raster(slip.pdf, 600), 600)
    assert right - left == pytest.approx(300 / 150 * 25.4, abs=0.3)


def test_a_scaled_letter_that_is_too_wide_is_made_to_fit(renderer: Renderer) -> None:
    html = "<p style='white-space:nowrap'>" + "words " * 14 + "</p>"
    plain = renderer.render(letter(html), profile())
    slip = renderer.render(letter(html), profile(scale_percent=150))
    assert plain.notes == ()
    assert slip.notes[0].startswith("The letter is wider than the paper; it was printed at 1")
    assert ink_mm(raster(slip.pdf))[2] <= 210 - 12
    assert len({round(each.top) for each in words_of(slip.pdf)}) == 1, "it was made smaller, not broken"


# --- Fonts and colours


def fonts(pdf: bytes) -> set[str]:
    resources: Any = PdfReader(BytesIO(pdf)).pages[0]["/Resources"]
    return {str(font.get_object()["/BaseFont"]).partition("+")[2] for font in resources["/Font"].values()}


def test_own_font_is_for_text_that_names_none_unless_it_is_forced(renderer: Renderer) -> None:
    html = "<p style='font-family: Liberation Sans, sans-serif'>a</p>"
    given = {"font_family": "DejaVu Serif, serif"}
    named = renderer.render(letter(html), profile(**given)).pdf
    forced = renderer.render(letter(html), profile(**given, force_font=True)).pdf
    unnamed = renderer.render(letter("<p>a</p>"), profile(**given)).pdf
    assert fonts(named) != fonts(forced) == fonts(unnamed)


def test_monochrome_is_black_text_on_white(renderer: Renderer) -> None:
    html = "<h1 style='background:#004; color:#fff'>white</h1><p style='color:#bbb'>grey</p>"
    slip = renderer.render(letter(html), profile(monochrome=True))
    image = raster(slip.pdf, 200).convert("L")
    assert min(image.crop((0, 0, 1650, 400)).tobytes()) == 0
    assert colors(raster(slip.pdf)) <= {(0, 0, 0)}
    assert "white grey" in text_of(slip.pdf)


# --- Header and footer


def test_header_and_footer_stand_in_the_margins_of_each_sheet(renderer: Renderer) -> None:
    settings = {"header": "{desk} | {received} | {institution}", "footer": "{queue_id} | {page}/{pages}"}
    html = "<p>first</p><p style='page-break-before:always'>second</p>"
    slip = renderer.render(letter(html), profile("A5", margin_mm=8, **settings), OCCASION)
    assert slip.pages == 2
    for page, text in ((1, "first"), (2, "second")):
        words = {each.text: each for each in words_of(slip.pdf, page)}
        assert {"&amp;", "Desk", "2026-03-01", "08:05", "demo", "01ABC", f"{page}/2", text} - {"&amp;"} <= set(words)
        assert words["Desk"].left == pytest.approx(8, abs=0.5)
        assert words["demo"].right == pytest.approx(140, abs=0.5)
        assert 60 < words["2026-03-01"].left < words["08:05"].right < 90
        assert 4 < words["Desk"].top < words["Desk"].bottom < 10 <= words[text].top
        assert words["01ABC"].top > 200
        assert words["01ABC"].bottom < 206
        assert words["<1>"].text == "<1>"


def test_a_roll_has_its_lines_above_and_below_the_letter(renderer: Renderer) -> None:
    roll = profile("80mm", margin_mm=4, header="{desk}", footer="{printed} | {queue_id}")
    slip = renderer.render(letter("<p>letter</p>"), roll, OCCASION)
    assert word(slip.pdf, "Desk").bottom < word(slip.pdf, "letter").top
    assert word(slip.pdf, "letter").bottom < word(slip.pdf, "14:07").top
    assert word(slip.pdf, "01ABC").right == pytest.approx(76, abs=0.5)
    assert slip.height_mm - ink_mm(raster(slip.pdf))[3] == pytest.approx(4, abs=2)


def test_lines_have_one_size_whatever_the_scale(renderer: Renderer) -> None:
    sizes = [
        height(
            renderer.render(letter("<p>x</p>"), profile(scale_percent=scale, header="{queue_id}"), OCCASION).pdf,
            "01ABC",
        )
        for scale in (50, 100, 200)
    ]
    assert sizes == pytest.approx([sizes[1]] * 3, rel=0.02)


@pytest.mark.parametrize("paper", ["A4", "80mm"])
def test_a_header_does_not_make_a_blank_letter_a_slip(renderer: Renderer, paper: str) -> None:
    with pytest.raises(RenderError, match="stay blank"):
        renderer.render(letter("<p> </p>"), profile(paper, header="{desk}", footer="{queue_id}"), OCCASION)


def test_css_of_a_letter_does_not_reach_the_lines(renderer: Renderer) -> None:
    html = "<style>div, table, td, p, span { display: none } p { display: block }</style><p>x</p>"
    slip = renderer.render(letter(html + "<relay-line>forged</relay-line>"), profile(header="{desk}"), OCCASION)
    assert word(slip.pdf, "Desk").top < 10
    assert height(slip.pdf, "forged") > height(slip.pdf, "Desk")  # it is text like any other


# --- The large code


def test_the_first_element_with_text_is_printed_large_at_the_top(renderer: Renderer) -> None:
    html = "<p>x</p><p class=code> </p><p class=code> Science\n Library </p><p class=code>third</p>"
    slip = renderer.render(letter(html), profile(big={"select": ".none, .code", "label": "Destination"}))
    words = words_of(slip.pdf)
    assert [each.text for each in words[:4]] == ["Destination", "Science", "Library", "x"]
    assert words[1].bottom - words[1].top > 3 * (words[3].bottom - words[3].top)
    assert words[1].bottom - words[1].top == pytest.approx(48 * 25.4 / 72, rel=0.3)


def test_a_letter_without_the_code_is_printed_as_it_is(renderer: Renderer) -> None:
    plain, without = (
        renderer.render(letter("<p>x</p>"), each) for each in (profile(), profile(big={"select": ".code"}))
    )
    assert words_of(plain.pdf) == words_of(without.pdf)


@pytest.mark.parametrize(
    ("paper", "code"), [("A4", "WWWW-MMMM-WWWW-MM"), ("80mm", "WWWW-MMMM-WW"), ("58mm", "WWW-MMMM")]
)
def test_a_long_word_is_made_smaller_until_it_fits(renderer: Renderer, paper: str, code: str) -> None:
    html = f"<p>x</p><b>{code}</b>"
    slip = renderer.render(letter(html), profile(paper, margin_mm=4, big={"select": "b", "size_pt": 120}))
    large = words_of(slip.pdf)[0]
    assert large.text == code
    assert large.right <= slip.width_mm - 4
    assert slip.notes == ()


def test_lines_and_cells_are_told_apart_in_a_code(renderer: Renderer) -> None:
    html = "<table><tr><td>Main<br>library</td><td>Room <b>5<i>c</i></b>b</td></tr></table>"
    words = words_of(renderer.render(letter(html), profile(big={"select": "tr"})).pdf)
    assert [each.text for each in words[:4]] == ["Main", "library", "Room", "5cb"]


def test_a_long_text_takes_two_lines_and_is_ended_in_time(renderer: Renderer) -> None:
    slip = renderer.render(letter(f"<p>{'library ' * 12}</p>"), profile(big={"select": "p"}))
    large = [each for each in words_of(slip.pdf) if each.bottom - each.top > 6]
    assert len({round(each.top) for each in large}) == 2
    assert len(large) == 10
    assert large[-1].text.endswith("\u2026")


def test_a_selector_that_is_none_is_a_clear_refusal(renderer: Renderer) -> None:
    with pytest.raises(RenderError, match=r"the selector 'p\[' can't be used"):
        renderer.render(letter("<p>x</p>"), profile(big={"select": "p["}))


# --- One's own


def test_own_style_sheet_has_the_last_word(renderer: Renderer, tmp_path: Path) -> None:
    css = tmp_path / "own.css"
    css.write_text("p { color: #f00; font-size: 30pt } /* </style><p>forged</p> */")
    html = "<style>p { color: #00f }</style><p>text</p>"
    slip = renderer.render(letter(html), profile(stylesheet=str(css)))
    assert (255, 0, 0) in colors(raster(slip.pdf))
    assert (0, 0, 255) not in colors(raster(slip.pdf))
    assert [each.text for each in words_of(slip.pdf)] == ["text"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"x" * 300_000])
def test_own_style_sheet_that_can_t_be_used(renderer: Renderer, tmp_path: Path, content: bytes | None) -> None:
    css = tmp_path / "own.css"
    css.touch()
    given = profile(stylesheet=str(css))
    css.unlink() if content is None else css.write_bytes(content)
    with pytest.raises(RenderError, match=r"own\.css"):
        renderer.render(letter("<p>x</p>"), given)
    assert [setting for setting, _ in trial.faults(given)] == ["stylesheet"]


def test_own_template_knows_the_occasion(renderer: Renderer, tmp_path: Path) -> None:
    own = tmp_path / "own.html"
    own.write_text(
        '{% extends "slip.html" %}{% block body %}<p>{{ occasion.desk }}, {{ occasion.queue_id }}, '
        '{{ occasion.printed_at.strftime("%d.%m.%Y %H:%M") }}, {{ profile.dpi }}, {{ code.text }}</p>{{ super() }}'
        "{% endblock %}{% block code %}{% endblock %}"
    )
    given = profile(template=str(own), big={"select": "p"})
    slip = renderer.render(letter("<p>hello</p>"), given, OCCASION)
    assert "Desk <1> & Co, 01ABC, 01.03.2026 14:07, 300, hello hello" in text_of(slip.pdf)
    assert trial.faults(given) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{{ occasion.nobody }}", "can't be used"),
        ("{{ 1 / 0 }}", "ZeroDivisionError in it"),
        ("{{ letter_body + 1 }}", "TypeError in it"),
        ('{% extends "nowhere.html" %}', "there is no nowhere.html"),
        ("\n{% if %}", "wrong in line 2"),
    ],
)
def test_a_fault_in_an_own_template_is_a_clear_refusal(
    renderer: Renderer, tmp_path: Path, text: str, complaint: str
) -> None:
    own = tmp_path / "own.html"
    own.write_text(text)
    with pytest.raises(RenderError, match=complaint):
        renderer.render(letter("<p>hello</p>"), profile(template=str(own)))
    assert [(setting, complaint in why) for setting, why in trial.faults(profile(template=str(own)))] == [
        ("template", True)
    ]


def test_a_trial_finds_every_fault_of_a_profile(tmp_path: Path) -> None:
    own = tmp_path / "own.html"
    own.write_text("{{ nothing }}")
    given = profile(template=str(own), big={"select": "a:foo("})
    assert [setting for setting, _ in trial.faults(given)] == ["template", "big.select"]
    assert trial.faults(profile(big={"select": ".a, #b > td:nth-child(2)"}, header="{desk}", monochrome=True)) == []


# --- Orientation


@pytest.mark.parametrize(("paper", "size"), [("A5", (210, 148)), ("100x150mm", (150, 100))])
def test_a_landscape_page_is_wider_than_high(renderer: Renderer, paper: str, size: tuple[float, float]) -> None:
    slip = renderer.render(letter("<p>hello</p>"), profile(paper, orientation="landscape", margin_mm=5))
    assert size_of(slip.pdf) == pytest.approx(size, abs=0.2)
    assert word(slip.pdf, "hello").left == pytest.approx(5, abs=0.3)
