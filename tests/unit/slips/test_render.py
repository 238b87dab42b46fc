"""Messages on paper: sizes, completeness, pictures, refusals."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from weasyprint.urls import URLFetchingError, fetch

from relay.config.profiles import Profile
from relay.errors import RenderError
from relay.slips.layout import PictureFetcher
from relay.slips.render import Renderer
from tests.unit.slips.letters import barcode, colors, ink_mm, letter, picture, raster, size_of, solid, text_of

A4 = Profile(name="a4", paper="A4")
ROLL = Profile(name="receipt80", paper="80mm", margin_mm=4.0, font_size_pt=9.0, dpi=203, template="receipt.html")
RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(max_pages=5)


@pytest.mark.parametrize(
    ("paper", "width", "height"),
    [("A4", 210, 297), ("A5", 148, 210), ("Letter", 215.9, 279.4), ("100x150mm", 100, 150)],
)
def test_sheets_have_the_size_of_the_profile(renderer: Renderer, paper: str, width: float, height: float) -> None:
    slip = renderer.render(letter("<p>hello</p>"), Profile(name="p", paper=paper))
    assert size_of(slip.pdf) == pytest.approx((width, height), abs=0.2)
    assert (slip.width_mm, slip.height_mm) == pytest.approx((width, height), abs=0.2)
    assert (slip.pages, slip.notes) == (1, ())
    assert "hello" in text_of(slip.pdf)


@pytest.mark.parametrize("lines", [5, 10, 200])
def test_a_roll_is_as_long_as_its_content(renderer: Renderer, lines: int) -> None:
    html = "<body style='background:#eee'>" + "<p>line</p>" * lines + "<br>" * 40
    slip = renderer.render(letter(html), ROLL)
    width, height = size_of(slip.pdf)
    _, top, _, bottom = ink_mm(raster(slip.pdf))
    assert slip.pages == 1
    assert width == pytest.approx(80, abs=0.2)
    assert height - bottom == pytest.approx(ROLL.margins.bottom, abs=2)
    assert top < ROLL.margins.top + 6
    assert text_of(slip.pdf).count("line") == lines


def test_a_roll_is_one_piece_whatever_the_letter_says_about_pages(renderer: Renderer) -> None:
    html = "<p style='page-break-after:always'>one</p><style>h1{break-before:page}</style><h1>two</h1><p>three</p>"
    assert renderer.render(letter(html), ROLL).pages == 1
    assert renderer.render(letter(html), A4).pages == 2


def test_a_roll_ends_below_a_float_and_a_picture(renderer: Renderer) -> None:
    html = "<p>text</p><img src='cid:x' style='float:right'>"
    slip = renderer.render(letter(html, picture(solid("red", (100, 200)), "x")), ROLL)
    assert slip.height_mm == pytest.approx(ink_mm(raster(slip.pdf))[3] + ROLL.margins.bottom, abs=2)
    assert RED in colors(raster(slip.pdf))


def test_a_roll_that_never_ends_is_refused(renderer: Renderer) -> None:
    with pytest.raises(RenderError, match="5 m of paper"):
        renderer.render(letter("<div style='height:9000mm'>x</div><p>y</p>"), ROLL)


def test_too_many_pages_are_refused(renderer: Renderer) -> None:
    with pytest.raises(RenderError, match="more than 5 pages"):
        renderer.render(letter("<p style='page-break-after:always'>x</p>" * 7), A4)


def test_letter_with_height_100_percent_is_not_cut(renderer: Renderer) -> None:
    html = "<html style='height:100%;overflow:hidden'><style>html,body{height:100% !important;overflow:hidden}</style>"
    html += "<body style='height:100%!important'>" + "<p>paragraph</p>" * 80 + "<p>last words</p></body></html>"
    slip = renderer.render(letter(html), A4)
    assert slip.pages > 1
    assert "last words" in text_of(slip.pdf)


@pytest.mark.parametrize(
    "html",
    [
        "<table width='1400'><tr><td>left</td><td align='right'>right</td></tr></table>",
        "<div style='width:900px'><p style='text-align:right'>right</p></div>",
        "<p>" + "W" * 300 + "</p>",
        "<pre>" + "words " * 60 + "</pre>",
        "<table><tr>" + "".join(f"<td nowrap>column number {n}</td>" for n in range(12)) + "</tr></table>",
        "<p style='white-space:nowrap'>" + "words " * 60 + "</p>",
        "<img width='2000' height='40' src='cid:x'>",
    ],
)
@pytest.mark.parametrize("profile", [A4, ROLL], ids=["a4", "roll"])
def test_nothing_is_cut_at_the_side(renderer: Renderer, html: str, profile: Profile) -> None:
    slip = renderer.render(letter(html, picture(solid("red"), "x")), profile)
    left, _, right, _ = ink_mm(raster(slip.pdf))
    assert left >= profile.margins.left - 0.5
    assert right <= slip.width_mm - profile.margins.right + 0.5
    assert size_of(slip.pdf)[0] == pytest.approx(slip.width_mm, abs=0.1)


def test_barcode_has_its_own_size_on_a4(renderer: Renderer) -> None:
    slip = renderer.render(letter("<img src='cid:b.png'>", picture(barcode(300), "b.png")), A4)
    left, _, right, _ = ink_mm(raster(slip.pdf, 600), 600)
    assert right - left == pytest.approx(300 / 150 * 25.4, abs=0.3)


def test_size_that_the_letter_gives_wins(renderer: Renderer) -> None:
    slip = renderer.render(letter("<img width='96' src='cid:b.png'>", picture(barcode(300), "b.png")), A4)
    left, _, right, _ = ink_mm(raster(slip.pdf, 600), 600)
    assert right - left == pytest.approx(25.4, abs=0.3)


def test_barcode_keeps_its_size_when_the_letter_is_made_smaller(renderer: Renderer) -> None:
    html = "<p><img src='cid:b.png'></p><p style='white-space:nowrap'>" + "words " * 9
    slip = renderer.render(letter(html, picture(barcode(300), "b.png")), ROLL)
    assert slip.notes
    top = raster(slip.pdf, 600).crop((0, 0, 1890, 300))
    left, _, right, _ = ink_mm(top, 600)
    assert right - left == pytest.approx(300 / 150 * 25.4, abs=1)


def test_two_slips_with_one_content_id_do_not_mix(renderer: Renderer) -> None:
    for color, name in ((RED, "red"), (BLUE, "blue"), (RED, "red")):
        slip = renderer.render(letter("<img src='cid:item.png'>", picture(solid(name), "item.png")), A4)
        assert colors(raster(slip.pdf)) == {color}


def test_three_ways_to_a_picture(renderer: Renderer) -> None:
    html = "<img src='cid:one'><img src='two.png'><img src='http://example.edu/three.png'>"
    parts = (
        picture(solid("red"), "one"),
        picture(solid("blue"), name="two.png"),
        picture(solid("lime"), location="http://example.edu/three.png"),
    )
    slip = renderer.render(letter(html, *parts), A4)
    assert colors(raster(slip.pdf)) == {RED, BLUE, (0, 255, 0)}
    assert slip.notes == ()


def test_png_that_is_called_jpg_is_drawn(renderer: Renderer) -> None:
    slip = renderer.render(letter("<img src='cid:logo.jpg'>", picture(solid("red"), "logo.jpg", subtype="jpeg")), A4)
    assert colors(raster(slip.pdf)) == {RED}


def test_missing_pictures_are_told(renderer: Renderer) -> None:
    html = "<p>x</p><img src='cid:gone.png'><img src='https://example.edu/logo.png'>"
    assert renderer.render(letter(html), A4).notes == (
        "The image gone.png is not in the message.",
        "The image https://example.edu/logo.png is on another server and was not fetched.",
    )


def test_slip_of_plain_text_keeps_its_lines(renderer: Renderer) -> None:
    slip = renderer.render(b"Content-Type: text/plain\r\n\r\none\r\n\r\n  two <b>\r\n", A4)
    assert "one two <b>" in text_of(slip.pdf)


def test_own_template_may_extend_ours(renderer: Renderer, tmp_path: Path) -> None:
    own = tmp_path / "own.html"
    own.write_text('{% extends "slip.html" %}{% block body %}<p>Desk copy</p>{{ super() }}{% endblock %}')
    slip = renderer.render(letter("<p>hello</p>"), Profile(name="p", paper="A4", template=str(own)))
    assert "Desk copy hello" in text_of(slip.pdf)


@pytest.mark.parametrize("text", ["{% block %}", "{{ nothing.there }}", None])
def test_wrong_template_is_a_clear_refusal(renderer: Renderer, tmp_path: Path, text: str | None) -> None:
    own = tmp_path / "own.html"
    if text is not None:
        own.write_text(text)
    with pytest.raises(RenderError, match=r"own\.html"):
        renderer.render(letter("<p>hello</p>"), Profile(name="p", paper="A4", template=str(own)))


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "http://127.0.0.1/", "https://x/", "ftp://x/", "data:,x", "slip:///9"]
)
def test_fetcher_opens_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("something was opened")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr("builtins.open", refused)
    fetcher = PictureFetcher()
    fetcher.serve({"slip:///1/1": b"x"})
    with pytest.raises(URLFetchingError), fetch(fetcher, url):
        pass
    with pytest.raises(ValueError, match="not a picture"):
        fetcher.open(url)
    with fetch(fetcher, "slip:///1/1") as answer:
        assert answer.read() == b"x"


def test_hostile_letter_opens_nothing(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    genuine = PictureFetcher.fetch

    def fetch_and_tell(self: PictureFetcher, url: str, headers: object = None) -> object:
        asked.append(url)
        return genuine(self, url, headers)

    monkeypatch.setattr(PictureFetcher, "fetch", fetch_and_tell)
    html = """<base href="file:///etc/"><link rel=stylesheet href=passwd><link rel=attachment href=passwd>
    <style>@import 'passwd'; body { background: url(passwd) }</style><object data=passwd></object>
    <img src="passwd"><p style="background:url(http://127.0.0.1/)">text</p>"""
    assert "text" in text_of(renderer.render(letter(html), A4).pdf)
    assert all(url.startswith("slip:///") for url in asked)


def test_right_to_left_letter_starts_at_the_right(renderer: Renderer) -> None:
    slip = renderer.render(letter("<p>שלום</p>"), A4)
    assert ink_mm(raster(slip.pdf))[0] > 150
