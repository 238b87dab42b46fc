"""Which characters the fonts of this machine have.

Does: asks fontconfig, the library that Pango asks as well, for the characters of all scalable fonts together, once;
then says how many characters of a text are in none of them, and so come out as an empty box.
Promises: cheap: the fonts are asked once for each character that was never seen before.
Known limits: fonts that are installed later count from the next rendering child on. A character that is there but
badly drawn is not noticed.
"""

from __future__ import annotations

import unicodedata
from collections import Counter

import cffi

_DECLARATIONS = """
    typedef struct { int nfont; int sfont; void **fonts; } FcFontSet;
    typedef struct { int size, ref; } FcCharSet;
    void *FcPatternCreate(void);
    void FcPatternDestroy(void *pattern);
    int FcPatternAddBool(void *pattern, const char *object, int value);
    void *FcObjectSetBuild(const char *first, ...);
    void FcObjectSetDestroy(void *objects);
    FcFontSet *FcFontList(void *config, void *pattern, void *objects);
    void FcFontSetDestroy(FcFontSet *set);
    int FcPatternGetCharSet(void *pattern, const char *object, int n, void **charset);
    void *FcCharSetCreate(void);
    int FcCharSetMerge(void *into, const void *from, int *changed);
    int FcCharSetHasChar(const void *charset, uint32_t character);
"""
# Drawn as nothing by intention: controls, format characters and joiners, separators, and variation selectors.
_INVISIBLE = frozenset(("Cc", "Cf", "Zs", "Zl", "Zp"))
_SELECTORS = frozenset((*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0), 0x034F, 0x115F, 0x1160, 0x3164, 0xFFA0))


class Fonts:
    """The characters of all fonts. One per child."""

    def __init__(self) -> None:
        self._ffi = cffi.FFI()
        self._ffi.cdef(_DECLARATIONS)
        self._fontconfig = self._ffi.dlopen("libfontconfig.so.1")
        self._characters = self._union()
        self._known: dict[str, bool] = {}

    def missing(self, text: str) -> int:
        """How many characters of a text no font has."""
        if text.isascii():
            return 0
        return sum(count for character, count in Counter(text).items() if not self._has(character))

    def _has(self, character: str) -> bool:
        has = self._known.get(character)
        if has is None:
            has = (
                unicodedata.category(character) in _INVISIBLE
                or ord(character) in _SELECTORS
                or bool(self._fontconfig.FcCharSetHasChar(self._characters, ord(character)))
            )
            self._known[character] = has
        return has

    def _union(self) -> object:
        """All characters together. It is kept as long as the child lives, so nothing frees it."""
        ffi, fc = self._ffi, self._fontconfig
        pattern = fc.FcPatternCreate()
        fc.FcPatternAddBool(pattern, b"scalable", 1)
        objects = fc.FcObjectSetBuild(ffi.new("char[]", b"charset"), ffi.NULL)
        fonts = fc.FcFontList(ffi.NULL, pattern, objects)
        union = fc.FcCharSetCreate()
        charset, changed = ffi.new("void **"), ffi.new("int *")
        for i in range(fonts.nfont):
            if fc.FcPatternGetCharSet(fonts.fonts[i], b"charset", 0, charset) == 0:
                fc.FcCharSetMerge(union, charset[0], changed)
        fc.FcFontSetDestroy(fonts)
        fc.FcObjectSetDestroy(objects)
        fc.FcPatternDestroy(pattern)
        return union
