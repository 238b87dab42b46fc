"""The corpus report in its short form; `make corpus-report` is the long one. And that its checks can fail."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from weasyprint import HTML

from tests.harness import contact_sheet, paper_checks
from tests.harness.corpus_report import BESIDE, Sample, find_samples, main, own_samples, report, table, totals


def pdf(html: str, css: str = "size: 100mm 60mm; margin: 5mm") -> bytes:
    written: bytes = HTML(
        string=f"<style>@page {{ {css} }} body {{ margin: 0; font-family: Liberation Sans }}</style>{html}"
    ).write_pdf()
    return written


def test_own_samples_are_taken_without_a_corpus(tmp_path: Path) -> None:
    assert {sample.name for sample in find_samples(tmp_path)} == {sample.name for sample in own_samples()}


@pytest.mark.asyncio
async def test_own_samples_lose_no_text_and_no_glyph_and_stay_on_the_paper() -> None:
    lines = await report(own_samples()[2:5], papers=("a5", "receipt80"), dpis=(203,))
    assert len(lines) == 6
    wrong = ("letters of", "no glyph", "edge", "pages where", "not printed", "out of order")
    assert [
        (line.sample, fault) for line in lines for fault in line.faults if any(word in fault for word in wrong)
    ] == []


@pytest.mark.skipif(not BESIDE.is_dir(), reason="the corpus is not beside this checkout")
@pytest.mark.asyncio
async def test_slips_of_the_corpus_lose_nothing() -> None:
    chosen = [sample for sample in find_samples(BESIDE) if "TransitSlip" in sample.name or "40-items" in sample.name][
        :4
    ]
    lines = await report(chosen, papers=("a4", "receipt80"), dpis=(203,))
    wrong = ("letters of", "no glyph", "edge", "not printed")
    assert [
        (line.sample, fault) for line in lines for fault in line.faults if any(word in fault for word in wrong)
    ] == []


def test_text_that_is_cut_off_is_missed() -> None:
    whole = paper_checks.letters(paper_checks.text_of_pdf(pdf("<p>one two three</p>")))
    cut = paper_checks.letters(
        paper_checks.text_of_pdf(pdf("<p>one two <span style='position:absolute;left:200mm'>three"))
    )
    assert paper_checks.missing_letters(whole, whole) == 0
    assert paper_checks.missing_letters(whole, cut) == 5


def test_text_in_another_order_is_seen() -> None:
    assert paper_checks.first_gap("onetwothree", "onetwoxthree") == ""
    assert paper_checks.first_gap("onetwothree", "onethreetwo") != ""


def test_ink_at_the_edge_and_beyond_is_seen() -> None:
    good, bad = pdf("<p>x"), pdf("<p style='margin-left:-6mm;background:black'>x</p>")
    assert [paper_checks.edge_is_white(page, 203) for page in paper_checks.rasters(good, 203)] == [True]
    assert [paper_checks.edge_is_white(page, 203) for page in paper_checks.rasters(bad, 203)] == [False]
    assert paper_checks.outside(good) == []
    assert paper_checks.outside(pdf("<p style='margin-left:-8mm'>word</p>")) == ["word"]


def character_of_no_font() -> str:
    """A letter of an old script that no font on this machine has."""
    for code in (0x18B00, 0x10600, 0x13000, 0x12000, 0x16AD0, 0x1E2C0, 0x18800):
        command = ["fc-list", f":charset={code:x}"]
        if not subprocess.run(command, capture_output=True, check=True).stdout:
            return chr(code)
    pytest.skip("this machine has fonts for everything")


def test_missing_glyphs_are_seen() -> None:
    missing = character_of_no_font()
    assert paper_checks.missing_glyphs(pdf("<p>שלום كتاب 本 Żółw Ωμέγα</p>")) == ""
    assert paper_checks.missing_glyphs(pdf(f"<p>x {missing} y")) == missing


def test_hebrew_that_begins_at_the_left_is_seen() -> None:
    assert paper_checks.lines_of_rtl(pdf("<p dir=rtl>שלום עולם</p>")) == (1, 1)
    assert paper_checks.lines_of_rtl(pdf("<p>שלום עולם</p>")) == (1, 0)


@pytest.mark.asyncio
async def test_a_slip_that_is_not_printed_is_a_fault_and_has_its_place_on_the_sheet() -> None:
    lines = await report([Sample("empty", b"Content-Type: text/html\r\n\r\n<p></p>")], papers=("a4",), dpis=(203,))
    assert "not printed" in lines[0].faults[0]
    assert contact_sheet.draw([(lines[0].sample, 0, lines[0].faults, None)]).width > 1000
    assert table(lines).row_count == 1
    assert "1  not printed" in totals(lines)


def test_exit_code_says_whether_anything_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "x.json").write_text('{"route": "print"}')
    (folder / "x.eml").write_bytes(b"Content-Type: text/html\r\n\r\n<p>one word</p>")
    arguments = ["--corpus", str(folder), "--to", str(tmp_path / "to")]
    assert main(arguments) == 0
    (folder / "x.eml").write_bytes(b"Content-Type: text/html\r\n\r\n<p></p>")
    assert main(arguments) == 1
    assert {path.name for path in (tmp_path / "to").iterdir()} >= {
        "report.txt",
        "contact-a4.png",
        "contact-receipt80.png",
    }
