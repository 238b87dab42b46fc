"""Barcodes read from pictures, and made from values: the one place that talks to zxing-cpp.

Does: looks whether a picture has a barcode in it; says symbology, value, place, and, for linear ones, the widths of
bars and spaces in modules; makes the bars of a value anew.
Promises: never an exception for a picture or a value; bounded work, since only pictures that may be barcodes (nearly
grey, at most MAX_PIXELS) are searched.
Known limits: a linear barcode that stands on its side is found, but only as a part of its whole picture. White bars on
black are not looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import gcd

import zxingcpp
from PIL import Image, ImageOps
from zxingcpp import BarcodeFormat

MAX_PIXELS = 2_000_000
MIDDLE = 128
"""What is darker is ink."""
QUIET = 24
"""Pixels of white put around a picture before it is searched."""
FEWEST_RUNS = 19
"""Bars and spaces of the shortest barcode that is looked for; so many in one row make a picture look like one."""
LOWEST_BAND = 5
"""Equal rows that make a band of bars, in pixels."""

# Two widths of bars and spaces; all others have modules of one width, side by side.
_TWO_WIDTHS = ("Code39", "Code39Std", "Code39Ext", "Code32", "PZN", "ITF", "ITF14", "Codabar")
_MATRIX = frozenset(
    """AztecCode AztecRune Aztec DataMatrix MaxiCode PDF417 CompactPDF417 MicroPDF417 QRCode QRCodeModel1 QRCodeModel2
    MicroQRCode RMQRCode""".split()  # noqa: SIM905 - so many words read better without quotes
)

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are outside."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A barcode: `runs` are the widths of bars and spaces in modules, a bar first; empty when they are not known.

    `box` is its place in the picture it was read from.
    """

    kind: str
    value: str
    box: Box = (0, 0, 0, 0)
    runs: tuple[int, ...] = ()

    @property
    def has_two_widths(self) -> bool:
        """Whether bars and spaces are narrow (1) or wide (more), and nothing else."""
        return self.kind in _TWO_WIDTHS

    @property
    def is_matrix(self) -> bool:
        """Whether it is read in two directions."""
        return self.kind in _MATRIX


@dataclass(frozen=True, slots=True)
class Sight:
    """A picture of a barcode, in grey, and what can be read on it: nothing, when it only looks like one."""

    symbols: tuple[Symbol, ...]
    grey: Image.Image


def look(picture: Image.Image, *, crisp: bool, most: int = MAX_PIXELS) -> tuple[Sight | None, int]:
    """The barcodes in a picture, and how many pixels were searched for them; no sight when it is of something else.

    `crisp` pictures have two colours. One of more than `most` pixels is not searched; upright bars are found all the
    same when it is crisp.
    """
    pixels = picture.width * picture.height
    if pixels > MAX_PIXELS or min(picture.size) < 8:
        return None, 0
    grey = _in_grey(picture, crisp=crisp)
    if grey is None:
        return None, 0
    band = band_of_bars(grey) if crisp else None
    if band is not None and (symbol := _read_band(grey, *band)) is not None:
        return Sight((symbol,), grey), 0
    found = _read(grey, ImageOps.expand(grey, QUIET, 255), QUIET) if pixels <= most else []
    return (Sight(tuple(found), grey) if found or band is not None else None), pixels


def band_of_bars(picture: Image.Image) -> tuple[int, int] | None:
    """First row and number of rows of the highest band of equal rows with many bars."""
    width, rows = picture.width, picture.tobytes()
    best: tuple[int, int] | None = None
    top = 0
    for row, equal in groupby(rows[y : y + width] for y in range(0, len(rows), width)):
        height = sum(1 for _ in equal)
        if height >= LOWEST_BAND and (best is None or height > best[1]) and len(runs_of(row)) >= FEWEST_RUNS + 2:
            best = top, height
        top += height
    return best


def runs_of(row: bytes) -> list[int]:
    """Widths of white, black, white, ... in a row of grey pixels; the first may be 0."""
    dark = row.translate(_IS_DARK)
    runs, place, looked_for = [], 0, b"\1"
    while place < len(dark):
        end = dark.find(looked_for, place)
        end = len(dark) if end < 0 else end
        runs.append(end - place)
        place, looked_for = end, b"\0" if looked_for == b"\1" else b"\1"
    return runs


_IS_DARK = bytes(1 if value < MIDDLE else 0 for value in range(256))


def create(value: str, kind: str) -> Symbol | None:
    """A linear barcode of a value, made anew and read again; None when this symbology can't hold it."""
    grey = drawn(value, kind)
    return None if grey is None else _read_row(grey.crop((0, 0, grey.width, 1)).tobytes(), (kind,), value)


