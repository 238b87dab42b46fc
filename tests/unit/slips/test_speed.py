"""What makes rendering cheap gives the same slips as WeasyPrint's own way."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pypdfium2
import pytest
import weasyprint.css as styles
from PIL import Image, ImageChops
from pypdf import PdfReader
from weasyprint import CSS, HTML, images, layout
from weasyprint.layout import percent
from weasyprint.pdf import fonts

from relay.config.profiles import BUILT_IN_PROFILES, Profile
from relay.slips import recent, reuse, shortcuts, subsets
from relay.slips.images import decode
from relay.slips.png import png_of
from relay.slips.render import Renderer
from relay.slips.slip import Occasion
from relay.slips.symbols import drawn
from tests.harness.samples import Item, request_slip

METHODS = (
    (styles.ComputedStyle, "__missing__"),
    (percent, "resolve_one_percentage"),
    (fonts.Font, subsets.METHOD),
    (styles.ComputedStyle, "__init__"),
    (styles.AnonymousStyle, "__init__"),
    (layout, "make_margin_boxes"),
    (styles, "CSS"),
    (images.RasterImage, "_get_png_data"),
)
MIXED = Item(title="Ågård: 圖書館 ספרייה مكتبة Библиотека 図書館", author="Čapek, Łucja")
PAGE = """<!DOCTYPE html><html dir="rtl"><head><style>
  p { block-size: 3em; margin-inline-start: 10%; width: calc(50% - 1em) } td { min-width: auto; padding: 1% 2px }
  b { text-decoration: underline; display: inline-block; float: right } i::before { content: "x"; color: red }
  div { position: absolute; left: 5%; max-height: 50%; page: other; border-radius: 3px } :root { --a: 4px }
  u { padding: var(--a) inherit; font: inherit; width: inherit; line-height: calc(1em + 50%) }
  td { border: thick solid; outline-style: dotted; border-block-end-style: none } th { border-top-style: hidden }
  tr { border-width: 3px; outline-width: thin } em { position: relative; border-inline-start-style: double }
  s { float: left; text-decoration: line-through red } s b { text-decoration: overline; position: fixed }
</style></head><body><div><p>one <b>two</b> <i>three</i> <u>four</u> <em>x</em> <s>y <b>z</b> <i>z</i></s></p></div>
<table width="80%" dir="ltr"><tr><td align="right">five<td>six<th>seven</table></body></html>"""


@pytest.fixture
def own_way() -> Iterator[None]:
    """WeasyPrint as it comes, for the length of a test."""
    kept = [(place, name, vars(place)[name]) for place, name in METHODS]
    for place, name, method in kept:
        way = getattr(method, "long_way", method)
        setattr(place, name, staticmethod(way) if isinstance(method, staticmethod) else way)
    yield
    for place, name, method in kept:
        setattr(place, name, method)


def use_the_short_way() -> None:
    assert subsets.install()
    assert shortcuts.install()
    assert reuse.install()


def all_values(page: str) -> dict[tuple[str, str | None], dict[str, str]]:
    """Every property of every element and pseudo-element, written out: tokens of CSS don't know their equals."""
    computed = styles.get_all_computed_styles(
        HTML(string=page), presentational_hints=True, page_rules=[], layers=[], color_profiles={}
    )
    return {
        (f"{number} {getattr(element, 'tag', element)}", pseudo): {
            name: _written(style[name]) for name in styles.INITIAL_VALUES
        }
        for number, ((element, pseudo), style) in enumerate(computed.get_computed_styles().items())
    }


def _written(value: Any) -> str:
    return str(value.serialize()) if hasattr(value, "serialize") else repr(value)


def boxes_of(page: str) -> list[tuple[Any, ...]]:
    """Where each box of the page is, and how large."""
    return _places(HTML(string=page))


def _places(page: HTML) -> list[tuple[Any, ...]]:
    waiting: list[Any] = [page.render(presentational_hints=True).pages[0]._page_box]
    found = []
    while waiting:
        box = waiting.pop()
        place = box.position_x, box.position_y, box.width, box.height, box.margin_left
        found.append((box.element_tag or getattr(box, "at_keyword", None), *place))
        waiting.extend(getattr(box, "children", ()))
    return found


