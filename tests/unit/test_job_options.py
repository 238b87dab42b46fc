"""What CUPS is asked for with a job."""

from __future__ import annotations

from typing import Any

import pytest

from relay.config.profiles import Profile
from relay.printing.jobs import job_options


def options(
    paper: str, size: tuple[float, float] = (80, 123.456), pages: int = 1, copies: int | None = None, **settings: Any
) -> dict[str, str]:
    profile = Profile.model_validate({"name": "p", "paper": paper, "margin_mm": 4, **settings})
    return job_options(profile, size, pages, copies)


def test_a_sheet_is_named_and_a_roll_measured() -> None:
    assert options("A4", (210, 297)) == {"PageSize": "A4", "print-scaling": "none", "sides": "one-sided"}
    assert options("Legal", (215.9, 355.6))["PageSize"] == "Legal"
    assert options("80mm") == {"PageSize": "Custom.80.00x123.46mm", "print-scaling": "none"}
    assert options("4x6in", (101.6, 152.4))["PageSize"] == "Custom.101.60x152.40mm"


def test_a_landscape_page_goes_with_its_sheet_as_it_lies_in_the_tray() -> None:
    assert options("A4", (297, 210), orientation="landscape")["PageSize"] == "A4"
    turned = options("100x150mm", (150, 100), orientation="landscape")
    assert turned["PageSize"] == "Custom.100.00x150.00mm"
    assert "orientation-requested" not in turned
    assert options("150x100mm", (150, 100))["PageSize"] == "Custom.150.00x100.00mm"


@pytest.mark.parametrize(
    ("duplex", "pages", "sides"),
    [
        ("off", 2, "one-sided"),
        ("long-edge", 2, "two-sided-long-edge"),
        ("short-edge", 3, "two-sided-short-edge"),
        ("long-edge", 1, "one-sided"),
    ],
)
def test_sides(duplex: str, pages: int, sides: str) -> None:
    assert options("A4", (210, 297), pages, duplex=duplex)["sides"] == sides


def test_tray_colour_cutter_and_options_of_one_s_own() -> None:
    found = options("80mm", tray="tray-2", monochrome=True, cut="job", options={"TmxPaperCut": "CutPerJob"})
    assert found["InputSlot"] == "tray-2"
    assert found["print-color-mode"] == "monochrome"
    assert found["CutMedia"] == "EndOfJob"
    assert found["TmxPaperCut"] == "CutPerJob"
    assert options("80mm", cut="off")["CutMedia"] == "None"
    assert options("80mm", options={"PageSize": "X"})["PageSize"] == "X"


def test_copies_of_the_profile_and_of_the_slip() -> None:
    assert "copies" not in options("80mm")
    profile = Profile(name="p", paper="A4", copies=3)
    assert job_options(profile, (210, 297), 1)["copies"] == "3"
    assert job_options(profile, (210, 297), 1, copies=2)["copies"] == "2"
    assert "copies" not in job_options(profile, (210, 297), 1, copies=1)
