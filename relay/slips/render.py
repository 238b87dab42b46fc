"""From the bytes of a message and a printer's profile to a `Slip`.

Does: reads, sanitises, lays out and writes one slip at a time; finds the direction of its blocks and the code that is
printed large; counts the characters that no font has.
Promises: a Slip, or RenderError. Sheets have the profile's size; a roll is one page that ends one margin below the
last ink. What would be cut at the side is made to fit (`fit`).
Refuses: letters without ink, more than `max_pages` pages, rolls longer than LONGEST_ROLL_MM, letters that `parts` and
`sanitize` refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from jinja2 import Environment

from relay.config.pictures import Pictures
from relay.config.profiles import Profile
from relay.errors import RenderError
from relay.slips import direction, tree
from relay.slips.attachments import Enclosure, Room, enclose
from relay.slips.barcode_fonts import replace_fonts
from relay.slips.barcodes import Arrangement, BarcodesOfLetter, notes_on
from relay.slips.content import digest
from relay.slips.copies import Copies
from relay.slips.fit import Fitted, Fitting
from relay.slips.images import Album
from relay.slips.layout import PX_PER_MM, Engine, Sheets, TooManyPages
from relay.slips.mark import mark
from relay.slips.page import LONGEST_ROLL_MM, Attached, AttachedSheet, Page, compose, environment
from relay.slips.parts import Letter, read_letter
from relay.slips.sanitize import SafeLetter, sanitize
from relay.slips.selectors import first_text
from relay.slips.slip import Barcodes, Occasion, Slip


class Renderer:
    """Renders slip after slip. One per child; not for several threads."""

    def __init__(self, max_pages: int = 50, engine: Engine | None = None) -> None:
        self.max_pages = max_pages
        self._engine = engine or Engine()
        self._templates: dict[str, Environment] = {}
        self._count = 0

    def render(
        self,
        message: bytes,
        profile: Profile,
        occasion: Occasion | None = None,
        pictures: Pictures | None = None,
    ) -> Slip:
        """The slip of a message. Raises RenderError when it can't become paper.

        `pictures` says whose copies of pictures on other servers it may have.
        """
        self._count += 1
        letter = read_letter(message)
        # WeasyPrint's images are keyed by URL, so the token makes two slips' item_id_barcode.png two pictures.
        copies = Copies(pictures)
        album = Album(letter.pictures, str(self._count), copies)
        try:
            safe, code = _read(sanitize(letter.html, album.url_for), profile)
            safe, not_bars = replace_fonts(safe, album.add)
            enclosure = self._enclose(letter, profile, album)
            attached, served = _attached(enclosure, f"slip:///{self._count}/attached/sheet")
            barcodes = BarcodesOfLetter(album.drawables, album.prefix, profile, not_bars)
            order = _Order(profile, safe, album, occasion or Occasion(), code, barcodes, attached, served)
            fitted, pdf, checked = self._print(order)
            missing = fitted.sheets.missing_glyphs()
        except RecursionError as error:
            raise RenderError("the elements of the letter are nested too deeply to lay out") from error
        finally:
            self._engine.serve({})
        width, height = (round(length / PX_PER_MM / fitted.page.scale, 2) for length in fitted.sheets.size)
        last = [_missing_note(missing)] if missing else []
        notes = _once(letter.notes, album.notes, enclosure.notes, fitted.notes, notes_on(checked), last)
        content = digest(letter)
        return Slip(pdf, fitted.sheets.pages, width, height, notes, missing, checked, copies.wanted, content)

    def mark(self, pdf: bytes, text: str, profile: Profile) -> Slip:
        """A PDF that was rendered for that profile, with a line of text that covers nothing. Raises RenderError."""
        return mark(self._engine, pdf, text, profile)

    def _enclose(self, letter: Letter, profile: Profile, album: Album) -> Enclosure:
        page = Page.of(profile, 1.0)
        width, height = page.content_mm
        # A little less than the page, so that no rounding makes a second one of it.
        room = Room(width, None if page.is_roll else height - 0.5, profile.dpi, self.max_pages, profile.monochrome)
        attachments = [attachment for attachment in letter.attachments if not album.shows(attachment.content)]
        enclosure = enclose(attachments, room, profile.attachments)
        if not letter.html and not enclosure.sheets and not enclosure.notices:
            raise RenderError("the message has attachments and no letter, and this profile prints none")
        return enclosure

    def _print(self, order: _Order) -> tuple[Fitted, bytes, Barcodes]:
        """The PDF. When a barcode does not read on it, once more with what may hide it undone, and then marked."""
        is_freed, marked = False, frozenset[str]()
        while True:
            arrange = partial(order.barcodes.arrange, order.letter.body, is_freed=is_freed, marked=marked)
            fitted = Fitting(order.profile, order.barcodes, arrange, partial(self._lay_out, order)).fit()
            pdf = fitted.sheets.pdf(zoom=1 / fitted.page.scale)
            checked, failed, hidden = order.barcodes.check(fitted.arrangement, fitted.sheets, fitted.page.scale, pdf)
            if hidden and not is_freed:
                is_freed = True
            elif failed and not marked and order.profile.mark_barcodes:
                marked = failed
            else:
                return fitted, pdf, checked

    def _lay_out(self, order: _Order, page: Page, arrangement: Arrangement) -> Sheets:
        profile, album, attached = order.profile, order.album, order.attached
        templates = self._templates.get(profile.template)
        if templates is None:
            templates = self._templates.setdefault(profile.template, environment(profile.template))
        self._engine.serve({**album.served(), **arrangement.served(), **order.served})
        letter = replace(order.letter, body=arrangement.body)
        css = album.stylesheet(arrangement.body, page.scale)
        html = compose(
            templates,
            profile,
            page,
            letter,
            css,
            occasion=order.occasion,
            code=order.code,
            attached=attached,
        )
        if attached.sheets and attached.sheets[0].url not in html:
            raise RenderError(f"the template {profile.template} has no block `attachments`, and the message has some")
        most, kept = 1 if page.is_roll else self.max_pages, arrangement.stylesheet(page.scale)
        try:
            sheets = self._engine.lay_out(html, page, most, kept, profile.min_font_size_pt)
        except TooManyPages as error:
            limit = f"{LONGEST_ROLL_MM / 1000:g} m of paper" if page.is_roll else f"{self.max_pages} pages"
            raise RenderError(f"the slip would take more than {limit}") from error
        if all(extent.is_blank for extent in sheets.extents()):
            raise RenderError("nothing of the letter can be seen: the paper would stay blank")
        return sheets


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be laid out, however often it takes to fit."""

    profile: Profile
    letter: SafeLetter
    album: Album
    occasion: Occasion
    code: str
    barcodes: BarcodesOfLetter
    attached: Attached
    served: Mapping[str, bytes]


