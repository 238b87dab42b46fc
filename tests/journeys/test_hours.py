"""Opening hours and batches, with the real service: what waited over the night lies sorted on the printer."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pypdf
import pytest
import pytest_asyncio

from tests.harness import samples
from tests.harness.playground import Playground
from tests.journeys.story import Story
from tests.journeys.test_queue import queue

pytestmark = pytest.mark.asyncio(loop_scope="session")

TITLES = ["Clocks 10", "Bridges 2", "Clocks 9", "Bridges 10", "Ferries"]
SORTED = ["Bridges 2", "Bridges 10", "Clocks 9", "Clocks 10", "Ferries"]


def next_minute(lead: float) -> datetime:
    """The first whole minute that is at least so many seconds away."""
    at = datetime.now(UTC) + timedelta(seconds=lead + 60)
    return at.replace(second=0, microsecond=0)


@pytest_asyncio.fixture(loop_scope="session")
async def closed(tmp_path: Path) -> AsyncIterator[tuple[Story, datetime]]:
    """A story with two printers that open at the next minute that leaves time for it, on one device each."""
    opens = next_minute(40)
    hours = {"mon-sun": [f"{opens:%H:%M}-{opens + timedelta(hours=6):%H:%M}"]}
    common = {"institution": "demo", "hours": hours, "time_zone": "UTC"}
    shelf = {"separator": True, "max_batch": 3, "sort": "h2", "desk": "Shelf", **common}
    extra = {
        "printers": [
            {"name": "shelf", "mailboxes": ["shelf@print.lib.example"], "queue": "laser", "profile": "a4", **shelf},
            {"name": "plain", "mailboxes": ["plain@print.lib.example"], "queue": "a5", "profile": "a5", **common},
        ]
    }
    async with Playground(tmp_path / "own", extra=extra) as playground:
        yield Story(playground), opens


def text_of(paper: Path) -> str:
    return " ".join("".join(page.extract_text() or "" for page in pypdf.PdfReader(str(paper)).pages).split())


async def test_the_night_is_printed_in_the_morning_sorted_in_batches_and_over_a_crash(
    closed: tuple[Story, datetime],
) -> None:
    story, opens = closed
    to = "shelf@print.lib.example"
    numbers = [await story.submit(samples.request_slip(to, item=samples.Item(title=title)), to) for title in TITLES]
    to = "plain@print.lib.example"
    plain = [await story.submit(samples.request_slip(to, request=f"2931044881760{n}"), to) for n in range(3)]
    config = story.playground.institution.config
    assert (await queue(config, "list", "--route", "print:shelf")).text.count(f"waits until {opens:%H:%M}") == 5
    assert (await queue(config)).text.count(f"waits until {opens:%H:%M}") == 2
    listed = json.loads((await queue(config, "list", "--route", "print:plain", "--json")).text)
    assert {line["waits_until"] for line in listed} == {opens.timestamp()}
    assert f"waits until {opens:%H:%M}" in (await queue(config, "show", plain[0])).text
    # A person may have one at once.
    assert (await queue(config, "retry", plain[2])).code == 0
    await story.settled(plain[2])
    assert datetime.now(UTC) < opens, "this machine was too slow for the test to mean anything"
    assert {line.state for line in story.deliveries(*numbers)} == {"queued"}
    assert story.printers["laser"].papers() == []
    # It opens; and the service is killed in the middle of the first batch.
    laser = story.printers["laser"]
    await laser.wait_for_papers(2, seconds=120)
    starts = story.appliance.starts
    await story.appliance.kill()
    await story.appliance.restarted(starts)
    await story.settled(*numbers, *plain, seconds=60)
    texts = [text_of(paper) for paper in laser.papers()]
    kinds = [next((title for title in SORTED if title in text), "separator") for text in texts]
    assert [kind for kind in kinds if kind != "separator"] == SORTED, "each once, in the order of the shelf"
    separators = [text for text, kind in zip(texts, kinds, strict=True) if kind == "separator"]
    assert kinds[0] == "separator"
    assert 2 <= len(separators) <= 3, "one before the crash, one or two for the rest"
    by_title = dict(zip(TITLES, numbers, strict=True))
    assert listed_on(separators[0]) == [by_title[title] for title in SORTED[:3]]
    assert listed_on(separators[-1])[-1] == by_title[SORTED[-1]]
    for text in separators:
        assert f"Batch: {len(listed_on(text))} slips" in text
        assert "Shelf" in text
        assert "rtel" not in text, "no patron's name"
    assert len(story.printers["a5"].papers()) == 3
    assert [name for name in story.printers["a5"].job_names() if name.startswith("batch")] == []


def listed_on(separator: str) -> list[str]:
    """The queue ids on a separator."""
    return re.findall(r"\b[0-9A-Z]{13}\b", separator)
