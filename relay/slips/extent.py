"""How far the ink goes on a page that WeasyPrint has laid out.

Does: walks the boxes of a page and answers the rectangle around what leaves a mark: text, pictures, borders, and
backgrounds that are not white.
Promises: in CSS pixels from the top left corner of the page; empty pages have an extent of nothing at the margins.
Known limits: reads WeasyPrint's box tree, which is not a public interface: a new release is tried by the tests.
Transformed boxes are measured where they stood before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from weasyprint.document import Page as LaidOut
from weasyprint.draw.color import get_color
from weasyprint.formatting_structure import boxes

NEARLY_WHITE = 0.98
# Text that mail pushes far off the screen (`left: -9999px`) is meant to be hidden.
HIDDEN_LEFT, HIDDEN_RIGHT = -1000.0, 6000.0

Rectangle = tuple[float, float, float, float]
EVERYWHERE: Rectangle = (-math.inf, -math.inf, math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Extent:
    """The rectangle around the ink, and the one it should stay in sideways."""

    left: float
    right: float
    bottom: float
    content_left: float
    content_right: float
    content_top: float
    is_blank: bool
    "Whether there is no ink but that of our own header, footer and code (elements named relay-...)."

    @property
    def spread(self) -> float:
        """How many times the width of the page's content the ink takes: 1 when it stays inside."""
        inside = max(1.0, self.content_right - self.content_left)
        return max(1.0, (max(self.right, self.content_right) - min(self.left, self.content_left)) / inside)


def extent(page: LaidOut) -> Extent:
    """The extent of the ink on a page."""
    root: Any = page._page_box
    left, top = root.content_box_x(), root.content_box_y()
    right = left + root.width
    found_left, found_right, bottom, is_blank = right, left, top, True
    waiting = [(child, EVERYWHERE) for child in root.children if not isinstance(child, boxes.MarginBox)]
    while waiting:
        box, seen = waiting.pop()
        if box.style["visibility"] == "visible" and _leaves_a_mark(box):
            x, y, end, low = _within(_rectangle(box), seen)
            if end > x and low > y and end > HIDDEN_LEFT and x < HIDDEN_RIGHT:
                found_left, found_right, bottom = min(found_left, x), max(found_right, end), max(bottom, low)
                is_blank = is_blank and (box.element_tag or "").startswith("relay-")
        if isinstance(box, boxes.ParentBox):
            if box.style["overflow"] != "visible" and _is_fixed_size(box):
                seen = _within(_rectangle(box), seen)
            waiting.extend((child, seen) for child in box.children)
    return Extent(min(found_left, found_right), found_right, bottom, left, right, top, is_blank)


def drawn_text(page: LaidOut) -> str:
    """The text of a page that can be seen, in the order of the boxes, without spaces between them."""
    root: Any = page._page_box
    return "".join(
        box.text
        for box in root.descendants()
        if isinstance(box, boxes.TextBox) and box.style["visibility"] == "visible"
    )


def _rectangle(box: Any) -> Rectangle:
    """Left, top, right and bottom."""
    if isinstance(box, boxes.TextBox):
        # Spaces at the end of a line hang over it and leave no mark; the glyphs' own width is not known here.
        return box.position_x, box.position_y, box.position_x + box.width, box.position_y + box.height
    x, y = box.border_box_x(), box.border_box_y()
    return x, y, x + box.border_width(), y + box.border_height()


def _within(box: Rectangle, seen: Rectangle) -> Rectangle:
    return max(box[0], seen[0]), max(box[1], seen[1]), min(box[2], seen[2]), min(box[3], seen[3])


def _leaves_a_mark(box: Any) -> bool:
    if isinstance(box, boxes.TextBox):
        return bool(box.text.strip())
    if isinstance(box, boxes.ReplacedBox):
        return True
    if isinstance(box, boxes.LineBox) or box.is_for_root_element or box.element_tag in ("body", "html"):
        return False
    if any(getattr(box, f"border_{side}_width", 0) for side in ("top", "right", "bottom", "left")):
        return True
    color: Any = get_color(box.style, "background_color")
    return bool(color.alpha > 0 and min(color.to("srgb")[:3]) < NEARLY_WHITE)


def _is_fixed_size(box: Any) -> bool:
    style = box.style
    return bool(style["height"] != "auto" or style["width"] != "auto" or style["max_height"] != "none")
