"""Slips: rendered, printed on the right printer on the right paper, followed to their end."""

from __future__ import annotations

from datetime import datetime
from email.mime.image import MIMEImage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import SMTP
from io import BytesIO

import pypdf
import pytest
from PIL import Image

from tests.harness import code39, samples
from tests.harness.waiting import until
from tests.journeys.story import Story

pytestmark = pytest.mark.asyncio(loop_scope="session")

MM = 72 / 25.4


def size_mm(path: object) -> tuple[float, float]:
    box = pypdf.PdfReader(str(path)).pages[0].mediabox
    return round(float(box.width) / MM), round(float(box.height) / MM)


async def printed_after(story: Story, printer: str, before: int) -> list[object]:
    return list((await story.printers[printer].wait_for_papers(before + 1))[before:])


@pytest.mark.parametrize(("printer", "size"), [("laser", (210, 297)), ("a5", (148, 210)), ("receipt", (80, None))])
async def test_a_slip_comes_out_on_its_printers_paper(story: Story, printer: str, size: tuple[int, int | None]) -> None:
    before = len(story.printers[printer].papers())
    number = await story.submit(samples.request_slip(recipient=story.mailbox(printer)), story.mailbox(printer))
    line = (await story.settled(number))[0]
    papers = await printed_after(story, printer, before)
    assert len(papers) == 1
    width, height = size_mm(papers[0])
    assert width == size[0]
    assert height == size[1] if size[1] else 40 < height < 200
    assert "Resource request" in (pypdf.PdfReader(str(papers[0])).pages[0].extract_text() or "")
    assert (line.route, line.evidence, line.attempts) == (f"print:{printer}", "device-confirmed", 1)
    assert story.taken_for(story.mailbox(printer)) == [], "a slip does not go out by mail"


async def test_a_profile_says_how_a_slip_looks_and_is_printed(story: Story) -> None:
    laser = story.printers["laser"]
    before = len(laser.papers())
    number = await story.submit(samples.request_slip(recipient=story.mailbox("counter")), story.mailbox("counter"))
    await story.settled(number)
    paper = (await laser.wait_for_papers(before + 1))[before]
    text = " ".join((pypdf.PdfReader(paper).pages[0].extract_text() or "").split())
    for shown in ("Counter in the hall", "demo", number, "1/1", datetime.now().astimezone().strftime("%Y-%m-%d")):
        assert shown in text
    assert text.count("Resource request") == 2, "once in the letter and once large"
    asked = laser.asked(paper)
    assert asked["IPP_COPIES"] == "2"
    assert "media-source=tray-2" in asked["IPP_MEDIA_COL"]
    assert asked["IPP_SIDES"] == "one-sided", "it has a single page"


async def test_job_names_tell_nothing_about_people(story: Story) -> None:
    number = await story.submit(samples.request_slip(recipient=story.mailbox("a5")), story.mailbox("a5"))
    await story.settled(number)
    assert f"slip-{number}-0-1" in story.printers["a5"].job_names()
    log = story.appliance.log.read_text(encoding="utf-8")
    for private in ("Grünwald", "Örtel", "Resource request", "Wärme"):
        assert private not in log


async def test_slips_come_out_in_the_order_in_which_they_arrived(story: Story) -> None:
    before = len(story.printers["laser"].papers())
    numbers = [
        await story.submit(
            samples.transit_slip(recipient=story.mailbox("laser"), item=samples.invented_items(5)[i]),
            story.mailbox("laser"),
        )
        for i in range(5)
    ]
    await story.settled(*numbers, seconds=60)
    papers = (await story.printers["laser"].wait_for_papers(before + 5))[before:]
    texts = [pypdf.PdfReader(paper).pages[0].extract_text() for paper in papers]
    titles = [item.title for item in samples.invented_items(5)]
    assert [next(i for i, title in enumerate(titles) if title in text) for text in texts] == [0, 1, 2, 3, 4]


