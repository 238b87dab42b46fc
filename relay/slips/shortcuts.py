"""Styles that nobody set, found by a shorter way: a sixth of the time a slip takes.

Does: puts a test before functions of WeasyPrint that are called thousands of times for a slip. A property that no
rule sets has its parent's or its initial value, and initial values are filled in at once; a length in pixels or `auto`
is its own used value; a page whose margins say nothing has no boxes in them.
Promises: the same values. Whatever is declared, special or not simple goes WeasyPrint's own way.
Refuses: to touch a WeasyPrint that is built differently; `install` says so.
Known limits: knows the functions by name and relies on what WeasyPrint 70 does in them; the tests compare both
ways, property by property.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import weasyprint.css as styles
import weasyprint.layout as layout
from weasyprint.layout import percent

# Their computed values depend on one another, or on their ancestors in a way of their own.
_SPECIAL = frozenset(("display", "float", "page", "position"))
_ALSO_SPECIAL = "text_decoration_"
_FLOW = ("position", "float")
# A line that has no style has no width, and none has a style that nobody sets.
_LINES = {f"border_{side}_style": f"border_{side}_width" for side in ("top", "right", "bottom", "left")} | {
    f"{kind}_style": f"{kind}_width" for kind in ("outline", "column_rule")
}
_IN_MARGINS = (
    *(f"@{side}-{place}" for side in ("top", "bottom") for place in ("left", "center", "right")),
    *(f"@{side}-{place}" for side in ("left", "right") for place in ("top", "middle", "bottom")),
    *(f"@{side}-{place}-corner" for side in ("top", "bottom") for place in ("left", "right")),
)


def install() -> bool:
    """Whether the shorter ways are in use now; False when this release has other names for what they rely on."""
    try:
        if not hasattr(styles.ComputedStyle.__missing__, "long_way"):
            styles.ComputedStyle.__missing__ = _undeclared(styles.ComputedStyle.__missing__)
        if not hasattr(percent.resolve_one_percentage, "long_way"):
            percent.resolve_one_percentage = _plain_length(percent.resolve_one_percentage)
        if not hasattr(layout.make_margin_boxes, "long_way"):
            layout.make_margin_boxes = _only_with_content(layout.make_margin_boxes)
        for kind in (styles.ComputedStyle, styles.AnonymousStyle):
            if not hasattr(kind.__init__, "long_way"):
                kind.__init__ = _filled_in(kind.__init__)
    except (AttributeError, TypeError):
        return False
    return True


def _logical() -> frozenset[str]:
    """The names (block-size and such) by which width, margin-left and others may be set as well."""
    functions = styles.PHYSICAL_FUNCTIONS.values()
    return frozenset(function(block="ttb", inline=inline) for function in functions for inline in ("ltr", "rtl"))


def _ordinary() -> list[str]:
    return [name for name in styles.INITIAL_VALUES if name not in _SPECIAL and not name.startswith(_ALSO_SPECIAL)]


def _initial() -> dict[str, Any]:
    """The values of properties that are not inherited and not computed, when nobody sets them."""
    excepted = styles.INHERITED | styles.INITIAL_NOT_COMPUTED
    return {name: styles.INITIAL_VALUES[name] for name in _ordinary() if name not in excepted}


def _filled_in(long_way: Any) -> Any:
    initial, logical = _initial() | dict.fromkeys(_LINES.values(), 0), _logical()

    def fill_in(self: Any, *arguments: Any) -> None:
        self.update(initial)
        long_way(self, *arguments)
        declared = getattr(self, "cascaded", ())
        if declared and not logical.isdisjoint(declared):
            self.clear()
        for name in declared:
            self.pop(name, None)
            if name in _LINES:
                self.pop(_LINES[name], None)

    fill_in.long_way = long_way  # type: ignore[attr-defined]
    return fill_in


def _undeclared(long_way: Any) -> Any:
    physical, logical, initial = styles.PHYSICAL_FUNCTIONS, _logical(), _initial()
    inherited = frozenset(name for name in _ordinary() if name in styles.INHERITED)
    # Text decorations are not inherited, but go on to what is inside.
    inherited |= frozenset(name for name in styles.INITIAL_VALUES if name.startswith(_ALSO_SPECIAL))

    def missing(self: Any, key: str) -> Any:
        declared = self.cascaded
        if key not in declared and (key not in physical or logical.isdisjoint(declared)):
            if key in initial:
                value = self[key] = initial[key]
                return value
            if key in inherited and self.parent_style is not None:
                value = self[key] = self.parent_style[key]
                return value
            if key in _SPECIAL and _find_special(self, key, declared):
                return self[key]
        return long_way(self, key)

    missing.long_way = long_way  # type: ignore[attr-defined]
    return missing


def _find_special(style: Any, key: str, declared: Any) -> bool:
    """Sets a property that is not declared, where those that it depends on are not either; whether it did."""
    if key == "page":
        style[key] = "" if style.parent_style is None else style.parent_style[key]
        return True
    if any(name in declared for name in _FLOW) or (key == "display" and style.is_root_element):
        return False
    for name in (*_FLOW, key):
        style.specified[name] = style[name] = styles.INITIAL_VALUES[name]
    return True


def _plain_length(long_way: Any) -> Any:
    def resolve(box: Any, property_name: str, refer_to: Any) -> None:
        value = box.style[property_name]
        if value == "auto":
            setattr(box, property_name, 0 if property_name in ("min_width", "min_height") else "auto")
        elif getattr(value, "unit", "%") != "%":
            setattr(box, property_name, value.value)
        else:
            long_way(box, property_name, refer_to)

    resolve.long_way = long_way  # type: ignore[attr-defined]
    return resolve


def _only_with_content(long_way: Any) -> Any:
    """WeasyPrint makes sixteen boxes for the margins of each page, and then leaves out those without content."""

    def margin_boxes(context: Any, page: Any, state: Any) -> Iterable[Any]:
        styled = context.style_for.get_computed_styles()
        is_empty = all((page.page_type, name) not in styled for name in _IN_MARGINS)
        return () if is_empty else long_way(context, page, state)

    margin_boxes.long_way = long_way  # type: ignore[attr-defined]
    return margin_boxes
