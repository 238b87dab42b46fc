"""Text in a barcode font becomes a picture of that barcode.

Does: finds text that the letter sets in a font of bars (by `cascade`), makes out its value, and puts an image of the
barcode there, which is then sized and read again like any other.
Promises: no such font has to be installed, and none is used. The value stays in the slip's text: below the bars where
the font shows it, else unseen. What is no barcode in that font is printed as ordinary text, and counted.
Known limits: of a list of fonts the first one decides. Code 128 with function characters is printed as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from relay.slips import tree
from relay.slips.bars import Barcode
from relay.slips.cascade import Font, fonts_of
from relay.slips.sanitize import SafeLetter
from relay.slips.symbols import Symbol, create

MAX_BARCODES = 200

# Looked for before anything is parsed: most letters name no such font.
_NAMED = re.compile(
    r"(?:font[^:;{}<>]{0,8}:|face=)[^{}<>]{0,120}?(?:bar|code|c39|39|3 ?of ?9|azalea|128)", re.IGNORECASE
)
_CODE_39 = re.compile(r"(?:code|bar|hc|^c|^bc)39|39(?:azalea|barcode)|3of9|3de9|carolinabar|^barcode(?:font)?$")
_CODE_128 = re.compile(r"(?:code|bar|^c)128")
_EAN_13 = re.compile(r"ean13")
_SHOWS_TEXT = re.compile(r"text|hc39|hr[a-z]?$|39hr")
_INLINE = frozenset(("b", "big", "code", "em", "font", "i", "nobr", "small", "span", "strong", "tt", "u", "wbr"))
_EM_PER_MODULE, _EMS_HIGH = 1 / 28, 1.0
_EM_PER_MODULE_OF_IDAUTOMATION, _EMS_HIGH_OF_IDAUTOMATION = 1 / 11, 3.0

PLAIN = "font-family: sans-serif !important; font-size: 10pt !important; letter-spacing: normal !important"
BOX = f"{PLAIN}; display: inline-block !important; text-align: center !important; line-height: 1.2 !important"
UNSEEN = f"{PLAIN}; position: absolute !important; color: transparent !important; white-space: nowrap !important"


def barcode_of(text: str, font: Font) -> Barcode | None:
    """The barcode that this text is in this font."""
    symbol = _symbol(text, font.name)
    if symbol is None:
        return None
    own = "idautomation" in font.name
    module = font.size * (_EM_PER_MODULE_OF_IDAUTOMATION if own else _EM_PER_MODULE)
    height = max(8, round(font.size * (_EMS_HIGH_OF_IDAUTOMATION if own else _EMS_HIGH) / module))
    wide = [min(run, 2) * 2 - 1 for run in symbol.runs] if symbol.has_two_widths else list(symbol.runs)
    row = b"".join((b"\xff" if place % 2 else b"\0") * run for place, run in enumerate(wide))
    picture = Image.frombytes("L", (len(row), height), row * height)
    whole = Symbol(symbol.kind, symbol.value, (0, 0, len(row), height), tuple(wide))
    return Barcode((whole,), picture, 1 / module, crisp=True)


def _symbol(text: str, name: str) -> Symbol | None:
    if _CODE_128.search(name):
        value = read_code_128(text)
        return create(value, "Code128") if value else None
    if _EAN_13.search(name):
        return create(text, "EAN13") if re.fullmatch(r"\d{13}", text) else None
    pairs = ("**", "()", "!!") if "idautomation" in name else ("**",)
    value = text[1:-1].strip() if len(text) > 2 and text[0] + text[-1] in pairs else ""
    if not value:
        return None
    if "ext" in name or "fullascii" in name:
        return create(value, "Code39") or create(value, "Code39Ext")
    # Fonts of plain Code 39 have the same bars for small letters, and signs that stand for the space.
    return create(value.upper().replace("_", " ").replace("=", " "), "Code39")


def replace_fonts(letter: SafeLetter, add: Callable[[Barcode], str]) -> tuple[SafeLetter, int]:
    """The letter with images for its text in barcode fonts, and how many texts were no barcodes.

    `add` answers with the URL for a barcode.
    """
    if not any(_NAMED.search(part) for part in (letter.body, letter.css, letter.style)):
        return letter, 0
    attributes = {"id": letter.body_id, "class": letter.body_class, "style": letter.style}
    root = tree.parse_page(letter.body, {name: value for name, value in attributes.items() if value})
    body = tree.body_of(root)
    fonts = fonts_of(root, letter.css)
    if not any(_is_of_bars(font.name) for font in fonts.values()):
        return letter, 0
    work = _Work(add, fonts)
    for element in list(body.iter()):
        if _is_of_bars(fonts[element].name):
            work.replace_texts(element)
    return replace(letter, body=tree.inner_html(body)), work.failed


class _Work:
    """Replaces text, element by element."""

    def __init__(self, add: Callable[[Barcode], str], fonts: Mapping[Any, Font]) -> None:
        self._add = add
        self._fonts = fonts
        self._taken: set[Any] = set()
        self._done = 0
        self.failed = 0

    def replace_texts(self, element: Any) -> None:
        """The text of an element, and what follows each of its children."""
        font = self._fonts[element]
        if element in self._taken:
            return
        if len(element) and self._is_one_barcode(element, font):
            whole = "".join(element.itertext())
            self._taken.update(inner for inner in element.iter() if inner is not element)
            for child in list(element):
                element.remove(child)
            element.text = whole
        for child in reversed(list(element)):
            if (made := self._made(child.tail, font)) is not None:
                child.tail = None
                element.insert(list(element).index(child) + 1, made)
        if (made := self._made(element.text, font)) is not None:
            element.text = None
            element.insert(0, made)

    def _is_one_barcode(self, element: Any, font: Font) -> bool:
        """Whether its text is one, though pieces of it have elements of their own."""
        inside = [inner for inner in element.iter() if inner is not element]
        if not all(inner.tag in _INLINE and self._fonts[inner].name == font.name for inner in inside):
            return False
        return barcode_of(" ".join("".join(element.itertext()).split()), font) is not None

    def _made(self, text: str | None, font: Font) -> Any:
        """What stands for a text: its barcode, or the text in plain letters; None where there is nothing to see."""
        text = " ".join((text or "").split())
        if not text.strip("*() !"):
            return None
        barcode = barcode_of(text, font) if self._done < MAX_BARCODES else None
        if barcode is None:
            self.failed += 1
            plain = ElementTree.Element("span", {"style": PLAIN})
            plain.text = text
            return plain
        self._done += 1
        shown = _SHOWS_TEXT.search(font.name)
        box = ElementTree.Element("span", {"style": BOX})
        ElementTree.SubElement(box, "img", {"src": self._add(barcode), "alt": "", "style": "display: block"})
        words = ElementTree.SubElement(box, "span", {"style": PLAIN if shown else UNSEEN})
        words.text = barcode.values[0] if shown else text
        return box


def read_code_128(text: str) -> str:
    """The value of Code 128 as its fonts write it: start, characters, check character, stop; empty when it is none.

    Two ways are known: symbol characters above 94 stand 100 or 105 code points higher.
    """
    if len(text) < 4:
        return ""
    above = {206: 100, 211: 105}.get(ord(text[-1]))
    if above is None:
        return ""
    codes = [0 if one in " \xa0Â" else ord(one) - (32 if ord(one) < 127 else above) for one in text[:-1]]
    start, *inner, check = codes
    total = start + sum(place * code for place, code in enumerate(inner, 1))
    if start not in (103, 104, 105) or total % 103 != check or not all(0 <= code <= 102 for code in inner):
        return ""
    letters: list[str] = []
    charset, shifted = "ABC"[start - 103], ""
    for code in inner:
        current, shifted = shifted or charset, ""
        if current == "C" and code < 100:
            letters.append(f"{code:02}")
        elif current != "C" and code < 96:
            letters.append(chr(code - 64) if current == "A" and code > 63 else chr(code + 32))
        elif code == 98 and current != "C":
            shifted = "B" if current == "A" else "A"
        elif (switched := {99: "C", 100: "B", 101: "A"}.get(code)) and switched != current:
            charset = switched
        else:
            return ""  # function characters
    return "".join(letters)


def _is_of_bars(name: str) -> bool:
    return any(kind.search(name) for kind in (_CODE_39, _CODE_128, _EAN_13))