async def test_a_receipt_is_as_long_as_its_content(story: Story) -> None:
    heights = []
    for count in (2, 40):
        before = len(story.printers["receipt"].papers())
        slip = samples.loan_receipt(recipient=story.mailbox("receipt"), items=count)
        await story.settled(await story.submit(slip, story.mailbox("receipt")))
        paper = (await printed_after(story, "receipt", before))[0]
        assert len(pypdf.PdfReader(str(paper)).pages) == 1
        heights.append(size_mm(paper)[1])
    assert heights[1] > heights[0] + 38 * 5


async def test_a_barcode_that_does_not_scan_is_noted_and_logged_without_its_value(story: Story) -> None:
    source = Image.open(BytesIO(code39.png("31188009999999")))
    source.paste(1, (70, 0, 90, source.height))
    damaged = BytesIO()
    source.save(damaged, "PNG")
    message = MIMEMultipart("related")
    message["From"], message["To"] = "circulation@lib.example", story.mailbox("laser")
    message.attach(
        MIMEText("<p>Item 31188009999999</p><img src='cid:b'><p style='font-family:Code39'>*7654321*", "html")
    )
    part = MIMEImage(damaged.getvalue(), "png")
    part["Content-ID"] = "<b>"
    message.attach(part)
    number = await story.submit(message.as_bytes(policy=SMTP), story.mailbox("laser"))
    (line,) = await story.settled(number)
    assert "A barcode on the slip can't be read by a scanner." in line.reason
    log = story.appliance.log.read_text(encoding="utf-8")
    (event,) = [one for one in log.splitlines() if "event=rendered" in one and number in one]
    assert "printer=laser barcodes_read=1 barcodes_failed=1" in event
    assert "3118800" not in log
    assert "7654321" not in log


async def test_a_letter_and_a_slip_from_one_message(story: Story) -> None:
    slip = samples.request_slip(recipient=story.mailbox("a5"))
    number = await story.submit(slip, story.mailbox("a5"), "supervisor@lib.example")
    lines = await story.settled(number)
    assert {line.route for line in lines} == {"print:a5", "default"}
    assert len(story.taken_for("supervisor@lib.example")) == 1


async def test_a_slip_that_can_t_be_rendered_is_held_with_its_reason(story: Story) -> None:
    before = len(story.printers["laser"].papers())
    message = (
        b"From: circulation@lib.example\r\nTo: x@y.example\r\nSubject: odd\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\nUEsFBgAAAAAAAAAAAAA=\r\n"
    )
    number = await story.submit(message, story.mailbox("laser"))
    line = (await story.settled(number, state="held"))[0]
    assert line.reason.startswith("can't be rendered: ")
    next_one = await story.submit(samples.transit_slip(recipient=story.mailbox("laser")), story.mailbox("laser"))
    await story.settled(next_one)
    assert len(story.printers["laser"].papers()) == before + 1


@pytest.mark.parametrize("fault", ["media-empty", "slow 2", "offline"])
async def test_a_printer_in_trouble_prints_each_slip_once_when_it_is_mended(story: Story, fault: str) -> None:
    printer = story.printers["a5"]
    before = len(printer.papers())
    await printer.fault(fault)
    numbers = [
        await story.submit(samples.request_slip(recipient=story.mailbox("a5")), story.mailbox("a5")) for _ in range(3)
    ]
    await until(lambda: story.deliveries(numbers[0])[0].state == "pending", "the first slip to be with CUPS")
    assert len(printer.papers()) == before
    await printer.mend()
    lines = await story.settled(*numbers, seconds=60)
    assert [line.attempts for line in lines] == [1, 1, 1]
    assert len(printer.papers()) == before + 3


async def test_a_job_cancelled_while_it_is_printed_is_uncertain_and_not_printed_again(story: Story) -> None:
    printer = story.printers["laser"]
    before = len(printer.papers())
    await printer.fault("media-empty")
    number = await story.submit(samples.transit_slip(recipient=story.mailbox("laser")), story.mailbox("laser"))
    await until(lambda: "media-empty" in story.deliveries(number)[0].reason, "CUPS to say what is wrong")
    await story.playground.cupsd.command("cancel", "-a", "laser")
    line = (await story.settled(number, state="uncertain"))[0]
    assert "look whether the slip is at the printer" in line.reason
    await printer.mend()
    other = await story.submit(samples.transit_slip(recipient=story.mailbox("laser")), story.mailbox("laser"))
    await story.settled(other)
    assert len(printer.papers()) == before + 1


