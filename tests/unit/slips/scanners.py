"""Barcodes on paper, as two scanners see them: pages in black and white, zxing-cpp and zbar, widths of bars in dots."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from io import BytesIO
from itertools import groupby, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import zxingcpp
from PIL import Image


def pages(pdf: bytes, dpi: int) -> Iterator[Image.Image]:
    """Each page in black and white, as poppler draws it for a printer of that resolution; nothing is smoothed.

    The white around what is printed is cut down to a centimetre.
    """
    with TemporaryDirectory() as folder:
        command = ["pdftoppm", "-mono", "-r", str(dpi), "-", f"{folder}/page"]
        subprocess.run(command, input=pdf, capture_output=True, check=True)
        for path in sorted(Path(folder).iterdir()):
            page = Image.open(BytesIO(path.read_bytes())).convert("L")
            left, top, right, bottom = page.point(lambda value: 255 - value).getbbox() or (0, 0, 1, 1)
            around = round(dpi / 2.54)
            yield page.crop(
                (
                    max(0, left - around),
                    max(0, top - around),
                    min(page.width, right + around),
                    min(page.height, bottom + around),
                )
            )


def by_zxing(page: Image.Image) -> list[str]:
    """What zxing-cpp reads, sorted."""
    return sorted(found.text for found in zxingcpp.read_barcodes(page))


def by_zbar(page: Image.Image) -> list[str]:
    """What zbar reads, sorted."""
    picture = BytesIO()
    page.save(picture, "PNG")
    command = ["zbarimg", "--nodbus", "-q", "--raw", "-"]
    done = subprocess.run(command, input=picture.getvalue(), capture_output=True, check=False)
    assert done.returncode in (0, 4), done.stderr  # 4: nothing found
    return sorted(done.stdout.decode().splitlines())


def bars(page: Image.Image) -> list[tuple[int, list[int], int]]:
    """For each linear barcode that is found: widths of its bars and spaces in dots, and of the white on both sides.

    Looked at is the row in its middle.
    """
    found: list[tuple[int, list[int], int]] = []
    for one in zxingcpp.read_barcodes(page, formats=zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.AllLinear)):
        if one.orientation not in (0, 180):
            continue
        corners = (one.position.top_left, one.position.bottom_right)
        (left, right), y = sorted(corner.x for corner in corners), (corners[0].y + corners[1].y) // 2
        edges = [0]
        for _, dots in groupby(page.crop((0, y, page.width, y + 1)).tobytes()):
            edges.append(edges[-1] + sum(1 for _ in dots))
        # zxing-cpp says where the first and the last bar are, give or take a dot.
        first = next(n for n, edge in enumerate(edges) if edge >= left - 1 and edges[n + 1] > left + 1)
        last = next(n for n, edge in enumerate(edges) if edge >= right)
        widths = [after - before for before, after in pairwise(edges)]
        found.append((widths[first - 1], widths[first:last], widths[last]))
    return found


def png(picture: Image.Image, dpi: int | None = 150, kind: str = "PNG") -> bytes:
    """A picture as a file."""
    target = BytesIO()
    picture.save(target, kind, **({"dpi": (dpi, dpi)} if dpi else {}))
    return target.getvalue()


def symbol(value: str, kind: str, pixels: int = 1, height: int = 60) -> Image.Image:
    """A barcode in black and white without quiet zone, `pixels` wide to the module."""
    made = zxingcpp.create_barcode(value, zxingcpp.BarcodeFormat.__members__[kind])
    drawn = zxingcpp.write_barcode_to_image(made, scale=1, add_quiet_zones=False)
    tall, wide = drawn.shape
    picture = Image.frombytes("L", (wide, tall), memoryview(drawn).tobytes())  # type: ignore[arg-type]
    if kind not in ("QRCode", "DataMatrix", "Aztec", "PDF417"):
        return picture.crop((0, 0, wide, 1)).resize((wide * pixels, height)).convert("1")
    return picture.resize((wide * pixels, tall * pixels), Image.Resampling.NEAREST).convert("1")
