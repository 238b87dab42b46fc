"""Rules that read letters: sorted after the 250, then dropped, printed elsewhere, copied, forwarded or held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from email.mime.text import MIMEText
from typing import Any

import cups
import pypdf
import pytest
import pytest_asyncio

from relay.spool.engine import Place
from relay.spool.histories import message_history
from relay.spool.queries import DeliveryLine
from tests.harness import samples
from tests.harness.playground import Playground
from tests.harness.waiting import until
from tests.journeys.story import Story
from tests.journeys.test_queue import queue

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRANSIT, REQUEST = "FulTransitSlipLetter", "FulReasourceRequestSlipLetter"

EXTRA: dict[str, Any] = {
    "rules": [
        {
            "name": "within-the-building",
            "letter_type": [TRANSIT],
            "elements": [{"selector": "#from"}, {"selector": "#to"}],
            "same_list": [["Main Library*", "Map Room*"], ["Harbour*", "Lighthouse*"]],
            "discard": True,
        },
        {"name": "receipts", "letter_type": ["FulLoanReceiptLetter"], "print": "receipt"},
        {"name": "fines", "letter_type": ["FulFines*"], "hold": "the office decides"},
        {"name": "copies", "library_code": "LAW", "copy_to": ["laser", "copies@lib.example"], "copies": 2},
        {"name": "to-the-branch", "recipient": "laser@*", "text": "please forward", "forward": ["branch@lib.example"]},
        {"name": "on-a5", "letter_type": [REQUEST], "recipient": "laser@*", "print": "laser", "profile": "a5"},
        {"name": "plain", "recipient": "receipt@*", "sender": "<>", "copies": 3},
    ],
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ruled(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    """A playground whose rules read letters."""
    async with Playground(tmp_path_factory.mktemp("rules") / "all", extra=EXTRA) as playground:
        yield Story(playground)


def letter(recipient: str, kind: str = "", body: str = "<p>text</p>", library: str = "") -> bytes:
    """A letter with the marker of docs/alma-marker.md."""
    marker = f'<meta name="slip-relay" content="type={kind}; printer=MAIN; library={library}">'
    message = MIMEText(f"<html><body>{marker}<h1>Slip</h1>{body}</body></html>", "html", "utf-8")
    message["From"], message["To"], message["Subject"] = "circulation@lib.example", recipient, "Slip"
    return message.as_bytes().replace(b"\n", b"\r\n")


def ends(start: str, end: str) -> str:
    return f'<p>From <b id="from">{start}</b> to <b id="to">{end}</b></p>'


def attempts(story: Story, line: DeliveryLine) -> list[tuple[str, str]]:
    history = message_history(Place.file(story.playground.institution.spool), line.queue_id)
    assert history is not None
    return [(each.outcome, each.reason) for each in history.deliveries[line.number].attempts]


def copies_of(port: int, job_id: int) -> int:
    """What CUPS says of a job."""
    cups.setServer("127.0.0.1")
    cups.setPort(port)
    return int(cups.Connection().getJobAttributes(job_id, requested_attributes=["copies"])["copies"])


async def test_a_transit_within_one_building_is_dropped_and_written_down(ruled: Story) -> None:
    before = len(ruled.printers["laser"].papers())
    mailbox = ruled.mailbox("laser")
    near = await ruled.submit(letter(mailbox, TRANSIT, ends("Main Library, desk", "Map Room")), mailbox)
    far = await ruled.submit(letter(mailbox, TRANSIT, ends("Main Library", "Harbour Branch")), mailbox)
    lines = await ruled.settled(near, far)
    assert [line.route for line in lines] == ["discard", "print:laser"]
    assert lines[0].reason == "discarded by a rule"
    assert attempts(ruled, lines[0])[0] == (
        "queued",
        "sorted by the rule within-the-building: discard; the letter is a FulTransitSlipLetter (by its marker)",
    )
    assert "sorted by the rule within-the-building: discard" in ruled.appliance.log.read_text(encoding="utf-8")
    assert len(await ruled.printers["laser"].wait_for_papers(before + 1)) == before + 1


async def test_a_type_of_letter_goes_to_another_printer(ruled: Story) -> None:
    before = len(ruled.printers["receipt"].papers())
    mailbox = ruled.mailbox("a5")
    slip = samples.loan_receipt(recipient=mailbox)
    line = (await ruled.settled(await ruled.submit(slip, mailbox)))[0]
    assert (line.route, line.recipient) == ("print:receipt", mailbox)
    assert len(await ruled.printers["receipt"].wait_for_papers(before + 1)) == before + 1


async def test_copies_come_out_once_each_and_go_by_mail_signed(ruled: Story) -> None:
    before = {name: len(printer.papers()) for name, printer in ruled.printers.items()}
    mailbox = ruled.mailbox("a5")
    number = await ruled.submit(letter(mailbox, "X", library="LAW"), mailbox)
    await until(lambda: len(ruled.deliveries(number)) == 3, "the copies to be in the spool")
    lines = await ruled.settled(number)
    assert [(line.number, line.route, line.recipient, line.notify) for line in lines] == [
        (0, "print:a5", mailbox, ""),
        (1, "print:laser", ruled.mailbox("laser"), "NEVER"),
        (2, "default", "copies@lib.example", "NEVER"),
    ]
    for name in ("a5", "laser"):
        job = f"slip-{number}-{0 if name == 'a5' else 1}-"
        assert [each.startswith(job) for each in ruled.printers[name].job_names()[before[name] :]] == [True]
    taken = ruled.taken_for("copies@lib.example")
    assert len(taken) == 1
    assert await ruled.verdict(taken[0])
    assert taken[0].mail_from.startswith(f"b-{number.lower()}-2-")


async def test_the_number_of_copies_reaches_cups(ruled: Story) -> None:
    printer = ruled.printers["receipt"]
    before = len(printer.papers())
    mailbox = ruled.mailbox("receipt")
    number = await ruled.submit(letter(mailbox, "Y"), mailbox, sender="")
    line = (await ruled.settled(number))[0]
    await printer.wait_for_papers(before + 1)
    assert line.route == "print:receipt"
    history = message_history(Place.file(ruled.playground.institution.spool), number)
    assert history is not None
    job = history.deliveries[0].job
    assert job is not None
    assert job.job_id is not None
    assert await asyncio.to_thread(copies_of, ruled.playground.ports.cups, job.job_id) == 3


async def test_what_is_forwarded_goes_out_signed_and_is_not_printed(ruled: Story) -> None:
    before = len(ruled.printers["laser"].papers())
    mailbox = ruled.mailbox("laser")
    number = await ruled.submit(letter(mailbox, "Z", "<p>Please\r\nforward this</p>"), mailbox)
    await until(lambda: len(ruled.deliveries(number)) == 2, "the forwarded one to be in the spool")
    lines = await ruled.settled(number)
    assert [(line.route, line.recipient) for line in lines] == [
        ("sort:demo", mailbox),
        ("default", "branch@lib.example"),
    ]
    assert lines[0].reason.startswith("sorted by the rule to-the-branch: forwarded to branch@lib.example")
    taken = ruled.taken_for("branch@lib.example")
    assert len(taken) == 1
    assert await ruled.verdict(taken[0])
    assert len(ruled.printers["laser"].papers()) == before


async def test_what_a_rule_holds_is_printed_when_a_person_lets_it_go(ruled: Story) -> None:
    before = len(ruled.printers["a5"].papers())
    mailbox = ruled.mailbox("a5")
    number = await ruled.submit(letter(mailbox, "FulFinesFeesNotificationLetter", library="LAW"), mailbox)
    line = (await ruled.settled(number, state="held"))[0]
    assert (line.route, line.reason) == ("hold:fines", "the office decides")
    assert (await queue(ruled.playground.institution.config, "release", f"{number}/0")).code == 0
    lines = await ruled.settled(number)
    assert [each.route for each in lines if each.number == 0] == ["print:a5"]
    assert len(await ruled.printers["a5"].wait_for_papers(before + 1)) == before + 1
    assert [each.startswith(f"slip-{number}-0") for each in ruled.printers["a5"].job_names()[before:]] == [True]


async def test_a_profile_of_a_rule_lays_the_slip_out(ruled: Story) -> None:
    before = len(ruled.printers["laser"].papers())
    mailbox = ruled.mailbox("laser")
    await ruled.settled(await ruled.submit(samples.request_slip(recipient=mailbox), mailbox))
    paper = (await ruled.printers["laser"].wait_for_papers(before + 1))[-1]
    assert round(float(pypdf.PdfReader(paper).pages[0].mediabox.width) / 72 * 25.4) == 148


async def test_a_letter_that_can_t_be_read_goes_on_and_is_held_with_its_reason(ruled: Story) -> None:
    mailbox = ruled.mailbox("laser")
    message = b"From: circulation@lib.example\r\nMIME-Version: 1.0\r\nContent-Type: application/zip\r\n\r\nUEsF\r\n"
    line = (await ruled.settled(await ruled.submit(message, mailbox), state="held"))[0]
    assert line.route == "print:laser"
    assert line.reason.startswith("can't be rendered: ")
    assert "; the rules could not read the letter: the message has no text" in attempts(ruled, line)[0][1]


async def test_mail_to_the_world_goes_out_although_rules_read_letters(ruled: Story) -> None:
    number = await ruled.submit(samples.patron_letter(recipient="anna@patron.example"), "anna@patron.example")
    line = (await ruled.settled(number))[0]
    assert line.route == "default"
    assert len(ruled.taken_for("anna@patron.example")) == 1


async def test_sorted_slips_come_out_in_the_order_in_which_they_arrived(ruled: Story) -> None:
    printer = ruled.printers["laser"]
    before = len(printer.papers())
    mailboxes = [ruled.mailbox("laser"), ruled.mailbox("a5")] * 3
    numbers = []
    for mailbox in mailboxes:
        kind = "X" if mailbox == ruled.mailbox("laser") else "FulLoanReceiptLetter"
        numbers.append(await ruled.submit(letter(mailbox, kind), mailbox))
    await ruled.settled(*numbers, seconds=60)
    expected = [number for number, mailbox in zip(numbers, mailboxes, strict=True) if mailbox == mailboxes[0]]
    assert [name.split("-")[1] for name in printer.job_names()[before:]] == expected
