"""A playground whose service dies again and again, at chosen points or at any moment, while mail flows in.

    async with CrashBench(folder) as bench:
        async with bench.traffic() as traffic:
            await bench.die_at("settle: written")
            await bench.settle(traffic)
        verdict = bench.verdict(traffic)

Each death is SIGKILL to the whole service; the next start is armed for the next point. Where a point is met only after
another crash, or only while a neighbour misbehaves, that is seen to first (`WHAT_IT_TAKES`).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from relay.config.settings import Spool
from relay.spool.engine import Place
from tests.harness import crash_points
from tests.harness.appliance import Appliance
from tests.harness.playground import Playground
from tests.harness.process import DiedEarly
from tests.harness.traffic import Traffic
from tests.harness.verdict import Diary, Verdict, judge, under_way
from tests.harness.waiting import TookTooLong, until

ROOT = Path(__file__).resolve().parents[2]
AT_ANY_MOMENT = "at any moment"
REACHED_SECONDS = 40.0
SETTLED_SECONDS = 120.0

WHAT_IT_TAKES: dict[str, str] = {
    "forget_job": "create_job: before",
    "find_job": "create_job: before",
    "cancel_job": "document: half sent",
    "put_off": "rejecting",
    "release": "refusing",
    "next hop RSET": "refused",
    "sign out": "stop",
}
"""What has to happen before a point is met: a death at another point, or something that a neighbour does."""

EXTRA: dict[str, Any] = {
    "delivery": {"retry_first": "0.3s", "retry_longest": "2s"},
    "spool": {"min_free": 0, "lease": "2s"},
    "rendering": {"children": 1},
    "next_hops": [
        {"name": "default", "backoff_longest": "1s"},
        {"name": "doomed", "host": "127.0.0.1", "tls": "none", "backoff_longest": "1s",
         "retry": {"first": "0.5s", "longest": "30s", "warn_after": "1s", "expire_after": "4s"}},
    ],
    "rules": [
        {"name": "doomed", "recipient": "tempfail*@*", "next_hop": "doomed"},
        {"name": "reads", "recipient": "a5@*", "letter_type": ["NoSuchLetter"], "hold": "nothing is held by it"},
    ],
}  # fmt: skip


class CrashBench:
    """The playground, and the account of every death."""

    def __init__(self, folder: Path, *, url: str = "", sabotage: str = "") -> None:
        """`url` is an empty database on a server, where the spool is not to be in a file."""
        self.playground = Playground(folder / "all", start_appliance=False)
        extra = json.loads(json.dumps(EXTRA))
        extra["next_hops"][1]["port"] = self.playground.ports.next_hop
        if url:
            extra["spool"]["url"] = url
        extra["control"] = {"socket": str(self.playground.folder / "control.sock")}
        self.playground.institution.write_config(extra)
        self._order, self._diary = folder / "order", folder / "diary"
        self._sabotage = sabotage
        self.appliance = self.playground.appliance = Appliance(
            self.playground.institution.config,
            self.playground.ports.smtp,
            self.playground.folder / "log",
            environment={
                crash_points.ORDER: str(self._order),
                crash_points.DIARY: str(self._diary),
                "PYTHONPATH": str(ROOT),
            },
            wrapper=[sys.executable, "-m", "tests.harness.crash_points"],
        )
        self.place = Place.of(Spool(url=url)) if url else Place.file(self.playground.institution.spool)
        self.kills: Counter[str] = Counter()
        "How often it died, by point."
        self.not_reached: list[str] = []
        "Orders in vain: the process was killed at some other moment."
        self._deaths: dict[int, str] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.playground)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def traffic(self, **options: Any) -> Traffic:
        """Clients of this bench's service, for all its printers."""
        return Traffic([self.playground.ports.smtp], list(self.playground.printers.values()), **options)

    async def die_at(self, point: str, passes: int = 1, *, seconds: float = REACHED_SECONDS) -> bool:
        """Starts the service and lets it die at a point; False when it did not come there, and was killed so."""
        need = next((what for name, what in WHAT_IT_TAKES.items() if point.startswith(name)), "")
        if need in crash_points.points():
            await self.die_at(need)
        async with self._neighbours(need):
            self._arm(point, passes)
            await self._start()
            if need == "stop" and self.appliance.alive:
                os.kill(self.appliance.pid, signal.SIGTERM)
            try:
                await until(lambda: not self.appliance.alive, point, seconds=seconds)
            except TookTooLong:
                await self.appliance.kill()
        return self._account(point)

    async def die_at_any_moment(self, longest: float = 2.5) -> None:
        """Starts the service and kills it some time within so many seconds, be it ready or not."""
        self._arm(None)
        starting = asyncio.create_task(self._start())
        await asyncio.sleep(random.uniform(0.3, longest))  # not waiting for anything: this is the moment
        await self.appliance.kill()
        await starting
        self._account(AT_ANY_MOMENT)

    async def settle(self, traffic: Traffic, *, seconds: float = SETTLED_SECONDS) -> None:
        """Starts the service for good, lets the clients end, and waits until nothing is under way."""
        self._arm(None)
        await self.appliance.start()
        await asyncio.wait_for(traffic.stop(), seconds)
        await self.at_rest(seconds)
        await self.appliance.stop()

    async def at_rest(self, seconds: float = SETTLED_SECONDS) -> None:
        """Waits until the service has nothing more to do; DSNs about what just failed count too."""

        def said() -> str:
            return f"{under_way(self.place)} deliveries to end; the log ends:\n{self._log_tail()}"

        await until(lambda: under_way(self.place) == 0, said, seconds=seconds, every=0.2)

    def verdict(self, traffic: Traffic) -> Verdict:
        """What became of everything."""
        printers = self.playground.printers.values()
        names = [name for printer in printers for name in printer.job_names()]
        return judge(traffic.items, self.place, self.playground.next_hop.taken, names, Diary(self._diary), self._deaths)

    def _arm(self, point: str | None, passes: int = 1) -> None:
        order = {"point": point, "pass": passes, "sabotage": self._sabotage}
        self._order.write_text(json.dumps(order), encoding="utf-8")

    async def _start(self) -> None:
        """Starts the service, which may die before it greets."""
        try:
            await self.appliance.start()
        except DiedEarly:
            if self.appliance.exit_code != -signal.SIGKILL:
                raise

    def _account(self, point: str) -> bool:
        """Notes the death that just happened; whether it happened where it was to."""
        code = self.appliance.exit_code
        if code != -signal.SIGKILL:
            raise DiedEarly(f"the service ended with {code} by itself; its log ends:\n{self._log_tail()}")
        by_itself = Diary(self._diary).died().get(self.appliance.pid)
        if by_itself is None and point != AT_ANY_MOMENT:
            self.not_reached.append(point)
        where = by_itself or AT_ANY_MOMENT
        self.kills[where] += 1
        self._deaths[self.appliance.pid] = where
        return where == point

    def _log_tail(self) -> str:
        return self.appliance.log.read_text(encoding="utf-8", errors="replace")[-3000:]

    @asynccontextmanager
    async def _neighbours(self, need: str) -> AsyncIterator[None]:
        """A neighbour that misbehaves for the while."""
        next_hop, cupsd = self.playground.next_hop, self.playground.cupsd
        queues: Iterable[str] = self.playground.printers if need == "rejecting" else ()
        for queue in queues:
            await cupsd.command("cupsreject", queue)
        if need == "refusing":
            next_hop.refuse_next(421, at="connect", times=3)
        if need == "refused":
            next_hop.refuse_next(450, at="rcpt", times=2)
        try:
            yield
        finally:
            for queue in queues:
                await cupsd.command("cupsaccept", queue)


def table(kills: Mapping[str, int], verdict: Verdict) -> str:
    """One line for each point: how often the service died there, and what that doubled."""
    lines = [f"{'killed at':34} kills  letters twice  accepted again"]
    for point in [*crash_points.points(), AT_ANY_MOMENT]:
        if point in kills:
            twice, again = verdict.duplicates[point], verdict.accepted_again[point]
            lines.append(f"{point:34} {kills[point]:5}  {twice or '-':>13}  {again or '-':>14}")
    twice, again = verdict.duplicates.total(), verdict.accepted_again.total()
    lines.append(f"{'all':34} {sum(kills.values()):5}  {twice:13}  {again:14}")
    return "\n".join(lines)
