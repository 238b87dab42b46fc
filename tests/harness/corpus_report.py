"""`make corpus-report [CORPUS=folder]`: every printable message of a corpus on paper, looked at by others than us.

Does: renders each message on A4, A5 and an 80 mm roll, for printers of 203 and 300 dpi; checks barcodes, edges, text,
order, pages, glyphs and direction (`paper_checks`); writes `corpus-report/report.txt` and one contact sheet for each
paper, for a person to look at. The exit code is 1 when anything is wrong.
Promises: what is expected of a page is found in the message, or on a page so large that nothing can go wrong on it.
Known limits: the order is not checked in letters that run from right to left, nor on which side of its cell a Hebrew
title in an English table stands; without a corpus beside the checkout,
the samples of `tests.harness` are taken, and it says so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from relay.config.kinds import paper_size
from relay.config.printers import Rendering
from relay.config.profiles import BUILT_IN_PROFILES, Profile
from relay.errors import RenderError
from relay.slips.pool import RenderPool
from tests.harness import contact_sheet, paper_checks, samples

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "corpus"
PAPERS = ("a4", "a5", "receipt80")
DPIS = (203, 300)
_RTL = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]+")
_BREAKS = re.compile(r"(?:page-break|break)-(?:after|before)\s*:\s*(?:always|page|left|right)", re.IGNORECASE)
MOST_ON_A_SHEET_WASTED = 1
"""Pages more than the length of the text asks for: rows and pictures are not cut in two."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A message that somebody wants on paper. `lang` is that of its people, where it is known."""

    name: str
    message: bytes
    lang: str = ""


@dataclass(frozen=True, slots=True)
class References:
    """The same letter where it has room: on a page twice as wide, and on an endless one. None when it can't be."""

    wide: bytes | None
    tall: bytes | None


@dataclass(slots=True)
class Line:
    """What was seen of one sample on one paper at one resolution. `faults` are whole phrases; empty is good."""

    sample: str
    paper: str
    dpi: int
    pages: int = 0
    barcodes: str = ""
    faults: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    picture: Image.Image | None = None


def find_samples(corpus: Path) -> list[Sample]:
    """The printable messages of a corpus, or our own when it is not there."""
    found = []
    for index in sorted(corpus.rglob("*.json")):
        facts = json.loads(index.read_text(encoding="utf-8"))
        if facts.get("route") == "print":
            name = str(index.relative_to(corpus).with_suffix(""))
            found.append(Sample(name, index.with_suffix(".eml").read_bytes(), facts.get("lang") or ""))
    return found or own_samples()


def own_samples() -> list[Sample]:
    """Slips of `tests.harness.samples`, in several scripts."""
    to = "desk@lib.example"
    titles = {
        "he": ("תולדות התנורים הישנים", "גרינוולד, זואי"),
        "ar": ("تاريخ المواقد القديمة", "غرونفالد، زوي"),
        "ja": ("古い暖炉の歴史", "緑森ぞえ"),
        "zh": ("旧炉灶的历史", "绿林若"),
        "el": ("Ιστορία των παλιών σομπών", "Γκρύνβαλντ, Ζωή"),
    }
    scripts = [
        Sample(f"request slip, {lang}", samples.request_slip(to, item=samples.Item(title=title, author=author)), lang)
        for lang, (title, author) in titles.items()
    ]
    return [
        Sample("request slip", samples.request_slip(to)),
        Sample("transit slip", samples.transit_slip(to)),
        Sample("loan receipt", samples.loan_receipt(to)),
        Sample("loan receipt of 40", samples.loan_receipt(to, items=40)),
        *scripts,
    ]


async def report(chosen: Sequence[Sample], papers: Sequence[str] = PAPERS, dpis: Sequence[int] = DPIS) -> list[Line]:
    """Every sample on every paper at every resolution."""
    pool = RenderPool(Rendering(children=2))
    await pool.start()
    try:
        work = [(sample, paper) for sample in chosen for paper in papers]
        gate = asyncio.Semaphore(2)

        async def one(sample: Sample, paper: str) -> list[Line]:
            async with gate:
                return await _on_paper(pool, sample, paper, dpis)

        return [line for lines in await asyncio.gather(*(one(*each) for each in work)) for line in lines]
    finally:
        await pool.stop()


