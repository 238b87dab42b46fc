"""A barcode drawn in whole printer dots.

Does: takes a picture with a barcode apart (bars, and what is printed above and below them); chooses how many dots a
module gets; draws it anew as a picture with one pixel for each dot, quiet zone included.
Promises: each bar and space is a whole number of dots, at least `Dots.least` of them to a module where the room allows
it; ten modules of white on both sides; bars as high as they are meant to be, and at least LOWEST_MM.
Known limits: pictures that are not crisp and hold more than the bars of one barcode are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, floor

from PIL import Image, ImageOps

from relay.slips.symbols import MIDDLE, Symbol, create, drawn, runs_of

QUIET_MODULES = 10
QUIET_MODULES_OF_MATRIX = 4
RIM = 4
"""Part of the quiet zone that is kept white above and below as well."""
LEAST_DOTS = 2
"""Code 128 needs 2.0 dots a module in black and white, Code 39 1.4: measured with zbar at 203 dpi."""
LEAST_MM, LEAST_MM_OF_MATRIX = 0.15, 0.25
MOST_MM = 0.6
LOWEST_MM = 8.0
HIGHEST_MM = 40.0
MAX_DOTS = 20_000_000
"""Of one drawing: a larger one is no barcode for a slip."""
RATIOS = (3.0, 2.5, 2.0)
"""Wide bars to narrow ones: what ISO/IEC 16388, and those of ITF and Codabar, allow."""


@dataclass(frozen=True, slots=True)
class Barcode:
    """A grey picture on which barcodes can be read, and the resolution that it says it has."""

    symbols: tuple[Symbol, ...]
    picture: Image.Image
    dpi: float
    crisp: bool

    @property
    def values(self) -> tuple[str, ...]:
        """What a scanner reads."""
        return tuple(symbol.value for symbol in self.symbols)


@dataclass(frozen=True, slots=True)
class Room:
    """The paper: dots to an inch, and how many dots there are between its margins."""

    dpi: int
    width: int
    height: int

    def dots(self, millimetres: float) -> float:
        """Dots in a length."""
        return millimetres * self.dpi / 25.4


@dataclass(frozen=True, slots=True)
class Meant:
    """What the letter says about the size of a picture, in inches; None where it says nothing."""

    width: float | None = None
    height: float | None = None

    def of(self, picture: Image.Image, dpi: float) -> tuple[float, float]:
        """Width and height in inches: one that is missing follows from the other, as in a browser."""
        width, height = picture.width / dpi, picture.height / dpi
        if self.width is not None and self.height is not None:
            return self.width, self.height
        if self.width is not None:
            return self.width, height * self.width / width
        if self.height is not None:
            return width * self.height / height, self.height
        return width, height


@dataclass(frozen=True, slots=True)
class Drawing:
    """A barcode as it is to be printed, one pixel for each dot; `fits` is False when it is smaller than scans.

    An upright one has bars that stand: it needs no turning to be read.
    """

    picture: Image.Image
    fits: bool = True
    kinds: tuple[str, ...] = ()
    is_upright: bool = False


def draw(
    barcode: Barcode, meant: Meant, room: Room, *, smallest: bool = False, narrower: bool = False
) -> Drawing | None:
    """The barcode in whole dots, as near as can be to what the letter means; None when it is best left as it is.

    `smallest` takes the fewest dots that scan. `narrower` allows Code 128 where the same symbology is too wide.
    """
    width, height = meant.of(barcode.picture, barcode.dpi)
    parts = _parts(barcode)
    if parts is None:
        return _draw_whole(barcode, width, room, smallest=smallest)
    share = (parts.box[3] - parts.box[1]) / barcode.picture.height
    bars_width = width * (parts.box[2] - parts.box[0]) / barcode.picture.width
    modules = _width(parts.symbol, 1, _ratio(parts.symbol))
    wanted = 0.0 if smallest else bars_width * room.dpi / modules
    symbol = parts.symbol
    chosen = _choose(symbol, wanted, room)
    if chosen is None and narrower and (other := create(symbol.value, "Code128")) is not None:
        symbol = other
        chosen = _choose(symbol, wanted, room)
    narrow, wide = chosen or _squeezed(parts.symbol, room)
    symbol = symbol if chosen else parts.symbol
    highest = min(room.dots(HIGHEST_MM), room.height / 2)
    tall = max(1, round(min(max(height * share * room.dpi, room.dots(LOWEST_MM)), highest)))
    factor = _width(symbol, narrow, wide) / (parts.box[2] - parts.box[0])
    if barcode.picture.height * factor * room.width > MAX_DOTS:
        return None
    picture = _compose(parts, symbol, narrow, wide, tall)
    if picture.width > room.width:  # a dot a module is too much already
        picture = picture.resize((room.width, picture.height), Image.Resampling.LANCZOS)
    return Drawing(picture, chosen is not None, (symbol.kind,), is_upright=True)


def fewest_dots(room: Room, millimetres: float = LEAST_MM) -> int:
    """Dots of the thinnest bar that scans."""
    return max(LEAST_DOTS, ceil(room.dots(millimetres) - 0.01))


@dataclass(frozen=True, slots=True)
class _Parts:
    """A linear barcode taken apart: its bars, their place, and the ink above and below."""

    symbol: Symbol
    box: tuple[int, int, int, int]
    above: Image.Image
    below: Image.Image
    crisp: bool


def _parts(barcode: Barcode) -> _Parts | None:
    if len(barcode.symbols) != 1:
        return None
    symbol, picture = barcode.symbols[0], barcode.picture
    left, top, right, bottom = symbol.box
    if symbol.is_matrix or (right - left < bottom - top and not symbol.runs):
        return None
    if not symbol.runs:
        made = create(symbol.value, symbol.kind)
        if made is None or not made.runs:
            return None
        runs = tuple(min(run, 2) * 2 - 1 for run in made.runs) if made.has_two_widths else made.runs  # wide ones are 3
        symbol = replace(symbol, runs=runs)
    top, bottom = _grown(picture, symbol.box)
    if _has_ink(picture.crop((0, top, max(0, left - 2), bottom))) or _has_ink(
        picture.crop((min(picture.width, right + 2), top, picture.width, bottom))
    ):
        return None
    above = picture.crop((0, 0, picture.width, top))
    below = picture.crop((0, bottom, picture.width, picture.height))
    return _Parts(symbol, (left, top, right, bottom), above, below, barcode.crisp)


def _grown(picture: Image.Image, box: tuple[int, int, int, int]) -> tuple[int, int]:
    """First row and end of the bars, as long as rows look like the one in the middle."""
    left, top, right, bottom = box
    grey = picture.crop((left, 0, right, picture.height)).point(lambda value: 255 if value >= MIDDLE else 0)
    width, rows = grey.width, grey.tobytes()
    middle = (top + bottom) // 2
    model = int.from_bytes(rows[middle * width : (middle + 1) * width])

    def is_like(y: int) -> bool:
        row = int.from_bytes(rows[y * width : (y + 1) * width])
        return (row ^ model).bit_count() <= width * 8 * 0.12

    while top > 0 and is_like(top - 1):
        top -= 1
    while bottom < picture.height and is_like(bottom):
        bottom += 1
    return top, bottom


def _has_ink(picture: Image.Image) -> bool:
    return bool(picture.width and picture.height and picture.getextrema()[0] < MIDDLE)  # type: ignore[operator]


def _ratio(symbol: Symbol) -> float:
    return float(max(symbol.runs)) if symbol.has_two_widths else 0.0


def _width(symbol: Symbol, narrow: int, wide: float) -> float:
    if symbol.has_two_widths:
        wides = sum(1 for run in symbol.runs if run > 1)
        return wides * wide + (len(symbol.runs) - wides) * narrow
    return sum(symbol.runs) * narrow


def _choose(symbol: Symbol, wanted: float, room: Room) -> tuple[int, int] | None:
    """Dots of narrow and wide bars: nearest to what is wanted among those that scan and fit."""
    least = fewest_dots(room)
    most = max(least, floor(room.dots(MOST_MM)))
    target = min(max(floor(wanted + 0.5), least), most)
    ratio = _ratio(symbol)
    for narrow in sorted(range(least, most + 1), key=lambda dots: (abs(dots - target), dots)):
        for wide in _wides(narrow, ratio if wanted else 0.0):
            if _width(symbol, narrow, wide) + 2 * QUIET_MODULES * narrow <= room.width:
                return narrow, wide
            if not symbol.has_two_widths:
                break
    return None


def _wides(narrow: int, ratio: float) -> list[int]:
    """Widths of a wide bar to try: as in the source first, then narrower ones. A ratio of 0 asks for the narrowest."""
    allowed = sorted({round(narrow * known) for known in RATIOS if round(narrow * known) >= 2 * narrow}, reverse=True)
    return [wide for wide in allowed if wide <= narrow * max(ratio, RATIOS[-1])] or allowed[-1:]


def _squeezed(symbol: Symbol, room: Room) -> tuple[int, int]:
    """What does not fit is drawn as wide as fits, for people to read the number and scanners to try."""
    for narrow in range(fewest_dots(room), 0, -1):
        if _width(symbol, narrow, 2 * narrow) + 2 * QUIET_MODULES * narrow <= room.width:
            return narrow, 2 * narrow
    return 1, 2


def _compose(parts: _Parts, symbol: Symbol, narrow: int, wide: int, tall: int) -> Image.Image:
    quiet = QUIET_MODULES * narrow
    row = bytearray(b"\xff" * quiet)
    for place, run in enumerate(symbol.runs):
        dots = run * narrow if not symbol.has_two_widths else narrow if run == 1 else wide
        row += (b"\xff" if place % 2 else b"\0") * dots
    row += b"\xff" * quiet
    bars = Image.frombytes("L", (len(row), tall), bytes(row) * tall)
    factor = (len(row) - 2 * quiet) / (parts.box[2] - parts.box[0])
    above, below = (_caption(strip, parts, factor, bars.width) for strip in (parts.above, parts.below))
    rim = quiet // RIM
    picture = Image.new("L", (bars.width, above.height + tall + below.height + 2 * rim), 255)
    picture.paste(above, (0, rim))
    picture.paste(bars, (0, rim + above.height))
    picture.paste(below, (0, rim + above.height + tall))
    return picture


def _caption(strip: Image.Image, parts: _Parts, factor: float, width: int) -> Image.Image:
    """What is printed above or below the bars, enlarged with them, on white of a given width."""
    ink = (
        ImageOps.invert(strip).point(lambda value: value if value >= 255 - MIDDLE else 0).getbbox()
        if strip.height
        else None
    )
    if ink is None:
        return Image.new("L", (width, 0), 255)
    text = strip.crop(ink)
    whole = max(1, round(factor))
    if parts.crisp and text.width * whole <= width:
        factor, text = whole, text.resize((text.width * whole, text.height * whole), Image.Resampling.NEAREST)
    else:
        factor = min(factor, width / text.width)
        size = (max(1, floor(text.width * factor)), max(1, round(text.height * factor)))
        text = text.resize(size, Image.Resampling.LANCZOS).point(lambda value: 255 if value >= MIDDLE else 0)
    left, _, right, _ = parts.box
    middle = width / 2 + ((ink[0] + ink[2]) / 2 - (left + right) / 2) * factor
    gap_above = round(min(ink[1], text.height) * factor) if strip is parts.below else 0
    gap_below = round(min(strip.height - ink[3], text.height) * factor) if strip is parts.above else 0
    picture = Image.new("L", (width, gap_above + text.height + gap_below), 255)
    picture.paste(text, (round(min(max(0, middle - text.width / 2), width - text.width)), gap_above))
    return picture


def _draw_whole(barcode: Barcode, width: float, room: Room, *, smallest: bool) -> Drawing | None:
    """A whole crisp picture, each pixel a square of dots: matrices, barcodes on their side, several in one picture."""
    picture, symbols = barcode.picture, barcode.symbols
    is_matrix = all(symbol.is_matrix for symbol in symbols)
    if not barcode.crisp:
        made = drawn(symbols[0].value, symbols[0].kind) if len(symbols) == 1 and is_matrix else None
        left, top, right, bottom = symbols[0].box
        around = picture.copy()
        around.paste(255, (max(0, left - 3), max(0, top - 3), right + 3, bottom + 3))
        if made is None or _has_ink(around):
            return None
        width *= (right - left) / picture.width
        picture = made
    picture = picture.point(lambda value: 255 if value >= MIDDLE else 0)
    module = _thinnest(picture)
    picture = _with_quiet_zone(picture, module * (QUIET_MODULES_OF_MATRIX if is_matrix else QUIET_MODULES))
    least = ceil(fewest_dots(room, LEAST_MM_OF_MATRIX if is_matrix else LEAST_MM) / module)
    dots = max(least, 0 if smallest else floor(width * room.dpi / barcode.picture.width + 0.5))
    if not barcode.crisp:
        dots = max(least, 0 if smallest else floor(width * room.dpi / picture.width + 0.5))
    dots = max(1, min(dots, room.width // picture.width, room.height // picture.height))
    if picture.width * picture.height * dots * dots > MAX_DOTS:
        return None
    size = (picture.width * dots, picture.height * dots)
    kinds, fits = tuple(symbol.kind for symbol in symbols), dots >= least and size[0] <= room.width
    if size[0] > room.width:
        size = (room.width, max(1, size[1] * room.width // size[0]))
    return Drawing(picture.resize(size, Image.Resampling.NEAREST), fits, kinds)


def _thinnest(picture: Image.Image) -> int:
    """Pixels of the thinnest line or gap."""
    lying, standing = picture, picture.transpose(Image.Transpose.TRANSPOSE)
    return max(1, min((*_inner_runs(lying), *_inner_runs(standing)), default=1))


def _inner_runs(picture: Image.Image) -> Iterator[int]:
    width, rows = picture.width, picture.tobytes()
    for row in {rows[y : y + width] for y in range(0, len(rows), width)}:
        yield from runs_of(row)[1:-1]


def _with_quiet_zone(picture: Image.Image, quiet: int) -> Image.Image:
    ink = ImageOps.invert(picture).getbbox() or (0, 0, picture.width, picture.height)
    sides = (ink[0], ink[1], picture.width - ink[2], picture.height - ink[3])
    left, top, right, bottom = (max(0, quiet - side) for side in sides)
    return ImageOps.expand(picture, (left, top, right, bottom), 255)
