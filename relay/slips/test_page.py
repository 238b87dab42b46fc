"""The test page of a printer, as a letter: rulers, margins, barcodes at several widths, letters of many scripts.

Does: writes an HTML message from templates/printers/test-page.html, which is then laid out as each slip is, by the
printer's own profile.
Promises: the lengths of the rulers are those on paper, also where the profile draws letters smaller or larger; barcodes
have the widths that are written above them, in whole dots of the profile's resolution.
Known limits: widths that the paper has no room for are left out. A page template of one's own may move the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from email.mime.image import MIMEImage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from io import BytesIO
from math import floor

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from relay import __version__
from relay.config.profiles import Profile
from relay.resources import templates_folder
from relay.slips.bars import QUIET_MODULES, Room, fewest_dots
from relay.slips.page import Page
from relay.slips.symbols import drawn

FONTS = (
    ("Latin", "Zwölf Boxkämpfer jagen Viktor; žluťoučký kůň; ığüşöç"),
    ("Greek", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία"),
    ("Cyrillic", "Съешь же ещё этих мягких булок"),
    ("Hebrew", "דג סקרן שט בים"),
    ("Arabic", "نص حكيم له سر قاطع"),
    ("Chinese, Japanese, Korean", "圖書館 图书馆 図書館の本 도서관"),
)
_VALUES = (("Code39", "Code 39", "SR39"), ("Code128", "Code 128", "SR128"))
_WIDTHS = 3
"""Module widths of each symbology: the narrowest that is ever printed, and the next ones."""
_LEFT_MM, _RIGHT_MM = 7.5, 1.5
_TALL = 20
_LONGEST_RULER_MM = 80
"""Of the ruler along a roll, which has no length of its own."""


@dataclass(frozen=True, slots=True)
class _Bars:
    kind: str
    value: str
    dots: int
    width_mm: float
    content_id: str
    picture: bytes


def write_test_page(profile: Profile, *, printer: str, queue: str, at: datetime) -> bytes:
    """The message whose slip is the test page of a printer."""
    page = Page.of(profile, 1.0)
    width, length = page.content_mm
    height = None if page.is_roll else length
    barcodes = _barcodes(profile, width, length)
    templates = Environment(
        loader=FileSystemLoader(templates_folder() / "printers"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    html = templates.get_template("test-page.html").render(
        printer=printer,
        queue=queue,
        profile=profile,
        time=at.strftime("%Y-%m-%d %H:%M:%S %Z"),
        version=__version__,
        width=width,
        height=height,
        across=floor(width - 0.5),
        down=floor(height - 0.5 if height is not None else _LONGEST_RULER_MM),
        zoom=100 / profile.scale_percent,
        barcodes=barcodes,
        fonts=FONTS,
    )
    message = MIMEMultipart("related")
    message["Subject"] = "Test page"
    message.attach(MIMEText(html, "html", "utf-8"))
    for bars in barcodes:
        part = MIMEImage(bars.picture, "png")
        part["Content-ID"] = f"<{bars.content_id}>"
        message.attach(part)
    return message.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _barcodes(profile: Profile, width: float, height: float) -> list[_Bars]:
    """The barcodes that the paper has room for, the narrowest first."""
    dot = 25.4 / profile.dpi
    least = fewest_dots(Room(profile.dpi, floor(width / dot), floor(height / dot)))
    found = []
    for symbology, kind, value in _VALUES:
        picture = drawn(value, symbology)
        assert picture is not None  # both symbologies hold these values
        row = picture.crop((0, 0, picture.width, 1)).resize((picture.width, _TALL))
        for dots in range(least, least + _WIDTHS):
            module = dots * dot
            if (picture.width + 2 * QUIET_MODULES) * module > width - _LEFT_MM - _RIGHT_MM:
                break
            content_id = f"{symbology}-{dots}"
            found.append(_Bars(kind, value, dots, picture.width * module, content_id, _png(row)))
    return found


def _png(picture: Image.Image) -> bytes:
    target = BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()
