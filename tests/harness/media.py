"""What a virtual printer says about its paper: IPP attributes for `ippeveprinter -a`.

Sizes are in hundredths of a millimetre, as IPP has them. A custom range lets a printer take papers that have no name;
a roll printer takes any length up to 3 m. What is outside is refused by the printer, as a real one would.
"""

from __future__ import annotations

from dataclasses import dataclass

KEYWORDS = {
    "A4": "iso_a4_210x297mm",
    "A5": "iso_a5_148x210mm",
    "Letter": "na_letter_8.5x11in",
    "roll": "om_roll_80x200mm",
}
SIZES = {"A4": (21000, 29700), "A5": (14800, 21000), "Letter": (21590, 27940), "roll": (8000, 20000)}


@dataclass(frozen=True, slots=True)
class Media:
    """The paper of one kind of printer. The first of `papers` is loaded and is the default."""

    papers: tuple[str, ...]
    smallest: tuple[int, int]
    largest: tuple[int, int]
    side_margin: int
    top_margin: int
    dpi: int
    trays: tuple[str, ...] = ("main",)
    has_duplex: bool = False
    finishings: str = "3"
    "IPP's finishings that it knows; 3 is none, 60 cuts after each page and 63 after each job."


OFFICE_LASER = Media(
    ("A4", "A5", "Letter"), (7600, 12700), (21600, 35600), 423, 423, 600, ("main", "manual", "tray-2"), True
)
SMALL_LASER = Media(("A5",), (7600, 12700), (14900, 21100), 423, 423, 600)
RECEIPT_ROLL = Media(("roll",), (2000, 2000), (8000, 300_000), 400, 0, 203, finishings="3,60,63")


def attributes(media: Media, model: str) -> str:
    """The attributes file of a monochrome printer that takes PDF and PWG raster."""
    default = media.papers[0]
    (least_x, least_y), (most_x, most_y) = media.smallest, media.largest
    ranges = ("MEMBER rangeOfInteger", f"{least_x}-{most_x}", f"{least_y}-{most_y}")
    sizes = [("MEMBER integer", str(x), str(y)) for x, y in (SIZES[paper] for paper in media.papers)]
    keywords = [KEYWORDS[paper] for paper in media.papers]
    keywords += [f"custom_min_{least_x / 100:g}x{least_y / 100:g}mm", f"custom_max_{most_x / 100:g}x{most_y / 100:g}mm"]
    loaded = _media_col(media, *sizes[0])
    lines = [
        *(f"ATTR {line}" for line in PLAIN),
        f"ATTR enum finishings-supported {media.finishings}",
        f"ATTR keyword media-source-supported {_quoted(list(media.trays))}",
        f"ATTR keyword sides-supported {_quoted(SIDES if media.has_duplex else SIDES[:1])}",
        f'ATTR textWithoutLanguage printer-make-and-model "{model}"',
        f'ATTR textWithoutLanguage printer-device-id "MFG:Virtual;MDL:{model};CMD:PDF,PWGRaster;"',
        *(f"ATTR integer media-{side}-margin-supported {media.side_margin}" for side in ("left", "right")),
        *(f"ATTR integer media-{side}-margin-supported {media.top_margin}" for side in ("top", "bottom")),
        f"ATTR collection media-col-database {','.join(_media_col(media, *size) for size in [*sizes, ranges])}",
        f"ATTR collection media-col-default {loaded}",
        f"ATTR collection media-col-ready {loaded}",
        f'ATTR keyword media-default "{KEYWORDS[default]}"',
        f'ATTR keyword media-ready "{KEYWORDS[default]}"',
        f"ATTR keyword media-supported {_quoted(keywords)}",
        f"ATTR collection media-size-supported {','.join(_size(*size) for size in [*sizes, ranges])}",
        *(f"ATTR resolution {name} {media.dpi}dpi" for name in RESOLUTIONS),
    ]
    return "\n".join(lines) + "\n"


PLAIN = (
    'mimeMediaType document-format-supported "application/pdf","image/pwg-raster","application/octet-stream"',
    'mimeMediaType document-format-default "application/octet-stream"',
    "boolean color-supported false",
    "integer copies-default 1",
    "rangeOfInteger copies-supported 1-99",
    "enum finishings-default 3",
    'keyword media-type-supported "stationery"',
    "enum orientation-requested-default 3",
    "enum orientation-requested-supported 3,4",
    'keyword output-bin-default "face-up"',
    'keyword output-bin-supported "face-up"',
    'keyword print-color-mode-default "monochrome"',
    'keyword print-color-mode-supported "monochrome"',
    "enum print-quality-default 4",
    "enum print-quality-supported 3,4,5",
    'keyword print-scaling-default "auto"',
    'keyword print-scaling-supported "none","auto","auto-fit","fill","fit"',
    'keyword pwg-raster-document-type-supported "black_1","sgray_8"',
    'keyword pwg-raster-document-sheet-back "normal"',
    'keyword sides-default "one-sided"',
)

SIDES = ["one-sided", "two-sided-long-edge", "two-sided-short-edge"]
RESOLUTIONS = ("printer-resolution-default", "printer-resolution-supported", "pwg-raster-document-resolution-supported")


def _size(member: str, x: str, y: str) -> str:
    return f"{{ {member} x-dimension {x} {member} y-dimension {y} }}"


def _media_col(media: Media, member: str, x: str, y: str) -> str:
    margins = " ".join(
        [f"MEMBER integer media-{side}-margin {media.top_margin}" for side in ("bottom", "top")]
        + [f"MEMBER integer media-{side}-margin {media.side_margin}" for side in ("left", "right")]
    )
    return f"{{ MEMBER collection media-size {_size(member, x, y)} {margins} }}"


def _quoted(values: list[str]) -> str:
    return ",".join(f'"{value}"' for value in values)
