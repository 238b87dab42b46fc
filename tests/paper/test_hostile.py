"""The catalogue of hostile letters through the real pool: nothing is reached, all ends in time, the next slip prints.

The short form leaves out what only the clock ends; `make prove` has them all.
"""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET, SO_REUSEADDR, SOCK_DGRAM, SOL_SOCKET, socket

import pypdfium2
import pytest
import pytest_asyncio
from PIL import Image

from relay.config.printers import Rendering
from relay.config.profiles import BUILT_IN_PROFILES
from relay.errors import RendererDied, RenderError
from relay.slips import pool as pool_module
from relay.slips.pool import RenderPool
from relay.slips.slip import Slip
from tests.unit.slips.hostile import catalogue
from tests.unit.slips.hostile.case import COLOR, MARK, SECRET, End, Hostile, Trap
from tests.unit.slips.letters import letter, picture, solid, text_of

A4 = BUILT_IN_PROFILES[0]
GOOD = letter("<p>The next good slip</p><img src='cid:x'>", picture(solid("red"), "x"))
SETTINGS = Rendering(children=1)
SLACK_SECONDS = 5.0

CATALOGUE = catalogue()
SHORT = [hostile for hostile in CATALOGUE if not hostile.heavy]
HEAVY = [hostile for hostile in CATALOGUE if hostile.heavy]


class Listener:
    """Counts who calls on 127.0.0.1, by TCP or UDP."""

    def __init__(self) -> None:
        self.calls = 0
        self._tcp, self._udp = socket(), socket(AF_INET, SOCK_DGRAM)
        self._tcp.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        self._tcp.bind(("127.0.0.1", 0))
        self.port = int(self._tcp.getsockname()[1])
        self._udp.bind(("127.0.0.1", self.port))
        self._tcp.listen(50)
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._answer, self._hear)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop; what came until now is counted."""
        with socket() as last:
            last.connect(("127.0.0.1", self.port))
        with socket(AF_INET, SOCK_DGRAM) as last:
            last.sendto(b"end", ("127.0.0.1", self.port))
        for thread in self._threads:
            thread.join()
        self._tcp.close()
        self._udp.close()
        self.calls -= 1  # our own

    def _answer(self) -> None:
        while self._one_call():
            self.calls += 1
        self.calls += 1

    def _one_call(self) -> bool:
        peer, _ = self._tcp.accept()
        with peer:
            peer.settimeout(0.5)
            try:
                asked = peer.recv(1000)
            except OSError:
                return True
            if asked:
                peer.sendall(b"HTTP/1.0 404 no\r\n\r\n")
        return bool(asked)

    def _hear(self) -> None:
        while self._udp.recv(1000) != b"end":
            self.calls += 1


@dataclass(slots=True)
class Bench:
    """A pool with one child, and what lies in wait beside it."""

    pool: RenderPool
    trap: Trap
    listener: Listener
    expected: Slip
    peak: int = 0

    def child(self) -> int | None:
        """The process id of the child that works now."""
        return next((child.process.pid for child in self.pool._processes if child.process.returncode is None), None)

    async def watch_memory(self) -> None:
        """Note the most memory that a child has ever had, until cancelled."""
        while True:
            for child in list(self.pool._processes):
                self.peak = max(self.peak, most_memory(child.process.pid))
            await asyncio.sleep(0.05)


def most_memory(pid: int) -> int:
    """The most memory that a process ever had, in bytes; 0 when it has gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(match[1]) * 1024 if match else 0


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trap, Listener]]:
    """A listener, a file with a secret, and a picture in a colour of its own."""
    yield from new_trap(tmp_path_factory.mktemp("trap"))


def new_trap(folder: Path) -> Iterator[tuple[Trap, Listener]]:
    """One trap in a folder, taken up again when the iterator goes on. Fails when somebody called."""
    (folder / "secret.html").write_text(f"<p>{SECRET}</p>")
    Image.new("RGB", (200, 200), COLOR).save(folder / "secret.png")
    listener = Listener()
    yield Trap(listener.port, folder / "secret.html", folder / "secret.png"), listener
    listener.close()
    assert listener.calls == 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(trap: tuple[Trap, Listener]) -> AsyncIterator[Bench]:
    """One pool for the whole catalogue, as a service has one for all mail."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pool_module, "RECYCLE", sys.maxsize)  # a child that goes has died of a letter
        pool = RenderPool(SETTINGS)
        await pool.start()
        bench = Bench(pool, *trap, await pool.render(GOOD, A4))
        watcher = asyncio.create_task(bench.watch_memory())
        yield bench
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        await pool.stop()


async def assert_harmless(bench: Bench, hostile: Hostile) -> None:
    """The letter ends as it has to, within the limits, and the slip after it is what it was before it."""
    message = await asyncio.to_thread(hostile.build, bench.trap)
    child, loop = bench.child(), asyncio.get_running_loop()
    began = loop.time()
    found = await outcome(bench.pool, message)
    assert loop.time() - began < SETTINGS.timeout + SLACK_SECONDS
    said = str(found) if isinstance(found, RenderError) else "\n".join(found.notes)
    assert re.search(hostile.says, said), said
    assert SECRET not in said
    if isinstance(found, Slip):
        assert hostile.end is not End.REFUSED
        assert_keeps_secrets(found, must_have_mark=hostile.end is End.PRINTED)
    else:
        assert hostile.end is End.HELD or (hostile.end is End.REFUSED and not isinstance(found, RendererDied)), said
    if not isinstance(found, RendererDied):
        assert bench.child() == child, "the child did not survive"
    after = await bench.pool.render(GOOD, A4)
    assert (text_of(after.pdf), after.pages, after.notes) == ("The next good slip", 1, ())
    assert abs(len(after.pdf) - len(bench.expected.pdf)) < 200
    assert bench.listener.calls == 0
    assert bench.peak <= SETTINGS.memory


async def outcome(pool: RenderPool, message: bytes) -> Slip | RenderError:
    """What comes of a letter."""
    try:
        return await pool.render(message, A4)
    except RenderError as error:
        return error


def assert_keeps_secrets(slip: Slip, *, must_have_mark: bool) -> None:
    """Nothing on the slip is from outside the letter."""
    text = text_of(slip.pdf)
    assert MARK in text or not must_have_mark
    for secret in (SECRET, "root:x:0:0", "PATH="):
        assert secret not in text, secret
    assert SECRET not in "".join(slip.notes)
    document = pypdfium2.PdfDocument(slip.pdf)
    try:
        colors = document[0].render(scale=0.3).to_pil().convert("RGB").getcolors(1_000_000) or []
        assert not [color for count, color in colors if color == COLOR and count > 3]
    finally:
        document.close()


def ids(letters: list[Hostile]) -> list[str]:
    return [hostile.name for hostile in letters]


def test_names_are_names() -> None:
    names = ids(CATALOGUE)
    assert len(names) == len(set(names))
    assert len(names) >= 60


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("hostile", SHORT, ids=ids(SHORT))
async def test_hostile_letter_harms_nothing(bench: Bench, hostile: Hostile) -> None:
    await assert_harmless(bench, hostile)


@pytest.mark.prove
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("hostile", HEAVY, ids=ids(HEAVY))
async def test_heavy_letter_harms_nothing(bench: Bench, hostile: Hostile) -> None:
    await assert_harmless(bench, hostile)
