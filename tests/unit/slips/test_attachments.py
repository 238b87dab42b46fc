"""Attached files on paper."""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from relay.config.printers import Rendering
from relay.config.profiles import Profile
from relay.errors import RenderError
from relay.slips import attachments
from relay.slips.attachments import Room, enclose
from relay.slips.parts import Attachment
from relay.slips.pool import RenderPool
from relay.slips.render import Renderer
from relay.slips.slip import Slip
from tests.unit.slips.enclosures import file, message, pdf_of, saved, sheet_of
from tests.unit.slips.letters import colors, picture, size_of, solid, text_of

A4 = Profile(name="a4", paper="A4", margin_mm=10)
ROLL = Profile(name="r", paper="80mm", margin_mm=4, dpi=203, template="receipt.html")
RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(max_pages=6)


def page(slip: Slip, number: int, dpi: int = 50) -> Image.Image:
    command = ["pdftoppm", "-r", str(dpi), "-f", str(number), "-singlefile", "-png", "-"]
    done = subprocess.run(command, input=slip.pdf, capture_output=True, check=True)
    return Image.open(BytesIO(done.stdout)).convert("RGB")


def near(image: Image.Image, color: tuple[int, int, int]) -> tuple[float, float, float, float]:
    """The box around a colour, in millimetres."""
    channels = [
        band.point([255 if abs(value - want) < 60 else 0 for value in range(256)])
        for band, want in zip(image.split(), color, strict=True)
    ]
    mask = Image.merge("RGB", channels).convert("L").point(lambda value: 255 if value > 250 else 0)
    box = mask.getbbox()
    assert box, f"no {color} on the page"
    left, top, right, bottom = (edge * 25.4 / 50 for edge in box)
    return left, top, right, bottom


def test_pdf_is_printed_after_the_letter_inside_of_the_margins(renderer: Renderer) -> None:
    pdf = pdf_of(sheet_of("red"), sheet_of("blue"))
    slip = renderer.render(message(file(pdf, "scan.pdf", "application/pdf"), html="<p>The letter</p>"), A4)
    assert slip.pages == 3
    assert slip.notes == ()
    assert "The letter" in text_of(slip.pdf)
    left, top, right, bottom = near(page(slip, 2), RED)
    assert (left, top) == pytest.approx((10, 10), abs=1.5)
    assert right - left == pytest.approx(190 / 2, abs=2)
    assert bottom - top == pytest.approx(190 / 210 * 297 / 2, abs=2)
    assert near(page(slip, 3), BLUE)


def test_pdf_is_flattened(renderer: Renderer) -> None:
    """Nothing of an attached PDF reaches the filters of CUPS but the picture of its pages."""
    hostile = pdf_of(sheet_of("red")).replace(
        b"/Type /Catalog", b"/Type /Catalog /OpenAction << /S /JavaScript /JS (x) >>"
    )
    slip = renderer.render(message(file(hostile, "a.pdf")), A4)
    assert slip.pages == 1
    assert b"JavaScript" not in slip.pdf


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain", "image/png", "application/pdf"])
def test_type_is_found_by_looking(renderer: Renderer, kind: str) -> None:
    slip = renderer.render(message(file(pdf_of(sheet_of("red")), "x.bin", kind), html="<p>x</p>"), A4)
    assert slip.pages == 2
    assert near(page(slip, 2), RED)


def test_attachment_alone_is_the_slip(renderer: Renderer) -> None:
    for html in ("", "<html><head><title>Scan</title></head><body><p>&nbsp;</p></body></html>"):
        slip = renderer.render(message(file(pdf_of(sheet_of("red")), "scan.pdf"), html=html), A4)
        assert slip.pages == 1
        assert near(page(slip, 1), RED)


def test_single_part_message_may_be_a_file(renderer: Renderer) -> None:
    for part in (
        file(pdf_of(sheet_of("red")), "scan.pdf"),
        file(saved(sheet_of("red"), "JPEG"), "", disposition="inline"),
    ):
        slip = renderer.render(part.as_bytes(), A4)
        assert slip.pages == 1
        assert near(page(slip, 1), RED)


