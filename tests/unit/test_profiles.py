"""Printer profiles: papers, margins, and what is said about nonsense."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from relay.config.kinds import paper_size
from relay.config.profiles import BUILT_IN_PROFILES, Profile, Sides


def profile(paper: str, **settings: Any) -> Profile:
    return Profile.model_validate({"name": "p", "paper": paper, **settings})


@pytest.mark.parametrize(
    ("paper", "size"),
    [
        ("A6", (105, 148)),
        ("Legal", (215.9, 355.6)),
        ("100x150mm", (100, 150)),
        ("4x6in", (101.6, 152.4)),
        ("58mm", (58, None)),
        ("79.5mm", (79.5, None)),
        ("3in", (76.2, None)),
    ],
)
def test_papers(paper: str, size: tuple[float, float | None]) -> None:
    assert paper_size(paper) == pytest.approx(size)


@pytest.mark.parametrize("paper", ["A9", "a4", "80", "0mm", "10mm", "80mmx", "-80mm", "9000x9000mm", "2000in", ""])
def test_a_paper_that_is_none_is_refused(paper: str) -> None:
    with pytest.raises(ValidationError, match="a paper is"):
        profile(paper)


@pytest.mark.parametrize(
    ("settings", "margins"),
    [
        ({"paper": "80mm", "margin_mm": 0}, Sides(0, 4, 0, 4)),
        ({"paper": "80mm", "margin_mm": 6}, Sides(6, 6, 6, 6)),
        ({"paper": "58mm", "margin_mm": 3}, Sides(3, 5, 3, 5)),
        ({"paper": "58mm", "margin_mm": 3, "printable_width_mm": 50}, Sides(3, 4, 3, 4)),
        ({"paper": "70mm", "margin_mm": 2}, Sides(2, 2, 2, 2)),
        ({"paper": "A4", "margin_mm": [1, 2, 3, 4]}, Sides(1, 2, 3, 4)),
        ({"paper": "100x150mm", "margin_mm": 0, "printable_width_mm": 96}, Sides(0, 2, 0, 2)),
        (
            {"paper": "100x150mm", "margin_mm": 0, "printable_width_mm": 96, "orientation": "landscape"},
            Sides(2, 0, 2, 0),
        ),
    ],
)
def test_margins_stay_inside_what_the_head_reaches(settings: dict[str, Any], margins: Sides) -> None:
    assert Profile.model_validate({"name": "p", **settings}).margins == margins


def test_landscape_turns_what_is_higher_than_wide() -> None:
    assert profile("A5", orientation="landscape").page_size == (210, 148)
    assert profile("150x100mm", orientation="landscape").page_size == (150, 100)
    assert profile("A5").page_size == (148, 210)


def test_built_in_profiles() -> None:
    found = {
        each.name: (each.paper, each.page_size[0] - each.margins.left - each.margins.right)
        for each in BUILT_IN_PROFILES
    }
    assert found == {
        "a4": ("A4", 186),
        "a5": ("A5", 132),
        "letter": ("Letter", pytest.approx(191.9)),
        "receipt80": ("80mm", 72),
        "receipt58": ("58mm", 48),
        "label": ("100x150mm", 92),
    }


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"margin_mm": [1, 2]}, "margin_mm"),
        ({"margin_mm": 101}, "less than or equal to 100"),
        ({"paper": "A5", "margin_mm": 100}, "margins of 100 mm leave no room on A5"),
        ({"margin_mm": [90, 0, 200, 0]}, "less than or equal to 100"),
        ({"paper": "A6", "margin_mm": [70, 0, 70, 0]}, "margins of 70, 0, 70, 0 mm leave no room on A6"),
        ({"printable_width_mm": 300}, "the printable width is more than the 210 mm of the paper"),
        ({"paper": "80mm", "printable_width_mm": 15, "margin_mm": 36}, "leave no room"),
        ({"paper": "80mm", "orientation": "landscape"}, "a roll has no orientation"),
        ({"paper": "80mm", "duplex": "long-edge"}, "a roll has one side"),
        ({"cut": "job"}, "only a roll is cut"),
        ({"cut": "page"}, "'job' or 'off'"),
        ({"scale_percent": 10}, "greater than or equal to 30"),
        ({"copies": 0}, "greater than or equal to 1"),
        ({"font_family": ""}, "at least 1 character"),
        ({"tray": "tray 2"}, "match pattern"),
        ({"header": "{dsk}"}, "there is no {dsk}; there are: {desk}, {institution}"),
        ({"footer": "{desk"}, "braces stand around a word"),
        ({"footer": "{}"}, "there is no {}"),
        ({"footer": "a|b|c|d"}, "at most three parts"),
        ({"stylesheet": "/nowhere/x.css"}, "the file /nowhere/x.css does not exist"),
        ({"options": {"two words": "x"}}, "'two words' is no option"),
        ({"options": {"x": "a\nb"}}, "'x' is no option"),
        ({"big": {"select": ""}}, "at least 1 character"),
        ({"big": {"label": "x"}}, "big.select"),
        ({"big": {"select": "p", "size_pt": 1000}}, "less than or equal to 200"),
        ({"min_font_size_pt": 72}, "less than or equal to 36"),
    ],
)
def test_nonsense_is_refused_in_plain_words(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Profile.model_validate({"name": "p", "paper": "A4", **settings})
    assert complaint in str(caught.value)


def test_a_profile_travels_as_json() -> None:
    for each in (*BUILT_IN_PROFILES, profile("A4", margin_mm=[1, 2, 3, 4], big={"select": "p"}, options={"a": "b"})):
        assert Profile.model_validate(each.model_dump(mode="json")) == each
