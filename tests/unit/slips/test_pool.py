"""Children that hang, crash, run out of memory or are killed; the next slip prints normally."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.config.kinds import Size
from relay.config.printers import Rendering
from relay.config.profiles import Profile
from relay.errors import RendererDied, RenderError, RendererUnavailable
from relay.slips import pool as pool_module
from relay.slips.pool import RenderPool
from relay.slips.slip import Occasion
from tests.unit.slips.letters import letter, picture, solid, text_of

A4 = Profile(name="a4", paper="A4")
GOOD = letter("<p>good slip</p><img src='cid:x'>", picture(solid("red"), "x"))
# Each level of flex boxes is measured several times: this one would take for ever.
ENDLESS = letter("<div style='display:flex'>x" * 40)


@asynccontextmanager
async def running(**settings: object) -> AsyncIterator[RenderPool]:
    pool = RenderPool(Rendering.model_validate({"children": 1, **settings}))
    await pool.start()
    try:
        yield pool
    finally:
        await pool.stop()


def children() -> list[int]:
    """The rendering processes that this process has now, zombies included."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                stat, command = (process / "stat").read_text(), (process / "cmdline").read_bytes()
            except OSError:
                continue
            is_ours = int(stat.rsplit(")", 1)[1].split()[1]) == os.getpid()
            if is_ours and (b"relay.slips.child" in command or not command):
                found.append(int(process.name))
    return found


async def assert_prints(pool: RenderPool) -> None:
    slip = await pool.render(GOOD, A4)
    assert slip.pages == 1
    assert "good slip" in text_of(slip.pdf)
    assert slip.notes == ()


@pytest.mark.asyncio
async def test_start_does_not_wait_for_the_children_and_stop_leaves_none() -> None:
    async with running(children=2) as pool:
        assert not any(seat.done() for seat in pool._free._queue)  # type: ignore[attr-defined]
        assert len(children()) == 2
        await asyncio.gather(*(assert_prints(pool) for _ in range(6)))
    assert children() == []


@pytest.mark.asyncio
async def test_refused_letter_is_an_error_and_the_child_stays() -> None:
    async with running() as pool:
        await assert_prints(pool)
        before = children()
        with pytest.raises(RenderError, match="no text to print") as caught:
            await pool.render(b"Content-Type: image/png\r\n\r\nx", A4)
        assert not isinstance(caught.value, RendererDied)
        await assert_prints(pool)
        assert children() == before


@pytest.mark.asyncio
async def test_endless_letter_is_killed_and_the_next_slip_prints() -> None:
    async with running(timeout="2s") as pool:
        with pytest.raises(RendererDied, match="longer than 2 s"):
            await pool.render(ENDLESS, A4)
        await assert_prints(pool)


@pytest.mark.asyncio
async def test_child_killed_in_the_middle_of_a_slip() -> None:
    async with running() as pool:
        await assert_prints(pool)
        doomed = children()
        task = asyncio.create_task(pool.render(ENDLESS, A4))
        await until_busy(doomed[0])
        os.kill(doomed[0], signal.SIGKILL)
        with pytest.raises(RendererDied, match="in the middle"):
            await task
        await assert_prints(pool)
        assert children() != doomed


@pytest.mark.asyncio
async def test_child_killed_while_idle_costs_no_slip() -> None:
    async with running() as pool:
        await assert_prints(pool)
        os.kill(children()[0], signal.SIGKILL)
        await assert_prints(pool)


@pytest.mark.asyncio
async def test_letter_that_fills_the_memory() -> None:
    async with running(memory=Size(320 * 2**20), timeout="60s") as pool:
        await assert_prints(pool)
        bomb = letter("<p>" + "<b>word</b> " * 24_000)
        with pytest.raises(RendererDied):
            await pool.render(bomb, A4)
        await assert_prints(pool)


@pytest.mark.asyncio
async def test_cancelled_slip_does_not_answer_the_next_one() -> None:
    async with running() as pool:
        await assert_prints(pool)
        busy = children()[0]
        task = asyncio.create_task(pool.render(letter("<p>other</p>" * 3000), A4))
        await until_busy(busy)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await assert_prints(pool)


