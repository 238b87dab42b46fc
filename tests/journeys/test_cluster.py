"""Two nodes on one PostgreSQL, under load: one dies, one sleeps, the database restarts; nothing is lost or doubled.

Both nodes have the same printers by the same CUPS, and each duplicate of a letter has its explanation.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from functools import partial
from pathlib import Path

import pytest

from tests.harness import samples
from tests.harness.appliance import command
from tests.harness.cluster import Cluster, Node
from tests.harness.traffic import Traffic
from tests.harness.verdict import read_rows
from tests.harness.waiting import until
from tests.journeys.story import queue_id

pytestmark = pytest.mark.asyncio(loop_scope="session")

SLACK = 4.0
"""Seconds by which a busy machine may be late."""

DEATHS = (
    "accept: committed",
    "begin: committed",
    "next hop DATA: answered",
    "dot: sent, no answer",
    "dot: answered, not settled",
    "settle: written",
    "renew: written",
    "create_job: answered",
    "document: half sent",
    "send_document: answered",
    "pending: committed",
)
"""Points at which a node dies with something in its hands."""

EVENTS = 24

SENDER = "alma@exlibrisgroup.example"


async def test_a_node_dies_and_the_database_restarts_while_mail_flows_in(tmp_path: Path) -> None:
    async with Cluster(tmp_path, lease=2.0) as cluster:
        first = cluster.nodes[0]
        async with cluster.traffic(letters=4) as traffic:
            await first.appliance.stop()
            for _ in range(5):
                await first.start("next hop DATA: answered", 10)
                death = await cluster.kill(first)
                if death.letters:  # else it was a DSN that it had in its hands
                    break
            assert death.letters, "it died with a letter in its hands"
            assert await cluster.taken_over(death) < cluster.longest_take_over + SLACK
            await cluster.postgres.restart("fast")
            await first.start()
            await cluster.postgres.restart("immediate")
            enough = len(traffic.answered) + 10
            await until(partial(has, traffic, enough), "mail to flow again", seconds=60)
            await cluster.settle(traffic)
        verdict = cluster.verdict(traffic)
    assert verdict.faults == [], verdict.summary()
    assert verdict.uncertain == []
    assert verdict.slips > 3


async def test_the_same_slip_handed_to_two_nodes_at_once_is_printed_once_and_reprinted_by_either(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path) as cluster:
        printer = cluster.playground.printers["a5"]
        mailbox = cluster.playground.institution.mailbox("a5")
        names: list[str] = []

        def states() -> list[str]:
            return sorted(row.state for row in read_rows(cluster.place) if row.queue_id in names)

        async def ended(*expected: str) -> None:
            await until(lambda: states() == list(expected), lambda: f"{expected}; it is {states()}", seconds=90)

        for count in range(1, 4):
            slip = samples.request_slip(recipient=mailbox)
            submitting = (node.appliance.submit(slip, SENDER, [mailbox]) for node in cluster.nodes)
            names[:] = [queue_id(reply) for reply in await asyncio.gather(*submitting)]
            await ended("cancelled", "delivered")
            assert len(printer.papers()) == count
        for node, mark in zip(cluster.nodes, ("--mark", "--no-mark"), strict=True):
            config = node.appliance.log.with_name("relay.toml")
            ordering = await asyncio.create_subprocess_exec(*command(), "reprint", "-c", str(config), names[0], mark)
            assert await ordering.wait() == 0
        await ended("cancelled", "delivered", "delivered", "delivered")
        assert len(printer.papers()) == 5


@pytest.mark.prove
async def test_a_node_that_falls_asleep_holds_nobody_up_and_changes_nothing_when_it_wakes(tmp_path: Path) -> None:
    """As a virtual machine that is suspended: in a transaction, with a print job made but not sent, with a letter."""
    async with Cluster(tmp_path, lease=2.0) as cluster:
        first, second = cluster.nodes
        async with cluster.traffic(letters=3) as traffic, cluster.letters_to(second) as steady:
            for point in ("settle: written", "send_document: before", "dot: answered, not settled", "renew: written"):
                await cluster.arm(first, point, sends="STOP")
                await cluster.asleep(first)
                await until(lambda: not cluster.held(first), "its work to be taken over", seconds=60)
                await until(partial(has, steady, len(steady.answered) + 3), "the other node to take mail", seconds=60)
                first.wake()
            await cluster.settle(traffic, steady)
        verdict = cluster.verdict(traffic, steady)
    assert verdict.faults == [], verdict.summary()
    assert verdict.uncertain == []


@pytest.mark.prove
async def test_while_the_database_is_away_clients_wait_and_then_hear_451(tmp_path: Path) -> None:
    async with Cluster(tmp_path, lease=2.0) as cluster, cluster.traffic() as traffic:
        await until(partial(has, traffic, 10), "mail to flow", seconds=60)
        await cluster.postgres.stop()
        before = len(traffic.answered)
        await until(lambda: any(item.put_off for item in traffic.items), "a client to be put off", seconds=60)
        assert len(traffic.answered) == before, "nothing was answered with 250"
        await cluster.postgres.start()
        await cluster.settle(traffic)
        verdict = cluster.verdict(traffic)
    assert {reply for item in traffic.items for reply in item.put_off} == {
        "451 4.3.0 the spool's database can't be reached now; try again later"
    }
    assert verdict.faults == [], verdict.summary()


@pytest.mark.prove
async def test_nodes_and_database_fail_again_and_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times: list[float] = []
    async with Cluster(tmp_path, lease=3.0) as cluster:
        async with cluster.traffic(letters=4) as traffic:
            for number in range(EVENTS):
                node = cluster.nodes[number % 2]
                match number % 4:
                    case 0 | 1:
                        times += await killed(cluster, node, random.choice(DEATHS))
                    case 2:
                        await cluster.postgres.restart(random.choice(("fast", "immediate")))
                        times += await killed(cluster, node, None)
                    case _:
                        await cluster.postgres.kill()
                        # Not waiting for anything: for so long it is away, which is shorter or longer than a lease.
                        await asyncio.sleep(random.choice((0.0, 1.5 * cluster.lease)))
                        await cluster.postgres.start()
                await until(partial(has, traffic, len(traffic.answered) + 10), "mail to flow again", seconds=90)
            await cluster.settle(traffic, seconds=300)
        verdict = cluster.verdict(traffic)
    with capsys.disabled():
        print(f"\n{verdict.summary()}\nduplicates: {dict(verdict.duplicates)}")
        print(f"lease {cluster.lease:g} s; from a node's death to the first of its letters: {in_words(times)}")
    assert verdict.faults == []
    assert verdict.uncertain == []
    assert max(times) < cluster.longest_take_over + SLACK


async def killed(cluster: Cluster, node: Node, point: str | None) -> list[float]:
    """Kills a node, at a point or at once, and starts it again when its work was taken over: the seconds that took."""
    if point is not None:
        await cluster.arm(node, point, random.randint(1, 4))
    death = await cluster.kill(node)
    seconds = [await cluster.taken_over(death)] if death.letters else []
    await node.start()
    return seconds


def has(traffic: Traffic, count: int) -> bool:
    """Whether so many messages were answered with 250."""
    return len(traffic.answered) >= count


def in_words(times: list[float]) -> str:
    """How long something took."""
    return (
        f"{len(times)} times, {min(times):.1f} s at best, {statistics.median(times):.1f} s in the middle, "
        f"{max(times):.1f} s at worst"
    )
