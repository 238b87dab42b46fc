"""A child and all that it started are gone after stop()."""

import os
import signal
from pathlib import Path

import pytest

from tests.harness.process import MARK, DiedEarly, Missing, Process
from tests.harness.waiting import TookTooLong, busy_ports, free_ports, until


def _marked(mark: str) -> list[str]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if wanted in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                found.append(entry)
        except OSError:
            continue
    return found


@pytest.mark.asyncio
async def test_stop_ends_a_grandchild_that_left_the_session(tmp_path: Path) -> None:
    child = Process(["sh", "-c", "setsid sleep 1000 & exec sleep 1000"], tmp_path / "log")
    child.start()
    await until(lambda: len(_marked(child.mark)) == 2, "the grandchild")
    assert await child.stop() == -signal.SIGTERM
    assert _marked(child.mark) == []


@pytest.mark.asyncio
async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    child = Process(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], tmp_path / "log")
    child.start()
    await until(lambda: "ready" in child.log_tail(), "the child")
    assert await child.stop(seconds=0.3) == -signal.SIGKILL


@pytest.mark.asyncio
async def test_the_error_has_the_end_of_the_log(tmp_path: Path) -> None:
    child = Process(["sh", "-c", "echo no paper in here; exit 3"], tmp_path / "log")
    child.start()
    assert await child.until_gone(5.0)
    error = child.died("starting")
    assert isinstance(error, DiedEarly)
    assert "sh ended with 3 while starting" in str(error)
    assert "no paper in here" in str(error)


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="no-such-program"):
        Process(["no-such-program"], tmp_path / "log").start()


@pytest.mark.asyncio
async def test_until_says_what_it_waited_for() -> None:
    with pytest.raises(TookTooLong, match=r"waited 0\.05 s for a blue moon"):
        await until(lambda: False, "a blue moon", seconds=0.05)


def test_free_ports_are_free() -> None:
    first = free_ports(5)
    assert busy_ports(range(first, first + 5)) == []
