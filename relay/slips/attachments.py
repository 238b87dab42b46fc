"""Attached files as pages of the slip.

Does: makes a picture of each page of an attached PDF, TIFF, PNG or JPEG, as large as the paper has room for and not
larger than it is; says in words what was not printed.
Promises: nothing of a PDF reaches CUPS but the picture of its pages. An attachment is printed whole or not at all; one
that is broken, protected or too long costs the slip nothing but a line that says so.
Refuses: more pages than there is room for, more than MAX_PIXELS of one picture, and what takes longer than MAX_SECONDS.
Known limits: a page that PDFium does not come back from takes the child with it, and so the slip; text of attachments
can't be searched for in the slip's PDF. Scripts in PDFs are not run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO

import pypdfium2
from PIL import Image, ImageChops, ImageOps

from relay.slips import sniff
from relay.slips.images import CSS_DPI
from relay.slips.parts import MAX_NAME, Attachment

FINEST_DPI = 300
MAX_PIXELS = 40_000_000
MAX_SECONDS = 15.0
MAX_NOTICES = 12
LONGEST_ON_ROLL_MM = 2500.0
QUALITY = 90
LOSSLESS_UP_TO = 2_000_000
TURNED_WHEN_LARGER_BY = 1.1
COLORED_FROM = 24
WHITE_UP_TO = 8

_MM = 25.4
_POINTS = 72.0
_WRONG_PASSWORD = 4  # FPDF_ERR_PASSWORD


@dataclass(frozen=True, slots=True)
class Room:
    """What there is for one attached page: millimetres inside of the margins, and the printer's resolution.

    A roll has no height. `max_pages` is for all attachments of the slip.
    """

    width_mm: float
    height_mm: float | None
    dpi: int
    max_pages: int
    is_monochrome: bool = False


@dataclass(frozen=True, slots=True)
class Sheet:
    """A page as a picture (PNG or JPEG), and how large it is drawn."""

    content: bytes
    width_mm: float
    height_mm: float


@dataclass(frozen=True, slots=True)
class Enclosure:
    """What follows the letter: pages, lines about what is not there, and the same as notes on the delivery."""

    sheets: tuple[Sheet, ...] = ()
    notices: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class _Unprintable(Exception):
    """An attachment that can't be printed; the text says why."""


def enclose(attachments: Iterable[Attachment], room: Room, wanted: str) -> Enclosure:
    """The attachments as they go onto paper; `wanted` is the profile's `attachments`."""
    sheets: list[Sheet] = []
    notices: list[str] = []
    notes: list[str] = []
    deadline = time.monotonic() + MAX_SECONDS
    for attachment in attachments:
        reason = ""
        if attachment.is_pages and wanted == "print":
            try:
                sheets += _sheets(attachment, room, sheets, deadline)
                continue
            except _Unprintable as error:
                reason = f": {error}"
        notices.append(f"Attached, but not printed: {attachment.title}{reason}")
        notes.append(f"The attachment {attachment.name[:MAX_NAME] or attachment.kind} was not printed{reason}.")
    if len(notices) > MAX_NOTICES:
        notices = [*notices[: MAX_NOTICES - 1], f"... and {len(notices) - MAX_NOTICES + 1} more files"]
    return Enclosure(tuple(sheets), tuple(notices) if wanted != "ignore" else (), tuple(notes[:MAX_NOTICES]))


def _sheets(attachment: Attachment, room: Room, before: list[Sheet], deadline: float) -> list[Sheet]:
    found: list[Sheet] = []
    length = sum(sheet.height_mm for sheet in before)
    try:
        pages = _pdf(attachment.content, room) if attachment.kind == sniff.PDF else _picture(attachment.content, room)
        for sheet in pages:
            found.append(sheet)
            length += sheet.height_mm
            if len(before) + len(found) > room.max_pages or (room.height_mm is None and length > LONGEST_ON_ROLL_MM):
                raise _Unprintable("it has too many pages")
            if time.monotonic() > deadline:
                raise _Unprintable("it takes too long")
    except (_Unprintable, MemoryError):
        raise
    except Exception as error:  # Pillow raises nearly anything on broken files
        raise _Unprintable("it can't be read") from error
    if not found:
        raise _Unprintable("it has no pages")
    return found


def _pdf(content: bytes, room: Room) -> Iterator[Sheet]:
    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        is_locked = getattr(error, "err_code", None) == _WRONG_PASSWORD
        raise _Unprintable("it is protected by a password" if is_locked else "it can't be read") from error
    try:
        if len(document) > room.max_pages:
            raise _Unprintable(f"it has {len(document)} pages")
        document.init_forms()
        for number in range(len(document)):
            page = document[number]
            # The white around a page is not worth the paper of a roll, and without it the words are larger.
            crop = _white_edges(page) if room.height_mm is None else (0.0, 0.0, 0.0, 0.0)
            points = page.get_width() - crop[0] - crop[2], page.get_height() - crop[1] - crop[3]
            width, height = (max(1.0, length) * _MM / _POINTS for length in points)
            scale, is_turned = _fit(width, height, room)
            dots = _dots(width * scale, height * scale, room)
            bitmap = page.render(
                scale=dots * scale / _POINTS, rotation=90 if is_turned else 0, crop=crop, rev_byteorder=True
            )
            picture = bitmap.to_pil()
            width, height = (height, width) if is_turned else (width, height)
            yield Sheet(_encoded(picture, room, is_exact=False), width * scale, height * scale)
            bitmap.close()
            page.close()
    finally:
        document.close()


