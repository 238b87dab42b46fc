"""When a slip moves to another printer: the decisions, with printers that are told what to say."""

from __future__ import annotations

import asyncio

import pytest

from relay.config.printers import Printer
from relay.errors import Interrupted, PrintError
from relay.printing.device import DeviceState
from relay.printing.jobs import QueueStatus
from relay.printing.trouble import Trouble, of_device, of_queue, trouble_of
from relay.transports.standing_in import LOOKS_GO_ON, Desk, Move, StandIns

pytestmark = pytest.mark.asyncio

OFFLINE = Trouble("offline", "the printer does not answer")
EMPTY = Trouble("paper", "media-empty-error")


class Told:
    """A printer that says what a test wants."""

    def __init__(self, name: str, **settings: object) -> None:
        self.printer = Printer.model_validate(
            {"name": name, "institution": "i", "mailboxes": [f"{name}@p.example"], "queue": name, "profile": "a4"}
            | settings
        )
        self.is_busy = False
        self.is_open = True
        self.says: Trouble | None = None

    async def trouble(self) -> Trouble | None:
        return self.says


class Room:
    """Printer a with stand-ins b and c, and a clock."""

    def __init__(self, **settings: object) -> None:
        self.now = 1000.0
        self.a = Told("a", **({"alternates": ["b", "c"], "alternate_after": 600.0} | settings))
        self.b, self.c = Told("b"), Told("c")
        desks: dict[str, Desk] = {each.printer.name: each for each in (self.a, self.b, self.c)}
        self.stand_ins = StandIns(self.a, desks, lambda: self.now)

    async def turn(self, *, moved: bool = False) -> Move | None:
        return await asyncio.wait_for(self.stand_ins.turn(moved=moved), 5)

    async def goes_to(self) -> str:
        move = await self.turn()
        return move.to.name if move is not None else "a"

    async def waits(self) -> None:
        with pytest.raises(PrintError):
            await self.turn()


async def test_a_printer_that_is_well_prints_its_slips() -> None:
    assert await Room().goes_to() == "a"


async def test_a_slip_moves_after_the_time_that_is_set_to_the_first_that_is_well() -> None:
    room = Room()
    room.a.says, room.b.says = OFFLINE, OFFLINE
    await room.waits()
    for _ in range(11):
        room.now += 50
        await room.waits()
    room.now += 50
    move = await room.turn()
    assert move == Move(room.c.printer, "a: the printer does not answer", for_trouble=True)
    room.b.says = None
    assert await room.goes_to() == "b"


async def test_a_printer_that_is_closed_stands_in_for_nobody() -> None:
    room = Room(alternate_after=0.0)
    room.a.says = OFFLINE
    room.b.is_open = False
    assert await room.goes_to() == "c"
    room.c.is_open = False
    await room.waits()


async def test_trouble_that_was_over_counts_anew() -> None:
    room = Room()
    room.a.says = OFFLINE
    await room.waits()
    room.now += 50
    room.a.says = None
    assert await room.goes_to() == "a"
    room.a.says = OFFLINE
    room.now += 50
    await room.waits()


async def test_trouble_that_nobody_looked_at_meanwhile_counts_anew() -> None:
    room = Room()
    room.a.says = OFFLINE
    await room.waits()
    room.now += max(LOOKS_GO_ON, 600) + 1
    await room.waits()


async def test_trouble_that_is_not_listed_moves_nothing() -> None:
    room = Room(alternate_for=["paper"], alternate_after=1.0)
    room.a.says = OFFLINE
    await room.waits()
    room.now += 10
    await room.waits()


async def test_a_printer_that_only_complains_still_gets_its_slips() -> None:
    room = Room()
    room.a.says = EMPTY
    assert await room.goes_to() == "a"


async def test_a_slip_that_moved_does_not_move_again() -> None:
    room = Room(alternate_after=1.0)
    room.a.says = EMPTY
    assert await room.turn(moved=True) is None
    room.now += 10
    assert await room.turn(moved=True) is None


async def test_while_a_slip_is_stuck_the_next_one_moves_in_time() -> None:
    room = Room(alternate_after=1.0)
    room.a.is_busy, room.a.says = True, EMPTY
    waiting = asyncio.create_task(room.turn())
    done, _ = await asyncio.wait([waiting], timeout=0.7)
    assert not done, "not yet"
    room.now += 2
    move = await waiting
    assert move is not None
    assert move.to.name == "b"


async def test_a_pool_gives_to_whoever_is_idle_and_well() -> None:
    room = Room(alternates=[], shares_with=["b", "c"])
    assert await room.goes_to() == "a"
    room.a.is_busy = room.b.is_busy = True
    assert await room.turn() == Move(room.c.printer, "a is busy", for_trouble=False)
    room.c.says = EMPTY
    waiting = asyncio.create_task(room.goes_to())
    done, _ = await asyncio.wait([waiting], timeout=0.7)
    assert not done, "there is nobody"
    room.a.is_busy = False
    assert await waiting == "a"


async def test_a_stop_ends_the_wait() -> None:
    room = Room()
    room.a.is_busy = True
    waiting = asyncio.create_task(room.turn())
    await asyncio.sleep(0)
    room.stand_ins.interrupt()
    with pytest.raises(Interrupted):
        await waiting


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("media-empty-warning", "paper"),
        ("media-needed", "paper"),
        ("media-jam-error; cover-open", "jam"),
        ("door-open-report", "cover"),
        ("toner-empty", "supply"),
        ("The printer is not responding.", "offline"),
        ("The printer may not exist or is unavailable at this time.", "offline"),
        ("CUPS at localhost:631 did not answer within 5 s", "offline"),
        ("the queue is paused in CUPS (dust)", "paused"),
        ("CUPS has no queue 'a5'", "paused"),
        ("something new", "other"),
    ],
)
async def test_what_words_mean(words: str, kind: str) -> None:
    assert trouble_of(words) == Trouble(kind, words)  # type: ignore[arg-type]


async def test_what_queue_and_device_say() -> None:
    assert trouble_of("") is None
    assert of_queue(QueueStatus(is_stopped=False, accepts_jobs=True), "q") is None
    assert of_queue(QueueStatus(is_stopped=True, accepts_jobs=True, message="Paused"), "q") == Trouble(
        "paused", "the queue is paused in CUPS"
    )
    assert of_queue(QueueStatus(is_stopped=False, accepts_jobs=False), "q") == Trouble(
        "paused", "the queue q is not accepting jobs"
    )
    assert of_device(DeviceState("idle", ("media-empty-warning", "toner-low-report"))) is None
    assert of_device(DeviceState("idle", ("media-empty-error",))) == EMPTY
    assert of_device(DeviceState("stopped", ("media-jam",))) == Trouble("jam", "media-jam")
    assert of_device(DeviceState("stopped")) == Trouble("other", "the printer has stopped")
