"""`kill -9`: what was answered with 250 is delivered or printed after the restart, and no slip comes out twice."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections import Counter
from pathlib import Path

import pytest

from relay.printing.cups import CupsServer
from relay.spool.store import Store
from tests.harness import samples
from tests.harness.crash_bench import CrashBench, table
from tests.harness.crash_points import CHECKPOINT, IN_BATCHES, METHODS, PRINTING, QUESTIONS, VERBS, points
from tests.harness.postgres import Postgres
from tests.harness.verdict import Verdict
from tests.harness.waiting import until
from tests.journeys.story import Story

pytestmark = pytest.mark.asyncio(loop_scope="session")

SAMPLE = (
    "open: written",
    "accept: written",
    "accept: committed",
    "250: before",
    "250: sent",
    "begin: committed",
    "dot: sent, no answer",
    "dot: answered, not settled",
    "settle: written",
    "describe: after",
    "sort: written",
    "sort: committed",
    "give_up: written",
    "checkpoint: after",
    "create_job: answered",
    "document: half sent",
    "send_document: answered",
    "jobs_named: answered",
    "record_job: committed",
)
"""Points where most is in doubt."""

ANY_MOMENT = 0.25
"""How often, between two points, the service is killed at no point in particular."""

ONCE = ("schema", "open", "queues", "sign out", "forget_job", "find_job", "cancel_job", "put_off", "release")
"""Points that a process passes once, or that need something to be broken for each pass."""


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


async def test_killed_at_named_points_and_at_any_moment_nothing_is_lost_and_no_slip_printed_twice(
    tmp_path: Path,
) -> None:
    async with CrashBench(tmp_path) as bench:
        async with bench.traffic() as traffic:
            for point in SAMPLE:
                assert await bench.die_at(point), point
            for _ in range(2):
                await bench.die_at_any_moment()
            await bench.settle(traffic)
        verdict = bench.verdict(traffic)
    assert verdict.faults == [], verdict.summary()
    assert verdict.uncertain == []  # CUPS lived on, and knows of every job
    assert verdict.duplicates["dot: sent, no answer"] >= 1
    assert verdict.answered > 20
    assert verdict.slips > 3


@pytest.mark.prove
async def test_killed_three_hundred_times_at_every_point_and_at_any_moment(
    tmp_path: Path, postgres: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each point is met three times: at once, and after it was passed some times; twice in a file, once on a server."""
    kills: Counter[str] = Counter()
    total = Verdict()
    for number, url in enumerate(("", "", postgres.create_database())):
        folder = tmp_path / f"round{number}"
        folder.mkdir()
        async with CrashBench(folder, url=url) as bench:
            async with bench.traffic() as traffic:
                for point in random.sample(points(), len(points())):
                    if point not in CHECKPOINT or not url:
                        await bench.die_at(point, passes(point) if number else 1)
                    if random.random() < ANY_MOMENT:
                        await bench.die_at_any_moment()
                await bench.settle(traffic, seconds=300)
            verdict = bench.verdict(traffic)
        with capsys.disabled():
            where = "PostgreSQL" if url else "SQLite"
            print(f"\nround {number + 1}, {where}, {bench.kills.total()} kills: {verdict.summary()}", flush=True)
        assert verdict.faults == []
        assert verdict.uncertain == []
        kills += bench.kills
        total.duplicates += verdict.duplicates
        total.accepted_again += verdict.accepted_again
    with capsys.disabled():
        print(table(kills, total))
    assert set(points()) <= set(kills), set(points()) - set(kills)
    assert kills.total() >= 300


@pytest.mark.parametrize(
    ("sabotage", "point", "fault"),
    [
        ("answer before the commit", "accept: written", "is not in the spool"),
        ("print anew", "send_document: answered", "2 times on paper"),
        pytest.param(
            "settle before sending",
            "next hop DATA: before",
            "the next hop does not have it",
            marks=pytest.mark.prove,
        ),
    ],
)
async def test_a_service_that_breaks_the_contract_is_found_out(
    tmp_path: Path, sabotage: str, point: str, fault: str
) -> None:
    """A check that can't fail shows nothing."""
    async with CrashBench(tmp_path, sabotage=sabotage) as bench:
        async with bench.traffic(letters=1) as traffic:
            assert await bench.die_at(point)
            await bench.settle(traffic)
        verdict = bench.verdict(traffic)
    assert [each for each in verdict.faults if fault in each], verdict.summary()


async def test_each_commit_and_each_question_to_cups_has_its_points() -> None:
    # `begin` alone is for large messages; it is a part of `begin_and_read`. `accept` gives a future. What dies while it
    # takes over is left to the tests of several nodes, what dies in a batch to those of the hours and of merging, and a
    # clock that is set is no step of a message.
    reads = {"content", "first_lease_end", "members", "paper", "waiting_since"}
    elsewhere = {"write", "begin", "take_over", "clock_set_back", *IN_BATCHES} | reads
    assert {METHODS.get(verb, verb) for verb in VERBS} == verbs(Store) - elsewhere | {"accept"}
    # What is asked about a queue, or said to it, is no step of a slip.
    about_queues = {"device_uri", "queue_status", "resume_queue", "ask"}
    assert set(QUESTIONS) == verbs(CupsServer) - about_queues


def verbs(of: type) -> set[str]:
    """The public async methods of a class."""
    return {name for name, method in vars(of).items() if inspect.iscoroutinefunction(method) and name[0] != "_"}


def passes(point: str) -> int:
    """A pass at which to die, where a point is passed more than once."""
    if point.startswith(ONCE):
        return 1
    return random.randint(2, 6) if point not in PRINTING else 2


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