def _white_edges(page: pypdfium2.PdfPage) -> tuple[float, float, float, float]:
    """How much of a page is white at its left, bottom, right and top, less a little edge; in points."""
    scale = min(1.0, 1000 / max(page.get_width(), page.get_height(), 1.0))
    bitmap = page.render(scale=scale, grayscale=True)
    inked = ImageOps.invert(bitmap.to_pil()).point(lambda value: 255 if value > WHITE_UP_TO else 0).getbbox()
    width, height = bitmap.width, bitmap.height
    bitmap.close()
    if inked is None:
        return 0.0, 0.0, 0.0, 0.0
    edges = inked[0], height - inked[3], width - inked[2], inked[1]
    left, bottom, right, top = (max(0.0, (edge - 4) / scale) for edge in edges)
    return left, bottom, right, top


def _picture(content: bytes, room: Room) -> Iterator[Sheet]:
    with Image.open(BytesIO(content), formats=("PNG", "JPEG", "TIFF")) as file:
        frames = getattr(file, "n_frames", 1) if file.format == "TIFF" else 1
        if frames > room.max_pages:
            raise _Unprintable(f"it has {frames} pages")
        for number in range(frames):
            file.seek(number)
            if file.width * file.height > MAX_PIXELS:
                raise _Unprintable("it is too large")
            across, down = _dpi(file)
            is_exact = file.format != "JPEG" and file.width * file.height <= LOSSLESS_UP_TO
            picture = ImageOps.exif_transpose(file)
            if picture.size != file.size:
                across, down = down, across
            width, height = picture.width / across * _MM, picture.height / down * _MM
            scale, is_turned = _fit(width, height, room)
            dots = _dots(width * scale, height * scale, room) / _MM
            size = round(width * scale * dots), round(height * scale * dots)
            picture = _flat(picture)
            # Fax has different resolutions across and down.
            if picture.width > size[0] or picture.height > size[1] or across != down:
                picture = picture.convert("L") if picture.mode == "1" else picture
                picture = picture.resize((max(1, size[0]), max(1, size[1])), Image.Resampling.LANCZOS)
            if is_turned:
                picture = picture.transpose(Image.Transpose.ROTATE_90)
                width, height = height, width
            yield Sheet(_encoded(picture, room, is_exact=is_exact), width * scale, height * scale)


def _fit(width: float, height: float, room: Room) -> tuple[float, bool]:
    """How much smaller a page has to become, and whether it is turned. Nothing is enlarged."""
    if room.height_mm is None:
        return min(1.0, room.width_mm / width), False
    upright = min(1.0, room.width_mm / width, room.height_mm / height)
    turned = min(1.0, room.width_mm / height, room.height_mm / width)
    is_turned = turned > upright * TURNED_WHEN_LARGER_BY
    return (turned if is_turned else upright), is_turned


def _dots(width: float, height: float, room: Room) -> float:
    """Resolution for a picture of that size on paper: the printer's, while the pixels are bearable."""
    dpi = float(min(room.dpi, FINEST_DPI))
    pixels = (width / _MM * dpi) * (height / _MM * dpi)
    return dpi * min(1.0, (MAX_PIXELS / pixels) ** 0.5) if pixels else dpi


def _dpi(picture: Image.Image) -> tuple[float, float]:
    try:
        across, down = (float(value) for value in picture.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return CSS_DPI, CSS_DPI
    return (across, down) if 20 <= across <= 2400 and 20 <= down <= 2400 else (CSS_DPI, CSS_DPI)


def _flat(picture: Image.Image) -> Image.Image:
    """The picture on white, as 1, L or RGB."""
    if picture.mode in ("1", "L", "RGB"):
        return picture
    if "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info:
        colored = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), colored).convert("RGB")
    if picture.mode.startswith("I") or picture.mode == "F":
        return ImageOps.autocontrast(picture.convert("F").point(lambda value: value / 257).convert("L"))
    return picture.convert("RGB")


def _encoded(picture: Image.Image, room: Room, *, is_exact: bool) -> bytes:
    if picture.mode == "RGB" and (room.is_monochrome or not _has_color(picture)):
        picture = picture.convert("L")
    elif picture.mode == "1":
        picture, is_exact = picture.convert("L"), True
    target = BytesIO()
    if is_exact:
        picture.save(target, "PNG", compress_level=1)
    else:
        picture.save(target, "JPEG", quality=QUALITY)
    return target.getvalue()


def _has_color(picture: Image.Image) -> bool:
    small = picture.reduce(4) if min(picture.size) >= 8 else picture
    red, green, blue = small.split()
    differences = (ImageChops.difference(red, green), ImageChops.difference(green, blue))
    return any(difference.getextrema()[1] > COLORED_FROM for difference in differences)  # type: ignore[operator]
