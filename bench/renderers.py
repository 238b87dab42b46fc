"""WeasyPrint and PlutoPrint on the same letters, behind the same seam, in the same sandboxed child: what differs.

    python -m bench.renderers [--corpus DIR] [--pictures DIR]

Every letter goes to A4, A5 and an 80 mm roll with both. The table says how often each: refused it or died; has another
number of pages than the other; lacks words of the letter, or has them in another order; loses a barcode that can be
read in the letter's own picture, on the page as a printer prints it (one bit, 203 and 300 dpi). Rolls are compared by
length, and pages by the part of their dots (one bit, 100 dpi) that is black with one of the two only.

`--corpus` takes messages from a folder (`.eml`; with a `.json` beside them that says `"route": "print"`), otherwise the
project's own samples are used. `--pictures` keeps both as PNG, side by side. `bench.hostile` has the hostile letters.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import io
import json
import re
import statistics
import sys
import unicodedata
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from os import getpid
from pathlib import Path

import pypdfium2
import zxingcpp
from PIL import Image, ImageChops, ImageOps

from bench.slip_pages import KINDS, PROFILES, slip
from relay.config.pictures import Pictures
from relay.config.profiles import Profile
from relay.errors import RenderError
from relay.slips import frames
from relay.slips.images import Album
from relay.slips.parts import read_letter
from relay.slips.sanitize import sanitize
from relay.slips.slip import Occasion, Slip

ENGINES = ("weasyprint", "plutoprint")
PAPERS = ("a4", "a5", "receipt80")
LONGEST = 30.0
MEMORY = 1024 * 1024 * 1024


class Died(Exception):
    """The child ended or was ended."""


class Child:
    """One sandboxed child with an engine; started again when it died."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self._process: asyncio.subprocess.Process | None = None

    async def render(self, message: bytes, profile: Profile) -> Slip:
        """The slip. Raises RenderError, or Died."""
        process = self._process = self._process or await self._start()
        assert process.stdin
        assert process.stdout
        try:
            async with asyncio.timeout(LONGEST):
                process.stdin.write(frames.pack(_request(profile), message))
                await frames.receive(process.stdout)
                header, body = await frames.receive(process.stdout)
        except (EOFError, OSError, TimeoutError) as error:
            await self.stop()
            code = process.returncode
            raise Died("too slow" if isinstance(error, TimeoutError) else f"ended with {code}") from error
        if header.get("died"):
            await self.stop()
            raise Died(str(header["error"]))
        if "error" in header:
            raise RenderError(str(header["error"]))
        return frames.slip_from(header, body)

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.pluto", self.engine, str(getpid()), str(MEMORY), "50"),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            limit=2**20,
        )
        assert process.stdout
        await frames.receive(process.stdout)  # it is ready
        return process

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._process.pid if self._process else None

    async def stop(self) -> None:
        """Ends it."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
            self._process = None


def _request(profile: Profile) -> dict[str, object]:
    """As `relay.slips.pool` asks."""
    occasion, pictures = frames.occasion_header(Occasion()), Pictures().model_dump(mode="json")
    return {"profile": profile.model_dump(mode="json"), "occasion": occasion, "pictures": pictures}


@dataclass
class Tally:
    """What was seen of one engine."""

    slips: int = 0
    refused: list[str] = field(default_factory=list)
    died: list[str] = field(default_factory=list)
    words: int = 0
    missing_words: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    barcodes: Counter[int] = field(default_factory=Counter)
    lost_barcodes: dict[int, list[str]] = field(default_factory=lambda: {203: [], 300: []})


@dataclass
class Differences:
    """Of the two, page by page."""

    pages: list[str] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    dots: list[tuple[float, str]] = field(default_factory=list)


class _Words(HTMLParser):
    """The text of safe HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.text += "" if tag in ("b", "i", "em", "strong", "u", "span", "font", "a") else " "


