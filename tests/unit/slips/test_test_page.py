"""The test page measures what it says it measures."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from relay.config.profiles import BUILT_IN_PROFILES, Profile
from relay.slips.page import Page
from relay.slips.render import Renderer
from relay.slips.slip import Slip
from relay.slips.test_page import FONTS, write_test_page
from tests.unit.slips import scanners
from tests.unit.slips.letters import raster, text_of, words_of

AT = datetime(2026, 11, 25, 18, 30, tzinfo=UTC)
SHEET = Profile(name="sheet", paper="A5", margin_mm=(10, 12, 14, 16))


def printed(profile: Profile) -> Slip:
    """The test page as the printer gets it."""
    message = write_test_page(profile, printer="main-desk", queue="main_desk", at=AT)
    return Renderer().render(message, profile)


def ticks(row: bytes, dpi: int) -> list[float]:
    """Where black begins along a line of dots, in millimetres."""
    starts = [n for n in range(1, len(row)) if row[n] < 128 <= row[n - 1]]
    return [start * 25.4 / dpi for start in starts]


@pytest.mark.parametrize("profile", BUILT_IN_PROFILES, ids=lambda profile: profile.name)
def test_it_fits_one_page_of_each_profile_and_all_of_it_is_good(profile: Profile) -> None:
    slip = printed(profile)
    assert slip.pages == 1
    assert slip.notes == ()
    assert slip.barcodes.failed == ()
    assert slip.barcodes.good >= 3
    text = text_of(slip.pdf)
    for said in (
        "Test page of",
        "main_desk",
        profile.name,
        profile.paper,
        f"{profile.dpi} dpi",
        "2026-11-25",
        "18:30:00",
    ):
        assert said in text
    assert all(script in text for script, _ in FONTS)


@pytest.mark.parametrize("scale", [100, 80, 130])
def test_a_millimetre_on_the_rulers_is_one_on_paper_at_any_scale(scale: float) -> None:
    dpi = 600
    profile = SHEET.model_copy(update={"scale_percent": scale})
    page = raster(printed(profile).pdf, dpi).convert("L")
    left, top = profile.margins.left, profile.margins.top
    width, height = Page.of(profile, 1.0).content_mm

    def line(x: float, y: float, across: float, down: float) -> bytes:
        """One line of dots, below the frame's edge and short of where the two rulers cross."""
        start = round(x * dpi / 25.4), round(y * dpi / 25.4)
        size = max(1, round(across * dpi / 25.4)), max(1, round(down * dpi / 25.4))
        return page.crop((*start, start[0] + size[0], start[1] + size[1])).tobytes()

    across = ticks(line(left + 0.5, top + 0.6, width - 1.2, 0), dpi)
    down = ticks(line(left + 0.6, top + 0.5, 0, height - 1.2), dpi)
    assert [mm + 0.5 for mm in across] == pytest.approx(list(range(1, int(width))), abs=0.1)
    assert [mm + 0.5 for mm in down] == pytest.approx(list(range(1, int(height))), abs=0.1)


def test_the_frame_stands_on_the_margins() -> None:
    dpi = 300
    image = raster(printed(SHEET).pdf, dpi).convert("L").point(lambda value: 255 if value < 128 else 0)
    box = image.getbbox()
    assert box is not None
    left, top, right, bottom = (edge * 25.4 / dpi for edge in box)
    assert (left, top) == pytest.approx((16, 10), abs=0.15)
    assert (148 - right, 210 - bottom) == pytest.approx((12, 14), abs=0.6)


@pytest.mark.parametrize("profile", BUILT_IN_PROFILES, ids=lambda profile: profile.name)
def test_barcodes_have_the_dots_that_stand_above_them(profile: Profile) -> None:
    slip = printed(profile)
    page = next(iter(scanners.pages(slip.pdf, profile.dpi)))
    narrowest = sorted(min(widths) for _, widths, _ in scanners.bars(page))
    words = [word.text for word in words_of(slip.pdf)]
    told = sorted(int(words[n - 1]) for n, word in enumerate(words) if word == "dots:")
    assert narrowest == told
    assert {"SR39", "SR128"} == set(scanners.by_zbar(page))


def test_a_roll_prints_no_frame_longer_than_its_content() -> None:
    profile = next(profile for profile in BUILT_IN_PROFILES if profile.name == "receipt80")
    assert 100 < printed(profile).height_mm < 250