def test_tiff_has_all_its_pages(renderer: Renderer) -> None:
    tiff = saved(sheet_of("red", mode="1"), "TIFF", sheet_of("red", mode="1"), sheet_of("red", mode="1"))
    slip = renderer.render(message(file(tiff, "fax.tif"), html="<p>x</p>"), A4)
    assert slip.pages == 4
    left, _, right, _ = near(page(slip, 4), BLACK)
    assert right - left == pytest.approx(95, abs=2)


def test_fax_has_its_shape_though_its_dots_have_not() -> None:
    fax = BytesIO()
    Image.new("1", (1728, 1143), 0).save(fax, "TIFF", dpi=(204, 98))
    sheet = enclose([Attachment("f", "image/tiff", fax.getvalue())], Room(190, 277, 300, 5), "print").sheets[0]
    with Image.open(BytesIO(sheet.content)) as drawn:
        assert drawn.width / drawn.height == pytest.approx(sheet.width_mm / sheet.height_mm, rel=0.01)
    assert sheet.width_mm / sheet.height_mm == pytest.approx(1728 / 204 / (1143 / 98), rel=0.01)


def test_wide_page_is_turned(renderer: Renderer) -> None:
    wide = sheet_of("red", 297, 210)
    for content in (pdf_of(wide), saved(wide, "PNG")):
        slip = renderer.render(message(file(content, "wide")), A4)
        left, top, right, bottom = near(page(slip, 1), RED)
        assert size_of(slip.pdf) == pytest.approx((210, 297), abs=0.2)
        assert bottom - top == pytest.approx(190 / 210 * 297 / 2, abs=3)
        assert right - left == pytest.approx(95, abs=3)


def test_small_page_is_not_enlarged(renderer: Renderer) -> None:
    slip = renderer.render(message(file(pdf_of(sheet_of("red", 74, 105)), "a7.pdf")), A4)
    left, _, right, _ = near(page(slip, 1), RED)
    assert right - left == pytest.approx(37, abs=1.5)


def test_roll_is_one_piece_as_wide_as_it_can_be_without_the_white_around(renderer: Renderer) -> None:
    slip = renderer.render(message(file(pdf_of(sheet_of("red"), sheet_of("blue")), "s.pdf"), html="<p>x</p>"), ROLL)
    assert slip.pages == 1
    left, top, right, bottom = near(page(slip, 1), RED)
    assert right - left == pytest.approx(72, abs=4)
    assert bottom - top == pytest.approx(72 * 297 / 210, abs=5)
    assert near(page(slip, 1), BLUE)[1] > bottom
    assert slip.height_mm == pytest.approx(near(page(slip, 1), BLUE)[3] + 4, abs=6)


def test_other_files_are_named_on_the_slip(renderer: Renderer) -> None:
    parts = file(b"PK\3\4 rows", "orders.xlsx"), file(pdf_of(sheet_of("red"), password="x"), "secret.pdf")
    slip = renderer.render(message(*parts, html="<p>Letter</p>"), A4)
    assert slip.pages == 1
    printed = text_of(slip.pdf)
    assert "not printed: orders.xlsx (spreadsheet)" in printed
    assert "not printed: secret.pdf (PDF): it is protected by a password" in printed
    assert slip.notes == (
        "The attachment orders.xlsx was not printed.",
        "The attachment secret.pdf was not printed: it is protected by a password.",
    )


def test_names_of_files_are_text_and_nothing_else(renderer: Renderer) -> None:
    slip = renderer.render(message(file(b"PK\3\4", "<img src=x><b>a&amp;.zip"), html="<p>Letter</p>"), A4)
    assert "<img src=x><b>a&amp;.zip (archive)" in text_of(slip.pdf)


