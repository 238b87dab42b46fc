"""The seam to the layout engine: HTML and pictures in, pages and PDF out. Behind it is WeasyPrint.

Does: lays out one page of HTML at a time; keeps what is costly to build (fonts, fetcher, style sheets) from slip to
slip; enlarges text that would come out too small to read; says how far the ink of each page goes.
Promises: nothing is loaded but the pictures that it was given.
Refuses: to go on at the page after the last one that it may lay out (TooManyPages).
Known limits: no other guard against time and memory of its own: that is why it runs in `child`, under `sandbox`.

Another engine would replace this module and `extent`, and nothing else; docs/renderers.md has one that was tried.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from weasyprint import CSS, DEFAULT_OPTIONS, HTML
from weasyprint.document import Document
from weasyprint.formatting_structure import boxes
from weasyprint.text.fonts import FontConfiguration
from weasyprint.urls import URLFetcher, URLFetcherResponse

from relay.slips import reuse, shortcuts, subsets
from relay.slips.extent import Extent, drawn_text, extent
from relay.slips.fonts import Fonts
from relay.slips.page import Page, slip_templates
from relay.slips.styles import adjust

PX_PER_MM = 96 / 25.4
"""CSS pixels in a millimetre of paper."""
PX_PER_PT = 96 / 72

_ADJUST = "relay_adjust"


class TooManyPages(Exception):
    """The letter goes on after the last page that was allowed."""


class _PageLimit(logging.Filter):
    """Ends the layout at a page: WeasyPrint lays out all that there are, and tells its log of progress of each."""

    def __init__(self) -> None:
        super().__init__()
        self.most = sys.maxsize

    def filter(self, record: logging.LogRecord) -> bool:
        """Never into any log."""
        if "Page" in record.msg and isinstance(record.args, tuple) and record.args:
            page = record.args[0]
            if isinstance(page, int) and page > self.most:
                raise TooManyPages
        return False


class PictureFetcher(URLFetcher):  # type: ignore[misc]  # WeasyPrint has no types
    """Answers for the pictures of the letter at hand, and refuses everything else without opening anything."""

    def __init__(self) -> None:
        # Not calling URLFetcher.__init__ is the point: it installs handlers for http, ftp and file, and reads the
        # machine's certificates (21 ms).
        self._fail_on_errors = False
        self._pictures: Mapping[str, bytes] = {}

    def serve(self, pictures: Mapping[str, bytes]) -> None:
        """From now on, these and no others."""
        self._pictures = pictures

    def fetch(self, url: str, headers: object = None) -> URLFetcherResponse:
        """The picture of that URL; ValueError for any other."""
        content = self._pictures.get(url)
        if content is None:
            raise ValueError("not a picture of this letter")
        return URLFetcherResponse(url, content, {"Content-Type": "image/png"})

    def open(self, url: object, data: object = None, timeout: object = None) -> URLFetcherResponse:
        """Never: this is the way to the handlers of urllib."""
        raise ValueError("not a picture of this letter")


class _Adjusted(Document):  # type: ignore[misc]  # WeasyPrint has no types
    """A document whose styles are adjusted between their computation and the layout; the options say to what."""

    @classmethod
    def _build_layout_context(cls, html: Any, *rest: Any) -> Any:
        context = super()._build_layout_context(html, *rest)
        least, widest = rest[-1][_ADJUST]
        adjust(context.style_for._computed_styles.values(), least, widest)  # in the order of the tree
        return context


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture stands: its page, counted from 0, and its rectangle from the top left corner of the page."""

    url: str
    page: int
    x: float
    y: float
    width: float
    height: float


