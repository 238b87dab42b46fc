"""Pictures that are small to send and huge to look at, or are no pictures at all."""

from __future__ import annotations

import base64
import gzip
import struct
import zlib
from collections.abc import Callable, Iterator
from email.mime.base import MIMEBase
from io import BytesIO

from PIL import Image

from tests.unit.slips.hostile.case import End, Hostile, page
from tests.unit.slips.letters import picture, solid

UNREADABLE = "can't be read as a picture"


def letters() -> list[Hostile]:
    """All of them."""
    return [*_headers(), *_bombs(), *_broken(), *_crowds()]


def _alone(
    name: str, build: Callable[[], bytes], says: str = UNREADABLE, end: End = End.PRINTED, *, heavy: bool = False
) -> Hostile:
    return Hostile(name, lambda trap: page('<img src="cid:x">', picture(build(), "x")), end, says, heavy)


def _headers() -> Iterator[Hostile]:
    yield _alone("PNG that says 30,000 x 30,000", lambda: _png(30_000, 30_000, b""))
    yield _alone("PNG that says 2**31 x 2**31", lambda: _png(2**31 - 1, 2**31 - 1, b""))
    yield _alone(
        "GIF that says 65,535 x 65,535",
        lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0\2\2D\1\0;",
    )
    yield _alone(
        "BMP that says 60,000 x 60,000",
        lambda: b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
    )
    yield _alone("BMP of run lengths", lambda: _bmp_rle())
    yield _alone("JPEG that says 65,500 x 65,500", lambda: _patched_jpeg(65_500, 65_500))
    yield _alone("TIFF that says 100,000 x 100,000", lambda: _tiff(100_000, 100_000))
    yield _alone(
        "WebP that says 16,383 x 16,383", lambda: b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f\xff\xff\xff\x0f" + bytes(13)
    )
    yield _alone("picture of no width", lambda: _png(0, 0, b""))


def _bombs() -> Iterator[Hostile]:
    yield _alone("PNG bomb of 20,000 x 20,000", lambda: _png(20_000, 20_000, _deflated_zeros(2501 * 20_000), depth=1))
    yield _alone("PNG that inflates beyond its size", lambda: _png(10, 10, _deflated_zeros(300_000_000)), says="")
    yield _alone(
        "PNG with a text of 1 GB", lambda: _with_chunk(b"zTXt", b"x\0\0" + _deflated_zeros(1_000_000_000)), says=""
    )
    yield _alone(
        "PNG with an international text bomb",
        lambda: _with_chunk(b"iTXt", b"x\0\1\0\0\0" + _deflated_zeros(100_000_000)),
        says="",
    )
    yield _alone(
        "PNG with a profile bomb", lambda: _with_chunk(b"iCCP", b"x\0\0" + _deflated_zeros(500_000_000)), says=""
    )
    yield _alone("PNG with 100,000 chunks", lambda: _with_chunk(b"tEXt", b"x\0y", times=100_000), says="")
    yield _alone("JPEG bomb", lambda: _jpeg((9000, 9000)))
    yield _alone("JPEG with 500 scans", _many_scans, says="", end=End.HELD)
    yield _alone("GIF bomb", lambda: _saved("GIF", Image.new("1", (12_000, 12_000))))
    yield _alone("animated GIF of 2,000 frames", lambda: _frames("GIF", 2000), says="")
    yield _alone("animated PNG of 500 frames", lambda: _frames("PNG", 500), says="")
    yield _alone("TIFF bomb", lambda: _saved("TIFF", Image.new("1", (20_000, 20_000)), compression="group4"))
    yield _alone("TIFF of 2,000 pages", lambda: _frames("TIFF", 2000), says="")
    yield _alone("TIFF whose pages go in a circle", _tiff_circle, says="")
    yield _alone("WebP bomb", lambda: _saved("WEBP", Image.new("RGB", (12_000, 12_000)), lossless=True, method=0))
    yield _alone("BMP bomb", lambda: gzip.compress(bytes(50_000_000)))
    yield _alone("SVG of a billion laughs", _laughs)
    yield _alone(
        "gzip bomb that says it is an SVG",
        lambda: gzip.compress(b"<svg xmlns='http://www.w3.org/2000/svg'>" + b" " * 100_000_000),
    )
    yield Hostile("bomb with Content-Encoding", _encoded, says=UNREADABLE)