def test_message_with_nothing_but_a_foreign_file_is_a_notice(renderer: Renderer) -> None:
    slip = renderer.render(message(file(b"PK\3\4 rows", "orders.xlsx")), ROLL)
    assert "orders.xlsx" in text_of(slip.pdf)


@pytest.mark.parametrize(
    "content",
    [
        b"%PDF-1.7\nnothing",
        pdf_of(sheet_of("red"))[:-600],
        saved(sheet_of("red"), "PNG")[:300],
        saved(sheet_of("red"), "TIFF")[:100],
        b"\xff\xd8\xff\xe0" + bytes(50),
    ],
)
def test_broken_files_cost_a_line(renderer: Renderer, content: bytes) -> None:
    slip = renderer.render(message(file(content, "broken.bin"), html="<p>Letter</p>"), A4)
    printed = text_of(slip.pdf)
    assert "Letter" in printed
    assert "not printed: broken.bin" in printed or slip.pages == 2  # PDFium mends some
    assert slip.pages == 2 or any("broken.bin" in note for note in slip.notes)


def test_more_pages_than_there_may_be_are_a_line(renderer: Renderer) -> None:
    pages = [sheet_of("red", 40, 40)] * 7
    for content in (pdf_of(*pages), saved(pages[0], "TIFF", *pages[1:])):
        slip = renderer.render(message(file(content, "book"), html="<p>Letter</p>"), A4)
        assert slip.pages == 1
        assert "it has 7 pages" in text_of(slip.pdf)


def test_several_attachments_share_the_pages() -> None:
    four = Attachment("four", "application/pdf", pdf_of(*[sheet_of("red", 40, 40)] * 4))
    found = enclose([four, four], Room(100, 100, 100, 6), "print")
    assert len(found.sheets) == 4
    assert found.notices == ("Attached, but not printed: four (PDF): it has too many pages",)


def test_endless_roll_is_a_line() -> None:
    tall = Attachment("tall.png", "image/png", saved(Image.new("L", (100, 9000)), "PNG"))
    assert enclose([tall], Room(50, None, 203, 9), "print").notices == (
        "Attached, but not printed: tall.png (picture): it has too many pages",
    )


def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachments, "MAX_SECONDS", 0.0)
    found = enclose([Attachment("a.pdf", "application/pdf", pdf_of(sheet_of("red")))], Room(99, 99, 99, 9), "print")
    assert found.sheets == ()
    assert "it takes too long" in found.notices[0]


def test_pixels_are_bounded() -> None:
    poster = pdf_of(Image.new("L", (10, 10)).resize((2000, 2000)))
    sheet = enclose([Attachment("p", "application/pdf", poster)], Room(5000, 5000, 300, 5), "print").sheets[0]
    with Image.open(BytesIO(sheet.content)) as drawn:
        assert drawn.width * drawn.height <= attachments.MAX_PIXELS * 1.01
    huge = Attachment("h", "image/png", saved(Image.new("1", (8000, 8000)), "PNG"))
    assert enclose([huge], Room(100, 100, 300, 5), "print").notices == (
        "Attached, but not printed: h (picture): it is too large",
    )


def test_color_is_kept_only_where_there_is_some() -> None:
    room = Room(100, 100, 100, 9)
    for color, wanted, mode in (("red", room, "RGB"), ("grey", room, "L"), ("red", Room(100, 100, 100, 9, True), "L")):
        pdf = Attachment("a", "application/pdf", pdf_of(sheet_of(color)))
        with Image.open(BytesIO(enclose([pdf], wanted, "print").sheets[0].content)) as drawn:
            assert drawn.mode == mode


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pictures_of_every_mode(mode: str) -> None:
    content = saved(Image.new(mode, (40, 40)), "PNG")
    found = enclose([Attachment("a.png", "image/png", content)], Room(100, 100, 100, 9), "print")
    assert len(found.sheets) == 1


def test_only_named_when_the_profile_says_so(renderer: Renderer) -> None:
    mail = message(file(pdf_of(sheet_of("red")), "scan.pdf"), html="<p>Letter</p>")
    slip = renderer.render(mail, A4.model_copy(update={"attachments": "notice"}))
    assert slip.pages == 1
    assert "not printed: scan.pdf (PDF)" in text_of(slip.pdf)


