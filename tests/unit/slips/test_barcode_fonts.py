"""Text in a barcode font, on the page, as a scanner sees it."""

from __future__ import annotations

import pytest

from relay.config.profiles import Profile
from relay.slips.barcode_fonts import read_code_128
from relay.slips.render import Renderer
from relay.slips.slip import Slip
from tests.unit.slips.letters import letter, text_of
from tests.unit.slips.scanners import bars, by_zbar, by_zxing, pages

ROLL = Profile(name="r", paper="80mm", margin_mm=4.0, font_size_pt=9.0, dpi=203, template="receipt.html")
VALUE = "3118800060"


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


def assert_scans(slip: Slip, *values: str) -> None:
    (page,) = pages(slip.pdf, 203)
    assert by_zxing(page) == by_zbar(page) == sorted(values)
    assert (slip.barcodes.good, slip.barcodes.failed, slip.notes) == (len(values), (), ())
    assert all(min(runs) >= 2 for _, runs, _ in bars(page))


def code_128(text: str, above: int) -> str:
    """What one types in a font of Code 128 for a text in its character set B."""
    codes = [104, *(ord(one) - 32 for one in text)]
    check = (104 + sum(place * code for place, code in enumerate(codes[1:], 1))) % 103
    return "".join(chr(code + (32 if code < 95 else above)) for code in [*codes, check, 106])


@pytest.mark.parametrize(
    "name",
    [
        "Libre Barcode 39",
        "Libre Barcode 39 Text",
        "Libre Barcode 39 Extended",
        "Libre Barcode 39 Extended Text",
        "IDAutomationHC39M Free Version",
        "IDAutomationHC39M",
        "CarolinaBar-B39-25F2",
        "Carolina Bar",
        "Code39Azalea",
        "3 of 9 Barcode",
        "Free 3 of 9",
        "Free 3 of 9 Extended",
        "Code 39",
        "C39HrP24DhTt",
        "Barcode",
    ],
)
def test_fonts_that_letters_name(renderer: Renderer, name: str) -> None:
    html = f"<p>Before</p><p style=\"font-family: '{name}', cursive; font-size: 30pt\">*{VALUE}*</p><p>After</p>"
    slip = renderer.render(letter(html), ROLL)
    assert_scans(slip, VALUE)
    text = text_of(slip.pdf)
    assert text.startswith("Before")
    assert text.endswith("After")
    assert VALUE in text


@pytest.mark.parametrize(
    "html",
    [
        f"<font face='Libre Barcode 39' size=7>*{VALUE}*</font>",
        f"<style>.bc {{ font-family: 'Free 3 of 9' }}</style><table><tr><td class=bc>*{VALUE}*</td></tr></table>",
        f"<style>#x td, h9 {{ font: bold 24px/1.2 Code39Azalea, serif }}</style><table id=x><tr><td>*{VALUE}*</table>",
        f"<style>@media print {{ p.b > span {{ font-family: CarolinaBar }} }}</style><p class=b><span>*{VALUE}*</span>",
        f"<style>.a {{ font-family: Arial }} p.a {{ font-family: 'Code 39' }}</style><p class=a>*{VALUE}*</p>",
        f"<style>.a {{ font-family: Arial }} .a {{ font-family: 'Code 39' !important }}</style>"
        f"<p class=a style='font-family: Arial'>*{VALUE}*</p>",
        f"<body style='font-family: Code39Azalea'><b> *{VALUE}*\n </b></body>",
        f"<p style='font-family: Code39Azalea'>*<b>{VALUE[:4]}</b><i>{VALUE[4:]}</i>*</p>",
        f"<p style='font-family: IDAutomationHC39M'>({VALUE})</p>",
        f"<p style='font-family: IDAutomationHC39M'>!{VALUE}!</p>",
    ],
)
def test_ways_to_name_a_font(renderer: Renderer, html: str) -> None:
    assert_scans(renderer.render(letter(html), ROLL), VALUE)


def test_each_text_is_a_barcode_of_its_own(renderer: Renderer) -> None:
    html = "<div style='font-family: Code39Azalea'>*ONE*<br>*TWO*<p>*THREE*</p>*FOUR*</div>"
    assert_scans(renderer.render(letter(html), ROLL), "ONE", "TWO", "THREE", "FOUR")


