"""What can be said of a slip on paper by looking at its PDF, without asking the code that made it.

Does: reads the letter's text out of its HTML, and text, glyphs, places and barcodes off the page, with poppler, pdfium,
pypdf, fontTools, zxing-cpp and zbar.
Promises: nothing here imports `relay.slips`: a fault there is not repeated here.
Known limits: text that a style sheet hides counts as text; letters are compared, not words, since a narrow page breaks
words; glyphs of colour fonts are not looked at.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import pypdfium2
import zxingcpp
from fontTools.pens.boundsPen import BoundsPen
from fontTools.ttLib import TTFont
from PIL import Image, ImageOps
from pypdf import PdfReader
from pypdf.generic import ContentStream

MM = 72 / 25.4
"""PDF units in a millimetre."""
_SILENT = {"head", "script", "style", "title", "template", "noscript"}
_VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "param", "source", "wbr"}
_RTL = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")


@dataclass(frozen=True, slots=True)
class Word:
    """A word on a page and where it stands, in PDF units from the top left corner."""

    text: str
    page: int
    left: float
    top: float
    right: float
    bottom: float


def letter_html(message: bytes) -> str:
    """The HTML of a letter, or its plain text as HTML."""
    texts = [part for part in message_from_bytes(message).walk() if part.get_content_maintype() == "text"]
    texts.sort(key=lambda part: part.get_content_subtype() != "html")
    payload = texts[0].get_payload(decode=True) if texts else b""
    assert isinstance(payload, bytes)
    text = payload.decode(texts[0].get_content_charset() or "utf-8", "replace")
    return text if texts[0].get_content_subtype() == "html" else text.replace("&", "&amp;").replace("<", "&lt;")


def text_of_html(html: str, *, floats: bool = True) -> str:
    """The text that a reader should see, in document order. What floats is drawn before its neighbours."""
    reader = _Text(floats)
    reader.feed(html)
    reader.close()
    return "".join(reader.found)


def letters(text: str) -> str:
    """Letters and digits only, in one case and one form, so that line ends, hyphens and ligatures do not matter."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in plain if character.isalnum())


def text_of_pdf(pdf: bytes) -> str:
    """The text in the order in which it was drawn."""
    done = subprocess.run(["pdftotext", "-raw", "-", "-"], input=pdf, capture_output=True, check=True)
    return done.stdout.decode()


def first_gap(wanted: str, found: str) -> str:
    """Where the letters of `wanted` stop to follow one another in `found`; empty when they all do."""
    position = 0
    for number, character in enumerate(wanted):
        position = found.find(character, position) + 1
        if position == 0:
            return wanted[max(0, number - 12) : number + 12]
    return ""


def missing_letters(wanted: str, found: str) -> int:
    """How many letters of `wanted` are not in `found`, wherever they stand."""
    return sum((Counter(wanted) - Counter(found)).values())


def words(pdf: bytes) -> list[Word]:
    """The words of all pages with their places."""
    done = subprocess.run(["pdftotext", "-bbox", "-", "-"], input=pdf, capture_output=True, check=True)
    found, page = [], -1
    for line in done.stdout.decode().splitlines():
        page += "<page " in line
        if match := re.search(r'xMin="(.*?)" yMin="(.*?)" xMax="(.*?)" yMax="(.*?)">(.*?)</word>', line):
            left, top, right, bottom = (float(number) for number in match.groups()[:4])
            found.append(Word(match[5], page, left, top, right, bottom))
    return found


def outside(pdf: bytes) -> list[str]:
    """What stands on the edge of a page or beyond it: words, and pictures."""
    reader = PdfReader(BytesIO(pdf))
    sizes = [(float(page.mediabox.width), float(page.mediabox.height)) for page in reader.pages]
    found = [
        word.text
        for word in words(pdf)
        if word.left < 0 or word.right > sizes[word.page][0] or word.top < 0 or word.bottom > sizes[word.page][1]
    ]
    document = pypdfium2.PdfDocument(pdf)
    for number, page in enumerate(document):
        for piece in page.get_objects(filter=[pypdfium2.raw.FPDF_PAGEOBJ_IMAGE]):
            left, bottom, right, top = piece.get_bounds()
            if left < -1 or bottom < -1 or right > sizes[number][0] + 1 or top > sizes[number][1] + 1:
                found.append(f"picture {number + 1}")
    document.close()
    return found


def height_mm(pdf: bytes) -> float:
    """Height of the first page, in millimetres."""
    return float(PdfReader(BytesIO(pdf)).pages[0].mediabox.height) / MM


def rasters(pdf: bytes, dpi: int) -> list[Image.Image]:
    """The pages as a printer of one bit would print them."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["pdftoppm", "-mono", "-r", str(dpi), "-", f"{folder}/page"]
        subprocess.run(command, input=pdf, capture_output=True, check=True)
        return [Image.open(path).convert("L") for path in sorted(Path(folder).iterdir())]


def edge_is_white(page: Image.Image, dpi: int, edge_mm: float = 0.5) -> bool:
    """Whether nothing is printed along the four edges of a page."""
    edge = max(1, round(edge_mm / 25.4 * dpi))
    width, height = page.size
    sides = (
        (0, 0, edge, height),
        (width - edge, 0, width, height),
        (0, 0, width, edge),
        (0, height - edge, width, height),
    )
    return all(page.crop(side).getextrema() == (255, 255) for side in sides)


def read_by_zxing(page: Image.Image) -> set[str]:
    """The barcodes that zxing-cpp reads on a picture."""
    return {code.text for code in zxingcpp.read_barcodes(page)}


def read_by_zbar(page: Image.Image) -> set[str]:
    """The barcodes that zbar reads on a picture."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        page.save(file, "PNG")
        file.flush()
        done = subprocess.run(["zbarimg", "--nodbus", "-q", file.name], capture_output=True, check=False)
    return {line.partition(":")[2] for line in done.stdout.decode(errors="replace").splitlines() if ":" in line}


