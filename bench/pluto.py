"""PlutoPrint behind the seam of `relay.slips.layout`, for the evaluation, and the child that runs it.

    python -m bench.pluto ENGINE PARENT MEMORY MAX_PAGES        ENGINE is weasyprint or plutoprint

The child is `relay.slips.child` itself: same warm-up, same sandbox, same limits, only the engine differs. What
PlutoPrint lacks is made good as far as it can be from outside: it has no boxes to look at, so the ink of a page is
found by drawing it at half size on a canvas twice as wide; it knows no `image-resolution`, so pictures get their width
in pixels. Where a barcode stands, which glyphs no font has and which text is too small can't be asked.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Mapping

import plutoprint
from PIL import Image

from relay.slips import child
from relay.slips.extent import Extent
from relay.slips.layout import PX_PER_MM, Place, TooManyPages
from relay.slips.page import Page, slip_templates
from relay.slips.render import Renderer

_RESOLUTION = re.compile(r'img\[src\$="([^"]+)"\] \{ image-resolution: ([\d.]+)dpi')
PT_PER_PX = 72 / 96
SHRUNK = 0.5


class PictureFetcher(plutoprint.ResourceFetcher):  # type: ignore[misc]
    """Answers for the pictures of the letter at hand; counts what else is asked for."""

    def __init__(self) -> None:
        self.pictures: Mapping[str, bytes] = {}
        self.refused: list[str] = []

    def fetch_url(self, url: str) -> plutoprint.ResourceData:
        """The picture of that URL; ValueError for any other."""
        if url not in self.pictures:
            self.refused.append(url)
            raise ValueError("not a picture of this letter")
        return plutoprint.ResourceData(self.pictures[url], mime_type="image/png")


class Sheets:
    """A letter that was laid out by PlutoPrint."""

    def __init__(self, book: plutoprint.Book, page: Page) -> None:
        self._book, self._page = book, page
        size = book.get_page_size_at(0)
        self.size = (size.width / PT_PER_PX, size.height / PT_PER_PX)
        self._moved = (0.0, 0.0)

    @property
    def pages(self) -> int:
        """How many there are."""
        return int(self._book.get_page_count())

    def extents(self) -> list[Extent]:
        """How far the ink goes on each page, to two pixels."""
        return [self._extent(number) for number in range(self.pages)]

    def _extent(self, number: int) -> Extent:
        width, height = (self._book.get_page_size_at(number)[n] / PT_PER_PX for n in (0, 1))
        canvas = plutoprint.ImageCanvas(
            int(2 * width * SHRUNK), int(height * SHRUNK) + 1, plutoprint.IMAGE_FORMAT_RGB24
        )
        canvas.clear_surface(1, 1, 1)
        canvas.scale(SHRUNK, SHRUNK)
        self._book.render_page(canvas, number)
        canvas.flush()
        size = (canvas.get_width(), canvas.get_height())
        grey = Image.frombuffer("RGBX", size, bytes(canvas.get_data()), "raw", "BGRX", canvas.get_stride(), 1).convert(
            "L"
        )
        ink = grey.point(lambda value: 255 * (value < 250)).getbbox()
        margins = self._page.margins
        left, top, end = margins.left * PX_PER_MM, margins.top * PX_PER_MM, width - margins.right * PX_PER_MM
        if ink is None:
            return Extent(left, end, top, left, end, top, is_blank=True)
        first, _, last, bottom = (edge / SHRUNK for edge in ink)
        return Extent(min(first, end), last, bottom, left, end, top, is_blank=False)

    def missing_glyphs(self) -> int:
        """Not known: PlutoPrint does not tell what it drew."""
        return 0

    def places(self, prefix: str) -> list[Place]:
        """Not known: so no barcode is put on whole dots, and none is read again."""
        return []

    def align(self, prefix: str, dot: float, inset: float) -> None:
        """Nothing, for the same reason."""

    def cut(self, height: float) -> None:
        """Ends the first page at that height."""
        self.size = (self.size[0], min(self.size[1], height))

    def widen(self, times: float) -> None:
        """Makes each page so many times as large."""
        margins = self._page.margins
        over = max(max(0.0, extent.content_left - extent.left) for extent in self.extents())
        self._moved = (margins.left * PX_PER_MM * (times - 1) + over, margins.top * PX_PER_MM * (times - 1))
        self.size = (self.size[0] * times, self.size[1] * times)

    def pdf(self, zoom: float) -> bytes:
        """The PDF, page by page, so that a page may be shorter than it was laid out."""
        target = io.BytesIO()
        size = plutoprint.PageSize(*(length * PT_PER_PX * zoom for length in self.size))
        with plutoprint.PDFCanvas.create_for_stream(target, size) as canvas:
            for number in range(self.pages):
                canvas.save_state()
                canvas.scale(PT_PER_PX * zoom, PT_PER_PX * zoom)
                canvas.translate(*self._moved)
                self._book.render_page(canvas, number)
                canvas.restore_state()
                canvas.show_page()
        return target.getvalue()


class Engine:
    """Lays out letter after letter with PlutoPrint."""

    def __init__(self) -> None:
        self.fetcher = PictureFetcher()
        names = ("fit.css", "barcodes.css", "roll.css", "roll-generated.css", "loose.css", "tight.css")
        texts = ((slip_templates() / name).read_text(encoding="utf-8") for name in names)
        self._fit, self._barcodes, self._roll, self._generated, self._loose, self._tight = texts

    def serve(self, pictures: Mapping[str, bytes]) -> None:
        """From now on the letter may load these pictures and no others."""
        self.fetcher.pictures = pictures

    def lay_out(self, html: str, page: Page, most: int, css: str = "", least_pt: float = 0.0) -> Sheets:
        """The pages of a whole HTML page. What is too small to read stays so: there are no styles to look at."""
        sheets = [self._fit, *([self._roll, self._generated] if page.is_roll else [])]
        sheets += [self._loose, self._tight][: page.squeeze]
        sheets += [self._barcodes, css] if css else []
        margins = (getattr(page.margins, side) * plutoprint.UNITS_MM for side in ("top", "right", "bottom", "left"))
        size = plutoprint.PageSize(*(mm * plutoprint.UNITS_MM for mm in (page.width_mm, page.height_mm)))
        book = plutoprint.Book(size, plutoprint.PageMargins(*margins))
        book.custom_resource_fetcher = self.fetcher
        book.load_html(_RESOLUTION.sub(self._width, html), user_style="\n".join(sheets))
        if book.get_page_count() > most:
            raise TooManyPages
        return Sheets(book, page)

    def _width(self, rule: re.Match[str]) -> str:
        end, dpi = rule[1], float(rule[2])
        content = next(content for url, content in self.fetcher.pictures.items() if url.endswith(end))
        with Image.open(io.BytesIO(content)) as picture:
            width = picture.width * 96 / dpi
        return f'img[src$="{end}"]:not([width]):not([height]) {{ width: {width:g}px'


def main() -> None:
    """Be the child, with the engine that is named."""
    if sys.argv.pop(1) == "plutoprint":
        child.Renderer = lambda max_pages: Renderer(max_pages, Engine())  # type: ignore[assignment,arg-type,misc]
    child.main()


if __name__ == "__main__":
    main()