def letters(corpus: Path | None) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of what is to be printed."""
    if corpus is None:
        yield from ((f"{kind} {number}", slip(kind, number)) for kind in KINDS for number in range(20))
        return
    for path in sorted(corpus.rglob("*.eml")):
        facts = path.with_suffix(".json")
        if facts.exists() and json.loads(facts.read_text()).get("route") == "print":
            yield str(path.relative_to(corpus)), path.read_bytes()


def expected(message: bytes) -> tuple[list[str], set[str]]:
    """The words of a letter, and the barcodes in the pictures that it shows."""
    letter = read_letter(message)
    album = Album(letter.pictures, "source")
    text = _Words(sanitize(letter.html, album.url_for).body).text
    pictures = (ImageOps.expand(_grey(content), 20, 255) for content in album.served().values())
    return _split(text), {code.text for picture in pictures for code in zxingcpp.read_barcodes(picture) if code.text}


def _grey(content: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(content)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("L")


def _split(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", text)
    return re.findall(r"\w+", "".join(c for c in plain if unicodedata.category(c) != "Cf"))


def rasters(pdf: bytes, dpi: int) -> list[Image.Image]:
    """The pages in black and white."""
    pages = pypdfium2.PdfDocument(pdf)
    return [page.render(scale=dpi / 72, grayscale=True).to_pil().point(lambda v: 255 * (v > 127)) for page in pages]


def look(tally: Tally, name: str, slip_: Slip, words: list[str], codes: set[str]) -> None:
    """Compare a slip with its letter."""
    text = " ".join(page.get_textpage().get_text_range() for page in pypdfium2.PdfDocument(slip_.pdf))
    printed = _split(text)
    # A word may be broken by the end of a line, and glyphs of right-to-left scripts may come in the order of the eye.
    whole = "".join(printed)
    missing = [word for word in words if len(word) > 1 and word not in whole and word[::-1] not in whole]
    tally.words += len(words)
    tally.missing_words += [f"{name}: {word}" for word in missing]
    if not missing and difflib.SequenceMatcher(None, words, printed, autojunk=False).ratio() < 0.9:
        tally.disordered.append(name)
    for dpi in (203, 300):
        read = {code.text for page in rasters(slip_.pdf, dpi) for code in zxingcpp.read_barcodes(page)}
        tally.barcodes[dpi] += len(codes)
        tally.lost_barcodes[dpi] += [f"{name}: {code}" for code in codes - read]


def compare(found: Differences, name: str, pair: list[Slip], pictures: Path | None) -> None:
    """Compare two slips with each other."""
    if pair[0].pages != pair[1].pages:
        found.pages.append(f"{name}: {pair[0].pages} and {pair[1].pages}")
    if name.endswith("receipt80"):
        found.lengths.append(pair[1].height_mm / pair[0].height_mm)
    first, second = (rasters(one.pdf, 100)[0] for one in pair)
    size = (max(first.width, second.width), max(first.height, second.height))
    first, second = (_on(one, size) for one in (first, second))
    either = ImageChops.darker(first, second).histogram()[0]
    if either:
        found.dots.append((ImageChops.difference(first, second).histogram()[255] / either, name))
    if pictures:
        both = Image.new("L", (2 * size[0] + 10, size[1]), 128)
        both.paste(first, (0, 0))
        both.paste(second, (size[0] + 10, 0))
        both.save(pictures / f"{re.sub(r'[^A-Za-z0-9.]+', '_', name)}.png")


def _on(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    paper = Image.new("L", size, 255)
    paper.paste(picture, (0, 0))
    return paper


async def evaluate(corpus: Path | None, pictures: Path | None) -> tuple[dict[str, Tally], Differences]:
    """All letters on all papers with both engines."""
    children = {engine: Child(engine) for engine in ENGINES}
    tallies, differences = {engine: Tally() for engine in ENGINES}, Differences()
    for label, message in letters(corpus):
        try:
            words, codes = expected(message)
        except RenderError:
            continue
        for paper in PAPERS:
            name, pair = f"{label} {paper}", []
            for engine, child in children.items():
                tally = tallies[engine]
                tally.slips += 1
                try:
                    pair.append(await child.render(message, PROFILES[paper]))
                    look(tally, name, pair[-1], words, codes)
                except RenderError as error:
                    tally.refused.append(f"{name}: {error}")
                except Died as error:
                    tally.died.append(f"{name}: {error}")
            if len(pair) == len(ENGINES):
                compare(differences, name, pair, pictures)
    for child in children.values():
        await child.stop()
    return tallies, differences


def report(tallies: dict[str, Tally], found: Differences) -> str:
    """The table, and below it each thing that was found, at most ten of a kind."""
    rows: list[tuple[str, list[object]]] = [
        ("slips", [t.slips for t in tallies.values()]),
        ("refused", [len(t.refused) for t in tallies.values()]),
        ("child died", [len(t.died) for t in tallies.values()]),
        ("words not in the text", [f"{len(t.missing_words)} of {t.words}" for t in tallies.values()]),
        ("other reading order", [len(t.disordered) for t in tallies.values()]),
    ]
    for dpi in (203, 300):
        values = [f"{len(t.lost_barcodes[dpi])} of {t.barcodes[dpi]}" for t in tallies.values()]
        rows.append((f"barcodes lost, {dpi} dpi", list(values)))
    lines = [f"{'':26}" + "".join(f"{engine:>16}" for engine in tallies)]
    lines += [f"{words:26}" + "".join(f"{value!s:>16}" for value in values) for words, values in rows]
    lines.append(f"other number of pages: {len(found.pages)}")
    if found.lengths:
        low, mid, high = min(found.lengths), statistics.median(found.lengths), max(found.lengths)
        lines.append(f"length of a roll, PlutoPrint by WeasyPrint: {low:.2f} to {high:.2f}, {mid:.2f} in the middle")
    if found.dots:
        parts = sorted(found.dots)
        lines.append(f"black dots that only one has: {statistics.median(p for p, _ in parts):.0%} in the middle")
        lines += [f"  most: {name} {part:.0%}" for part, name in parts[-5:]]
    lines += [f"  pages: {text}" for text in found.pages[:10]]
    for engine, tally in tallies.items():
        for words, texts in (
            ("refused", tally.refused),
            ("died", tally.died),
            ("word", tally.missing_words),
            ("order", tally.disordered),
            ("barcode, 203 dpi", tally.lost_barcodes[203]),
            ("barcode, 300 dpi", tally.lost_barcodes[300]),
        ):
            lines += [f"  {engine}, {words}: {text}" for text in texts[:10]]
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, compares, prints."""
    parser = argparse.ArgumentParser(description="WeasyPrint and PlutoPrint on the same letters")
    parser.add_argument("--corpus", type=Path, help="a folder of messages; otherwise our own samples")
    parser.add_argument("--pictures", type=Path, help="where to keep both as PNG")
    options = parser.parse_args()
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    print(report(*asyncio.run(evaluate(options.corpus, options.pictures))))


if __name__ == "__main__":
    main()
