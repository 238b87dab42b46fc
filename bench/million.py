"""A million deferred deliveries in the spool: what claims, the summary of the queue and the memory of the service cost.

    python -m bench.million [--rows N] [--seconds N] [--only ENGINE] [--folder DIR]

For each engine, with the real store: a claim while nothing is due, claims that find a hundred due deliveries of one
destination or of a hundred, and those that are late, each beside the same in a spool that is empty but for them; then
`relay.spool.queries.summary`. The spools take turns; a figure is the median. The spool on PostgreSQL is the one in the
file, moved there as `slip-relay spool copy` does it.

Then the real service runs on the full spool and on an empty one, while letters come in over five connections and go out
again for so many seconds, and a tenth of the backlog is due but its next hop is dead. Its memory (VmRSS) is read after
the first letters, half-way and at the end; from half-way on it must not grow.

Last, half of the backlog is settled, and the clean-up removes what is older than a day while messages are accepted: how
long does accepting one take before, and meanwhile?

Ends with an error when a bound is broken: a claim costs more than twice of what it does in the empty spool, the summary
takes a second, memory is not flat, or the clean-up holds up a message for longer than a second.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, select, update

from bench.backlog import ROUTE, fill
from bench.clean_up import clean_up
from bench.letters import BODY, UNSIGNED
from bench.relay import Sink
from relay.config.settings import Spool
from relay.spool.copy import copy
from relay.spool.engine import Place, writing_engine
from relay.spool.queries import summary
from relay.spool.schema import deliveries
from relay.spool.store import Store
from tests.harness import toml
from tests.harness.appliance import Appliance
from tests.harness.postgres import Postgres
from tests.harness.waiting import LOCALHOST, free_ports

RATIO = 2.0
"""How much more than in an empty spool a claim may cost."""

SUMMARY = 1.0
"""Seconds that the summary may take."""

GROWTH = 8.0
"""Megabytes by which the service may grow in the second half of its time."""

LANES = 32.0
"""Megabytes by which it may be larger than on an empty spool: what it holds for two hundred destinations at a time."""

HOLD_UP = 1.0
"""Seconds that accepting a message may take at worst while the clean-up runs."""

FEW = 200
"""Deliveries in the spool that is empty but for those that are claimed."""

CONNECTIONS, ROUND = 5, 500


@dataclass(slots=True)
class Bounds:
    """What was found to be too much."""

    broken: list[str] = field(default_factory=list)

    def check(self, what: str, value: float, bound: float) -> str:
        """Notes that a figure is over its bound; gives a mark for the table."""
        if value <= bound:
            return ""
        self.broken.append(f"{what} is {value:.2f}, which is more than {bound:g}")
        return "  TOO MUCH"


class Claims:
    """Claims of one spool through its real store."""

    def __init__(self, place: Place) -> None:
        self.store = Store(place)
        self.store.open()

    async def idle(self) -> float:
        """Seconds of a claim that finds nothing."""
        began = time.perf_counter()
        claimed, _ = await self.store.claim(100)
        took = time.perf_counter() - began
        assert not claimed
        return took

    async def due(self) -> float:
        """Seconds of claiming a hundred that are due; they are given back."""
        began = time.perf_counter()
        claimed, _ = await self.store.claim(1000)
        took = time.perf_counter() - began
        assert len(claimed) == 100, len(claimed)
        await self.store.release(claimed)
        return took

    async def late(self) -> float:
        """Seconds of claiming a hundred that are late; they are given back."""
        began = time.perf_counter()
        claimed = await self.store.claim_overdue(100)
        took = time.perf_counter() - began
        assert len(claimed) == 100, len(claimed)
        await self.store.release(claimed)
        return took

    async def make(self, which: slice | None, column: str) -> None:
        """Brings the time of some of the oldest deliveries to the present, or (None) the times of all back."""
        now = time.time()

        def change(connection: Connection) -> None:
            oldest = select(deliveries.c.queue_id).order_by(deliveries.c.queue_id)
            if which is None:
                ids = list(connection.execute(oldest.limit(FEW)).scalars())
                later = {"due_at": now + 7000, "next_attempt_at": now + 7000}
                values = {**later, "deadline": now + 86400, "expires_at": now + 86400}
            else:
                ids = list(connection.execute(oldest.limit(100).offset(which.start)).scalars())
                kept = {"due_at": "next_attempt_at", "deadline": "expires_at"}[column]
                values = {column: now - 1, kept: now - 1}
            connection.execute(update(deliveries).where(deliveries.c.queue_id.in_(ids)).values(values))

        await self.store.write(change)

    async def close(self) -> None:
        """Closes the store."""
        await asyncio.to_thread(self.store.close)


async def compare(engine: str, empty: Place, few: Place, full: Place, bounds: Bounds) -> None:
    """Prints what claims cost in the full spool beside one that is empty but for what is claimed."""
    spools = {place: Claims(place) for place in (empty, few, full)}
    try:
        await _compare(engine, "a claim, nothing due", 200, spools[empty].idle, spools[full].idle, bounds)
        for what, which, column in (
            ("a claim, 100 due of one destination", slice(0, 100), "due_at"),
            ("a claim, 100 due of 100 destinations", slice(100, 200), "due_at"),
            ("a look for what is late, 100 found", slice(50, 150), "deadline"),
        ):
            for each in (spools[few], spools[full]):
                await each.make(which, column)
            small, large = [each.due if column == "due_at" else each.late for each in (spools[few], spools[full])]
            await _compare(engine, what, 30, small, large, bounds)
            for each in (spools[few], spools[full]):
                await each.make(None, column)
    finally:
        for each in spools.values():
            await each.close()
    seconds = statistics.median([_timed(lambda: summary(full)) for _ in range(5)])
    mark = bounds.check(f"{engine}: the summary, in seconds,", seconds, SUMMARY)
    print(f"{engine:12}{'summary of the queue':40}{'':>12}{seconds * 1000:>12.2f}{'':>8}{mark}", flush=True)


async def _compare(
    engine: str,
    what: str,
    times: int,
    in_empty: Callable[[], Awaitable[float]],
    in_full: Callable[[], Awaitable[float]],
    bounds: Bounds,
) -> None:
    took: tuple[list[float], list[float]] = ([], [])
    gc.collect()
    for number in range(times + 5):
        for each, spool in zip(took, (in_empty, in_full), strict=True):
            seconds = await spool()
            if number >= 5:
                each.append(seconds)
    small, large = (statistics.median(each) * 1000 for each in took)
    mark = bounds.check(f"{engine}: the ratio of {what}", large / small, RATIO)
    print(f"{engine:12}{what:40}{small:>12.2f}{large:>12.2f}{large / small:>8.2f}{mark}", flush=True)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Service:
    """The real process on a spool, with a next hop that takes everything and one that is dead."""

    def __init__(self, folder: Path, url: str, sink: int) -> None:
        folder.mkdir()
        self._port = free_ports(2)
        secret, config = folder / "secret", folder / "relay.toml"
        secret.write_text("not a secret: for the bench only\n")
        hop = {"host": LOCALHOST, "tls": "none"}
        tables = {
            "server": {"hostname": "relay.example", "secret": {"file": str(secret)}},
            "spool": {"url": url, "min_free": 0},
            "control": {"socket": str(folder / "control.sock")},
            "listeners": [{"name": "relay", "address": LOCALHOST, "port": self._port, "kind": "relay"}],
            "institutions": [{"name": "demo", "domains": [UNSIGNED], "bounce_domain": f"b.{UNSIGNED}"}],
            "sources": [{"name": "alma", "institutions": ["demo"], "networks": [f"{LOCALHOST}/32"]}],
            "next_hops": [{"name": "default", "port": sink, **hop}, {"name": ROUTE, "port": self._port + 1, **hop}],
        }
        config.write_text(toml.dumps(tables))
        self._process = Appliance(config, self._port, folder)

    async def memory(self, sink: Sink, seconds: float) -> tuple[float, list[float], int]:
        """Seconds to its start; megabytes after the first letters, half-way and at the end; letters."""
        began = time.monotonic()
        await self._process.start()
        started = time.monotonic() - began
        try:
            began, letters = time.monotonic(), 0
            sizes = []
            for until in (0.0, seconds / 2, seconds):
                while not letters or time.monotonic() - began < until:
                    await self._round(sink)
                    letters += ROUND
                sizes.append(self._megabytes())
        finally:
            await self._process.stop()
        if "event=fault" in self._process.log.read_text(encoding="utf-8"):
            raise RuntimeError(f"the service had faults: see {self._process.log}")
        return started, sizes, letters

    async def _round(self, sink: Sink) -> None:
        run = uuid.uuid4().hex
        sink.expect(run, ROUND)
        load = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.load", str(self._port), str(CONNECTIONS), str(ROUND), UNSIGNED, run),
            stdout=asyncio.subprocess.DEVNULL,
        )
        if await load.wait() != 0:
            raise RuntimeError("the service did not take all letters")
        counted = await sink.counted()
        if counted["letters"] != ROUND:
            raise RuntimeError(f"of {ROUND} letters {counted['letters']} came out: {json.dumps(counted)[:200]}")

    def _megabytes(self) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024


def make_due(place: Place) -> None:
    """A tenth of the backlog is due now."""
    engine = writing_engine(place)
    now = time.time()
    with engine.begin() as connection:
        tenth = deliveries.c.queue_id.like("%0") | deliveries.c.queue_id.like("%1") | deliveries.c.queue_id.like("%2")
        connection.execute(update(deliveries).where(tenth).values(due_at=now - 1, next_attempt_at=now - 1))
    engine.dispose()


async def memory(engine: str, folder: Path, urls: tuple[str, str], seconds: float, bounds: Bounds) -> None:
    """Prints how large the service is on the empty and on the full spool."""
    sink = Sink()
    port = await sink.start()
    try:
        sizes = []
        for name, url in zip(("empty", "full"), urls, strict=True):
            service = Service(folder / f"{engine}-{name}", url, port)
            started, (first, half_way, last), letters = await service.memory(sink, seconds)
            sizes.append(last)
            mark = bounds.check(f"{engine}: growth on the {name} spool, in MB,", last - half_way, GROWTH)
            shown = f"{started:>10.1f}{first:>12.1f}{half_way:>12.1f}{last:>12.1f}{letters:>10}"
            print(f"{engine:12}{name:8}{shown}{mark}", flush=True)
        bounds.check(f"{engine}: memory on the full spool beyond the empty one's, in MB,", sizes[1] - sizes[0], LANES)
    finally:
        await sink.stop()


def clean(engine: str, full: Place, seconds: float, bounds: Bounds) -> None:
    """Prints what the clean-up does to those who hand in mail."""
    found = asyncio.run(clean_up(full, BODY, seconds))
    mark = bounds.check(f"{engine}: accepting beside the clean-up, in s,", found.longest_meanwhile, HOLD_UP)
    times = (found.median_before, found.longest_before, found.median_meanwhile, found.longest_meanwhile)
    shown = "".join(f"{seconds * 1000:>12.1f}" for seconds in times)
    print(
        f"{engine:12}{found.cleaned.bodies:>9}{found.cleaned.messages:>10}{found.seconds:>8.0f}{shown}{mark}",
        flush=True,
    )


@dataclass(frozen=True, slots=True)
class Spools:
    """The spools of one engine, and how a configuration names them."""

    places: dict[str, Place]
    urls: dict[str, str]


def make_spools(home: Path, postgres: Postgres, rows: int, only: str | None) -> dict[str, Spools]:
    """An empty spool, one with few deliveries and one with many, for each engine."""
    sizes = {"empty": 0, "few": FEW, "full": rows}
    files = {name: Place.file(home / f"{name}.db") for name in sizes}
    began = time.monotonic()
    for name, place in files.items():
        fill(place, sizes[name], time.time())
    print(f"{rows:,} deferred deliveries were put into a file in {time.monotonic() - began:.0f} s", flush=True)
    made = {"SQLite": Spools(files, {name: f"sqlite:///{place.path}" for name, place in files.items()})}
    if only != "sqlite":
        urls = {name: postgres.create_database(name) for name in sizes}
        servers = {name: Place.of(Spool(url=url)) for name, url in urls.items()}
        began = time.monotonic()
        for name in sizes:
            copy(files[name], servers[name])
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        took = time.monotonic() - began
        print(
            f"and copied to PostgreSQL, verified, in {took:.0f} s, with at most {largest:.0f} MB of memory", flush=True
        )
        made["PostgreSQL"] = Spools(servers, urls)
    return {name: spools for name, spools in made.items() if only in (None, name.lower())}


def run(folder: Path, rows: int, seconds: float, only: str | None, bounds: Bounds) -> None:
    """All measurements."""
    home = folder / "spools"
    home.mkdir()
    with Postgres() as postgres:
        made = make_spools(home, postgres, rows, only)
        print(f"\n{'':12}{'median, ms':40}{'empty':>12}{'full':>12}{'ratio':>8}")
        for engine, spools in made.items():
            places = spools.places
            asyncio.run(compare(engine, places["empty"], places["few"], places["full"], bounds))
        if not seconds:
            return
        print(
            f"\n{'service':12}{'spool':8}{'start, s':>10}{'first, MB':>12}{'half-way':>12}{'last':>12}{'letters':>10}"
        )
        for engine, spools in made.items():
            make_due(spools.places["full"])
            asyncio.run(memory(engine, folder, (spools.urls["empty"], spools.urls["full"]), seconds, bounds))
        heads = f"{'bodies':>9}{'messages':>10}{'in s':>8}{'before':>12}{'longest':>12}{'meanwhile':>12}{'longest':>12}"
        print(f"\n{'clean-up':12}{heads}   (ms to accept a message)")
        for engine, spools in made.items():
            clean(engine, spools.places["full"], seconds / 2, bounds)


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description="a million deferred deliveries in the spool")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=180, help="of traffic for each service; 0 leaves it out")
    parser.add_argument("--only", choices=["sqlite", "postgresql"], help="measure one engine alone")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where the spools lie: a real disk")  # noqa: S108
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="slip-relay-million-", dir=options.folder))
    bounds = Bounds()
    try:
        run(folder, max(options.rows, FEW), options.seconds, options.only, bounds)
    finally:
        shutil.rmtree(folder)
    if bounds.broken:
        sys.exit("\n" + "\n".join(bounds.broken))


if __name__ == "__main__":
    main()
