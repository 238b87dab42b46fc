"""From the bytes of a message and a printer's profile to a `Slip`.

Does: reads, sanitises, lays out and writes one slip at a time.
Promises: a Slip, or RenderError. Sheets have the profile's size; a roll is one page that ends one margin below the
last ink, though not before SHORTEST_ROLL_MM. What would be cut at the side is drawn smaller instead.
Refuses: letters without ink, more than `max_pages` pages, rolls longer than LONGEST_ROLL_MM, letters that `parts` and
`sanitize` refuse.
"""

from __future__ import annotations

from jinja2 import Environment

from relay.config.printers import Profile
from relay.errors import RenderError
from relay.slips.images import Album
from relay.slips.layout import PX_PER_MM, Engine, Sheets
from relay.slips.page import LONGEST_ROLL_MM, Page, compose, environment
from relay.slips.parts import read_letter
from relay.slips.sanitize import SafeLetter, sanitize
from relay.slips.slip import Slip

TOLERATED_SPREAD = 1.01
FITTINGS = 4
# How small a letter may be drawn: with whole words on a roll (many columns are usual there) and on a sheet (one
# endless word should not shrink the rest), and in any case.
SMALLEST_ON_ROLL, SMALLEST_ON_SHEET, SMALLEST = 0.6, 0.75, 0.35
TIGHT_ON_ROLL = 0.8
SHORTEST_ROLL_MM = 25.0
"""Roll printers refuse pages that are shorter than what lies between their head and their knife."""


class Renderer:
    """Renders slip after slip. One per child; not for several threads."""

    def __init__(self, max_pages: int = 50) -> None:
        self._max_pages = max_pages
        self._engine = Engine()
        self._templates: dict[str, Environment] = {}
        self._count = 0

    def render(self, message: bytes, profile: Profile) -> Slip:
        """The slip of a message. Raises RenderError when it can't become paper."""
        self._count += 1
        letter = read_letter(message)
        # WeasyPrint's images are keyed by URL, so the token makes two slips' item_id_barcode.png two pictures.
        album = Album(letter.pictures, str(self._count))
        try:
            safe = sanitize(letter.html, album.url_for)
            self._engine.serve(album.served())
            sheets, page, notes = self._lay_out(profile, safe, album)
            pdf = sheets.pdf(zoom=1 / page.scale)
        except RecursionError as error:
            raise RenderError("the elements of the letter are nested too deeply to lay out") from error
        finally:
            self._engine.serve({})
        width, height = (round(length / PX_PER_MM / page.scale, 2) for length in sheets.size)
        return Slip(pdf, sheets.pages, width, height, notes=(*letter.notes, *album.notes, *notes))

    def _lay_out(self, profile: Profile, letter: SafeLetter, album: Album) -> tuple[Sheets, Page, list[str]]:
        """Lay out; what is wider than the paper is made smaller, and its words broken when that is not enough."""
        page = Page.of(profile)
        sheets = self._layout(profile, page, letter, album)
        if all(extent.is_blank for extent in sheets.extents()):
            raise RenderError("nothing of the letter can be seen: the paper would stay blank")
        for _ in range(FITTINGS):
            spread = max(extent.spread for extent in sheets.extents())
            if spread <= TOLERATED_SPREAD:
                break
            page = _narrower(profile, page, spread)
            sheets = self._layout(profile, page, letter, album)
        notes = [f"The letter is wider than the paper; it was printed at {100 / page.scale:.0f} %."]
        if page.is_roll:
            _cut(sheets, page)
        return sheets, page, notes if page.scale > 1 else []

    def _layout(self, profile: Profile, page: Page, letter: SafeLetter, album: Album) -> Sheets:
        templates = self._templates.get(profile.template)
        if templates is None:
            templates = self._templates.setdefault(profile.template, environment(profile.template))
        sheets = self._engine.lay_out(compose(templates, profile, page, letter, album.stylesheet(page.scale)), page)
        if sheets.pages > (1 if page.is_roll else self._max_pages):
            limit = f"{LONGEST_ROLL_MM / 1000:g} m of paper" if page.is_roll else f"{self._max_pages} pages"
            raise RenderError(f"the slip would take more than {limit}")
        return sheets


def _cut(sheets: Sheets, page: Page) -> None:
    """End the roll one margin below the last ink."""
    bottom = sheets.extents()[0].bottom
    sheets.cut(max(bottom + page.margin_mm * PX_PER_MM, SHORTEST_ROLL_MM * page.scale * PX_PER_MM))


def _narrower(profile: Profile, page: Page, spread: float) -> Page:
    """The next page to try for a letter that takes `spread` times the width it has."""
    wanted = page.scale * spread
    if page.is_tight:
        return Page.of(profile, min(wanted, 1 / SMALLEST), is_tight=True)
    if wanted * (SMALLEST_ON_ROLL if page.is_roll else SMALLEST_ON_SHEET) <= 1:
        return Page.of(profile, wanted)
    return Page.of(profile, 1 / TIGHT_ON_ROLL if page.is_roll else 1.0, is_tight=True)
