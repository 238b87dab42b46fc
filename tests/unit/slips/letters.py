"""Letters for the tests: messages in the shape of Alma's, built here."""

from __future__ import annotations

import html
import re
import subprocess
from dataclasses import dataclass
from email.mime.base import MIMEBase
from email.mime.image import MIMEImage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from io import BytesIO

from PIL import Image
from pypdf import PdfReader

MM = 72 / 25.4
"""PDF units in a millimetre."""


def solid(color: str, size: tuple[int, int] = (60, 30), kind: str = "PNG", dpi: int | None = None) -> bytes:
    """A picture of one colour."""
    target = BytesIO()
    Image.new("RGB", size, color).save(target, kind, **({"dpi": (dpi, dpi)} if dpi else {}))
    return target.getvalue()


def barcode(width: int = 300, height: int = 60, dpi: int = 150) -> bytes:
    """A picture as Alma's barcodes are: one bit, one pixel per module, its resolution in pHYs. Black at both ends."""
    picture = Image.new("1", (width, height), 1)
    for x in range(0, width, 3):
        picture.paste(0, (x, 0, x + 1, height))
    picture.paste(0, (width - 1, 0, width, height))
    target = BytesIO()
    picture.save(target, "PNG", dpi=(dpi, dpi))
    return target.getvalue()


def picture(content: bytes, content_id: str = "", name: str = "", location: str = "", subtype: str = "png") -> MIMEBase:
    """A picture part with the names that are given."""
    part = MIMEImage(content, subtype)
    if content_id:
        part["Content-ID"] = f"<{content_id}>"
    if name:
        part.add_header("Content-Disposition", "inline", filename=name)
    if location:
        part["Content-Location"] = location
    return part


def letter(content: str, *pictures: MIMEBase, charset: str = "utf-8") -> bytes:
    """multipart/related -> multipart/alternative with one child -> text/html, then the pictures."""
    message = MIMEMultipart("related")
    message["From"], message["To"], message["Subject"] = "alma@example.edu", "desk@example.edu", "Slip"
    alternative = MIMEMultipart("alternative")
    alternative.attach(MIMEText(content, "html", charset))
    message.attach(alternative)
    for part in pictures:
        message.attach(part)
    return message.as_bytes()


def text_of(pdf: bytes) -> str:
    """The text of a PDF, with single spaces. By poppler: pypdf misreads fonts of several scripts."""
    done = subprocess.run(["pdftotext", "-", "-"], input=pdf, capture_output=True, check=True)
    return " ".join(done.stdout.decode().split())


def size_of(pdf: bytes, page: int = 0) -> tuple[float, float]:
    """Width and height of a page in millimetres."""
    box = PdfReader(BytesIO(pdf)).pages[page].mediabox
    return float(box.width) / MM, float(box.height) / MM


def raster(pdf: bytes, dpi: int = 100) -> Image.Image:
    """The first page as the printer would see it."""
    command = ["pdftoppm", "-r", str(dpi), "-singlefile", "-png", "-"]
    done = subprocess.run(command, input=pdf, capture_output=True, check=True)
    return Image.open(BytesIO(done.stdout)).convert("RGB")


def ink_mm(image: Image.Image, dpi: int = 100) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what is not white, in millimetres."""
    box = image.convert("L").point(lambda value: 255 if value < 200 else 0).getbbox()
    assert box, "the page is empty"
    left, top, right, bottom = (edge * 25.4 / dpi for edge in box)
    return left, top, right, bottom


def colors(image: Image.Image) -> set[tuple[int, int, int]]:
    """The colours that fill more than a few dots of a page, but white."""
    counted = image.getcolors(image.width * image.height) or []
    found = {color: count for count, color in counted if isinstance(color, tuple) and count > 50}
    return {(color[0], color[1], color[2]) for color in found} - {(255, 255, 255)}


@dataclass(frozen=True)
class Word:
    """A word on the first page, in millimetres from its top left corner."""

    text: str
    left: float
    right: float
    top: float
    bottom: float


def words_of(pdf: bytes, page: int = 1) -> list[Word]:
    """The words of a page where they stand. Poppler gives them as they are seen; Hebrew is put into reading order."""
    command = ["pdftotext", "-bbox", "-f", str(page), "-l", str(page), "-", "-"]
    done = subprocess.run(command, input=pdf, capture_output=True, check=True)
    found = re.findall(
        r'<word xMin="([\d.-]+)" yMin="([\d.-]+)" xMax="([\d.-]+)" yMax="([\d.-]+)">(.*?)</word>', done.stdout.decode()
    )
    words = []
    for left, top, right, bottom, text in found:
        shown = html.unescape(text)
        is_hebrew = any("\u0590" <= character <= "\u05ff" for character in shown)
        places = (float(place) / MM for place in (left, right, top, bottom))
        words.append(Word(shown[::-1] if is_hebrew else shown, *places))
    return words


def word(pdf: bytes, text: str) -> Word:
    """The one word of that text."""
    found = [each for each in words_of(pdf) if each.text == text]
    assert len(found) == 1, f"{text!r} is there {len(found)} times: {[each.text for each in words_of(pdf)]}"
    return found[0]
