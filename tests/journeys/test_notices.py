"""Notices end to end: a printer in trouble, one e-mail; mended, one more; none on paper, none twice."""

from __future__ import annotations

import email
import email.message
import email.policy
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness import samples
from tests.harness.next_hop import Taken
from tests.harness.playground import Playground
from tests.harness.waiting import until
from tests.journeys.story import Story

pytestmark = pytest.mark.asyncio(loop_scope="session")

PRINTER, DESK, ADMINISTRATOR = "a5", "circulation@lib.example", "it@lib.example"
EXTRA = {
    "notices": {"look_every": "0.5s", "silent_after": "16s"},
    "institutions": [{"name": "demo", "notify": ADMINISTRATOR, "language": "de"}],
    "printers": [{"name": PRINTER, "notify": DESK, "trouble_after": "12s"}],
}


@pytest_asyncio.fixture(loop_scope="session")
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    async with Playground(tmp_path / "notices", extra=EXTRA) as playground:
        yield Story(playground)


def subjects(story: Story, mailbox: str) -> list[str]:
    """Those of the notices that came to a mailbox, in their order."""
    return [str(parsed(taken)["Subject"]) for taken in story.taken_for(mailbox)]


def parsed(taken: Taken) -> email.message.EmailMessage:
    return email.message_from_bytes(taken.content, policy=email.policy.default)


async def slip(story: Story) -> str:
    return await story.submit(samples.request_slip(recipient=story.mailbox(PRINTER)), story.mailbox(PRINTER))


async def told(story: Story, mailbox: str, count: int) -> Taken:
    await until(lambda: len(story.taken_for(mailbox)) >= count, f"{count} notices to {mailbox}", seconds=40)
    return story.taken_for(mailbox)[count - 1]


async def test_trouble_and_silence_are_told_once_and_once_that_they_are_over(story: Story) -> None:
    printer = story.printers[PRINTER]
    await printer.fault("media-empty")
    numbers = [await slip(story), await slip(story)]
    notice = await told(story, DESK, 1)
    text = parsed(notice).get_content()
    assert "media-empty" in text
    assert "Belege: 2" in text
    assert notice.mail_from == ""
    assert await story.verdict(notice)
    # Silence is told too; the service dies and comes back, and goes on looking.
    silence = await told(story, ADMINISTRATOR, 1)
    assert str(parsed(silence)["Subject"]) == "Keine Mail von Alma: demo"
    # Killed before it has recorded that the next hop took a letter, it would hand that in again.
    await story.settled(str(parsed(silence)["Message-ID"]).strip("<>").partition("@")[0])
    starts = story.appliance.starts
    await story.appliance.kill()
    await story.appliance.restarted(starts)
    numbers.append(await slip(story))
    await told(story, ADMINISTRATOR, 2)
    assert subjects(story, ADMINISTRATOR) == ["Keine Mail von Alma: demo", "Wieder Mail von Alma: demo"]
    assert subjects(story, DESK) == [f"Belege werden nicht gedruckt: {PRINTER}"]

    await printer.mend()
    await story.settled(*numbers)
    await told(story, DESK, 2)
    # It is silent again for long enough: more looks, and nothing more for the desk.
    await told(story, ADMINISTRATOR, 3)
    assert subjects(story, DESK) == [
        f"Belege werden nicht gedruckt: {PRINTER}",
        f"Belege werden wieder gedruckt: {PRINTER}",
    ]
    assert [name.split("-")[1] for name in printer.job_names()] == numbers
    log = story.appliance.log
    await until(lambda: log.read_text().count("event=notice ") == 5, "a line in the log for each")
    assert "circulation@" not in log.read_text()
