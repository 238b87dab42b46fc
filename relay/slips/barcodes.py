"""The barcodes of one letter, from what the letter means to what a scanner reads on the page.

Does: finds the `<img>` of the sanitised letter that show barcodes, and has each drawn for the printer's dots
(`bars`); says with a style sheet that they keep that size on paper; has them read again from the page (`scan`).
Promises: no width, height, scale or style of the letter distorts a barcode, and none that does not read goes unsaid.
Values stay in here: counts and reasons are all that is told.
Known limits: of the size that a letter means, the attributes and the `style` of the image are looked at, not its style
sheets; then the picture's own resolution counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from html import unescape
from math import floor

from relay.config.profiles import Profile
from relay.slips import scan
from relay.slips.bars import Drawing, Meant, Room, draw
from relay.slips.extent import Extent
from relay.slips.images import Drawable
from relay.slips.layout import Place, Sheets
from relay.slips.page import Page
from relay.slips.png import png_of
from relay.slips.slip import Barcodes

MAX_DRAWINGS = 300
MAX_READ = 500
INSET = 0.02
"""Part of a dot that a picture stays inside of its dots: who prints every dot it touches then prints the right ones."""
UNREADABLE_IN_LETTER = "the picture in the letter does not read"
NOT_BARS = "the text in a barcode font is no barcode, and was printed as text"
TOO_WIDE = "does not fit the paper and was drawn smaller than scans"
TOO_MANY = "is one of more than are read again"
MARK = "Barcode can't be scanned"
DRAWN = "drawn/"
"""In the URLs of drawings: templates/slips/barcodes.css keeps these pictures as they are."""

_IMG = re.compile(r'<img((?:\s+[^\s=<>"]+(?:="[^"]*")?)*)\s*/?>')
_ATTRIBUTE = re.compile(r'([^\s=<>"]+)(?:="([^"]*)")?')
_LENGTH = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(px|mm|cm|in|pt|pc|em|rem|%)?\s*(?:!\s*important)?\s*", re.IGNORECASE)
_INCHES = {
    "px": 1 / 96,
    "mm": 1 / 25.4,
    "cm": 1 / 2.54,
    "in": 1.0,
    "pt": 1 / 72,
    "pc": 1 / 6,
    "em": 1 / 6,
    "rem": 1 / 6,
}


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A letter's body with its barcodes drawn; `sources` has the album's URL of each drawing.

    `is_stacked` puts the cells of rows below each other where barcodes have no room beside each other; `is_freed`
    undoes what may cut off, distort or crowd a barcode around it.
    """

    body: str
    prefix: str
    dpi: int
    drawings: Mapping[str, Drawing] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    is_smallest: bool = False
    is_stacked: bool = False
    is_freed: bool = False

    def served(self) -> dict[str, bytes]:
        """The pictures that the layout will ask for, by URL."""
        return {url: png_of(drawing.picture) for url, drawing in self.drawings.items()}

    def stylesheet(self, scale: float) -> str:
        """Keeps each drawing at its dots, on a page that is laid out `scale` times larger than the paper."""
        if not self.drawings:
            return ""
        dot = self.dot(scale)
        rules = [_FREED] if self.is_freed else []
        rules += [_STACKED] if self.is_stacked else []
        for url, drawing in self.drawings.items():
            end = f"/{DRAWN}{url.removeprefix(self.prefix)}"  # without the token: many slips have the same rules
            width, height = ((dots - 2 * INSET) * dot for dots in drawing.picture.size)
            rules.append(
                f'img[src$="{end}"] {{ width: {width:.4f}px !important; height: {height:.4f}px !important;'
                f" min-width: {width:.4f}px !important }}"
            )
        return "\n".join(rules)

    def dot(self, scale: float) -> float:
        """CSS pixels of a dot."""
        return 96 / self.dpi * scale


# Looking for what is inside costs some milliseconds, so it is done for those letters only that need it.
_FREED = """:has(img[src*="/drawn/"]) {
  transform: none !important; opacity: 1 !important; overflow: visible !important;
  margin-left: 0 !important; margin-right: 0 !important; padding-left: 0 !important; padding-right: 0 !important }
table:has(img[src*="/drawn/"]) { table-layout: auto !important }"""
_STACKED = """table:has(img[src*="/drawn/"]) > * > tr > * { display: block !important; width: auto !important }"""