class Sheets:
    """A letter that was laid out: its pages, in CSS pixels."""

    def __init__(self, document: Document, fonts: Fonts) -> None:
        self._document = document
        self._fonts = fonts
        self._extents: list[Extent] | None = None

    @property
    def pages(self) -> int:
        """How many there are."""
        return len(self._document.pages)

    def extents(self) -> list[Extent]:
        """How far the ink goes on each page."""
        if self._extents is None:
            self._extents = [extent(page) for page in self._document.pages]
        return self._extents

    def missing_glyphs(self) -> int:
        """How many characters are drawn as empty boxes because no font of this machine has them."""
        return sum(self._fonts.missing(drawn_text(page)) for page in self._document.pages)

    def places(self, prefix: str) -> list[Place]:
        """Where the pictures stand whose URL begins with `prefix`, in the order of the pages."""
        return [
            Place(url, page, box.content_box_x(), box.content_box_y(), box.width, box.height)
            for url, page, box in self._pictures(prefix)
        ]

    def align(self, prefix: str, dot: float, inset: float) -> None:
        """Moves pictures to the next whole dot of `dot` pixels, and `inset` into it; the rest stays where it is."""
        self._extents = None
        for _, _, box in self._pictures(prefix):
            x, y = box.content_box_x() - inset, box.content_box_y() - inset
            box.translate(round(x / dot) * dot - x, round(y / dot) * dot - y)

    def _pictures(self, prefix: str) -> Iterator[tuple[str, int, Any]]:
        for number, page in enumerate(self._document.pages):
            waiting: list[Any] = [page._page_box]
            while waiting:
                box = waiting.pop()
                if isinstance(box, boxes.ReplacedBox) and box.element_tag == "img":
                    url = box.element.get("src") or ""
                    if url.startswith(prefix) and box.style["visibility"] == "visible":
                        yield url, number, box
                elif isinstance(box, boxes.ParentBox):
                    waiting.extend(reversed(box.children))

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the first page."""
        first = self._document.pages[0]
        return first.width, first.height

    def cut(self, height: float) -> None:
        """Ends the first page at that height, if it is longer. The layout stays; only the PDF page gets shorter."""
        first = self._document.pages[0]
        first.height = min(first.height, height)

    def widen(self, times: float) -> None:
        """Makes each page so many times as large, and its margins with it: drawn smaller, what stood over fits."""
        self._extents = None
        for page in self._document.pages:
            reach = extent(page)
            box: Any = page._page_box
            over = max(0.0, reach.content_left - reach.left)
            box.translate(reach.content_left * (times - 1) + over, reach.content_top * (times - 1))
            page.width, page.height = page.width * times, page.height * times

    def pdf(self, zoom: float) -> bytes:
        """The PDF, drawn `zoom` times as large as it was laid out."""
        pdf: bytes = self._document.write_pdf(zoom=zoom)
        return pdf


class Engine:
    """Lays out letter after letter. One per child; not for several threads."""

    def __init__(self) -> None:
        subsets.install()
        shortcuts.install()
        reuse.install()
        self._fonts = FontConfiguration()
        self._coverage = Fonts()
        self._fetcher = PictureFetcher()
        self._limit = _page_limit()
        names = ("fit.css", "barcodes.css", "roll.css", "roll-generated.css", "loose.css", "tight.css")
        self._fit, self._barcodes, self._roll, self._generated, self._loose, self._tight = map(self._stylesheet, names)

    def serve(self, pictures: Mapping[str, bytes]) -> None:
        """From now on the letter may load these pictures, by their URLs, and no others."""
        self._fetcher.serve(pictures)

    def lay_out(self, html: str, page: Page, most: int, css: str = "", least_pt: float = 0.0) -> Sheets:
        """The pages of a whole HTML page, with no text that comes out smaller than `least_pt` on paper; `!important`
        in `css` wins over the letter.

        Raises TooManyPages when there are more than `most`, RecursionError when its elements are nested too deeply.
        """
        self._limit.most = most
        stylesheets = [self._fit]
        stylesheets += [self._roll] if page.is_roll else []
        stylesheets += [self._generated] if page.is_roll and _has_generated_content(html) else []
        stylesheets += [self._loose, self._tight][: page.squeeze]
        if css:
            stylesheets += [self._barcodes, reuse.stylesheet(css, self._fonts, self._fetcher)]
        options = {
            **DEFAULT_OPTIONS,
            "presentational_hints": True,  # Alma's tables are laid out by width=, align= and bgcolor=
            "stylesheets": stylesheets,
            _ADJUST: (least_pt * PX_PER_PT * page.scale, page.content_mm[0] * PX_PER_MM),
        }
        parsed = reuse.without_what_no_slip_has(HTML(string=html, base_url=None, url_fetcher=self._fetcher), html)
        try:
            return Sheets(_Adjusted._render(parsed, self._fonts, None, None, options), self._coverage)
        finally:
            self._limit.most = sys.maxsize  # WeasyPrint may be used by others in this process

    def _stylesheet(self, name: str) -> CSS:
        css = (slip_templates() / name).read_text(encoding="utf-8")
        return CSS(string=css, font_config=self._fonts, url_fetcher=self._fetcher)


def _page_limit() -> _PageLimit:
    """The one limit of this process, on WeasyPrint's log of progress."""
    progress = logging.getLogger("weasyprint.progress")
    progress.setLevel(logging.INFO)
    found = [each for each in progress.filters if isinstance(each, _PageLimit)]
    if not found:
        found = [_PageLimit()]
        progress.addFilter(found[0])
    return found[0]


def _has_generated_content(html: str) -> bool:
    """Whether there may be rules for ::before and ::after: two more styles for each element are not had for nothing."""
    lower = html.lower()
    return ":before" in lower or ":after" in lower