@pytest.mark.asyncio
async def test_cancelled_while_waiting_for_a_child() -> None:
    async with running() as pool:
        task = asyncio.create_task(pool.render(GOOD, A4))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await assert_prints(pool)


@pytest.mark.asyncio
async def test_stop_cancels_slips_under_way() -> None:
    async with running() as pool:
        await assert_prints(pool)
        busy = children()[0]
        tasks = [asyncio.create_task(pool.render(ENDLESS, A4)) for _ in range(2)]
        await until_busy(busy)
        await pool.stop()
        assert all(task.cancelled() for task in tasks)
        assert children() == []


@pytest.mark.asyncio
async def test_child_is_recycled_when_its_successor_is_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "RECYCLE", 2)
    async with running() as pool:
        await assert_prints(pool)
        first = children()
        async with asyncio.timeout(30):
            while first[0] in children():
                await assert_prints(pool)
        await assert_prints(pool)


@pytest.mark.asyncio
async def test_child_that_never_starts_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    async with running() as pool:
        with pytest.raises(RendererUnavailable, match="does not start"):
            await pool.render(GOOD, A4)
    assert children() == []


@pytest.mark.asyncio
async def test_child_does_not_hear_signals_to_the_group() -> None:
    async with running() as pool:
        await assert_prints(pool)
        before = children()
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(before[0], number)
        await assert_prints(pool)
        assert children() == before


@pytest.mark.asyncio
async def test_secrets_of_the_environment_stay_with_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_TEST_SECRET", "x")
    async with running() as pool:
        await assert_prints(pool)
        assert b"RELAY_TEST_SECRET" not in environment(children()[0])


@pytest.mark.asyncio
async def test_own_template_is_read_inside_the_sandbox(tmp_path: Path) -> None:
    own = tmp_path / "own.html"
    own.write_text('{% extends "receipt.html" %}{% block body %}<p>Desk copy</p>{{ super() }}{% endblock %}')
    async with running() as pool:
        slip = await pool.render(GOOD, Profile(name="p", paper="80mm", margin_mm=4, template=str(own)))
        assert "Desk copy good slip" in text_of(slip.pdf)


@pytest.mark.asyncio
async def test_style_sheet_and_occasion_travel_into_the_sandbox(tmp_path: Path) -> None:
    css = tmp_path / "own.css"
    css.write_text("p::after { content: ' styled' }")
    occasion = Occasion("Desk 1", "01ABC", "demo", datetime(2026, 3, 1, 14, 5, tzinfo=UTC), None)
    profile = Profile(
        name="p", paper="A4", stylesheet=css, header="{desk} {queue_id} {institution} {received} {printed}."
    )
    async with running() as pool:
        slip = await pool.render(letter("<p>text \U000f0001</p>"), profile, occasion)
        assert "styled" in text_of(slip.pdf)
        assert "Desk 1 01ABC demo 2026-03-01 14:05 ." in text_of(slip.pdf)
        assert slip.missing_glyphs == 1
        assert slip.notes == ("1 character of the letter is missing in the fonts of this machine.",)
        await assert_prints(pool)  # without an occasion too


def environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def until_busy(pid: int) -> None:
    """Wait until the child has used more CPU than an idle one does."""

    def ticks() -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11])

    before = ticks()
    async with asyncio.timeout(20):
        while ticks() < before + 3:  # noqa: ASYNC110 - another process's CPU time tells nobody of itself
            await asyncio.sleep(0.005)


@pytest.mark.asyncio
async def test_a_pdf_is_marked_in_a_child_that_can_not_be_broken_by_it() -> None:
    async with running() as pool:
        slip = await pool.render(GOOD, A4)
        marked = await pool.mark(slip.pdf, "REPRINT today", A4)
        assert "REPRINT today" in text_of(marked.pdf)
        assert "good slip" in text_of(marked.pdf)
        assert (marked.pages, marked.width_mm, marked.height_mm) == (1, slip.width_mm, slip.height_mm)
        before = children()
        for broken in (b"", b"%PDF-1.7", slip.pdf[: len(slip.pdf) // 2].replace(b"obj", b"jbo")):
            with pytest.raises(RenderError, match="the PDF that was kept can't be read"):
                await pool.mark(broken, "REPRINT today", A4)
        await assert_prints(pool)
        assert children() == before
