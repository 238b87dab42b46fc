"""Several nodes of the appliance on one PostgreSQL, with the same printers, CUPS and next hop.

    async with Cluster(folder) as cluster:
        async with cluster.traffic() as traffic:
            death = await cluster.kill(cluster.nodes[0])
            await cluster.settle(traffic)
        verdict = cluster.verdict(traffic)

Each node is the real process with its own ports, hostname and configuration. They keep a diary (`crash_points`), so
that each duplicate can be explained, and one can be made to die at a named point, with a letter in its hands.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from relay.config.settings import Spool
from relay.spool.engine import Place
from tests.harness import crash_points, toml
from tests.harness.appliance import Appliance
from tests.harness.crash_bench import EXTRA, ROOT, SETTLED_SECONDS
from tests.harness.institution import DOMAIN
from tests.harness.playground import Playground
from tests.harness.postgres import Postgres
from tests.harness.traffic import Traffic
from tests.harness.verdict import Diary, Verdict, delivery_of, held_by, judge, under_way
from tests.harness.waiting import until

FIRST_PORT = 13
"""Where the ports of the nodes begin, of those that a playground has."""

OF_PRINTING = ("create_job:", "send_document:", "document:", "pending:")
"""How the points begin that only a node with slips comes by."""


@dataclass(frozen=True, slots=True)
class Death:
    """A node that was killed: when, by the clock of this machine, and what it held then."""

    at: float
    letters: frozenset[str]
    "What it held that the next hop did not have, and will take."


class Node:
    """One appliance of the cluster."""

    def __init__(self, number: int, cluster: Cluster) -> None:
        playground = cluster.playground
        self.name = f"relay{number}.{DOMAIN}"
        self.port = playground.ports.first + FIRST_PORT + 2 * number
        folder = playground.folder / f"node{number}"
        folder.mkdir()
        self._order = folder / "order"
        self.is_armed = False
        "Whether it will come to its end by itself."
        tables = toml.merged(playground.institution.tables(), cluster.extra)
        tables["server"]["hostname"] = self.name
        tables["spool"] = {"url": cluster.url, "lease": f"{cluster.lease:g}s"}
        tables["control"] = {"socket": str(folder / "control.sock")}
        for place, listener in enumerate(tables["listeners"]):
            listener["port"] = self.port + place
        config = folder / "relay.toml"
        config.write_text(toml.dumps(tables), encoding="utf-8")
        self.appliance = Appliance(
            config,
            self.port,
            folder,
            environment={
                crash_points.ORDER: str(self._order),
                crash_points.DIARY: str(cluster.diary_file),
                "PYTHONPATH": str(ROOT),
            },
            wrapper=[sys.executable, "-m", "tests.harness.crash_points"],
        )

    async def start(self, point: str | None = None, passes: int = 1, *, sends: str = "KILL") -> None:
        """Starts it; with a point, it will die there, or fall asleep if the signal is STOP."""
        self.is_armed = point is not None
        order = {"point": point, "pass": passes, "signal": sends}
        self._order.write_text(json.dumps(order), encoding="utf-8")
        await self.appliance.start()

    @property
    def is_asleep(self) -> bool:
        """Whether it does nothing, as a machine that is suspended does; its connections stay."""
        status = Path(f"/proc/{self.appliance.pid}/stat").read_text(encoding="ascii")
        return status.rpartition(")")[2].split()[0] == "T"

    def wake(self) -> None:
        """It goes on, and does not know that it was away."""
        os.kill(self.appliance.pid, signal.SIGCONT)


class Cluster:
    """The nodes and all that they share."""

    def __init__(self, folder: Path, *, nodes: int = 2, lease: float = 3.0) -> None:
        self.lease = lease
        self.playground = Playground(folder / "all", start_appliance=False)
        self.diary_file = self.playground.folder / "diary"
        self.extra: dict[str, Any] = json.loads(json.dumps(EXTRA))
        self.extra["next_hops"][1]["port"] = self.playground.ports.next_hop
        self.postgres = Postgres()
        self.url = self.postgres.url_of("spool")
        self.place = Place.of(Spool(url=self.url))
        self.nodes = [Node(number, self) for number in range(nodes)]
        self._deaths: dict[int, str] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.postgres.close)
            await self.postgres.start()
            self.postgres.create_database("spool")
            await stack.enter_async_context(self.playground)
            for node in self.nodes:
                stack.push_async_callback(node.appliance.stop)
            await asyncio.gather(*(node.start() for node in self.nodes))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def traffic(self, **options: Any) -> Traffic:
        """Clients that know all nodes, for all printers."""
        ports = [node.port for node in self.nodes]
        return Traffic(ports, list(self.playground.printers.values()), **options)

    def letters_to(self, node: Node) -> Traffic:
        """A client that knows one node only."""
        return Traffic([node.port], letters=1, name="one")

    async def arm(self, node: Node, point: str, passes: int = 1, *, sends: str = "KILL") -> None:
        """Starts a node anew, that is to die or fall asleep at a point.

        A printer's slips go on coming from the node that has some of them: for a point of printing the others are away
        until this one has begun.
        """
        others = [other for other in self.nodes if other is not node and point.startswith(OF_PRINTING)]
        await asyncio.gather(*(each.appliance.stop() for each in (node, *others)))
        await node.start(point, passes, sends=sends)
        await asyncio.gather(*(other.start() for other in others))

    async def kill(self, node: Node) -> Death:
        """SIGKILL; or, where the node was started with a point to die at, waits for that."""
        if not node.is_armed:
            await node.appliance.kill()
        await until(lambda: not node.appliance.alive, f"{node.name} to die", seconds=30.0)
        at = time.time()
        pid = node.appliance.pid
        self._deaths[pid] = Diary(self.diary_file).died().get(pid, "at any moment")
        arrived = {delivery_of(each) for each in self.playground.next_hop.taken}
        letters = {
            name
            for name, recipient in self.held(node).items()
            if recipient.endswith("@patron.example") and not recipient.startswith("permfail")
        }
        return Death(at, frozenset(letters - arrived))

    async def asleep(self, node: Node) -> dict[str, str]:
        """Waits until a node falls asleep where it was told to; gives what it holds."""
        await until(lambda: node.is_asleep, f"{node.name} to fall asleep", seconds=90.0)
        return self.held(node)

    def held(self, node: Node) -> dict[str, str]:
        """The deliveries that a node holds, by what the database says, with their recipients."""
        return held_by(self.place, Diary(self.diary_file).node(node.appliance.pid))

    @property
    def longest_take_over(self) -> float:
        """Seconds after which a dead node's work goes on at the latest, on a machine that is not busy otherwise: the
        others look when its lease ends.
        """
        return self.lease

    async def taken_over(self, death: Death, *, seconds: float = 60.0) -> float:
        """Seconds from a node's death until the first letter that it had held was at the next hop."""

        def arrived() -> list[float]:
            found = [each for each in self.playground.next_hop.taken if delivery_of(each) in death.letters]
            return [at for each in found if (at := each.path.stat().st_mtime) > death.at]

        times = await until(arrived, "a letter of a dead node", seconds=seconds)
        return min(times) - death.at

    async def settle(self, *traffic: Traffic, seconds: float = SETTLED_SECONDS) -> None:
        """Lets the clients end, and waits until nothing is under way. All nodes have to run."""
        await asyncio.wait_for(asyncio.gather(*(each.stop() for each in traffic)), seconds)
        await until(lambda: under_way(self.place) == 0, self._said, seconds=seconds, every=0.2)

    def verdict(self, *traffic: Traffic) -> Verdict:
        """What became of everything."""
        items = [item for each in traffic for item in each.items]
        names = [name for printer in self.playground.printers.values() for name in printer.job_names()]
        diary = Diary(self.diary_file)
        return judge(items, self.place, self.playground.next_hop.taken, names, diary, self._deaths)

    def _said(self) -> str:
        logs = (node.appliance.log.read_text(encoding="utf-8", errors="replace")[-2000:] for node in self.nodes)
        return f"{under_way(self.place)} deliveries to end; the logs end:\n" + "\n\n".join(logs)