def test_the_short_ways_are_in_use_with_this_weasyprint() -> None:
    use_the_short_way()
    assert all(hasattr(getattr(place, name), "long_way") for place, name in METHODS)


def test_styles_have_the_same_values_either_way(own_way: None) -> None:
    plain = all_values(PAGE)
    use_the_short_way()
    assert all_values(PAGE) == plain
    assert len(plain) > 10


def test_boxes_have_the_same_places_either_way(own_way: None) -> None:
    plain = boxes_of(PAGE)
    use_the_short_way()
    assert boxes_of(PAGE) == plain
    assert len(plain) > 10


def test_a_slip_in_many_scripts_is_the_same_picture_and_text_either_way(own_way: None) -> None:
    plain = HTML(string=MIXED_PAGE).write_pdf()
    use_the_short_way()
    ours = HTML(string=MIXED_PAGE).write_pdf()
    first, second = (pypdfium2.PdfDocument(pdf)[0].render(scale=2).to_pil() for pdf in (plain, ours))
    assert ImageChops.difference(first, second).getbbox() is None
    assert _text(plain) == _text(ours)


@pytest.mark.parametrize("margins", ["", "@top-left { content: 'a' } @bottom-right-corner { content: counter(page) }"])
def test_the_margins_of_pages_are_the_same_either_way(own_way: None, margins: str) -> None:
    page = f"<style>@page {{ margin: 2cm; {margins} }}</style><p>x<p style='break-before: page'>y"
    plain = _places(HTML(string=page))
    use_the_short_way()
    assert _places(HTML(string=page)) == plain
    assert ("@top-left" in str(plain)) == bool(margins)


NOTED = """<style>p { color: red } li { list-style-type: upper-roman } @page { margin: 2cm }</style><p title=x>one
<ul style="text-transform: uppercase"><li>two<ol><li>three</ol></ul><b style="display: block">four</b>"""


def test_a_short_sheet_of_the_user_agent_gives_the_same_boxes() -> None:
    use_the_short_way()
    plain, short = HTML(string=NOTED), reuse.without_what_no_slip_has(HTML(string=NOTED), NOTED)
    assert [len(page._ua_stylesheets()[0].matcher.other_selectors) for page in (plain, short)] == [24, 18]
    assert _places(short) == _places(plain)


@pytest.mark.parametrize("style", ["display: list-item", "float: footnote", "float: foot\\6eote", "position: note()"])
def test_a_letter_with_notes_or_other_list_items_has_the_whole_sheet(style: str) -> None:
    html = f"<p style='{style}'>x"
    page = HTML(string=html)
    whole = page._ua_stylesheets()
    assert reuse.without_what_no_slip_has(page, html)._ua_stylesheets() is not whole
    assert len(page._ua_stylesheets()[0].matcher.other_selectors) == 24


@pytest.mark.parametrize("profile", BUILT_IN_PROFILES, ids=lambda profile: profile.name)
def test_an_ordinary_slip_has_the_short_sheet(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    sheets = []

    def spied(page: HTML, html: str) -> HTML:
        sheets.append(without(page, html)._ua_stylesheets()[0])
        return page

    without = reuse.without_what_no_slip_has
    monkeypatch.setattr(reuse, "without_what_no_slip_has", spied)
    Renderer().render(request_slip("desk@print.lib.example"), profile, Occasion(note="Reprint (note)"))
    assert sheets
    assert {len(sheet.matcher.other_selectors) for sheet in sheets} == {18}


def parsed(css: str) -> CSS:
    return styles.CSS(string=css, page_rules=[], layers=[], counter_style={}, color_profiles={})


def test_a_sheet_is_parsed_once() -> None:
    use_the_short_way()
    css = "p { color: red } @media print { b { color: blue } } @page { margin: 1cm }"
    assert parsed(css) is parsed(css)
    assert len(parsed(css).page_rules) == 1


@pytest.mark.parametrize(
    "css",
    [
        "@counter-style x { symbols: a }",
        "@layer a { p { color: red } }",
        "@\\70 age { margin: 1cm }",
        "p { color: red }" * 2000,
    ],
)
def test_a_sheet_that_says_more_or_is_long_is_parsed_again(css: str) -> None:
    use_the_short_way()
    assert parsed(css) is not parsed(css)


def test_no_more_sheets_are_kept_than_are_said() -> None:
    use_the_short_way()
    first = parsed("p { top: 0 }")
    for number in range(1, recent.KEPT + 1):
        parsed(f"p {{ top: {number}px }}")
    assert parsed("p { top: 0 }") is not first


def png(picture: Image.Image) -> io.BytesIO:
    target = io.BytesIO()
    picture.save(target, "PNG")
    return target


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "1", "P"])
def test_pixels_in_the_pdf_are_those_of_the_picture(mode: str) -> None:
    use_the_short_way()
    picture = Image.effect_noise((31, 17), 90).convert(mode)
    for source in (Image.open(png(picture)), picture):
        content = images.RasterImage._get_png_data(source)
        assert zlib.decompress(content) == zlib.decompress(reuse._pixels(png(picture)))