async def _on_paper(pool: RenderPool, sample: Sample, paper: str, dpis: Sequence[int]) -> list[Line]:
    profile = next(each for each in BUILT_IN_PROFILES if each.name == paper)
    barcodes = await asyncio.to_thread(paper_checks.barcodes_in_source, sample.message)
    references = References(
        await _reference(pool, sample, _wider(profile)), await _reference(pool, sample, _taller(profile))
    )
    lines = []
    for dpi in dpis:
        line = Line(sample.name, paper, dpi)
        lines.append(line)
        try:
            slip = await pool.render(sample.message, profile.model_copy(update={"dpi": dpi}))
        except RenderError as error:
            line.faults.append(f"not printed: {error}")
            continue
        line.pages, line.notes = slip.pages, slip.notes
        pages = await asyncio.to_thread(paper_checks.rasters, slip.pdf, dpi)
        line.picture = contact_sheet.thumbnail(pages[0])
        line.faults += await asyncio.to_thread(_barcode_faults, line, barcodes, pages)
        line.faults += await asyncio.to_thread(_page_faults, line, sample, profile, slip.pdf, references, pages)
    return lines


def _page_faults(
    line: Line, sample: Sample, profile: Profile, pdf: bytes, references: References, pages: list[Image.Image]
) -> list[str]:
    faults = [f"at or over the edge: {what}" for what in paper_checks.outside(pdf)[:3]]
    if not all(paper_checks.edge_is_white(page, line.dpi) for page in pages):
        faults.append("ink at the edge of the paper")
    faults += _text_faults(sample, pdf, references.wide)
    low, high = _pages_expected(sample, profile, references.tall)
    if not low <= line.pages <= high:
        faults.append(f"{line.pages} pages where {low} to {high} were expected")
    if missing := paper_checks.missing_glyphs(pdf):
        faults.append(f"no glyph for {missing}")
    if _reads_from_the_right(sample):
        count, right = paper_checks.lines_of_rtl(pdf)
        if right < count:
            faults.append(f"{count - right} of {count} lines of {sample.lang} begin at the left")
    return faults


def _reads_from_the_right(sample: Sample) -> bool:
    """Whether most letters of a message are Hebrew or Arabic; in others such lines stand in cells of English tables."""
    text = "".join(filter(str.isalpha, paper_checks.text_of_html(paper_checks.letter_html(sample.message))))
    return 2 * len("".join(_RTL.findall(text))) > len(text)


def _barcode_faults(line: Line, wanted: set[str], pages: list[Image.Image]) -> list[str]:
    faults, counts = [], []
    for name, reader in (("zxing", paper_checks.read_by_zxing), ("zbar", paper_checks.read_by_zbar)):
        found = set().union(*(reader(page) for page in pages))
        faults += [f"{name} does not read {value}" for value in sorted(wanted - found)]
        counts.append(len(wanted & found))
    line.barcodes = f"{counts[0]}+{counts[1]} of {len(wanted)}" if wanted else ""
    return faults


def _text_faults(sample: Sample, pdf: bytes, wide: bytes | None) -> list[str]:
    """The letter's letters, in their order; and none less than on a page where all have room."""
    wanted = paper_checks.text_of_html(paper_checks.letter_html(sample.message))
    found = paper_checks.text_of_pdf(pdf)
    faults = []
    if missing := paper_checks.missing_letters(paper_checks.letters(wanted), paper_checks.letters(found)):
        faults.append(f"{missing} letters of the letter are not on the slip")
    if not _RTL.search(wanted):  # else the lines are in the order of the eye; their letters were counted above
        in_order = paper_checks.text_of_html(paper_checks.letter_html(sample.message), floats=False)
        if gap := paper_checks.first_gap(paper_checks.letters(in_order), paper_checks.letters(found)):
            faults.append(f"out of order at ...{gap}...")
    if wide is None:
        faults.append("can't be compared with a wider page")
    else:
        on_wide, on_slip = (paper_checks.letters(paper_checks.text_of_pdf(each)) for each in (wide, pdf))
        if missing := paper_checks.missing_letters(on_wide, on_slip):
            faults.append(f"{missing} letters of the wider page are cut off")
    return faults


