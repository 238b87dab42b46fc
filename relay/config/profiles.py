"""Profiles: how slips are laid out for a kind of printer, and what is asked of the printer with each job.

Promises: every number is bounded, and a profile that leaves no room for text is refused.
Known limits: selectors, templates and style sheets are only tried by `slip-relay check` and at the start of the
service (`relay.slips.trial`), since what reads them lies above.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from relay.config.kinds import Name, Settings, Text, is_file, paper_size

PRINTABLE = {57: 48.0, 58: 48.0, 79: 72.0, 80: 72.0, 112: 104.0}
"""What the heads of usual roll printers reach, by the width of their paper (rounded down), both in millimetres."""

PLACEHOLDERS = ("desk", "institution", "queue_id", "received", "printed", "page", "pages")
"""What a header or footer may name."""

Length = Annotated[float, Field(ge=0, le=100)]
_OPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._*-]{0,126}")


class Sides(NamedTuple):
    """A length for each side, in millimetres."""

    top: float
    right: float
    bottom: float
    left: float


class Big(Settings):
    """A code of the letter, as the patron's or the destination's, that is printed large at the top."""

    select: Annotated[str, Field(min_length=1, max_length=500)]
    "CSS selector; the first element with text counts, and a letter without one has nothing large."
    label: Annotated[str, Field(max_length=60)] = ""
    "Small text before it."
    size_pt: Annotated[float, Field(ge=14, le=200)] = 48.0
    "Size in points; smaller when a word would not fit the paper."


class Profile(Settings):
    """How a slip is laid out for a kind of printer."""

    name: Name
    paper: str
    "A4, A5, A6, Letter, Legal, a sheet as in `100x150mm` or `4x6in`, or a roll as in `80mm`: as long as its content."
    orientation: Literal["portrait", "landscape"] = "portrait"
    "`landscape` turns a sheet that is higher than wide."
    margin_mm: Length | tuple[Length, Length, Length, Length] = 12.0
    "Margin on all four sides in millimetres, or [top, right, bottom, left]."
    printable_width_mm: Annotated[float, Field(ge=15, le=1000)] | None = None
    "What the head reaches, in the middle of the paper; without it 72 of 80 mm, 48 of 58 mm, and all of a sheet."
    dpi: Annotated[int, Field(ge=72, le=2400)] = 300
    "Resolution of the printer."
    scale_percent: Annotated[float, Field(ge=30, le=300)] = 100.0
    "Size in which the letter is drawn; what is then wider than the paper is made to fit."
    font_family: Annotated[str, Field(min_length=1)] = "Liberation Sans, DejaVu Sans, sans-serif"
    "Fonts for text that names none."
    force_font: bool = False
    "Use them for all text, whatever the letter says."
    font_size_pt: Annotated[float, Field(ge=4, le=72)] = 11.0
    "Size of text that names none, in points."
    min_font_size_pt: Annotated[float, Field(ge=0, le=36)] = 6.0
    "Text that would come out smaller is enlarged to this."
    monochrome: bool = False
    "Black text on nothing but white, and the printer is asked for black alone."
    header: Annotated[str, Field(max_length=200)] = ""
    "Line above the letter, in up to three parts between |, with {desk}, {printed}, {received}, {queue_id}, ..."
    footer: Annotated[str, Field(max_length=200)] = ""
    "The same below it; on sheets both stand in the margin of each page."
    big: Big | None = None
    "A code of the letter to print large at the top."
    attachments: Literal["print", "notice", "ignore"] = "print"
    "PDF, TIFF, PNG and JPEG files are printed after the letter, others named there; or all only named; or neither."
    barcodes: Literal["keep", "narrower"] = "keep"
    "A barcode too wide for the paper: `keep` its symbology and make it small, or draw it `narrower`, as Code 128."
    mark_barcodes: bool = False
    "Print a line below each barcode that can't be scanned."
    template: str = "slip.html"
    "Jinja2 page template: one of templates/slips, or the path of your own."
    stylesheet: Path | None = None
    "A CSS file of your own, applied last."
    duplex: Literal["off", "long-edge", "short-edge"] = "off"
    "Print on both sides of sheets, turned at this edge."
    tray: Text | None = None
    "Where the paper is taken from; without it the queue's default."
    copies: Annotated[int, Field(ge=1, le=20)] = 1
    "Copies of each slip."
    cut: Literal["job", "off"] | None = None
    "Cut a roll after each slip, or never; without it the queue's default."
    options: dict[str, str] = Field(default_factory=dict)
    "More options for the job, as `lpoptions -l` lists them for the queue."

    @field_validator("header", "footer")
    @classmethod
    def _known_placeholders(cls, value: str) -> str:
        try:
            named = [name for _, name, _, _ in Formatter().parse(value) if name is not None]
        except ValueError:
            raise ValueError("braces stand around a word, as in {desk}") from None
        for name in named:
            if name not in PLACEHOLDERS:
                raise ValueError(f"there is no {{{name}}}; there are: {', '.join(f'{{{p}}}' for p in PLACEHOLDERS)}")
        if value.count("|") > 2:
            raise ValueError("a line has at most three parts (left | middle | right)")
        return value

    @field_validator("stylesheet")
    @classmethod
    def _exists(cls, value: Path | None) -> Path | None:
        if value is not None and not is_file(value):
            raise ValueError(f"the file {value} does not exist")
        return value

    @field_validator("options")
    @classmethod
    def _are_words(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not _OPTION.fullmatch(name) or not text.isprintable() or len(text) > 255:
                raise ValueError(f"{name!r} is no option: a name without spaces and a line of text are")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        width, height = paper_size(self.paper)
        if height is None and self.orientation == "landscape":
            raise ValueError("a roll has no orientation")
        if height is None and self.duplex != "off":
            raise ValueError("a roll has one side: leave out duplex")
        if height is not None and self.cut is not None:
            raise ValueError("only a roll is cut: leave out cut, or name the printer's own option in options")
        if self.printable_width_mm is not None and self.printable_width_mm > width:
            raise ValueError(f"the printable width is more than the {width:g} mm of the paper")
        margins, (across, along) = self.margins, self.page_size
        too_wide = margins.left + margins.right > across - 10
        if too_wide or (along is not None and margins.top + margins.bottom > along - 10):
            raise ValueError(f"margins of {_shown(self.margin_mm)} mm leave no room on {self.paper}")
        return self

    @property
    def page_size(self) -> tuple[float, float | None]:
        """Width and height of the page in millimetres as it is read; the height is None on a roll."""
        width, height = paper_size(self.paper)
        if height is not None and self.orientation == "landscape" and width < height:
            return height, width
        return width, height

    @property
    def margins(self) -> Sides:
        """The margins that count: what is asked for, but never outside what the printer's head reaches."""
        margin = self.margin_mm
        sides = Sides(*margin) if isinstance(margin, tuple) else Sides(margin, margin, margin, margin)
        width, height = self.page_size
        printable = self.printable_width_mm
        if printable is None and height is None:
            printable = PRINTABLE.get(int(width))
        if printable is None:
            return sides
        unreached = (paper_size(self.paper)[0] - printable) / 2
        if self.page_size[0] != paper_size(self.paper)[0]:  # landscape: the head runs along the page's height
            return sides._replace(top=max(sides.top, unreached), bottom=max(sides.bottom, unreached))
        return sides._replace(right=max(sides.right, unreached), left=max(sides.left, unreached))


def _shown(margin: float | tuple[float, ...]) -> str:
    return f"{margin:g}" if isinstance(margin, (int, float)) else ", ".join(f"{side:g}" for side in margin)


def _heat(name: str, paper: str, margin: float, size: float, least: float) -> Profile:
    """A printer that prints by heat: a roll or labels, 203 dpi, black."""
    return Profile(
        name=name,
        paper=paper,
        margin_mm=margin,
        font_size_pt=size,
        min_font_size_pt=least,
        dpi=203,
        monochrome=True,
        template="receipt.html",
    )


BUILT_IN_PROFILES = (
    Profile(name="a4", paper="A4"),
    Profile(name="a5", paper="A5", margin_mm=8.0, font_size_pt=10.0),
    Profile(name="letter", paper="Letter"),
    _heat("receipt80", "80mm", 4.0, 9.0, 5.0),
    _heat("receipt58", "58mm", 3.0, 8.0, 5.0),
    _heat("label", "100x150mm", 4.0, 10.0, 6.0),
)
