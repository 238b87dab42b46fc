"""Computed styles of a letter, changed before anything is laid out.

Does: enlarges text that would come out too small to read; lets tables, and other boxes that are made wider than the
paper, be as wide as the paper (WeasyPrint does not keep tables to their `max-width`).
Promises: it does not matter how a letter says a size (px, em, <font size=1>, an attribute, a rule), since computed
values are looked at; what inherits from a size inherits the changed one. Text up to HIDDEN_PX stays hidden.
Known limits: reads WeasyPrint's styles, which are not a public interface: a new release is tried by the tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from weasyprint.css.properties import Dimension

HIDDEN_PX = 2.0
"""Text up to this size is meant not to be seen, and stays so."""
FULL = Dimension(100, "%")


def adjust(styles: Iterable[Any], least: float, widest: float) -> None:
    """Change the styles of all elements, parents first: no text under `least`, no box over `widest` CSS pixels."""
    seen: set[int] = set()  # elements that are alike share one style
    for style in styles:
        if id(style) not in seen:
            seen.add(id(style))
            _enlarge(style, least)
            _narrow(style, widest)


def _enlarge(style: Any, least: float) -> None:
    if not HIDDEN_PX < style["font_size"] < least:
        return
    style["font_size"] = least
    height = style["line_height"]
    if not isinstance(height, (int, float, str)) and height.value < least:
        style["line_height"] = "normal"  # a fixed height that was made for the smaller text


def _narrow(style: Any, widest: float) -> None:
    if _is_over(style["width"], widest):
        # A cell of that width would push the table out, so it is as wide as what is in it.
        style["width"] = "auto" if "table-cell" in style["display"] else FULL
    if style["width"] == FULL:
        style["box_sizing"] = "border-box"  # padding and border would stand out of the paper on any paper
    if _is_over(style["min_width"], widest):
        style["min_width"] = Dimension(0, "px")


def _is_over(length: Any, widest: float) -> bool:
    return isinstance(length, Dimension) and length.unit == "px" and length.value > widest
