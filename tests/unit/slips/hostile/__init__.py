"""The catalogue of hostile letters: what somebody may send to a printer's mailbox who means harm."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.slips.hostile import loads, markup, mime, pictures, sizes
from tests.unit.slips.hostile.case import Hostile

HEAVY = frozenset((
    "10,000 parts", "boundary of 2 MB", "100 MB of base64", "90 MB of base64", "100 MB of base64 as the letter", "gzip that says so",
    "1,000,000 header fields", "1,000,000 fields of one kind", "quoted-printable of 3 MB",
    "quoted-printable of soft breaks", "comments without end", "field names that are none", "ampersands", "end tags",
    "tags that nobody closes", "JPEG with 500 scans", "PNG with a text of 1 GB", "PNG with an international text bomb",
    "PNG with a profile bomb", "PNG with 100,000 chunks", "GIF bomb", "TIFF of 2,000 pages", "WebP bomb", "TIFF bomb",
    "300 pictures of 24 million pixels", "300 pictures in the HTML", "one picture 5,000 times",
    "20,000 pictures that are not there", "grids in grids", "inline blocks in inline blocks",
    "floats in floats", "spans of 100 in each cell", "lists that count far", "200,000 attributes on a tag",
    "attribute of 2 MB", "many selectors on many elements", ":is with many", "siblings", ":has", "content on everything",
    "grid areas far away", "columns of 100,000", "blocks that nobody closes", "brackets that nobody closes",
    "background that repeats a hair", "one word of 1 MB", "one line of 1 MB that may not break", "1 MB of soft hyphens",
    "entities in entities", "10,000 combining characters", "Arabic ligatures and Jawi", "40,000 style attributes",
    "huge line-height", "huge border-spacing", "huge letter-spacing", "font-size in powers", "100,000 rules",
    "gzip bomb that says it is an SVG", "bomb with Content-Encoding", "PNG that inflates beyond its size",
    "many pages in few words", "zalgo in each letter", "flex boxes in flex boxes", "100,000 lines", "form feeds",
    "UTF-8 of surrogates and too long", "a letter of 30 MB", "parts nested 20,000 deep", "long shadows and fonts",
    "font features", "a sheet of 3 MB of backslashes", "all planes", "zero widths", "footnotes",
))  # fmt: skip
"""Those that take seconds, to build or until they end. `make prove` has them."""


def catalogue() -> list[Hostile]:
    """Every hostile letter, each with a name of its own."""
    found = [*loads.letters(), *markup.letters(), *mime.letters(), *pictures.letters(), *sizes.letters()]
    return [replace(hostile, heavy=hostile.heavy or hostile.name in HEAVY) for hostile in found]
