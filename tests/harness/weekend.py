"""A library over a weekend: desks with opening hours, a CUPS, one appliance or two on a PostgreSQL, and a clock.

    async with Weekend(folder, DESKS, shows=friday, nodes=2) as weekend:
        await weekend.hand_in(200)
        weekend.clock.set(monday)
        await weekend.printed()

Appliances and cupsd live by the clock that the test moves (`clock`); printers, and PostgreSQL, which runs elsewhere in
earnest, by the machine's. One client hands the slips in, one after the other, to the desks in turn, and goes to another
node every few messages; what it hears no answer to it offers again. Each slip has a mark that stands on its paper.
What became of it all is for `weekend_account` to say.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from zoneinfo import ZoneInfo

from sqlalchemy import text

from relay.config.settings import Spool
from relay.spool.engine import Place, reading_engine
from tests.harness import samples, toml
from tests.harness.appliance import Appliance
from tests.harness.clock import Clock
from tests.harness.cupsd import Cupsd
from tests.harness.institution import PRINT_DOMAIN, Institution, Ports
from tests.harness.playground import MEDIA
from tests.harness.postgres import Postgres
from tests.harness.printers import Bus, VirtualPrinter
from tests.harness.traffic import Client, Item, NotAnswered, PutOff
from tests.harness.waiting import free_ports, until

ZONE = ZoneInfo("Europe/Berlin")
LEASE = 2.0
FIRST_NODE = 13
"""Where the ports of the nodes begin, of those that an institution has."""
PROFILES = {"a4": "laser", "a5": "a5", "receipt80": "receipt"}
"""The profiles, and the kind of printer that each is for."""
PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Desk:
    """A printer and its hours, as whole hours of the clock."""

    name: str
    profile: str = "a5"
    weekdays: tuple[int, int] | None = None
    "From when to when on Monday to Friday; without it there are no hours."
    saturday: tuple[int, int] | None = None
    releases: tuple[int, ...] = ()
    has_batches: bool = False
    at_night: bool = False
    "Whether it prints outside of its hours too."

    def settings(self) -> dict[str, Any]:
        """As relay.toml has them."""
        hours = {}
        if self.weekdays:
            hours["mon-fri"] = [f"{self.weekdays[0]:02}:00-{self.weekdays[1]:02}:00"]
        if self.saturday:
            hours["sat"] = [f"{self.saturday[0]:02}:00-{self.saturday[1]:02}:00"]
        found: dict[str, Any] = {"name": self.name, "institution": "demo", "queue": self.name, "profile": self.profile}
        found |= {"mailboxes": [self.mailbox]} | ({"hours": hours} if hours else {})
        found |= {"release_at": [f"{hour:02}:00" for hour in self.releases]} if self.releases else {}
        found |= {"separator": True, "max_batch": 40} if self.has_batches else {}
        return found | ({"outside_hours": "print"} if self.at_night else {})

    @property
    def mailbox(self) -> str:
        """The address that stands for it."""
        return f"{self.name}@{PRINT_DOMAIN}"

    def is_open(self, at: float) -> bool:
        """Whether its hours say so, read off the clock."""
        local = datetime.fromtimestamp(at, ZONE)
        if self.weekdays is None or self.at_night:
            return True
        hours = self.saturday if local.weekday() == 5 else self.weekdays if local.weekday() < 5 else None
        return hours is not None and hours[0] <= local.hour < hours[1]

    def may_begin(self, arrived: float, at: float) -> bool:
        """Whether a slip that arrived then may be begun at a moment."""
        if not self.releases:
            return self.is_open(at)
        day = datetime.fromtimestamp(at, ZONE).replace(minute=0, second=0, microsecond=0)
        moments = (day.replace(hour=hour) - timedelta(days=back) for back in range(4) for hour in self.releases)
        return any(arrived <= moment.timestamp() <= at for moment in moments if moment.weekday() < 5)


class Weekend:
    """All of it together, on 127.0.0.1, in one folder."""

    def __init__(self, folder: Path, desks: Sequence[Desk], *, shows: datetime, nodes: int = 0) -> None:
        """With `nodes` the spool is on a PostgreSQL, else in a file; the clock begins at what it `shows`."""
        self.folder = folder / "all"
        self.desks = list(desks)
        first = free_ports(Ports.COUNT + len(self.desks))
        self._ports = Ports(first)
        self.institution = Institution(self.folder, self._ports)
        self.postgres = Postgres() if nodes else None
        self.place = Place.file(self.institution.spool)
        if self.postgres is not None:
            self.place = Place.of(Spool(url=self.postgres.url_of("spool")))
        self.clock = Clock(shows)
        self._began = shows
        self.cupsd = Cupsd(self._ports.cups, environment=self.clock.environment)
        self.printers: dict[str, VirtualPrinter] = {}
        self.nodes = [self._node(number) for number in range(nodes or 1)]
        self.slips: list[Item] = []
        "What was handed in, in that order."
        self._client = Client([node.port for node in self.nodes], 0)
        self._turns = itertools.cycle(self.desks)
        self._stack = AsyncExitStack()

    def _node(self, number: int) -> Appliance:
        port = self._ports.first + FIRST_NODE + 2 * number
        folder = self.folder / f"node{number}"
        folder.mkdir(parents=True)
        tables = self.institution.tables()
        tables["server"] |= {"hostname": f"relay{number}.lib.example", "time_zone": ZONE.key}
        tables["printers"] = [desk.settings() for desk in self.desks]
        tables["control"] = {"socket": str(folder / "control.sock")}
        if self.postgres is not None:
            tables["spool"] = {"url": self.postgres.url_of("spool"), "lease": f"{LEASE:g}s"}
        for place, listener in enumerate(tables["listeners"]):
            listener["port"] = port + place
        config = folder / "relay.toml"
        config.write_text(toml.dumps(tables), encoding="utf-8")
        return Appliance(config, port, folder, environment=self.clock.environment)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.callback(self.clock.close)
            if self.postgres is not None:
                stack.push_async_callback(self.postgres.close)
                await self.postgres.start()
                self.postgres.create_database("spool")
            bus = await stack.enter_async_context(Bus())
            stack.push_async_callback(self.cupsd.close)
            await self.cupsd.start()
            for number, desk in enumerate(self.desks):
                media, port = MEDIA[PROFILES[desk.profile]], self._ports.first + Ports.COUNT + number
                printer = VirtualPrinter(desk.name, media, port, self.folder / "printers" / desk.name, bus)
                self.printers[desk.name] = await stack.enter_async_context(printer)
                await self.cupsd.add_queue(desk.name, printer.device_uri)
            stack.callback(self._client.close)
            for node in self.nodes:
                stack.push_async_callback(node.stop)
            await asyncio.gather(*(node.start() for node in self.nodes))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def shows(self, day: int, hour: int, minute: int = 0, second: int = 0) -> None:
        """Sets the clock, so many days after the first one and in local time; never back."""
        then = self._began.replace(hour=hour, minute=minute, second=second) + timedelta(days=day)
        assert then.timestamp() > self.clock.now(), f"{then} is over"
        self.clock.set(then)

    async def hand_in(self, count: int) -> None:
        """So many slips, one after the other, for the desks in turn."""
        for _ in range(count):
            desk = next(self._turns)
            mark = f"W{len(self.slips):05}"
            make: Callable[..., bytes] = samples.request_slip if len(self.slips) % 2 else samples.transit_slip
            message = make(desk.mailbox, item=samples.Item(title=mark), message_id=f"<{mark}@lib.example>")
            item = Item(mark, (desk.mailbox,), message)
            self.slips.append(item)
            while not item.answered:
                try:
                    item.answered = await self._client.offer(item)
                except (NotAnswered, PutOff):
                    item.cut_off += 1
                    self._client.go_to_next_node()
                    await asyncio.sleep(PAUSE)

    def on_paper(self, *desks: str) -> int:
        """Documents that came out, of some desks or of all, separators too."""
        return sum(len(self.printers[name].papers()) for name in desks or self.printers)

    async def prints(self, *desks: str, more: int = 1, than: Mapping[str, int] | None = None) -> None:
        """Waits until so many more documents came out of each of the desks, than now or than there were."""
        before = than if than is not None else self.papers()
        await until(
            lambda: all(self.on_paper(name) >= before[name] + more for name in desks),
            lambda: f"{more} more papers of each of {desks} than {before}; there are {self.papers()}; {self.said()}",
            seconds=120.0,
            every=0.2,
        )

    def papers(self) -> dict[str, int]:
        """Documents that came out of each desk."""
        return {name: self.on_paper(name) for name in self.printers}

    async def taken_over(self) -> None:
        """Waits until what a dead node held is with others: its lease counts by PostgreSQL's clock, which stands by."""
        await until(lambda: count(self.place, "nodes") == len(self.nodes), "a take-over", seconds=60, every=0.1)

    def is_idle(self, desk: str) -> bool:
        """Whether no slip is at a desk's printer: so many came out as were begun."""
        return not count(self.place, "deliveries", f"route = 'print:{desk}' AND state IN ('active', 'pending')")

    async def shows_at_least(self, hour: int, minute: int, second: int) -> None:
        """Lets the clock go on until it shows that, within the next minutes."""
        local = datetime.fromtimestamp(self.clock.now(), ZONE)
        then = local.replace(hour=hour, minute=minute, second=second, microsecond=0).timestamp()
        await until(lambda: self.clock.now() >= then, f"{hour:02}:{minute:02}:{second:02}", seconds=120, every=0.1)

    def said(self) -> str:
        """The ends of the nodes' logs."""
        logs = (node.log.read_text(encoding="utf-8", errors="replace")[-2000:] for node in self.nodes)
        return "the logs end:\n" + "\n\n".join(logs)


def count(place: Place, table: str, condition: str = "true") -> int:
    """Rows of a table of the spool."""
    engine = reading_engine(place)
    try:
        with engine.connect() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table} WHERE {condition}")).scalar_one())
    finally:
        engine.dispose()
