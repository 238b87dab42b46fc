"""Which font each element of a letter has, as far as its name and its size go.

Does: reads the rules of the letter's style sheet, `style` attributes and `<font face>`, and applies them by importance,
specificity and order (CSS Cascading 4); sizes and families are inherited.
Promises: works on HTML and CSS that are sanitised already; nothing is loaded, and nothing raised.
Known limits: `<font size>` and sizes in words are not looked at. Of a list of families only the first one is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cssselect2
import tinycss2

_INCHES = {"px": 1 / 96, "pt": 1 / 72, "pc": 1 / 6, "in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4}
MEDIUM = 1 / 6
"""Inches of text that has no size: 16 px."""


@dataclass(frozen=True, slots=True)
class Font:
    """A family's name, small letters and digits only, and the size in inches."""

    name: str
    size: float


_Declarations = list[tuple[str, Any, bool]]
"""`family` with a normalised name, `size` in inches, or `ems`; and whether it is important."""


def fonts_of(root: Any, css: str) -> dict[Any, Font]:
    """The font of each element below the root element of a document, and its own."""
    matcher = cssselect2.Matcher()
    for selector, declarations in _rules(css):
        matcher.add_selector(selector, declarations)
    fonts: dict[Any, Font] = {}
    for element in cssselect2.ElementWrapper.from_html_root(root).iter_subtree():
        parent = element.parent
        inherited = Font("", MEDIUM) if parent is None else fonts[parent.etree_element]
        fonts[element.etree_element] = _font(element, matcher, inherited)
    return fonts


def _font(element: Any, matcher: Any, inherited: Font) -> Font:
    """By the cascade: `<font face>`, then rules by their specificity, then `style`; important ones last."""
    layers = [*_hints(element)]
    layers += [declarations for _, _, _, declarations in matcher.match(element)]
    if own := element.etree_element.get("style"):
        layers.append(_declarations(tinycss2.parse_blocks_contents(own)))
    name, size = inherited.name, inherited.size
    for prop, value, _ in sorted((one for layer in layers for one in layer), key=lambda one: one[2]):
        if prop == "family":
            name = inherited.name if value == "inherit" else value
        else:
            size = value if prop == "size" else inherited.size * value
    return Font(name, size)


def _hints(element: Any) -> Iterator[_Declarations]:
    if element.local_name == "font" and (face := element.etree_element.get("face")):
        yield [("family", normal(face.split(",")[0]), False)]


def _rules(css: str) -> Iterator[tuple[Any, _Declarations]]:
    rules = tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True)
    while rules:
        rule = rules.pop(0)
        if rule.type == "at-rule" and rule.content is not None:  # @media is all that is left in it
            if re.search(r"^\s*$|all|print", tinycss2.serialize(rule.prelude)):
                rules[:0] = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)
        elif rule.type == "qualified-rule":
            declarations = _declarations(tinycss2.parse_blocks_contents(rule.content))
            try:
                selectors = cssselect2.compile_selector_list(rule.prelude) if declarations else []
            except cssselect2.SelectorError:
                continue
            for selector in selectors:
                if selector.pseudo_element is None:
                    yield selector, declarations


def _declarations(nodes: Sequence[Any]) -> _Declarations:
    found: _Declarations = []
    for node in nodes:
        if node.type != "declaration":
            continue
        tokens = [token for token in node.value if token.type not in ("whitespace", "comment")]
        if node.lower_name == "font":
            place = next((n for n, token in enumerate(tokens) if token.type in ("dimension", "percentage")), None)
            if place is None:
                continue
            found += _size(tokens[place], important=node.important)
            after = place + 1
            if after < len(tokens) and tokens[after].type == "literal" and tokens[after].value == "/":
                after += 2
            found += _family(tokens[after:], important=node.important)
        elif node.lower_name == "font-family":
            found += _family(tokens, important=node.important)
        elif node.lower_name == "font-size" and tokens:
            found += _size(tokens[0], important=node.important)
    return found


def _family(tokens: Sequence[Any], *, important: bool) -> _Declarations:
    words: list[str] = []
    for token in tokens:
        if token.type == "literal" and token.value == ",":
            break
        words.append(str(token.value) if token.type in ("string", "ident", "number") else tinycss2.serialize([token]))
    return [("family", normal("".join(words)), important)] if words else []


def _size(token: Any, *, important: bool) -> _Declarations:
    if token.type == "percentage":
        return [("ems", token.value / 100, important)]
    if token.type != "dimension":
        return []
    unit = token.lower_unit
    if unit in ("em", "ex"):
        return [("ems", token.value, important)]
    if unit == "rem":
        return [("size", token.value * MEDIUM, important)]
    return [("size", token.value * _INCHES[unit], important)] if unit in _INCHES else []


def normal(name: str) -> str:
    """A family's name as `Font` has it."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