def _broken() -> Iterator[Hostile]:
    good = solid("red", (300, 200))
    yield _alone("PNG cut off", lambda: good[: len(good) // 2], says="")
    yield _alone("PNG with wrong sums", lambda: good[:40] + bytes(8) + good[48:])
    yield _alone(
        "PNG of resolution 4 billion", lambda: _with_chunk(b"pHYs", struct.pack(">IIB", 2**32 - 1, 1, 1)), says=""
    )
    yield _alone("PNG of resolution 0", lambda: _with_chunk(b"pHYs", struct.pack(">IIB", 0, 0, 1)), says="")
    yield _alone("TIFF with a broken directory", lambda: b"II*\0\xff\xff\xff\x7f" + bytes(90))
    yield _alone("EPS", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file run\n")
    yield _alone("formats that nobody asked for", lambda: b"\xc5\xd0\xd3\xc6" + bytes(90))
    yield _alone("a PDF as a picture", lambda: b"%PDF-1.7\n1 0 obj << /OpenAction << /S /JavaScript /JS (x) >> >>")
    yield _alone("HTML as a picture", lambda: b"<html><script>x()</script>")
    yield _alone("ImageMagick script", lambda: b"push graphic-context\nfill 'url(https://127.0.0.1/x.jpg\"|id\")'\n")


def _crowds() -> Iterator[Hostile]:
    many = "".join(f'<img src="cid:x{n}">' for n in range(300))
    yield Hostile(
        "300 pictures of 24 million pixels",
        lambda trap: page(many, *_copies(_bits(5000, 4800), 300)),
        says="too many large pictures",
    )
    yield Hostile(
        "one picture 5,000 times", lambda trap: page('<img src="cid:x">' * 5000, picture(solid("red", (9, 9)), "x"))
    )
    yield Hostile(
        "20,000 pictures that are not there",
        lambda trap: page("".join(f'<img src="cid:n{n}">' for n in range(20_000))),
        End.HELD,
    )
    inline = "data:image/png;base64," + base64.b64encode(_bits(4000, 4000)).decode()
    yield Hostile(
        "300 pictures in the HTML",
        lambda trap: page("".join(f'<img src="{inline}#{n}">' for n in range(300))),
        says="too many large pictures",
    )
    yield Hostile(
        "data URLs of odd kinds",
        lambda trap: page(
            "<img src='data:'><img src='data:;base64,'><img src='data:,%'><img src='data:image/png;base64,====%00'>"
            f"<img src='data:image/png;base64;base64,{'A' * 100_000}'><img src='DATA:image/png;BASE64,AAAA'>"
        ),
        says=UNREADABLE,
    )


def _copies(content: bytes, count: int) -> Iterator[MIMEBase]:
    return (picture(content, f"x{n}") for n in range(count))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, packed: bytes, depth: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _deflated_zeros(count: int) -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(1_000_000)
    whole, rest = divmod(count, len(block))
    return b"".join([*(packer.compress(block) for _ in range(whole)), packer.compress(block[:rest]), packer.flush()])


def _with_chunk(kind: bytes, content: bytes, times: int = 1) -> bytes:
    good = solid("red")
    return good[:33] + _chunk(kind, content) * times + good[33:]


def _saved(kind: str, image: Image.Image, **options: object) -> bytes:
    target = BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def _bits(width: int, height: int) -> bytes:
    return _saved("PNG", Image.new("1", (width, height), 1))


def _jpeg(size: tuple[int, int]) -> bytes:
    return _saved("JPEG", Image.new("L", size, 255))


def _patched_jpeg(width: int, height: int) -> bytes:
    whole = bytearray(_jpeg((16, 16)))
    at = whole.index(b"\xff\xc0") + 5
    whole[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(whole)


def _many_scans() -> bytes:
    """A progressive JPEG whose last scan comes 500 times: each goes over all pixels."""
    whole = _saved("JPEG", Image.new("L", (4800, 4800), 255), progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * 500 + whole[-2:]


def _frames(kind: str, count: int) -> bytes:
    images = [Image.new("P", (40, 40), n % 251) for n in range(count)]
    return _saved(kind, images[0], save_all=True, append_images=images[1:])


def _tiff(width: int, height: int) -> bytes:
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (278, 4, 1, height),
        (279, 4, 1, 9),
    ]
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + body + struct.pack("<I", 0)


def _tiff_circle() -> bytes:
    whole = bytearray(_saved("TIFF", Image.new("L", (20, 20), 0)))
    first = struct.unpack_from("<I", whole, 4)[0]
    count = struct.unpack_from("<H", whole, first)[0]
    struct.pack_into("<I", whole, first + 2 + 12 * count, first)
    return bytes(whole)


def _bmp_rle() -> bytes:
    size = 20_000
    header = struct.pack("<IiiHHIIiiII", 40, size, size, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<III", 0, 0, 54 + 1024) + header + bytes(1024) + b"\xff\0" * 5000 + b"\0\1"


def _laughs() -> bytes:
    kinds = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    return f'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY l0 "x">{kinds}]><svg xmlns="http://www.w3.org/2000/svg"><text>&l9;</text></svg>'.encode()


def _encoded(trap: object) -> bytes:
    part = picture(gzip.compress(bytes(100_000_000)), "x")
    part["Content-Encoding"] = "gzip"
    return page('<img src="cid:x">', part)
