"""Barcodes of pictures, on the page, as a scanner sees them: the whole way through the renderer."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image, ImageDraw, ImageFilter

from relay.config.printers import Rendering
from relay.config.profiles import Profile
from relay.slips import barcodes, images
from relay.slips.pool import RenderPool
from relay.slips.render import Renderer
from relay.slips.slip import Barcodes, Slip
from tests.harness import code39
from tests.unit.slips.letters import letter, picture, solid, text_of
from tests.unit.slips.scanners import bars, by_zbar, by_zxing, pages, png, symbol

ITEM, REQUEST = "31188000602306", "1235567770002561"
PAPERS: dict[str, dict[str, object]] = {
    "A4": {"paper": "A4"},
    "A5": {"paper": "A5", "margin_mm": 8.0},
    "80mm": {"paper": "80mm", "margin_mm": 4.0, "font_size_pt": 9.0, "template": "receipt.html"},
    "58mm": {"paper": "58mm", "margin_mm": 4.0, "font_size_pt": 9.0, "template": "receipt.html"},
}


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


def profile(paper: str, dpi: int, **more: object) -> Profile:
    return Profile.model_validate({"name": "p", "dpi": dpi, **PAPERS[paper], **more})


def assert_scans(slip: Slip, dpi: int, *values: str) -> list[list[int]]:
    """Both scanners read these values and no others; answers the bars of each barcode, in dots."""
    seen = list(pages(slip.pdf, dpi))
    assert sorted(value for page in seen for value in by_zxing(page)) == sorted(values)
    # zbar tells the same value on one page once.
    assert {value for page in seen for value in by_zbar(page)} == set(values)
    assert (slip.barcodes.good, slip.barcodes.failed) == (len(values), ())
    return [runs for page in seen for _, runs, _ in bars(page)]


def assert_whole_dots(runs: list[int], least: int = 2) -> None:
    """Bars of Code 39: narrow ones and wide ones, each all of one width."""
    narrow, wide = sorted(set(runs))
    assert narrow >= least
    assert 2 * narrow <= wide <= 3 * narrow


@pytest.mark.parametrize("dpi", [203, 300, 600])
@pytest.mark.parametrize("paper", ["A4", "A5", "80mm"])
def test_barcodes_of_alma_have_whole_dots_and_scan(renderer: Renderer, paper: str, dpi: int) -> None:
    html = (
        "<p>Request</p><img src='cid:r.png'><p>Item</p><table><tr><td>No.</td><td><img src='i.png'></td></tr></table>"
    )
    message = letter(html, picture(code39.png(REQUEST), "r.png"), picture(code39.png(ITEM), name="i.png"))
    slip = renderer.render(message, profile(paper, dpi))
    found = assert_scans(slip, dpi, REQUEST, ITEM)
    assert len(found) == 2
    for runs in found:
        assert_whole_dots(runs, least=2 if dpi < 600 else 4)


@pytest.mark.parametrize("dpi", [203, 300])
def test_barcode_has_its_quiet_zone_beside_ink(renderer: Renderer, dpi: int) -> None:
    html = "<style>td{background:#000}</style><table cellpadding=0><tr><td>x</td><td><img src='cid:b'><td>x</table>"
    slip = renderer.render(letter(html, picture(code39.png("QUIET"), "b")), profile("A4", dpi))
    page = next(pages(slip.pdf, dpi))
    assert by_zxing(page) == by_zbar(page) == ["QUIET"]
    ((left, runs, right),) = bars(page)
    assert left >= 10 * min(runs)
    assert right >= 10 * min(runs)
    assert left < 20 * min(runs), "the black cell is not where the test thinks"


def test_barcode_is_nearest_to_the_size_that_the_letter_means(renderer: Renderer) -> None:
    def narrow(attributes: str) -> int:
        html = f"<img src='cid:b' {attributes}>"
        slip = renderer.render(letter(html, picture(code39.png("12345678"), "b")), profile("A4", 600))
        return min(assert_scans(slip, 600, "12345678")[0])

    assert narrow("") == 4  # 150 dpi on 600
    assert narrow("width=300") == round(300 / 96 * 600 / len(code39.modules("12345678")))
    assert narrow("style='width: 7cm'") == round(7 / 2.54 * 600 / len(code39.modules("12345678")))
    assert narrow("height=10") == 4  # the least that scans


@pytest.mark.parametrize(
    "attributes",
    [
        "width=90",
        "width=90 height=12",
        "width='20%'",
        "height=300",
        "style='width:1000px; height:20px'",
        "style='max-width:50px; transform: rotate(3deg)'",
        "style='opacity:.4; padding:3px; border:5px solid; box-sizing:border-box'",
        "class=x",
        "class=x width=55 style='image-rendering: auto; object-fit: cover; min-width: 0'",
    ],
)
@pytest.mark.parametrize("paper", ["A4", "80mm"])
def test_letter_can_not_distort_a_barcode(renderer: Renderer, attributes: str, paper: str) -> None:
    css = "<style>.x, img {width: 37px !important; height: 9px !important; max-width: 20px !important}</style>"
    html = f"{css if 'class' in attributes else ''}<div><img {attributes} src='cid:b'></div>"
    slip = renderer.render(letter(html, picture(code39.png(ITEM), "b")), profile(paper, 203))
    (runs,) = assert_scans(slip, 203, ITEM)
    assert_whole_dots(runs)


@pytest.mark.parametrize(
    "html",
    [
        "<table width=100%><tr><td width=40><img src='cid:b'></td><td>words and words</td></tr></table>",
        "<table style='table-layout:fixed;width:100%'><tr><td><img src='cid:b'></td>"
        + "<td bgcolor='#000000' width='80%'>x</td></tr></table>",
        "<div style='width:100px; overflow:hidden'><img src='cid:b'></div>",
        "<div style='transform:scale(.3)'><img src='cid:b'></div>",
        "<div style='opacity:.2'><img src='cid:b'></div>",
        "<p style='white-space:nowrap'>" + "long words " * 11 + "</p><img src='cid:b'>",
        "<table width=1400><tr><td>left</td><td><img src='cid:b'></td><td>right</td></tr></table>",
        "<ul><li><p style='margin-left:60px'><img src='cid:b'></p></li></ul>",
    ],
)
@pytest.mark.parametrize(("paper", "dpi"), [("A4", 300), ("80mm", 203)])
def test_narrow_places_and_wide_letters(renderer: Renderer, html: str, paper: str, dpi: int) -> None:
    slip = renderer.render(letter(f"<p>Slip</p>{html}", picture(code39.png(ITEM), "b")), profile(paper, dpi))
    (runs,) = assert_scans(slip, dpi, ITEM)
    assert_whole_dots(runs)


def test_two_barcodes_beside_each_other_are_stacked_on_a_roll(renderer: Renderer) -> None:
    html = "<table width=100%><tr><td><img src='cid:a'></td><td>and</td><td><img src='cid:b'></td></tr></table>"
    message = letter(html, picture(code39.png(ITEM), "a"), picture(code39.png(REQUEST), "b"))
    slip = renderer.render(message, profile("80mm", 203))
    found = assert_scans(slip, 203, ITEM, REQUEST)
    assert len(found) == 2
    assert slip.notes == ()


def test_one_picture_in_two_places_is_two_barcodes(renderer: Renderer) -> None:
    html = "<img src='cid:b'><p>and</p><img src='b' width=350><p style='break-before:page'><img src='cid:b'>"
    slip = renderer.render(letter(html, picture(code39.png("TWICE"), "b")), profile("A4", 300))
    assert_scans(slip, 300, "TWICE", "TWICE", "TWICE")


def test_too_wide_for_the_paper_is_told(renderer: Renderer) -> None:
    html = f"<p>Before</p><img src='cid:b'><p>{REQUEST}</p>"
    slip = renderer.render(letter(html, picture(code39.png(REQUEST), "b")), profile("58mm", 203))
    assert slip.barcodes.good == 0
    assert len(slip.barcodes.failed) == 1
    assert "does not fit" in slip.barcodes.failed[0]
    assert slip.notes == ("A barcode on the slip can't be read by a scanner.",)
    assert text_of(slip.pdf) == f"Before {REQUEST}"


def test_too_wide_for_the_paper_becomes_code_128_where_that_is_allowed(renderer: Renderer) -> None:
    message = letter("<img src='cid:b'>", picture(code39.png(REQUEST), "b"))
    slip = renderer.render(message, profile("58mm", 203, barcodes="narrower"))
    (runs,) = assert_scans(slip, 203, REQUEST)
    assert set(runs) <= {2, 4, 6, 8}
    wide = renderer.render(message, profile("80mm", 203, barcodes="narrower"))
    assert_whole_dots(assert_scans(wide, 203, REQUEST)[0])


@pytest.mark.parametrize("dpi", [203, 300])
@pytest.mark.parametrize(
    ("value", "kind", "pixels"),
    [
        ("12345678", "ITF", 1),
        ("4006381333931", "EAN13", 2),
        ("96385074", "EAN8", 1),
        ("Loan 12345", "Code128", 1),
        ("20260001234567", "Code128", 2),
        ("A31188B", "Codabar", 1),
        ("SHELF 7", "Code93", 1),
        ("https://example.edu/i/31188", "QRCode", 2),
    ],
)
def test_other_symbologies(renderer: Renderer, value: str, kind: str, pixels: int, dpi: int) -> None:
    message = letter("<p>x</p><img width=120 src='cid:b'>", picture(png(symbol(value, kind, pixels)), "b"))
    slip = renderer.render(message, profile("80mm", dpi))
    found = assert_scans(slip, dpi, value)
    if kind != "QRCode":
        assert min(found[0]) >= 2


def test_matrix_without_zbar(renderer: Renderer) -> None:
    message = letter("<img src='cid:b'>", picture(png(symbol("31188000602306", "DataMatrix", 3)), "b"))
    slip = renderer.render(message, profile("80mm", 203))
    assert by_zxing(next(pages(slip.pdf, 203))) == ["31188000602306"]
    assert slip.barcodes.good == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("paper", "dpi"), [("A4", 300), ("80mm", 203)])
def test_smoothed_sources_are_drawn_anew(renderer: Renderer, kind: str, paper: str, dpi: int) -> None:
    source = Image.open(BytesIO(code39.png("AB-1234"))).convert("L")
    smooth = source.resize((source.width * 5 // 2, 200), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(0.6))
    slip = renderer.render(letter("<img src='cid:b'>", picture(png(smooth, None, kind), "b")), profile(paper, dpi))
    (runs,) = assert_scans(slip, dpi, "AB-1234")
    assert_whole_dots(runs)


def test_barcode_on_its_side_scans(renderer: Renderer) -> None:
    source = symbol("SIDEWAYS", "Code128").transpose(Image.Transpose.ROTATE_90)
    slip = renderer.render(letter("<img src='cid:b'>", picture(png(source), "b")), profile("A4", 300))
    assert_scans(slip, 300, "SIDEWAYS")


def test_what_the_picture_says_below_its_bars_stays(renderer: Renderer) -> None:
    message = letter("<img src='cid:b'>", picture(code39.png("12345678"), "b"))
    page = next(pages(renderer.render(message, profile("A4", 300)).pdf, 300))
    left, top, right, bottom = page.point(lambda value: 255 - value).getbbox() or (0, 0, 0, 0)
    with_bars = [y for y in range(top, bottom) if page.crop((left, y, left + 4, y + 1)).getextrema()[0] == 0]
    below = page.crop((left, with_bars[-1] + 1, right, bottom)).point(lambda value: 255 - value)
    assert bottom - with_bars[-1] > 1.5 / 25.4 * 300
    box = below.getbbox()
    assert box is not None
    assert abs((box[0] + box[2]) / 2 - below.width / 2) < below.width * 0.05


def test_bars_are_at_least_8_mm_high(renderer: Renderer) -> None:
    message = letter("<img height=12 src='cid:b'>", picture(code39.png("12345678"), "b"))
    page = next(pages(renderer.render(message, profile("A4", 300)).pdf, 300))
    left, top, _, bottom = page.point(lambda value: 255 - value).getbbox() or (0, 0, 0, 0)
    with_bars = [y for y in range(top, bottom) if page.crop((left, y, left + 4, y + 1)).getextrema()[0] == 0]
    assert len(with_bars) >= 8 / 25.4 * 300 - 1


def damaged() -> bytes:
    source = Image.open(BytesIO(code39.png(ITEM)))
    ImageDraw.Draw(source).rectangle((60, 0, 110, 104), fill=1)
    return png(source)


def test_barcode_that_does_not_read_in_the_letter_is_told(renderer: Renderer) -> None:
    slip = renderer.render(letter("<p>x</p><img src='cid:b'>", picture(damaged(), "b")), profile("A4", 300))
    assert slip.barcodes.good == 0
    assert slip.barcodes.failed == ("the picture in the letter does not read",)
    assert slip.notes == ("A barcode on the slip can't be read by a scanner.",)


def test_barcode_that_is_covered_is_told_and_marked_by_choice(renderer: Renderer) -> None:
    html = """<p>x</p><img src='cid:a' style='display:block'><p>y</p><div style='position:relative'><img src='cid:b'>
    <div style='position:absolute;left:30px;top:0;background:#111;width:50px;height:500px'></div></div>"""
    message = letter(html, picture(code39.png("GOOD"), "a"), picture(code39.png("COVERED"), "b"))
    slip = renderer.render(message, profile("A4", 300))
    assert slip.barcodes == Barcodes(1, ("Code39 does not read on the page",))
    assert "scanned" not in text_of(slip.pdf)
    marked = renderer.render(message, profile("A4", 300, mark_barcodes=True))
    assert marked.barcodes == slip.barcodes
    assert text_of(marked.pdf).count("Barcode can't be scanned") == 1


def test_several_failures_are_one_note(renderer: Renderer) -> None:
    html = "<p>x</p><img src='cid:b'><br><img src='cid:c'>"
    slip = renderer.render(letter(html, picture(damaged(), "b"), picture(damaged(), "c")), profile("A4", 300))
    assert slip.notes == ("2 barcodes on the slip can't be read by a scanner.",)


@pytest.mark.parametrize(
    "content",
    [
        solid("black", (200, 60)),
        solid("red", (200, 60), "JPEG"),
        png(Image.effect_noise((300, 120), 90).convert("1")),
        png(Image.effect_noise((300, 120), 90)),
        png(Image.linear_gradient("L")),
    ],
    ids=["black", "red", "noise", "grey noise", "gradient"],
)
def test_picture_of_something_else_is_no_barcode(renderer: Renderer, content: bytes) -> None:
    slip = renderer.render(letter("<p>x</p><img src='cid:b'>", picture(content, "b")), profile("A4", 300))
    assert (slip.barcodes.good, slip.barcodes.failed, slip.notes) == (0, (), ())


def test_hidden_and_unused_pictures_do_not_count(renderer: Renderer) -> None:
    html = "<p>x</p><img src='cid:a' style='display:none'><img src='cid:b' style='visibility:hidden'>"
    parts = [picture(code39.png(value), name) for value, name in (("A1", "a"), ("B2", "b"), ("C3", "c"))]
    slip = renderer.render(letter(html, *parts), profile("A4", 300))
    assert (slip.barcodes.good, slip.barcodes.failed) == (0, ())


def test_there_are_bounds_and_what_is_beyond_them_is_told(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barcodes, "MAX_DRAWINGS", 12)
    monkeypatch.setattr(barcodes, "MAX_READ", 20)
    wide, tall = Image.new("1", (20_000, 60), 1), Image.new("1", (90, 20_000), 1)
    wide.paste(symbol("LONG", "Code128"), (9000, 0))
    tall.paste(symbol("TALL", "Code128", height=30), (3, 30))
    html = "<img src='cid:w' width=900><img src='cid:t' height=900>"
    html += "".join(f"<img src='cid:b' width={width}>" for width in range(1, 31))
    parts = picture(png(wide), "w"), picture(png(tall), "t"), picture(code39.png("MANY"), "b")
    slip = renderer.render(letter(html, *parts), profile("A4", 600))
    assert slip.barcodes.good + len(slip.barcodes.failed) == 32
    assert 10 <= slip.barcodes.good <= 20
    assert "is one of more than are read again" in slip.barcodes.failed


def test_noise_is_searched_up_to_a_bound(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_SEARCHED", 150_000)
    noise = [picture(png(Image.effect_noise((300, 300), 90).convert("1")), f"n{n}") for n in range(4)]
    grey = picture(png(symbol("GREY", "Code128", 3).convert("L").filter(ImageFilter.GaussianBlur(1))), "grey")
    clean = picture(code39.png("CLEAN"), "clean")
    html = (
        "".join(f"<img src='cid:n{n}' width=60>" for n in range(4)) + "<p><img src='cid:grey'><p><img src='cid:clean'>"
    )
    assert renderer.render(letter(html, grey, clean), profile("A4", 300)).barcodes.good == 2
    assert renderer.render(letter(html, *noise, grey, clean), profile("A4", 300)).barcodes == Barcodes(1)


def test_values_are_in_no_note_and_no_reason(renderer: Renderer) -> None:
    message = letter(f"<p>{REQUEST}</p><img src='cid:b'>", picture(code39.png(REQUEST), "b"))
    slip = renderer.render(message, profile("58mm", 203, mark_barcodes=True))
    assert slip.barcodes.failed
    assert REQUEST not in " ".join((*slip.notes, *slip.barcodes.failed))


@pytest.mark.asyncio
async def test_barcodes_are_read_in_the_sandbox_and_told_to_the_service() -> None:
    pool = RenderPool(Rendering(children=1))
    await pool.start()
    try:
        html = "<p>x</p><img src='cid:a'><br><img src='cid:b'><p style='font-family:Code39Azalea'>*FONT*</p>"
        message = letter(html, picture(code39.png(ITEM), "a"), picture(damaged(), "b"))
        slip = await pool.render(message, profile("80mm", 203))
    finally:
        await pool.stop()
    assert slip.barcodes.good == 2
    assert slip.barcodes.failed == ("the picture in the letter does not read",)
