"""What WeasyPrint makes anew for each slip, kept or left out: another fifth of the time a slip takes.

Does: keeps style sheets that were parsed (those of the page template, and an institution's own, are the same in all
its letters); drops styles of pseudo-elements that no slip has; puts the pixels of a PNG into the PDF as they are
compressed already, and compresses those of a logo once.
Promises: the same page. A sheet that has more in it than rules and the page's size is parsed again each time, as is a
long one; kept are those that were used last (`recent`), and as many small pictures, whatever a letter brings.
Refuses: to touch a WeasyPrint that is built differently; `install` says so.
Known limits: knows three places of WeasyPrint 70 by name; the tests compare both ways.
"""

from __future__ import annotations

import copy
import re
import zlib
from hashlib import blake2b
from typing import Any, BinaryIO

import weasyprint.css as styles
import weasyprint.images as images
from weasyprint import CSS, HTML
from weasyprint.text.fonts import FontConfiguration
from weasyprint.urls import URLFetcher

from relay.slips.recent import MOST_PIXELS_KEPT, Recent

LONGEST_KEPT = 16 * 1024
"""Characters of a style sheet. What is parsed takes some fifty times as much, so all that are kept some 20 MB."""

# Footnotes and side notes; WeasyPrint gives every element a style for each of the five.
_OF_NOTES = frozenset(("footnote-call", "footnote-marker", "note-call", "note-marker", "note-callback"))
_MAY_HAVE_NOTES = re.compile(r"footnote|note\(|\\", re.IGNORECASE)  # `float: footnote` and `position: note()`
_MAY_HAVE_MARKERS = re.compile(r"list-item|\\", re.IGNORECASE)
# Bytes in a PNG file: what it begins with; before and after the content of a chunk.
_SIGNATURE, _LENGTH_AND_NAME, _CHECKSUM = 8, 8, 4
_CHANNELS = {"L": 1, "RGB": 3}


def install() -> bool:
    """Whether parsed sheets and compressed pixels are used again now; False when this release has other names."""
    try:
        if not hasattr(styles.CSS, "long_way"):
            styles.CSS = _parsed_once(styles.CSS)
        if not hasattr(images.RasterImage._get_png_data, "long_way"):
            images.RasterImage._get_png_data = staticmethod(_compressed_once(images.RasterImage._get_png_data))
    except (AttributeError, TypeError):
        return False
    return True


def stylesheet(css: str, fonts: FontConfiguration, fetcher: URLFetcher) -> CSS:
    """A style sheet, parsed or kept."""
    return styles.CSS(string=css, font_config=fonts, url_fetcher=fetcher)


def without_what_no_slip_has(parsed: HTML, html: str) -> HTML:
    """The same page, with a short sheet in place of WeasyPrint's own: no styles for notes, markers for list items."""
    if _MAY_HAVE_NOTES.search(html) is None and _MAY_HAVE_MARKERS.search(html) is None:
        sheets = [_shortened(sheet) for sheet in parsed._ua_stylesheets()]
        parsed._ua_stylesheets = lambda forms=False: sheets
    return parsed


def _shortened(sheet: CSS) -> CSS:
    """A style sheet without rules for all elements' notes; those for all elements' markers are for `li` only."""
    short, matcher = copy.copy(sheet), copy.copy(sheet.matcher)
    matcher.other_selectors = []
    for entry in sheet.matcher.other_selectors:
        pseudo = entry[3]
        if pseudo == "marker":
            by_name = dict(matcher.lower_local_name_selectors)
            by_name["li"] = [*by_name.get("li", ()), entry]
            matcher.lower_local_name_selectors = by_name
        elif pseudo not in _OF_NOTES:
            matcher.other_selectors.append(entry)
    short.matcher = matcher
    return short


def _parsed_once(long_way: Any) -> Any:
    kept: Recent[tuple[str, Any, Any], CSS] = Recent()

    def parse(string: str | None = None, **given: Any) -> CSS:
        if string is None or len(string) > LONGEST_KEPT or not _is_only_rules(string):
            return long_way(string=string, **given)
        key = string, given.get("base_url"), given.get("media_type")
        sheet = kept.get(key)
        if sheet is None:
            # With a list of its own for the rules of pages, where a document has one for all of its sheets.
            sheet = kept.put(key, long_way(string=string, **{**given, "page_rules": None, "layers": None}))
        return sheet

    parse.long_way = long_way  # type: ignore[attr-defined]
    return parse


def _is_only_rules(css: str) -> bool:
    """Whether there is no rule in a sheet that says something to its document, as `@counter-style` does."""
    lower = css.lower()
    return lower.count("@") == lower.count("@page") + lower.count("@media")


def _compressed_once(long_way: Any) -> Any:
    kept: Recent[tuple[str, tuple[int, int], bytes], bytes] = Recent()

    def png_data(picture: Any) -> bytes:
        content = _own_content(picture)
        if content is not None:
            return content
        if picture.width * picture.height > MOST_PIXELS_KEPT:
            return bytes(long_way(picture))
        key = picture.mode, picture.size, blake2b(picture.tobytes()).digest()  # an institution's logo, letter by letter
        found = kept.get(key)
        return kept.put(key, bytes(long_way(picture))) if found is None else found

    png_data.long_way = long_way  # type: ignore[attr-defined]
    return png_data


def _own_content(picture: Any) -> bytes | None:
    """The compressed pixels of a PNG that was opened and not yet decoded, when they are as the PDF says they are.

    Whoever opens the PDF inflates them: they are used only when they end where the picture does.
    """
    is_plain = picture.mode in _CHANNELS and picture.format == "PNG" and not picture.info.get("interlace")
    if not is_plain or len(tiles := picture.tile) != 1 or tiles[0][0] != "zip" or tiles[0][3] != picture.mode:
        return None
    content = _pixels(picture.fp)
    size = (picture.width * _CHANNELS[picture.mode] + 1) * picture.height
    inflating = zlib.decompressobj()
    try:
        inflated = len(inflating.decompress(content, size + 1))
    except zlib.error:
        return None
    return content if inflated == size and inflating.eof and not inflating.unused_data else None


def _pixels(file: BinaryIO) -> bytes:
    """The contents of all IDAT chunks of a PNG file."""
    file.seek(_SIGNATURE)
    found = []
    while len(head := file.read(_LENGTH_AND_NAME)) == _LENGTH_AND_NAME:
        content = file.read(int.from_bytes(head[:4]))
        if head[4:] == b"IDAT":
            found.append(content)
        file.seek(_CHECKSUM, 1)
    return b"".join(found)