def test_bars_written_our_way_are_the_same_picture() -> None:
    bars = Image.effect_noise((37, 3), 90).convert("L").resize((37, 24), Image.Resampling.NEAREST)
    with Image.open(io.BytesIO(png_of(bars))) as read:
        assert (read.mode, read.size, read.tobytes()) == ("L", bars.size, bars.tobytes())


def test_a_logo_is_looked_at_once_and_a_barcode_each_time() -> None:
    logo = png(Image.effect_noise((60, 40), 90)).getvalue()
    assert decode(logo) is decode(logo)
    barcode = drawn("31187003", "Code128")
    assert barcode is not None
    content = png(barcode.resize((barcode.width * 3, 60), Image.Resampling.NEAREST)).getvalue()
    first, second = decode(content), decode(content)
    assert first is not None
    assert first.looks_like_a_barcode
    assert first is not second


def test_a_picture_that_was_not_searched_is_not_known_next_time() -> None:
    picture = png(Image.effect_noise((61, 40), 90)).getvalue()
    unsearched = decode(picture, most=10)
    assert decode(picture) is not unsearched
    assert decode(picture) is decode(picture)


def _forged(size: tuple[int, int], rows: bytes) -> Image.Image:
    """A grey PNG of one size with compressed pixels of another."""
    file = png(Image.new("L", size)).getvalue()[:33]
    for name, content in ((b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        file += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return Image.open(io.BytesIO(file))


def test_a_bomb_behind_a_small_picture_does_not_get_into_the_pdf() -> None:
    use_the_short_way()
    assert reuse._own_content(_forged((10, 10), bytes(110))) is not None
    assert reuse._own_content(_forged((10, 10), bytes(10_000_000))) is None
    assert reuse._own_content(_forged((10, 10), bytes(109))) is None


def test_a_child_keeps_no_type_for_each_number_of_glyphs() -> None:
    message = request_slip("desk@print.lib.example", item=MIXED)
    renderer = Renderer()
    renderer.render(message, BUILT_IN_PROFILES[0])  # with whatever has to be known once
    before = set(fonts.ffi._parsed_types)
    for length in range(1, 12):
        message = request_slip("desk@print.lib.example", item=Item(title="図書館史小冊子北方鳥類手引"[:length]))
        renderer.render(message, BUILT_IN_PROFILES[0])
    assert set(fonts.ffi._parsed_types) == before


def test_a_weasyprint_without_the_method_is_left_alone() -> None:
    other = SimpleNamespace()
    assert not subsets.install(other)
    assert vars(other) == {}


def test_what_harfbuzz_refuses_goes_the_long_way() -> None:
    class Font:
        tables, png, svg, colr, bitmap, hb_face = (), False, False, False, False, "no face"
        missing: dict[int, str] = {}  # noqa: RUF012 - as WeasyPrint has it

        def _harfbuzz_subset(self, to_unicode: dict[int, str], hinting: bool) -> None:
            self.file_content = b"the long way"

    assert subsets.install(Font)
    font: Any = Font()
    font._harfbuzz_subset({1: "a"}, False)
    assert font.file_content == b"the long way"


MIXED_PAGE = f"<p style='font-family: Liberation Sans, Noto Sans CJK JP'>{MIXED.title} <b>{MIXED.author}</b> Ąż ﬁ"


def _text(pdf: bytes) -> str:
    return PdfReader(io.BytesIO(pdf)).pages[0].extract_text()
