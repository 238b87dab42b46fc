"""The safe letter as a tree of elements.

Does: parses what `sanitize` made, finds text by a CSS selector, and writes the tree out again.
Promises: what is written has the elements and attributes of the tree and nothing else; parsing never fails.
Refuses: a selector that is none (RenderError).
Known limits: parsing and writing take some milliseconds, so a letter that needs neither direction nor code stays text.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from xml.etree.ElementTree import Element, tostring

import cssselect2
import tinyhtml5

from relay.errors import RenderError

MAX_CODE = 80
_APART = frozenset(("br", "dd", "div", "dt", "li", "p", "td", "th", "tr"))


def parse(body: str) -> Element:
    """The body element of safe HTML."""
    return body_of(parse_page(body, {}))


def parse_page(body: str, attributes: Mapping[str, str]) -> Element:
    """The root element of safe HTML, and in it a body element with these attributes."""
    shown = "".join(f' {name}="{escape(value)}"' for name, value in attributes.items())
    root: Element = tinyhtml5.parse(f"<html><body{shown}>{body}</body></html>", namespace_html_elements=False)
    return root


def body_of(root: Element) -> Element:
    """The body element of a page."""
    found = root.find("body")
    assert found is not None, "an HTML parser always makes a body"
    return found


def inner_html(body: Element) -> str:
    """What is inside an element, as HTML."""
    text = body.text or ""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped + "".join(tostring(child, encoding="unicode", method="html") for child in body)


def first_text(body: Element, select: str) -> str:
    """Text of the first element with text that the CSS selector finds; "" when there is none."""
    try:
        selectors = cssselect2.compile_selector_list(select)
        found = cssselect2.ElementWrapper.from_html_root(body).query_all(*selectors)
        for element in found:
            text = " ".join(_text(element.etree_element).split())
            if text:
                return text if len(text) <= MAX_CODE else text[: MAX_CODE - 1] + "\u2026"
    except (cssselect2.SelectorError, NotImplementedError) as error:
        raise RenderError(f"{select!r} is not a CSS selector that is known here: {error}") from None
    return ""


def _text(element: Element) -> str:
    """The text of an element, with a space where another element begins a line or a cell."""
    parts = [element.text or ""]
    for child in element:
        parts.append(" " if child.tag in _APART else "")
        parts.append(_text(child))
        parts.append(child.tail or "")
    return "".join(parts)