def drawn(value: str, kind: str) -> Image.Image | None:
    """The picture of a barcode, one pixel a module, without quiet zone; None when this symbology can't hold it."""
    try:
        made = zxingcpp.create_barcode(value, BarcodeFormat.__members__[kind])
        image = zxingcpp.write_barcode_to_image(made, scale=1, add_quiet_zones=False)
    except (ValueError, RuntimeError, TypeError, KeyError):
        return None
    height, width = image.shape
    return Image.frombytes("L", (width, height), memoryview(image).tobytes())  # type: ignore[arg-type]


def values(picture: Image.Image, kinds: Iterable[str], *, upright: bool) -> set[str]:
    """The values that a scanner for these symbologies would find."""
    return {symbol.value for symbol in _read(picture, picture, 0, tuple(kinds), rotate=not upright)}


def _read_band(picture: Image.Image, top: int, height: int) -> Symbol | None:
    row = picture.crop((0, top, picture.width, top + 1)).tobytes()
    symbol = _read_row(row)
    if symbol is None:
        return None
    left, _, right, _ = symbol.box
    return Symbol(symbol.kind, symbol.value, (left, top, right, top + height), symbol.runs)


def _read_row(row: bytes, kinds: Sequence[str] = (), value: str | None = None) -> Symbol | None:
    """The linear barcode in a row of pixels; None when there is none, or not the one of `value`."""
    strip = Image.frombytes("L", (len(row), 1), row).resize((len(row), 8))
    found = _read(strip, ImageOps.expand(strip, QUIET, 255), QUIET, kinds, rotate=False)
    if len(found) != 1 or found[0].is_matrix or (value is not None and found[0].value != value):
        return None
    return found[0]


def _read(
    picture: Image.Image, padded: Image.Image, offset: int, kinds: Sequence[str] = (), *, rotate: bool = True
) -> list[Symbol]:
    found = zxingcpp.read_barcodes(
        padded,
        formats=zxingcpp.BarcodeFormats([BarcodeFormat.__members__[kind] for kind in kinds]),
        try_downscale=False,
        try_invert=False,
        try_rotate=rotate,
        binarizer=zxingcpp.Binarizer.FixedThreshold,
    )
    return [_symbol(one, picture, offset) for one in found if one.valid and one.text]


def _symbol(found: zxingcpp.Barcode, picture: Image.Image, offset: int) -> Symbol:
    kind = found.format.name
    corners = [
        (point.x - offset, point.y - offset)
        for point in (
            found.position.top_left,
            found.position.top_right,
            found.position.bottom_left,
            found.position.bottom_right,
        )
    ]
    xs, ys = zip(*corners, strict=True)
    box = (max(0, min(xs)), max(0, min(ys)), min(picture.width, max(xs) + 1), min(picture.height, max(ys) + 1))
    if kind in _MATRIX or found.orientation not in (0, 180) or box[2] - box[0] <= box[3] - box[1] == 0:
        return Symbol(kind, found.text, box)
    middle = (box[1] + box[3]) // 2
    runs = runs_of(picture.crop((0, middle, picture.width, middle + 1)).tobytes())
    return _with_runs(Symbol(kind, found.text, box), runs)


def _with_runs(symbol: Symbol, runs: list[int]) -> Symbol:
    """The symbol with the runs of the bars between `left` and `right`, as modules when they are clean."""
    left, top, right, bottom = symbol.box
    place, inside = 0, []
    start = end = None
    for number, width in enumerate(runs):
        is_bar = number % 2 == 1
        # zxing-cpp says where the first and the last bar are, give or take a pixel.
        if width and place + width > left - 2 and place < right + 2 and (is_bar or start is not None):
            start = place if start is None else start
            inside.append(width)
            end = place + width if is_bar else end
        place += width
    if len(inside) % 2 == 0:
        inside = inside[:-1]
    if not inside or start is None or end is None:
        return symbol
    box = (start, top, end, bottom)
    return Symbol(symbol.kind, symbol.value, box, _modules(inside, two_widths=symbol.has_two_widths))


def _modules(runs: list[int], *, two_widths: bool) -> tuple[int, ...]:
    widths = sorted(set(runs))
    if two_widths:
        if len(widths) != 2 or widths[1] < 2 * widths[0]:
            return ()
        return tuple(1 if width == widths[0] else max(2, round(widths[1] / widths[0])) for width in runs)
    module = gcd(*widths)
    if module < widths[0] or widths[-1] > 9 * module:
        return ()
    return tuple(width // module for width in runs)


def _in_grey(picture: Image.Image, *, crisp: bool) -> Image.Image | None:
    """The picture in grey on white; None when it has colours, and so is a logo or a photograph."""
    if picture.mode in ("1", "L") and "transparency" not in picture.info:
        return picture.convert("L")
    if picture.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        over = picture.convert("RGBA")
        picture = Image.new("RGBA", picture.size, "white")
        picture.alpha_composite(over)
    picture = picture.convert("RGB")
    if not crisp:
        pixels = picture.resize((32, 32), Image.Resampling.BOX).tobytes()
        if any(max(pixels[n : n + 3]) - min(pixels[n : n + 3]) > 24 for n in range(0, len(pixels), 3)):
            return None
    return picture.convert("L")
