"""Hostile letters through the real appliance: held and shown with their reason, nothing in the log, the rest prints."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pypdf
import pytest

from tests.harness import samples
from tests.harness.appliance import command
from tests.journeys.story import Story
from tests.unit.slips.hostile import catalogue
from tests.unit.slips.hostile.case import MARK, SECRET, Trap

pytestmark = pytest.mark.asyncio(loop_scope="session")

HELD = {
    "nested in custom tags": "nested deeper",
    "parts nested 30 deep": "nested deeper",
    "page after each word": "pages",
    "all hidden by display: none": "nothing of the letter can be seen",
    "not numbers": "failed on this letter",
}
PRINTED = ("loads by img src", "loads by link of type attachment", "PNG bomb of 20,000 x 20,000", "templates of ours")


async def test_hostile_slips_are_held_with_their_reason_and_the_others_print(story: Story, tmp_path: Path) -> None:
    (tmp_path / "secret.html").write_text(SECRET)
    trap = Trap(9, tmp_path / "secret.html", tmp_path / "secret.png")
    letters = {hostile.name: hostile.build(trap) for hostile in catalogue() if hostile.name in (*HELD, *PRINTED)}
    assert set(letters) == {*HELD, *PRINTED}
    printer, box = story.printers["laser"], story.mailbox("laser")
    before = len(printer.papers())
    numbers: dict[str, str] = {}
    for name, message in letters.items():
        named = b"From: circulation@lib.example\r\nMessage-ID: <hostile@lib.example>\r\n" + without_from(message)
        numbers[name] = await story.submit(named, box)
        numbers[f"after {name}"] = await story.submit(samples.transit_slip(recipient=box), box)
    held = await story.settled(*(numbers[name] for name in HELD), state="held", seconds=120)
    reasons = {line.queue_id: line.reason for line in held}
    for name, reason in HELD.items():
        assert reasons[numbers[name]].startswith("can't be rendered: "), name
        assert reason in reasons[numbers[name]], name
    good = [number for name, number in numbers.items() if name not in HELD]
    await story.settled(*good, seconds=120)
    papers = await printer.wait_for_papers(before + len(good))
    assert len(papers) == before + len(good)
    texts = [pypdf.PdfReader(paper).pages[0].extract_text() for paper in papers[before:]]
    assert sum(MARK in text for text in texts) == len(PRINTED)
    assert SECRET not in "".join(texts)
    log = story.appliance.log.read_text(encoding="utf-8")
    for private in (MARK, SECRET, "127.0.0.1:9/", "{{", "Traceback"):
        assert private not in log
    await cancel(story, *(numbers[name] for name in HELD))


async def cancel(story: Story, *numbers: str) -> None:
    """Nothing is left for the journeys that follow."""
    config = str(story.playground.institution.config)
    for number in numbers:
        child = await asyncio.create_subprocess_exec(*command(), "queue", "cancel", "-c", config, number)
        assert await child.wait() == 0


def without_from(message: bytes) -> bytes:
    """The message without its own From field, so that it comes from the demo's institution."""
    head, _, body = message.replace(b"\r\n", b"\n").partition(b"\n\n")
    kept = [line for line in head.split(b"\n") if not line.lower().startswith((b"from:", b"subject:", b"to:"))]
    return (b"\n".join(kept) + b"\n\n" + body).replace(b"\n", b"\r\n")