def barcodes_in_source(message: bytes) -> set[str]:
    """The values that either reader finds in the pictures that the letter shows."""
    html = letter_html(message).lower()
    found: set[str] = set()
    for part in message_from_bytes(message).walk():
        names = [(part.get("Content-ID") or "").strip("<> "), part.get_filename() or ""]
        if not any(name and name.lower() in html for name in names):
            continue
        payload = part.get_payload(decode=True)
        try:
            picture = Image.open(BytesIO(payload if isinstance(payload, bytes) else b"")).convert("L")
        except OSError:
            continue
        large = ImageOps.expand(
            picture.resize((picture.width * 3, picture.height * 3), Image.Resampling.NEAREST), 60, 255
        )
        found |= read_by_zxing(large) | read_by_zbar(large)
    return found


def missing_glyphs(pdf: bytes) -> str:
    """The characters that are drawn by a glyph without a shape: a box, or nothing."""
    found: dict[str, None] = {}
    for page in PdfReader(BytesIO(pdf)).pages:
        fonts: dict[str, _Font] = {}
        for name, glyph in _glyphs(page, page.get("/Resources"), fonts):
            if fonts[name].is_without_shape(glyph):
                found[fonts[name].character(glyph)] = None
    return "".join(found)


def lines_of_rtl(pdf: bytes) -> tuple[int, int]:
    """How many lines in Hebrew or Arabic there are that are not centred, and how many of them begin at the right."""
    widths = [float(page.mediabox.width) for page in PdfReader(BytesIO(pdf)).pages]
    lines: dict[tuple[int, int], list[Word]] = {}
    for word in words(pdf):
        lines.setdefault((word.page, round((word.top + word.bottom) / 8)), []).append(word)
    counted = right = 0
    for (page, _), line in lines.items():
        if sum(bool(_RTL.search(word.text)) for word in line) * 2 <= len(line):
            continue
        before, after = min(word.left for word in line), widths[page] - max(word.right for word in line)
        if abs(before - after) > 8 * MM:
            counted += 1
            right += after < before
    return counted, right


class _Text(HTMLParser):
    def __init__(self, floats: bool) -> None:
        super().__init__(convert_charrefs=True)
        self._floats = floats
        self.found: list[str] = []
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: (value or "").replace(" ", "").lower() for name, value in attrs}
        style = given.get("style", "")
        floats = "float:" in style or (tag == "table" and given.get("align") in ("left", "right"))
        hidden = tag in _SILENT or "display:none" in style or (floats and not self._floats)
        if tag not in _VOID and (self._silent or hidden):
            self._silent.append(tag)
        self.found.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._silent:
            del self._silent[len(self._silent) - 1 - self._silent[::-1].index(tag) :]
        self.found.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.found.append(data)


class _Font:
    """A font of a PDF: the shapes and characters of its glyphs."""

    def __init__(self, font: Any) -> None:
        self._characters: dict[int, str] = {}
        self._shapes: Any = None
        self._names: list[str] = []
        if font.get("/Subtype") != "/Type0":
            return
        descriptor = font["/DescendantFonts"][0].get_object()["/FontDescriptor"]
        file = descriptor.get("/FontFile2") or descriptor.get("/FontFile3")
        opened = TTFont(BytesIO(file.get_object().get_data()), lazy=True)
        self._names, self._shapes = opened.getGlyphOrder(), opened.getGlyphSet()
        unicode_map = font["/ToUnicode"].get_object().get_data().decode("latin-1")
        for code, text in re.findall(r"<([0-9a-fA-F]{4})>\s*<([0-9a-fA-F]*)>", unicode_map):
            self._characters[int(code, 16)] = bytes.fromhex(text).decode("utf-16-be", "replace")

    def character(self, glyph: int) -> str:
        """What the glyph stands for."""
        return self._characters.get(glyph, "?")

    def is_without_shape(self, glyph: int) -> bool:
        """Whether nothing is drawn for a character that can be seen."""
        text = self._characters.get(glyph, "")
        if self._shapes is None or not any(unicodedata.category(each)[0] in "LNPS" for each in text):
            return False
        if glyph == 0 or glyph >= len(self._names):
            return True
        pen = BoundsPen(self._shapes)
        self._shapes[self._names[glyph]].draw(pen)
        return pen.bounds is None


def _glyphs(page: Any, resources: Any, fonts: dict[str, _Font]) -> Iterator[tuple[str, int]]:
    """Every glyph that a page draws: the key of its font, and its number. Opens fonts as they are met."""
    waiting = [(page.get_contents(), resources)]
    while waiting:
        content, known = waiting.pop()
        if content is None or known is None:
            continue
        font = ""
        for operands, operator in ContentStream(content, None).operations:
            if operator == b"Tf":
                reference = known["/Font"].raw_get(operands[0])
                font = str(reference)
                if font not in fonts:
                    fonts[font] = _Font(reference.get_object())
            elif operator in (b"Tj", b"TJ"):
                pieces = operands[0] if operator == b"TJ" else operands
                for piece in pieces:
                    raw = getattr(piece, "original_bytes", b"")
                    for at in range(0, len(raw) - 1, 2):
                        yield font, int.from_bytes(raw[at : at + 2], "big")
            elif operator == b"Do":
                form = known["/XObject"][operands[0]].get_object()
                if form.get("/Subtype") == "/Form":
                    waiting.append((form, form.get("/Resources") or known))