async def test_a_slip_that_the_printer_throws_away_is_printed_again(story: Story) -> None:
    """CUPS calls most of these jobs completed: only the device tells."""
    printer = story.printers["a5"]
    before = len(printer.papers())
    await printer.fault("abort")
    number = await story.submit(samples.request_slip(recipient=story.mailbox("a5")), story.mailbox("a5"))
    try:
        await until(lambda: story.deliveries(number)[0].attempts > 1, "the lie to be found out", seconds=20)
        assert len(printer.papers()) == before
    finally:
        await printer.mend()
    (line,) = await story.settled(number)
    assert (line.evidence, len(printer.papers())) == ("device-confirmed", before + 1)
    assert line.attempts > 1


async def test_a_slip_that_the_printer_throws_away_each_time_is_held_and_stops_no_other(story: Story) -> None:
    printer = story.printers["a5"]
    before = len(printer.papers())
    await printer.fault("abort")
    number = await story.submit(samples.request_slip(recipient=story.mailbox("a5")), story.mailbox("a5"))
    try:
        (line,) = await story.settled(number, state="held", seconds=60)
    finally:
        await printer.mend()
    assert line.reason.endswith("was aborted by the printer, 3 times one after the other")
    other = await story.submit(samples.transit_slip(recipient=story.mailbox("a5")), story.mailbox("a5"))
    await story.settled(other)
    assert len(printer.papers()) == before + 1


async def test_a_job_cancelled_before_it_was_printed_is_held(story: Story) -> None:
    cupsd = story.playground.cupsd
    before = len(story.printers["laser"].papers())
    await cupsd.command("cupsdisable", "laser")
    number = await story.submit(samples.transit_slip(recipient=story.mailbox("laser")), story.mailbox("laser"))
    await until(lambda: story.deliveries(number)[0].state == "pending", "the slip to be with CUPS")
    await cupsd.command("cancel", "-a", "laser")
    line = (await story.settled(number, state="held"))[0]
    assert line.reason.endswith("was cancelled before it was printed")
    await cupsd.command("cupsenable", "laser")
    assert len(story.printers["laser"].papers()) == before


async def test_slips_keep_their_order_over_a_time_in_which_cups_takes_none(story: Story) -> None:
    cupsd, printer = story.playground.cupsd, story.printers["a5"]
    before = len(printer.papers())
    await cupsd.command("cupsreject", "a5")
    numbers = []
    for _ in range(3):
        numbers.append(await story.submit(samples.request_slip(recipient=story.mailbox("a5")), story.mailbox("a5")))
    await until(lambda: story.deliveries(numbers[0])[0].attempts >= 2, "some attempts")
    await until(lambda: "not accepting jobs" in story.deliveries(numbers[0])[0].reason, "the reason")
    await cupsd.command("cupsaccept", "a5")
    for _ in range(2):
        numbers.append(await story.submit(samples.request_slip(recipient=story.mailbox("a5")), story.mailbox("a5")))
    await story.settled(*numbers, seconds=60)
    assert len(printer.papers()) == before + 5
    assert [name.split("-")[1] for name in printer.job_names()[-5:]] == numbers


@pytest.mark.parametrize("printer", ["laser", "a5", "receipt"])
async def test_a_slip_of_one_word_is_printed(story: Story, printer: str) -> None:
    slip = b"From: circulation@lib.example\r\nContent-Type: text/html\r\n\r\n<p>hello</p>\r\n"
    await story.settled(await story.submit(slip, story.mailbox(printer)))


async def test_a_letter_that_shows_nothing_is_held_not_printed_blank(story: Story) -> None:
    slip = b"From: circulation@lib.example\r\nContent-Type: text/html\r\n\r\n<html><body> </body></html>\r\n"
    line = (await story.settled(await story.submit(slip, story.mailbox("laser")), state="held"))[0]
    assert line.reason == "can't be rendered: nothing of the letter can be seen: the paper would stay blank"
