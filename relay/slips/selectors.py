"""Elements of a letter by CSS selector (cssselect2, on a `tree`).

Promises: a selector that can't be used is a RenderError with a sentence, also before there is a letter
(`check_selector`).
Known limits: selectors that look at siblings (`~`, `:nth-of-type`) cost the square of their number; the time limit of
the child ends what takes too long.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any
from xml.etree.ElementTree import Element

import cssselect2

from relay.errors import RenderError
from relay.slips import tree
from relay.slips.facts import MAX_SAMPLE, MAX_SAMPLES, ElementFound, ElementWanted
from relay.slips.outline import squeezed

MAX_ELEMENTS = 2000
"""Elements of one selector that are looked at."""

MAX_CODE = 80
"""Characters of a text that is printed large."""

MAX_TEXT = 2000
"""Characters of an element's text that are compared."""

_APART = frozenset(("br", "dd", "div", "dt", "li", "p", "td", "th", "tr"))


def check_selector(selector: str) -> None:
    """Raises RenderError when a selector can't be used."""
    _compiled(selector)


def first_text(body: Element, selector: str) -> str:
    """Text of the first element with text that a selector finds; "" when there is none. Raises RenderError."""
    tests = [compiled.test for compiled in _compiled(selector)]
    for element in cssselect2.ElementWrapper.from_html_root(body).iter_subtree():
        if any(test(element) for test in tests) and (text := squeezed(_in_lines(element.etree_element))):
            return text if len(text) <= MAX_CODE else text[: MAX_CODE - 1] + "\u2026"
    return ""


def _in_lines(element: Element) -> str:
    """The text of an element, with a space where another element begins a line or a cell."""
    parts = [element.text or ""]
    for child in element:
        parts.append(" " if child.tag in _APART else "")
        parts.append(_in_lines(child))
        parts.append(child.tail or "")
    return "".join(parts)


def find_elements(html: str, wanted: Iterable[ElementWanted]) -> dict[ElementWanted, ElementFound]:
    """The answers to questions about the elements of a letter. Raises RenderError for a bad selector."""
    questions = list(wanted)
    if not questions:
        return {}
    root = cssselect2.ElementWrapper.from_html_root(tree.document(html))
    return {each: _find(root, each) for each in questions}


def _find(root: Any, wanted: ElementWanted) -> ElementFound:
    tests = [selector.test for selector in _compiled(wanted.selector)]
    elements = (element for element in root.iter_subtree() if any(test(element) for test in tests))
    texts = [text_of(element.etree_element) for element in islice(elements, MAX_ELEMENTS)]
    fitting = [text for text in texts if not wanted.any_of or any(_fits(each, text) for each in wanted.any_of)]
    fits = {number for number, each in enumerate(wanted.lists) if any(_fits(each, text) for text in fitting)}
    shown = tuple(text[:MAX_SAMPLE] for text in (fitting or texts)[:MAX_SAMPLES])
    return ElementFound(len(fitting), frozenset(fits), shown)


def _fits(pattern: str, text: str) -> bool:
    return fnmatchcase(text.casefold(), pattern.casefold())


def text_of(element: Any) -> str:
    """The text of an element of the tree, with single spaces; of one that has none, such as `meta`, its content."""
    words: list[str] = []
    length = 0
    for piece in element.itertext():
        words.append(piece)
        length += len(piece)
        if length > 4 * MAX_TEXT:
            break
    return squeezed("".join(words))[:MAX_TEXT] or squeezed(element.get("content") or "")[:MAX_TEXT]


def _compiled(selector: str) -> list[Any]:
    try:
        compiled = list(cssselect2.compile_selector_list(selector))
    except cssselect2.SelectorError as error:
        raise RenderError(f"the selector {selector!r} can't be used: {error.args[-1]}") from None
    if any(each.pseudo_element is not None or each.never_matches for each in compiled):
        raise RenderError(f"the selector {selector!r} can't be used: it never finds an element of a letter")
    return compiled
