"""The seam: the bytes of a message and a printer's profile become a `Slip`.

Does: reads, sanitises, lays out and writes one slip at a time, with WeasyPrint; keeps what is costly to build (fonts,
fetcher, templates) from slip to slip.
Promises: a Slip, or RenderError. Sheets have the profile's size; a roll is one page that ends one margin below the
last ink, though not before SHORTEST_ROLL_MM. What would be cut at the side is drawn smaller instead. Nothing is loaded
but the message's own pictures.
Refuses: letters without ink, more than `max_pages` pages, rolls longer than LONGEST_ROLL_MM, letters that `parts` and
`sanitize` refuse.
Known limits: no guard against time and memory of its own: that is why it runs in `child`, under `sandbox`.

Another engine would replace this module and `extent`, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import Environment
from weasyprint import CSS, HTML
from weasyprint.document import Document
from weasyprint.text.fonts import FontConfiguration
from weasyprint.urls import URLFetcher, URLFetcherResponse

from relay.config.printers import Profile
from relay.errors import RenderError
from relay.slips.extent import extent
from relay.slips.images import Album
from relay.slips.page import LONGEST_ROLL_MM, Page, compose, environment, slip_templates
from relay.slips.parts import read_letter
from relay.slips.sanitize import SafeLetter, sanitize
from relay.slips.slip import Slip

PX_PER_MM = 96 / 25.4
TOLERATED_SPREAD = 1.01
FITTINGS = 4
# How small a letter may be drawn: with whole words on a roll (many columns are usual there) and on a sheet (one
# endless word should not shrink the rest), and in any case.
SMALLEST_ON_ROLL, SMALLEST_ON_SHEET, SMALLEST = 0.6, 0.75, 0.35
TIGHT_ON_ROLL = 0.8
SHORTEST_ROLL_MM = 25.0
"""Roll printers refuse pages that are shorter than what lies between their head and their knife."""


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


class Renderer:
    """Renders slip after slip. One per child; not for several threads."""

    def __init__(self, max_pages: int = 50) -> None:
        self._max_pages = max_pages
        self._fonts = FontConfiguration()
        self._fetcher = PictureFetcher()
        self._templates: dict[str, Environment] = {}
        self._fit, self._roll, self._tight = map(self._stylesheet, ("fit.css", "roll.css", "tight.css"))
        self._count = 0

    def render(self, message: bytes, profile: Profile) -> Slip:
        """The slip of a message. Raises RenderError when it can't become paper."""
        self._count += 1
        letter = read_letter(message)
        # WeasyPrint's images are keyed by URL, so the token makes two slips' item_id_barcode.png two pictures.
        album = Album(letter.pictures, str(self._count))
        try:
            safe = sanitize(letter.html, album.url_for)
            self._fetcher.serve(album.served())
            document, page, notes = self._lay_out(profile, safe, album)
            pdf = document.write_pdf(zoom=1 / page.scale)
        except RecursionError as error:
            raise RenderError("the elements of the letter are nested too deeply to lay out") from error
        finally:
            self._fetcher.serve({})
        return Slip(
            pdf=pdf,
            pages=len(document.pages),
            width_mm=round(document.pages[0].width / PX_PER_MM / page.scale, 2),
            height_mm=round(document.pages[0].height / PX_PER_MM / page.scale, 2),
            notes=(*letter.notes, *album.notes, *notes),
        )

    def _lay_out(self, profile: Profile, letter: SafeLetter, album: Album) -> tuple[Document, Page, list[str]]:
        """Lay out; what is wider than the paper is made smaller, and its words broken when that is not enough."""
        page = Page.of(profile)
        document = self._layout(profile, page, letter, album)
        if all(extent(laid_out).is_blank for laid_out in document.pages):
            raise RenderError("nothing of the letter can be seen: the paper would stay blank")
        for _ in range(FITTINGS):
            spread = max(extent(laid_out).spread for laid_out in document.pages)
            if spread <= TOLERATED_SPREAD:
                break
            page = _narrower(profile, page, spread)
            document = self._layout(profile, page, letter, album)
        notes = [f"The letter is wider than the paper; it was printed at {100 / page.scale:.0f} %."]
        if page.is_roll:
            self._cut(document, page)
        return document, page, notes if page.scale > 1 else []

    def _layout(self, profile: Profile, page: Page, letter: SafeLetter, album: Album) -> Document:
        templates = self._templates.get(profile.template)
        if templates is None:
            templates = self._templates.setdefault(profile.template, environment(profile.template))
        html = HTML(
            string=compose(templates, profile, page, letter, album.stylesheet(page.scale)),
            base_url=None,
            url_fetcher=self._fetcher,
        )
        stylesheets = [self._fit]
        stylesheets += [self._roll] if page.is_roll else []
        stylesheets += [self._tight] if page.is_tight else []
        document: Document = html.render(
            font_config=self._fonts,
            presentational_hints=True,  # Alma's tables are laid out by width=, align= and bgcolor=
            stylesheets=stylesheets,
        )
        if len(document.pages) > (1 if page.is_roll else self._max_pages):
            limit = f"{LONGEST_ROLL_MM / 1000:g} m of paper" if page.is_roll else f"{self._max_pages} pages"
            raise RenderError(f"the slip would take more than {limit}")
        return document

    def _stylesheet(self, name: str) -> CSS:
        css = (slip_templates() / name).read_text(encoding="utf-8")
        return CSS(string=css, font_config=self._fonts, url_fetcher=self._fetcher)

    def _cut(self, document: Document, page: Page) -> None:
        """End the roll one margin below the last ink. The page box stays; only the PDF page gets shorter."""
        roll = document.pages[0]
        end = max(extent(roll).bottom + page.margin_mm * PX_PER_MM, SHORTEST_ROLL_MM * page.scale * PX_PER_MM)
        roll.height = min(roll.height, end)


def _narrower(profile: Profile, page: Page, spread: float) -> Page:
    """The next page to try for a letter that takes `spread` times the width it has."""
    wanted = page.scale * spread
    if page.is_tight:
        return Page.of(profile, min(wanted, 1 / SMALLEST), is_tight=True)
    if wanted * (SMALLEST_ON_ROLL if page.is_roll else SMALLEST_ON_SHEET) <= 1:
        return Page.of(profile, wanted)
    return Page.of(profile, 1 / TIGHT_ON_ROLL if page.is_roll else 1.0, is_tight=True)
