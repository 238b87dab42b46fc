"""Every slip of the corpus beside the repository, through the pool, on the paper it was made for."""

from __future__ import annotations

import json
import re
from email import message_from_bytes
from pathlib import Path

import pytest

from relay.config.printers import Rendering
from relay.config.profiles import Profile
from relay.slips.images import Album
from relay.slips.parts import read_letter
from relay.slips.pool import RenderPool
from relay.slips.sanitize import sanitize
from tests.unit.slips.letters import size_of, text_of

CORPUS = Path(__file__).resolve().parents[4] / "shared" / "corpus"
PROFILES = {
    "A4": Profile(name="a4", paper="A4"),
    "A5": Profile(name="a5", paper="A5", margin_mm=8.0, font_size_pt=10.0),
    "Letter": Profile(name="letter", paper="Letter"),
    "80mm": Profile(name="r", paper="80mm", margin_mm=4.0, font_size_pt=9.0, dpi=203, template="receipt.html"),
}


def words(message: bytes) -> set[str]:
    """Words of plain letters that the letter's text has."""
    found: set[str] = set()
    for part in message_from_bytes(message).walk():
        if part.get_content_maintype() == "text":
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            text = payload.decode(part.get_content_charset() or "utf-8", "replace")
            text = re.sub(r"<(style|script|title)\b.*?</\1>|<!--.*?-->|<[^>]*>|&\w+;", " ", text, flags=re.DOTALL)
            found |= set(re.findall(r"(?<![\w@./-])[A-Za-z]{3,9}(?![\w@./-])", text))
    return found


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not beside this checkout")
@pytest.mark.asyncio
async def test_every_slip_of_the_corpus_is_printed_whole() -> None:
    pool = RenderPool(Rendering(children=1))
    await pool.start()
    seen = 0
    try:
        for path in sorted(CORPUS.glob("*/*.eml")):
            facts = json.loads(path.with_suffix(".json").read_text())
            if facts["route"] != "print":
                continue
            profile = PROFILES[facts.get("paper") or "A4"]
            message = path.read_bytes()
            slip = await pool.render(message, profile)
            printed, wanted = text_of(slip.pdf), words(message)
            missing = {word for word in wanted if word.lower() not in printed.lower()}
            assert slip.pages >= 1
            assert size_of(slip.pdf)[0] == pytest.approx(slip.width_mm, abs=0.2)
            assert wanted, path.name
            assert len(missing) <= len(wanted) * 0.1, f"{path.name}: {sorted(missing)} are not on the slip"
            seen += 1
    finally:
        await pool.stop()
    assert seen > 40


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not beside this checkout")
def test_every_reference_of_the_corpus_finds_its_picture_and_none_becomes_a_page() -> None:
    found = 0
    for path in sorted(CORPUS.glob("*/*.eml")):
        if "xml-to-letter-admin" in path.name:
            continue
        facts = json.loads(path.with_suffix(".json").read_text())
        letter = read_letter(path.read_bytes())
        album = Album(letter.pictures, "1")
        sanitize(letter.html, album.url_for)
        unexpected = [note for note in album.notes if "on another server" not in note]
        assert len(unexpected) == ("missing-barcode" in path.name or "eight-bit" in path.name), path.name
        pages = [a.name for a in letter.attachments if a.is_pages and not album.shows(a.content)]
        assert pages == [], path.name
        found += len(facts.get("cids") or []) + len(facts.get("bare_images") or [])
    assert found > 50
