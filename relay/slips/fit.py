"""A letter made to fit its paper.

Does: lays a letter out and looks how far its ink goes. What is wider than the paper gets smaller barcodes, then is
drawn smaller, then loses its own widths and unbroken lines, then its whole words, and is drawn smaller in the end.
Promises: nothing is cut off at the side. A roll ends one margin below the last ink, though not before
SHORTEST_ROLL_MM. Barcodes stand on whole dots.
Known limits: what can be fitted only as a whole in the end takes its barcodes along; the check then says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from relay.config.profiles import Profile
from relay.slips.barcodes import INSET, Arrangement, BarcodesOfLetter
from relay.slips.layout import PX_PER_MM, Sheets
from relay.slips.page import Page

TOLERATED_SPREAD, NOTHING_GAINED = 1.004, 0.005
SCALINGS = 2
TIGHT, TIGHT_AT = 2, 0.8
# How small a letter may be drawn: with whole words on a roll (many columns are usual there) and on a sheet (one
# endless word should not shrink the rest), and in any case.
SMALLEST_ON_ROLL, SMALLEST_ON_SHEET, SMALLEST = 0.6, 0.75, 0.35
SHORTEST_ROLL_MM = 25.0
"""Roll printers refuse pages that are shorter than what lies between their head and their knife."""

LayOut = Callable[[Page, Arrangement], Sheets]
"""Lays the letter out on a page, with its barcodes arranged."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A letter on its page, and what is to be said of that."""

    sheets: Sheets
    page: Page
    arrangement: Arrangement
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Try:
    sheets: Sheets
    page: Page
    arrangement: Arrangement
    spread: float

    @property
    def fits(self) -> bool:
        return self.spread <= TOLERATED_SPREAD


class Fitting:
    """The fitting of one letter to the paper of a profile."""

    def __init__(
        self, profile: Profile, barcodes: BarcodesOfLetter, arrange: Callable[..., Arrangement], lay_out: LayOut
    ) -> None:
        self._profile = profile
        self._barcodes = barcodes
        self._arrange = arrange
        self._lay_out = lay_out
        self._wished = Page.of(profile).scale

    def fit(self) -> Fitted:
        """The letter where it fits."""
        found = self._find()
        sheets, page, arrangement = found.sheets, found.page, found.arrangement
        if not found.fits:
            sheets.widen(found.spread)
            page = Page.of(self._profile, page.scale * found.spread, TIGHT)
        else:
            dot = arrangement.dot(page.scale)
            sheets.align(arrangement.prefix, dot, INSET * dot)
        if page.is_roll:
            _cut(sheets, page)
        percent, wished = round(100 / page.scale), round(100 / self._wished)
        notes = (f"The letter is wider than the paper; it was printed at {percent} %.",)
        return Fitted(sheets, page, arrangement, notes if percent < wished else ())

    def _find(self) -> _Try:
        """The first way in which it fits, or the last one that there is."""
        arrangement, before = self._arrange(), 0.0
        for squeeze in (0, 1, TIGHT):
            page = Page.of(self._profile, self._wished / (TIGHT_AT if squeeze == TIGHT else 1.0), squeeze)
            found = self._try(page, arrangement)
            if not found.fits and abs(found.spread - before) > NOTHING_GAINED:
                before = found.spread
                found = self._scaled(found)
            if found.fits:
                break
            arrangement = found.arrangement
        return found

    def _scaled(self, found: _Try) -> _Try:
        """The same on more paper, which is drawn smaller, as far as that may go."""
        largest = self._wished / _smallest(found.page)
        for _ in range(SCALINGS):
            page, wanted = found.page, found.page.scale * found.spread
            if found.fits or (wanted > largest and page.squeeze < TIGHT) or page.scale >= largest:
                break
            found = self._try(Page.of(self._profile, min(wanted, largest), page.squeeze), found.arrangement)
        return found

    def _try(self, page: Page, arrangement: Arrangement) -> _Try:
        """Laid out on this page, where barcodes are to blame with smaller ones."""
        while True:
            sheets = self._lay_out(page, arrangement)
            found = _Try(sheets, page, arrangement, max(extent.spread for extent in sheets.extents()))
            if found.fits:
                return found
            tighter = self._barcodes.tighter(arrangement, sheets, page.scale, self._arrange)
            if tighter is None:
                return found
            arrangement = tighter


def _cut(sheets: Sheets, page: Page) -> None:
    """End the roll one margin below the last ink."""
    bottom = sheets.extents()[0].bottom
    sheets.cut(max(bottom + page.margins.bottom * PX_PER_MM, SHORTEST_ROLL_MM * page.scale * PX_PER_MM))


def _smallest(page: Page) -> float:
    if page.squeeze == TIGHT:
        return SMALLEST
    return SMALLEST_ON_ROLL if page.is_roll else SMALLEST_ON_SHEET