def _pages_expected(sample: Sample, profile: Profile, tall: bytes | None) -> tuple[int, int]:
    """On a roll one; on sheets what the text's length on one endless page of that width comes to."""
    height = paper_size(profile.paper)[1]
    if height is None:
        return 1, 1
    if tall is None:
        return 1, 1000
    margins = profile.margins.top + profile.margins.bottom
    length = paper_checks.height_mm(tall) - margins
    least = max(1, math.ceil((length - 1) / (height - margins)))
    breaks = len(_BREAKS.findall(paper_checks.letter_html(sample.message)))
    return least, least + MOST_ON_A_SHEET_WASTED * (least + breaks)


def _wider(profile: Profile) -> Profile:
    width, height = paper_size(profile.paper)
    wide = f"{2 * width:g}mm" if height is None else f"{2 * width:g}x{height:g}mm"
    return profile.model_copy(update={"paper": wide})


def _taller(profile: Profile) -> Profile:
    return profile.model_copy(update={"paper": f"{paper_size(profile.paper)[0]:g}mm"})


async def _reference(pool: RenderPool, sample: Sample, profile: Profile) -> bytes | None:
    try:
        return (await pool.render(sample.message, profile)).pdf
    except RenderError:
        return None


def table(lines: Sequence[Line]) -> Table:
    """The report, the bad ones in full."""
    bad = sum(bool(line.faults) for line in lines)
    faults = sum(len(line.faults) for line in lines)
    drawn = Table(title=f"{len(lines)} slips, {bad} with faults, {faults} faults", expand=True)
    for heading in ("message", "paper", "dpi", "pages", "barcodes", "faults"):
        drawn.add_column(heading, overflow="fold")
    for line in lines:
        drawn.add_row(
            line.sample, line.paper, str(line.dpi), str(line.pages), line.barcodes, "; ".join(line.faults) or "none"
        )
    return drawn


def totals(lines: Sequence[Line]) -> str:
    """How many slips have each kind of fault."""
    kinds: dict[str, int] = {}
    for line in lines:
        for kind in {re.sub(r"\d+|\.\.\..*|: .*| for .*", "N", fault) for fault in line.faults}:
            kinds[kind] = kinds.get(kind, 0) + 1
    found = [f"{count:5d}  {kind}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1])]
    return "\n".join([f"{len(lines):5d}  slips", *found])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report; 1 when there are faults."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--corpus", type=Path, default=BESIDE, help="folder of .eml files with a .json beside each")
    parser.add_argument("--to", type=Path, default=Path("corpus-report"), help="folder to write into")
    parser.add_argument("--only", default="", help="expression that the names of messages have to match")
    chosen = parser.parse_args(arguments)
    if not chosen.corpus.is_dir():
        print(f"there is no corpus in {chosen.corpus}: the samples of tests/harness are taken instead", file=sys.stderr)
    found = [sample for sample in find_samples(chosen.corpus) if re.search(chosen.only, sample.name)]
    lines = asyncio.run(report(found))
    chosen.to.mkdir(exist_ok=True)
    for paper in PAPERS:
        of_paper = [line for line in lines if line.paper == paper and line.dpi == DPIS[0]]
        shown = [(line.sample, line.pages, line.faults, line.picture) for line in of_paper]
        contact_sheet.draw(shown).save(chosen.to / f"contact-{paper}.png", optimize=True)
    text = f"{chosen.to / 'report.txt'}"
    with open(text, "w", encoding="utf-8") as file:
        Console(file=file, width=200).print(table(lines))
        print(totals(lines), file=file)
    print(Path(text).read_text(encoding="utf-8"))
    print(f"written to {chosen.to}/: report.txt, contact-*.png")
    return int(any(line.faults for line in lines))


if __name__ == "__main__":
    sys.exit(main())
