"""A letter as a tree of elements.

Does: parses HTML, and writes the tree out again.
Promises: what is written has the elements and attributes of the tree and nothing else; parsing never fails.
Known limits: parsing and writing take some milliseconds, so a letter that needs neither direction nor code stays text.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from io import StringIO
from xml.etree.ElementTree import Element, tostring

import tinyhtml5

_APART = frozenset(("br", "dd", "div", "dt", "li", "p", "td", "th", "tr"))


def parse(body: str) -> Element:
    """The body element of safe HTML."""
    return body_of(parse_page(body, {}))


def parse_page(body: str, attributes: Mapping[str, str]) -> Element:
    """The root element of safe HTML, and in it a body element with these attributes."""
    shown = "".join(f' {name}="{escape(value)}"' for name, value in attributes.items())
    return document(f"<html><body{shown}>{body}</body></html>")


def document(html: str) -> Element:
    """The root element of HTML, whatever it is."""
    # A plain str might be taken for the name of a file.
    root: Element = tinyhtml5.parse(StringIO(html), namespace_html_elements=False)
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