class BarcodesOfLetter:
    """Draws and reads the barcodes of one letter on the paper of a profile; `prefix` begins its pictures' URLs."""

    def __init__(self, drawables: Mapping[str, Drawable], prefix: str, profile: Profile, not_bars: int = 0) -> None:
        self._not_bars = not_bars
        width, height = (floor(length * profile.dpi / 25.4 + 0.01) for length in Page.of(profile, 1.0).content_mm)
        self._room = Room(profile.dpi, width, height)
        self._narrower = profile.barcodes == "narrower"
        self._prefix = prefix
        self._drawables = drawables

    @property
    def any(self) -> bool:
        """Whether there is anything here that is a barcode, or looks like one."""
        return any(d.barcode or d.looks_like_a_barcode for d in self._drawables.values())

    def arrange(
        self, body: str, *, smallest: bool = False, is_freed: bool = False, marked: frozenset[str] = frozenset()
    ) -> Arrangement:
        """The body with each barcode in whole dots: near to the size that is meant, or the `smallest` that scans.

        Pictures whose URLs are `marked` get a line below them that says that they can't be scanned.
        """
        prefix = f"{self._prefix}{DRAWN}"
        if not self.any:
            return Arrangement(body, prefix, self._room.dpi)
        drawings: dict[str, Drawing] = {}
        sources: dict[str, str] = {}
        known: dict[tuple[str, Meant], str | None] = {}
        serial = "s" if smallest else "b"

        def drawn(match: re.Match[str]) -> str:
            attributes = {name.lower(): unescape(value) for name, value in _ATTRIBUTE.findall(match[1])}
            source = attributes.get("src", "")
            drawable = self._drawables.get(source)
            if drawable is None:
                return match[0]
            mark = f"<br><small>{MARK}</small><br>" if source in marked else ""
            if drawable.barcode is None:
                return match[0] + mark
            meant = self._meant(attributes)
            if (source, meant) not in known and len(known) < MAX_DRAWINGS:
                drawing = draw(drawable.barcode, meant, self._room, smallest=smallest, narrower=self._narrower)
                url = f"{prefix}{serial}{len(drawings) + 1}" if drawing else None
                known[source, meant] = url
                if url and drawing:
                    drawings[url], sources[url] = drawing, source
            url = known.get((source, meant))
            return (match[0].replace(f'src="{source}"', f'src="{url}"') if url else match[0]) + mark

        text = _IMG.sub(drawn, body)
        return Arrangement(text, prefix, self._room.dpi, drawings, sources, smallest, is_freed=is_freed)

    def tighter(
        self, arrangement: Arrangement, sheets: Sheets, scale: float, arrange: Callable[..., Arrangement]
    ) -> Arrangement | None:
        """What to try for a letter that is wider than the paper; None when its barcodes are not to blame.

        `arrange` arranges the letter, `smallest` or not.
        """
        if not arrangement.drawings:
            return None
        extents, places = sheets.extents(), sheets.places(arrangement.prefix)
        sticks_out = any(_sticks_out(place, extents[place.page]) for place in places)
        if not arrangement.is_smallest:
            smallest = arrange(smallest=True)
            saved = sum(drawing.picture.width for drawing in arrangement.drawings.values())
            saved -= sum(drawing.picture.width for drawing in smallest.drawings.values())
            over = max((e.spread - 1) * (e.content_right - e.content_left) for e in extents) / arrangement.dot(scale)
            if saved and (sticks_out or saved >= over):
                return smallest
        if sticks_out and len(places) > 1 and not arrangement.is_stacked:
            return replace(arrangement, is_stacked=True)
        return None

    def _meant(self, attributes: Mapping[str, str]) -> Meant:
        """What an image says about its size: `style` before width= and height=."""
        declared = {
            name.strip().lower(): value
            for name, _, value in (one.partition(":") for one in attributes.get("style", "").split(";"))
        }
        full = self._room.width / self._room.dpi
        return Meant(
            _inches(declared.get("width", ""), full) or _inches(attributes.get("width", ""), full),
            _inches(declared.get("height", ""), None) or _inches(attributes.get("height", ""), None),
        )

    def check(
        self, arrangement: Arrangement, sheets: Sheets, scale: float, pdf: bytes
    ) -> tuple[Barcodes, frozenset[str], bool]:
        """Reads every barcode from the finished page.

        Answers the counts, the album's URLs of those that failed, and whether any of those was good in the letter.
        """
        spots: dict[scan.Spot, str] = {}
        failed: list[tuple[str, str]] = []
        points = 0.75 / scale
        for place in sheets.places(self._prefix) if self.any else []:
            source = arrangement.sources.get(place.url, place.url)
            drawable = self._drawables.get(source)
            if drawable is None:
                continue
            if drawable.barcode is None:
                failed += [(source, UNREADABLE_IN_LETTER)] if drawable.looks_like_a_barcode else []
                continue
            drawing = arrangement.drawings.get(place.url)
            kinds = drawing.kinds if drawing else tuple(symbol.kind for symbol in drawable.barcode.symbols)
            if len(spots) >= MAX_READ:
                failed.append((source, TOO_MANY))
                continue
            if drawing and not drawing.fits:
                failed.append((source, f"{'/'.join(kinds)} {TOO_WIDE}"))
                continue
            x, y, width, height = place.x * points, place.y * points, place.width * points, place.height * points
            upright = drawing is not None and drawing.is_upright
            spots[scan.Spot(place.page, x, y, width, height, drawable.barcode.values, kinds, upright)] = source
        missing = scan.unread(pdf, list(spots), self._room.dpi) if spots else []
        failed += [(spots[spot], reason) for spot, reason in zip(missing, scan.reasons(missing), strict=True)]
        reasons = [NOT_BARS] * self._not_bars + [reason for _, reason in failed]
        return Barcodes(len(spots) - len(missing), tuple(reasons)), frozenset(url for url, _ in failed), bool(missing)


def _sticks_out(place: Place, extent: Extent) -> bool:
    return place.x < extent.content_left - 1 or place.x + place.width > extent.content_right + 1


def notes_on(barcodes: Barcodes) -> list[str]:
    """What is to be said on the delivery."""
    count = len(barcodes.failed)
    if not count:
        return []
    which = "A barcode" if count == 1 else f"{count} barcodes"
    return [f"{which} on the slip can't be read by a scanner."]


def _inches(length: str, full: float | None) -> float | None:
    match = _LENGTH.fullmatch(length)
    if match is None or float(match[1]) == 0:
        return None
    unit = (match[2] or "px").lower()
    if unit == "%":
        return None if full is None else min(float(match[1]), 100.0) / 100 * full
    return float(match[1]) * _INCHES[unit]
