"""`kill -9`: what was answered with 250 is delivered or printed after the restart, and no slip comes out twice."""

from __future__ import annotations

import asyncio

import pytest

from relay.spool.records import State
from tests.harness import samples
from tests.harness.waiting import until
from tests.journeys.story import Story

pytestmark = pytest.mark.asyncio(loop_scope="session")

DELAYS = (0.0, 0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.2)
"""Seconds from the last 250 to the kill: before the slip is rendered, while its job is made, while it prints."""


async def test_killed_right_after_the_250_a_letter_is_delivered_and_a_slip_printed(own: Story) -> None:
    letter = samples.patron_letter(recipient="anna@patron.example")
    slip = samples.request_slip(recipient=own.mailbox("a5"))
    numbers = [await own.submit(letter, "anna@patron.example"), await own.submit(slip, own.mailbox("a5"))]
    starts = own.appliance.starts
    await own.appliance.kill()
    await own.appliance.restarted(starts)
    await own.settled(*numbers)
    assert len(own.taken_for("anna@patron.example")) >= 1
    assert len(own.printers["a5"].papers()) == 1


async def test_killed_at_many_moments_nothing_is_lost_and_no_slip_printed_twice(own: Story) -> None:
    printed: dict[str, list[str]] = {name: [] for name in own.printers}
    letters = []
    for round_number, delay in enumerate(DELAYS):
        for name in own.printers:
            slip = samples.transit_slip(recipient=own.mailbox(name))
            printed[name].append(await own.submit(slip, own.mailbox(name)))
        mailbox = f"reader{round_number}@patron.example"
        letters.append((mailbox, await own.submit(samples.patron_letter(recipient=mailbox), mailbox)))
        starts = own.appliance.starts
        await asyncio.sleep(delay)  # not waiting for anything: this is the moment of the crash
        await own.appliance.kill()
        await own.appliance.restarted(starts)
    await own.settled(*(number for _, number in letters), seconds=60)
    for mailbox, _ in letters:
        assert own.taken_for(mailbox), f"nothing arrived for {mailbox}"
    for name, numbers in printed.items():
        await ended(own, numbers)
        lines = own.deliveries(*numbers)
        delivered = sum(line.state == State.DELIVERED for line in lines)
        assert {line.state for line in lines} <= {State.DELIVERED, State.UNCERTAIN}
        assert len(own.printers[name].papers()) == len(numbers), f"{delivered} of {len(numbers)} recorded as printed"


async def ended(story: Story, numbers: list[str]) -> None:
    open_states = {State.QUEUED, State.ACTIVE, State.DEFERRED, State.PENDING}
    await until(
        lambda: not any(line.state in open_states for line in story.deliveries(*numbers)),
        lambda: (
            f"all slips to end; {[(line.queue_id, line.state, line.reason) for line in story.deliveries(*numbers)]}"
        ),
        seconds=60,
    )


async def test_stopped_while_a_slip_waits_for_paper_it_is_followed_after_the_start(own: Story) -> None:
    printer = own.printers["laser"]
    await printer.fault("media-empty")
    number = await own.submit(samples.transit_slip(recipient=own.mailbox("laser")), own.mailbox("laser"))
    await until(lambda: own.deliveries(number)[0].state == "pending", "the slip to be with CUPS")
    code = await own.appliance.stop(seconds=40)
    assert code == 0
    assert own.deliveries(number)[0].state == "pending"
    await printer.mend()
    await own.appliance.start()
    await own.settled(number)
    assert len(printer.papers()) == 1


async def test_a_stop_lets_a_message_under_way_be_answered(own: Story) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", own.appliance.port)
    await reader.readline()
    slip = samples.transit_slip(recipient=own.mailbox("a5"))
    head, tail = slip[:1000], slip[1000:]
    for command in (
        b"HELO alma.example\r\n",
        b"MAIL FROM:<>\r\n",
        f"RCPT TO:<{own.mailbox('a5')}>\r\n".encode(),
        b"DATA\r\n",
    ):
        writer.write(command)
        await reader.readline()
    writer.write(head)
    await writer.drain()
    stopping = asyncio.create_task(own.appliance.stop(seconds=40))
    log = own.appliance.log
    await until(lambda: "event=stopping" in log.read_text(encoding="utf-8"), "the stop to begin")
    writer.write(tail + b".\r\n")
    assert (await reader.readline()).startswith(b"250 2.0.0 queued as ")
    assert await stopping == 0
    assert await reader.read() == b"421 4.3.2 the service is stopping; try again later\r\n"
    writer.close()