def _read(letter: SafeLetter, profile: Profile) -> tuple[SafeLetter, str]:
    """The letter with the direction of each of its blocks, and the code that the profile wants large."""
    is_mixed = letter.direction == "rtl" or direction.has_rtl(letter.body)
    if profile.big is None and not is_mixed:
        return letter, ""
    body = tree.parse(letter.body)
    code = first_text(body, profile.big.select) if profile.big is not None else ""
    if not is_mixed:
        return letter, code
    css, style = letter.css, letter.style
    if not letter.says_direction:
        direction.all_left_is_start(body)
        css, style = direction.left_is_start(css), direction.left_is_start(style)
    direction.set_directions(body, letter.direction)
    return replace(letter, body=tree.inner_html(body), css=css, style=style), code


def _missing_note(count: int) -> str:
    if count == 1:
        return "1 character of the letter is missing in the fonts of this machine."
    return f"{count} characters of the letter are missing in the fonts of this machine."


def _attached(enclosure: Enclosure, prefix: str) -> tuple[Attached, dict[str, bytes]]:
    """The enclosure for the page template, and the pictures that it will ask for."""
    pictures = {f"{prefix}{number}": sheet.content for number, sheet in enumerate(enclosure.sheets, start=1)}
    sheets = tuple(
        AttachedSheet(url, sheet.width_mm, sheet.height_mm)
        for url, sheet in zip(pictures, enclosure.sheets, strict=True)
    )
    return Attached(sheets, enclosure.notices), pictures


def _once(*notes: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for group in notes for note in group))
