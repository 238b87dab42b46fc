"""The glyphs a slip uses, cut out of their fonts in one step.

Does: takes the place of the one method of WeasyPrint that asks HarfBuzz for a subset of a font. WeasyPrint asks twice,
and names in C types of their own length how many glyphs there are: with a Chinese title these are 46,000 numbers. cffi
reads the declaration of each such type (5 ms) and keeps it for ever, so that a child would grow with its slips.
Promises: the same outlines under the same numbers, a slip's own glyphs and no others. Fonts that are more than outlines
(variable, coloured), and whatever can't be cut this way, go WeasyPrint's own way.
Refuses: to touch a WeasyPrint that is built differently; `install` says so.
Known limits: a subset has empty places up to the last part of a composed glyph, some hundred bytes in a PDF.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from weasyprint.pdf import fonts
from weasyprint.text import ffi as pango

METHOD = "_harfbuzz_subset"
# What WeasyPrint drops, and what no PDF reader looks at: vertical metrics (two bytes for each number) and kerning.
_DROPPED = (
    b"BASE", b"DSIG", b"EBDT", b"EBLC", b"EBSC", b"FFTM", b"GDEF", b"GPOS", b"GSUB", b"JSTF", b"LTSH", b"PCLT", b"SVG ",
    b"VORG", b"kern", b"vhea", b"vmtx",
)  # fmt: skip


def install(font: Any = fonts.Font) -> bool:
    """Whether WeasyPrint's fonts are now cut in one step; False when this release has nothing to put it in place of."""
    whole = getattr(font, METHOD, None)
    if whole is None or pango.harfbuzz_subset is None:
        return False
    if not hasattr(whole, "long_way"):

        def cut(self: Any, to_unicode: dict[int, str], hinting: bool) -> None:
            content = None if _is_more_than_outlines(self) else _subset(self, to_unicode, hinting)
            if content:
                self.file_content = content
            else:
                whole(self, to_unicode, hinting)

        cut.long_way = whole  # type: ignore[attr-defined]
        setattr(font, METHOD, cut)
    return True


def _is_more_than_outlines(font: Any) -> bool:
    return bool("fvar" in font.tables or font.png or font.svg or font.colr or font.bitmap)


def _subset(font: Any, glyphs: Iterable[int], hinting: bool) -> bytes | None:
    """The file of the subset, or None when HarfBuzz or its binding says no."""
    ffi, harfbuzz, subset = pango.ffi, pango.harfbuzz, pango.harfbuzz_subset
    try:
        wanted = ffi.gc(subset.hb_subset_input_create_or_fail(), subset.hb_subset_input_destroy)
        flags = (
            subset.HB_SUBSET_FLAGS_RETAIN_GIDS
            | subset.HB_SUBSET_FLAGS_PASSTHROUGH_UNRECOGNIZED
            | subset.HB_SUBSET_FLAGS_DESUBROUTINIZE
        )
        flags |= 0 if hinting else subset.HB_SUBSET_FLAGS_NO_HINTING
        flags |= subset.HB_SUBSET_FLAGS_NOTDEF_OUTLINE if font.missing else 0
        subset.hb_subset_input_set_flags(wanted, flags)
        _add(subset.hb_subset_input_glyph_set(wanted), glyphs)
        dropped = subset.hb_subset_input_set(wanted, subset.HB_SUBSET_SETS_DROP_TABLE_TAG)
        _add(dropped, (harfbuzz.hb_tag_from_string(name, -1) for name in _DROPPED))
        face = subset.hb_subset_or_fail(font.hb_face, wanted)
        if face == ffi.NULL:
            return None
        content: bytes | None = fonts.get_hb_object_data(ffi.gc(face, harfbuzz.hb_face_destroy))
    except (AttributeError, TypeError, ValueError):
        return None
    return content


def _add(target: Any, numbers: Iterable[int]) -> None:
    ordered = sorted(numbers)
    array = pango.ffi.new("hb_codepoint_t[]", ordered)  # one type, whatever the length
    pango.harfbuzz.hb_set_add_sorted_array(target, array, len(ordered))