def test_small_letters_and_signs_for_the_space(renderer: Renderer) -> None:
    html = "<p style='font-family: Free3of9'>*ab=c-1_2*</p>"
    assert_scans(renderer.render(letter(html), ROLL), "AB C-1 2")


def test_extended_font_has_small_letters(renderer: Renderer) -> None:
    slip = renderer.render(letter("<p style='font-family: Libre Barcode 39 Extended'>*ab@c*</p>"), ROLL)
    (page,) = pages(slip.pdf, 203)
    assert by_zxing(page) == ["ab@c"]
    assert by_zbar(page) == ["+A+B%V+C"]  # the same bars, in plain Code 39
    assert slip.barcodes.good == 1


@pytest.mark.parametrize("above", [100, 105])
def test_encoded_text_of_code_128(renderer: Renderer, above: int) -> None:
    html = f"<p style='font-family: Libre Barcode 128; font-size: 40px'>{code_128('Loan 4711', above)}</p>"
    assert_scans(renderer.render(letter(html), ROLL), "Loan 4711")


def test_character_sets_of_code_128() -> None:
    codes = [105, 12, 34, 100, 33, 98, 65, 34]  # C: 12 34, then B: A, SOH by a shift to A, B
    codes.append((105 + sum(place * code for place, code in enumerate(codes[1:], 1))) % 103)
    text = "".join(chr(code + (32 if code < 95 else 100)) for code in [*codes, 106])
    assert read_code_128(text) == "1234A\x01B"
    assert read_code_128(text.replace(chr(12 + 32), chr(13 + 32))) == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Libre Barcode 39", VALUE),
        ("Libre Barcode 39", f"*{VALUE}"),
        ("Libre Barcode 39", "*äöü*"),
        ("Libre Barcode 128", VALUE),
        ("Libre Barcode 128", "ÌnonsenseÎ"),
        ("Libre Barcode EAN13 Text", "4006381333932"),
        ("Code39Azalea", "*" + "1234567890" * 60 + "*"),
    ],
)
def test_what_is_no_barcode_in_its_font_stays_readable_and_is_told(renderer: Renderer, name: str, text: str) -> None:
    slip = renderer.render(letter(f"<p>x</p><p style=\"font-family: '{name}'; font-size: 40pt\">{text}</p>"), ROLL)
    assert slip.barcodes.good == 0
    assert len(slip.barcodes.failed) == 1
    assert slip.notes[-1] == "A barcode on the slip can't be read by a scanner."
    assert text in text_of(slip.pdf).replace(" ", "") or len(text) > 100


@pytest.mark.parametrize(
    "html", ["<p style='font-family: Code39Azalea'>**</p><p>x</p>", "<p style='font-family: Code39'>"]
)
def test_nothing_in_a_barcode_font_is_nothing_to_tell(renderer: Renderer, html: str) -> None:
    slip = renderer.render(letter(f"<p>x</p>{html}"), ROLL)
    assert (slip.barcodes.good, slip.barcodes.failed, slip.notes) == (0, (), ())


@pytest.mark.parametrize(
    "html",
    [
        "<p style='font-family: Arial, Libre Barcode 39'>*TEXT*</p>",
        "<p style='font-family: Helvetica Neue LT 39'>*TEXT*</p>",
        "<style>.none { font-family: Code39Azalea }</style><p>*TEXT*</p>",
        "<p>Barcode font: 39 of 128 *TEXT*</p>",
        "<div style='font-family: Code39Azalea'><p style='font-family: Arial'>*TEXT*</p></div>",
    ],
)
def test_text_in_other_fonts_stays_text(renderer: Renderer, html: str) -> None:
    slip = renderer.render(letter(html), ROLL)
    assert "*TEXT*" in text_of(slip.pdf)
    assert (slip.barcodes.good, slip.barcodes.failed, slip.notes) == (0, (), ())


def test_rest_of_the_letter_is_what_it_was(renderer: Renderer) -> None:
    html = """<p title='a"b'>1 &lt; 2 &amp; 3 &#8211; <b>Größe</b> שלום</p><pre>  two  spaces
and &lt;b&gt;</pre><p style='font-family:Code39'>*A*</p><img src='cid:none'>"""
    text = text_of(renderer.render(letter(html), ROLL).pdf)
    for piece in ("1 < 2 & 3 – Größe", "two spaces and <b>"):
        assert piece in text
