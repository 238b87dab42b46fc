"""Which way the blocks of a letter are read: Alma's templates never say `dir=rtl`.

Does: gives elements that have no `dir` of their own the direction of their text, as HTML's `dir=auto` would, but by
two votes: the first strong character, and which script has more of them. Where the two differ, the letter as a whole
decides: a Hebrew cell that begins with "JavaScript" stays Hebrew, a label before a long English title stays in front.
Behind a label ("Author: ...") only the value is counted, so that the labelled lines of a letter begin on one side.
Promises: a `dir` of the letter is never changed. Tables keep the letter's own direction, and with it the order of
their columns. What has no letters (numbers, dates, barcodes' values) stays on the side where its surroundings put it,
and groups of digits that fill a block stay in their order.
Known limits: WeasyPrint orders the inline elements of a line by the direction of the block, not by that of their text,
so two bold Hebrew words of their own in an English sentence change places.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

RTL = "\u0590-\u08ff\u200f\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
_HAS_RTL = re.compile(f"[{RTL}]")
# Letters only: `\w` also has digits and the underscore, which are weak or neutral.
_STRONG = re.compile(f"[{RTL}]|[^\\W\\d_]")
_GROUPS = re.compile(r"[\s\d+().-]*\d[\s().-]+\d[\s\d().-]*")
_LABEL = re.compile(r"[^:\n]{1,40}:\s+(?=\S)")
_LEFT = re.compile(r"\b(text-align(?:-all|-last)?\s*:\s*)left\b", re.IGNORECASE)
_WEAK_RTL = re.compile("[\u0600-\u0605\u060c\u0660-\u066c\u06dd\u06f0-\u06f9]")  # Arabic digits and the like

_BLOCKS = frozenset(
    """address article aside blockquote body caption center dd div dl dt figcaption figure footer h1 h2 h3 h4 h5 h6
    header hr li main nav ol p pre section table tbody td tfoot th thead tr ul""".split()  # noqa: SIM905 - so many words read better without quotes
)
_TABLES = frozenset(("table", "thead", "tbody", "tfoot", "tr", "ul", "ol", "dl"))
"""What is laid out by the direction of the letter, whatever the text inside is."""

_ALIGNED = frozenset(("td", "th", "p", "div", "h1", "h2", "h3", "h4", "h5", "h6"))
"""Elements whose `align` attribute means the alignment of their text."""


def has_rtl(text: str) -> bool:
    """Whether there is anything to do: a letter without such a character is read from the left throughout."""
    return _HAS_RTL.search(text) is not None


def set_directions(body: Element, letter: str) -> None:
    """Set `dir` on blocks whose text asks for another direction than what surrounds them.

    `letter` is the direction of the letter as a whole.
    """
    # Parents before children, since each compares itself with what it would inherit.
    waiting = [(child, letter) for child in reversed(body)]
    while waiting:
        element, inherited = waiting.pop()
        direction = _declared(element)
        if direction is None and element.tag in _BLOCKS:
            text = _own_text(element)
            direction = letter if element.tag in _TABLES else _voted(text, letter)
            if direction is None:
                _keep_groups(element, text, inherited)
            elif direction != inherited:
                element.set("dir", direction)
        waiting += [(child, direction or inherited) for child in reversed(element)]


def left_is_start(css: str) -> str:
    """CSS in which text that was put to the left begins where its direction begins.

    For letters whose author thought of one direction only: left is what start was to him.
    """
    return _LEFT.sub(r"\1start", css)


def all_left_is_start(body: Element) -> None:
    """The same for the style attributes of elements."""
    for element in body.iter():
        style = element.get("style")
        if style and "left" in style:
            element.set("style", left_is_start(style))


def _declared(element: Element) -> str | None:
    given = (element.get("dir") or "").strip().lower()
    if given in ("ltr", "rtl"):
        return given
    if given:
        del element.attrib["dir"]  # `auto` among them: WeasyPrint does not know it, and it means what is done here
    return None


def _voted(text: str, letter: str) -> str | None:
    """The direction of a text; None when it has no letters."""
    strong = _STRONG.findall(_WEAK_RTL.sub("", text))
    if not strong:
        return None
    first = "rtl" if has_rtl(strong[0]) else "ltr"
    label = _LABEL.match(text.lstrip())
    value = _STRONG.findall(_WEAK_RTL.sub("", text.lstrip()[label.end() :])) if label else []
    counted = value or strong
    most = "rtl" if 2 * sum(map(has_rtl, counted)) > len(counted) else "ltr"
    return first if first == most else letter


def _own_text(element: Element) -> str:
    """The text of a block without that of the blocks inside it."""
    parts = [element.text or ""]
    waiting: list[Element | str] = list(reversed(element))
    while waiting:
        child = waiting.pop()
        if isinstance(child, str):
            parts.append(child)
            continue
        waiting.append(child.tail or "")
        if child.tag not in _BLOCKS:
            waiting += reversed(child)
            parts.append(child.text or "")
    return "".join(parts)


def _keep_groups(element: Element, text: str, inherited: str) -> None:
    """Digits in groups, as in 3 9345 0001, would change places in a line that is read from the right."""
    if inherited == "rtl" and _GROUPS.fullmatch(text):
        element.set("dir", "ltr")
        if element.tag in _ALIGNED and "align" not in element.attrib:
            element.set("align", "right")