def test_left_out_when_the_profile_says_so(renderer: Renderer) -> None:
    profile = A4.model_copy(update={"attachments": "ignore"})
    scan = file(pdf_of(sheet_of("red")), "scan.pdf")
    slip = renderer.render(message(scan, html="<p>Letter</p>"), profile)
    assert text_of(slip.pdf) == "Letter"
    assert slip.notes == ("The attachment scan.pdf was not printed.",)
    with pytest.raises(RenderError, match="this profile prints none"):
        renderer.render(message(scan), profile)


def test_pictures_that_only_the_letter_could_show_are_no_pages(renderer: Renderer) -> None:
    """Alma attaches its pictures inline with a Content-ID, also when the HTML does not use them."""
    unused = picture(solid("red", (300, 300)), "Barcode1.png", "Barcode1.png")
    slip = renderer.render(message(unused, html="<p>Letter</p>"), A4)
    assert slip.pages == 1
    assert colors(page(slip, 1)) <= {BLACK}


def test_attached_picture_is_a_page_unless_the_letter_shows_it(renderer: Renderer) -> None:
    photo = file(saved(sheet_of("red", 50, 50), "PNG"), "photo.png", "image/png")
    slip = renderer.render(message(photo, html="<p>Letter</p>"), A4)
    assert slip.pages == 2
    assert near(page(slip, 2), RED)
    shown = renderer.render(message(photo, html="<p>Letter <img src='photo.png'></p>"), A4)
    assert shown.pages == 1
    assert near(page(shown, 1), RED)


def test_styles_of_the_letter_do_not_reach_the_attachment(renderer: Renderer) -> None:
    css = "* { display: none !important; transform: rotate(9deg) } body { margin: 0 30mm }"
    css += " img { width: 3px !important; opacity: 0 }"
    css += " html, body, p, b { display: block !important }"
    html = f"<style>{css}</style><p><b>Letter</b></p>"
    slip = renderer.render(message(file(pdf_of(sheet_of("red")), "s.pdf"), html=html), A4)
    assert slip.pages == 2
    left, _, right, _ = near(page(slip, 2), RED)
    assert right - left > 50


def test_page_is_as_large_on_paper_when_the_letter_is_made_smaller(renderer: Renderer) -> None:
    html = "<table><tr>" + "<td style='white-space: nowrap'>columns of a wide table</td>" * 6 + "</tr></table>"
    slip = renderer.render(message(file(pdf_of(sheet_of("red", 105, 148)), "s.pdf"), html=html), A4)
    assert "wider than the paper" in slip.notes[0]
    left, _, right, _ = near(page(slip, slip.pages), RED)
    assert right - left == pytest.approx(52.5, abs=2)


@pytest.mark.asyncio
async def test_sandboxed_child_makes_pages_of_files_too() -> None:
    pool = RenderPool(Rendering(children=1))
    await pool.start()
    try:
        parts = file(pdf_of(sheet_of("red")), "a.pdf"), file(saved(sheet_of("blue"), "TIFF"), "b.tif")
        slip = await pool.render(message(*parts, html="<p>Letter</p>"), A4)
        assert (slip.pages, slip.notes) == (3, ())
        assert near(page(slip, 3), BLUE)
    finally:
        await pool.stop()


def test_own_template_without_the_block_is_told_of(renderer: Renderer, tmp_path: Path) -> None:
    template = tmp_path / "own.html"
    template.write_text("<html><body>{{ letter_body }}</body></html>")
    profile = A4.model_copy(update={"template": str(template)})
    assert renderer.render(message(html="<p>x</p>"), profile).pages == 1
    with pytest.raises(RenderError, match="no block `attachments`"):
        renderer.render(message(file(pdf_of(sheet_of("red")), "s.pdf"), html="<p>x</p>"), profile)
