"""What an `<img>` means: a picture of this message, or a placeholder and a note.

Does: resolves the references of one letter (`cid:NAME`, a bare file name, a relative path, a Content-Location, a
`data:` URL) to its own pictures, or an allowed URL to its copy; finds the real type by looking; gives each a URL that
no other slip ever has.
Promises: `Album.url_for` always answers with a URL that `Album.served` holds. Nothing is fetched, ever.
Refuses: what Pillow can't read as one of FORMATS (so no SVG), more than MAX_PIXELS, and all that follow when there
have been MAX_PIXELS_IN_ALL: placeholder and note.
Known limits: a picture says its size by one resolution, the horizontal one; resolutions under 96 dpi, which editors
write without meaning them, and over 1200 are taken as the 96 of CSS.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, replace
from hashlib import blake2b
from io import BytesIO
from urllib.parse import unquote, unquote_to_bytes

from PIL import Image, ImageDraw

from relay.slips import symbols
from relay.slips.bars import Barcode
from relay.slips.copies import Copies
from relay.slips.parts import Picture
from relay.slips.recent import MOST_PIXELS_KEPT, Recent

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
MAX_PIXELS = 25_000_000
MAX_PIXELS_IN_ALL = 50_000_000
MAX_SEARCHED = 8_000_000
"""Pixels of one letter that are searched for barcodes; noise takes a second for five million."""
MAX_NOTES = 20
CSS_DPI = 96.0

_kept: Recent[bytes, Drawable] = Recent()

_REMOTE = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//|(?:https?|ftp|file|blob|chrome|about|javascript):", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Drawable:
    """A picture that was decoded once. `crisp` ones (barcodes: two colours) are drawn without smoothing.

    One that looks like a barcode and has none was not readable. `searched` is the number of pixels that were searched.
    """

    content: bytes
    dpi: float
    crisp: bool
    barcode: Barcode | None = None
    looks_like_a_barcode: bool = False
    searched: int = 0
    pixels: int = 0


def decode(content: bytes, *, most: int = symbols.MAX_PIXELS) -> Drawable | None:
    """The picture in these bytes, or None. Whole, so that nothing fails later in the layout.

    One of more than `most` pixels is not searched for barcodes, but for those that are plain to see. An institution's
    logo comes with all its letters: small pictures without barcodes are kept, those that were used last.
    """
    key = blake2b(content).digest()
    kept = _kept.get(key)
    if kept is not None and kept.searched <= most:
        return kept
    drawable = _decoded(content, most)
    if drawable is not None and not drawable.looks_like_a_barcode and drawable.pixels <= min(most, MOST_PIXELS_KEPT):
        _kept.put(key, drawable)
    return drawable


def _decoded(content: bytes, most: int) -> Drawable | None:
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return None
            dpi, kind = _dpi(picture), picture.format
            picture.load()
            crisp = picture.mode == "1" or (kind not in ("JPEG", "MPO") and picture.getcolors(2) is not None)
            is_fit = kind in ("PNG", "JPEG", "MPO") and picture.mode in ("L", "RGB", "RGBA", "CMYK")
            png = content if is_fit and not _has_key(picture) else _as_png(picture)
            return _searched(Drawable(png, dpi, crisp, pixels=picture.width * picture.height), picture, most)
    except (Exception, Image.DecompressionBombError):  # Pillow raises nearly anything on broken files
        return None


def _searched(drawable: Drawable, picture: Image.Image, most: int) -> Drawable:
    sight, pixels = symbols.look(picture, crisp=drawable.crisp, most=most)
    if sight is None:
        return replace(drawable, searched=pixels)
    barcode = Barcode(sight.symbols, sight.grey, drawable.dpi, drawable.crisp) if sight.symbols else None
    return replace(drawable, barcode=barcode, looks_like_a_barcode=True, searched=pixels)


def _has_key(picture: Image.Image) -> bool:
    return "transparency" in picture.info


def _as_png(picture: Image.Image) -> bytes:
    if picture.mode in ("1", "L"):
        picture = picture.convert("L")
    elif _has_key(picture) or picture.mode in ("LA", "PA", "RGBA", "RGBa"):
        picture = picture.convert("RGBA")
    else:
        picture = picture.convert("RGB")
    target = BytesIO()
    picture.save(target, "PNG", compress_level=1)
    return target.getvalue()


def _dpi(picture: Image.Image) -> float:
    try:
        dpi = float(picture.info["dpi"][0])
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError):
        return CSS_DPI
    if abs(dpi - round(dpi)) < 0.1:  # pHYs counts pixels per metre, so 150 dpi arrives as 150.01
        dpi = round(dpi)
    return dpi if CSS_DPI <= dpi <= 1200 else CSS_DPI


class Album:
    """The pictures of one letter, as its HTML asks for them. `token` must be new for every letter."""

    __slots__ = (
        "_by_id",
        "_by_location",
        "_by_name",
        "_copies",
        "_pixels",
        "_searched",
        "_shown",
        "_urls",
        "drawables",
        "notes",
        "prefix",
    )

    def __init__(self, pictures: tuple[Picture, ...], token: str, copies: Copies | None = None) -> None:
        self.prefix = f"slip:///{token}/"
        self._urls: dict[str, str] = {}
        self._searched = self._pixels = 0
        self._shown: list[Picture] = []
        self._copies = copies or Copies()
        self.drawables: dict[str, Drawable] = {}
        self.notes: list[str] = []
        # Reversed, so that of two pictures with one name the first counts.
        self._by_id = {p.content_id.lower(): p for p in reversed(pictures) if p.content_id}
        self._by_name = {p.name.lower(): p for p in reversed(pictures) if p.name}
        self._by_location = {p.location.lower(): p for p in reversed(pictures) if p.location}

    def url_for(self, reference: str) -> str:
        """A URL of our own for an image reference of the letter."""
        reference = reference.strip()
        if reference not in self._urls:
            drawable = self._draw(reference)
            url = f"{self.prefix}{len(self._urls) + 1}"
            self._urls[reference] = url
            self.drawables[url] = drawable
        return self._urls[reference]

    def shows(self, content: bytes) -> bool:
        """Whether the letter has asked for the picture that these very bytes are."""
        return any(picture.content is content for picture in self._shown)

    def add(self, barcode: Barcode) -> str:
        """A URL of our own for a barcode that the letter has in another form."""
        url = f"{self.prefix}{len(self.drawables) + 1}t"
        content = _as_png(barcode.picture)
        self.drawables[url] = Drawable(content, barcode.dpi, crisp=True, barcode=barcode, looks_like_a_barcode=True)
        return url

    def served(self) -> dict[str, bytes]:
        """What the fetcher may answer for this letter."""
        return {url: drawable.content for url, drawable in self.drawables.items()}

    def stylesheet(self, body: str, scale: float = 1.0) -> str:
        """Own resolution and sharpness of each picture in `body`; width and height that the letter gives still win.

        A page that is drawn smaller by `scale` gets its pictures larger: a barcode keeps its size on paper. The rules
        do not say the token, so that they are the same for letters alike, and parsed once.
        """
        return "\n".join(
            f'img[src$="/{url.removeprefix(self.prefix)}"] {{ image-resolution: {drawable.dpi / scale:g}dpi'
            + ("; image-rendering: pixelated }" if drawable.crisp else " }")
            for url, drawable in self.drawables.items()
            if f'src="{url}"' in body
        )

    def _draw(self, reference: str) -> Drawable:
        shown = _shown(reference)
        if reference[:5].lower() == "data:":
            content, shown = _inline(reference), "in the HTML"
        elif picture := self._find(reference):
            self._shown.append(picture)
            content = picture.content
        elif url := self._copies.allowed(reference):
            copy = self._copies.find(url)
            if copy is None:
                self._note(f"The image {shown} is on another server, and there is no copy of it yet.")
                return _placeholder()
            content = copy
        else:
            remote = _REMOTE.match(reference)
            self._note(
                f"The image {shown} is on another server and was not fetched."
                if remote
                else f"The image {shown} is not in the message."
            )
            return _placeholder()
        if self._pixels > MAX_PIXELS_IN_ALL:
            self._note("The letter has too many large pictures; some were left out.")
            return _placeholder()
        drawable = decode(content, most=MAX_SEARCHED - self._searched)
        if drawable is None:
            self._note(f"The image {shown} can't be read as a picture.")
            return _placeholder()
        self._searched += drawable.searched
        self._pixels += drawable.pixels
        return drawable

    def _find(self, reference: str) -> Picture | None:
        """By Content-ID (RFC 2392), then file name, then Content-Location (RFC 2557)."""
        key = reference.lower()
        if key.startswith("cid:"):
            names = [unquote(key[4:]).strip("<> "), key[4:]]
        elif _REMOTE.match(key):
            return self._by_location.get(key)
        else:
            path = re.split(r"[?#]", unquote(key), maxsplit=1)[0].strip()
            names = [path, path.replace("\\", "/").rsplit("/", 1)[-1]]
        for index in (self._by_id, self._by_name, self._by_location):
            for name in names:
                if name and name in index:
                    return index[name]
        return None

    def _note(self, text: str) -> None:
        if text not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes.append(text)


def _shown(reference: str) -> str:
    name = unquote(reference[4:]) if reference[:4].lower() == "cid:" else reference
    name = re.sub(r"[^\x20-\x7e\u00a0-\ud7ff\uf900-\uffff]", "", name)
    return name[:77] + "..." if len(name) > 80 else name or "without a name"


def _inline(reference: str) -> bytes:
    head, _, body = reference[5:].partition(",")
    try:
        content = unquote_to_bytes(body)
        return base64.b64decode(content) if head.lower().rstrip().endswith(";base64") else content
    except (binascii.Error, ValueError):
        return b""


def _placeholder() -> Drawable:
    """A small crossed frame in light grey: there should be a picture here."""
    picture = Image.new("L", (120, 36), 255)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, 119, 35), outline=170)
    pen.line((0, 0, 119, 35), fill=200)
    pen.line((0, 35, 119, 0), fill=200)
    return Drawable(_as_png(picture), 150.0, crisp=False)
