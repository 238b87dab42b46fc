"""Batches are put in order by what their letters say; what can't be read or printed holds up no slip."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from relay.config.printers import Cups, Rendering
from relay.config.settings import Config
from relay.errors import RendererUnavailable
from relay.maillog import MailLog
from relay.printing.cups import CupsServer
from relay.slips.facts import Facts, Wanted
from relay.slips.pool import RenderPool
from relay.spool.engine import Place
from relay.spool.records import Delivery, PrintJob
from relay.spool.store import Store
from relay.transports.binder import BatchBinder, natural
from relay.transports.merging import MOST_SLIPS
from tests.accepted import new_message
from tests.harness.samples import Item, request_slip, transit_slip

DESK = "print:desk"
HOURS = {"hours": {"mon-fri": ["08:00-18:00"]}}


class Bench:
    """A spool with slips, a pool with one child, and a CUPS server that is not there."""

    def __init__(self, folder: Path, make_config: Callable[..., Config]) -> None:
        self.store = Store(Place.file(folder / "spool.db"))
        self.pool = RenderPool(Rendering(children=1))
        self.folder = folder
        self._make_config = make_config

    def binder(self, pool: Any = None, **settings: object) -> BatchBinder:
        printer = self._make_config().printers[0].model_dump() | HOURS | settings
        config = self._make_config(printers=[printer])
        cups = CupsServer(Cups(server=str(self.folder / "no-cups.sock"), timeout=5.0))
        return BatchBinder(config.printers[0], config, self.store, pool or self.pool, cups, MailLog())

    async def slips(self, *letters: bytes) -> list[Delivery]:
        """The letters as deliveries that this node holds, in order of arrival."""
        held = []
        for letter in letters:
            new = new_message(letter, ("desk@print.lib.example", DESK))
            held += await self.store.accept(new, [None])
        return held


@pytest_asyncio.fixture
async def bench(tmp_path: Path, make_config: Callable[..., Config]) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path, make_config)
    bench.store.open()
    await bench.pool.start()
    yield bench
    await bench.pool.stop()
    await asyncio.to_thread(bench.store.close)


def titled(title: str) -> bytes:
    return request_slip("desk@print.lib.example", item=Item(title=title))


def numbers(slips: Sequence[Delivery], batches: Sequence[Sequence[Delivery]]) -> list[list[int]]:
    return [[slips.index(slip) for slip in batch] for batch in batches]


@pytest.mark.asyncio
async def test_a_batch_is_sorted_by_the_text_of_an_element_and_cut(bench: Bench) -> None:
    slips = await bench.slips(
        titled("QA 76.9"),
        transit_slip("desk@print.lib.example"),  # has no such element
        titled("QA 76.10"),
        b"not a letter at all",
        titled("qa 8"),
        titled("QA 76.9"),
    )
    binder = bench.binder(sort="h2", separator=True, max_batch=4)
    assert numbers(slips, await binder.bind(slips)) == [[4, 0, 5, 2], [1, 3]]


@pytest.mark.asyncio
async def test_without_a_selector_slips_come_in_order_of_arrival(bench: Bench) -> None:
    slips = await bench.slips(titled("B"), titled("A"))
    assert numbers(slips, await bench.binder(separator=True).bind(slips)) == [[0, 1]]


class Counting:
    """The pool, or one whose children don't start, with a count of what it was asked."""

    def __init__(self, pool: RenderPool | None) -> None:
        self.pool = pool
        self.asked = 0

    async def describe(self, message: bytes, wanted: Wanted) -> Facts:
        self.asked += 1
        if self.pool is None:
            raise RendererUnavailable("the rendering process does not start on this machine")
        return await self.pool.describe(message, wanted)

    async def render(self, *args: Any) -> Any:
        assert self.pool is not None
        return await self.pool.render(*args)


@pytest.mark.asyncio
async def test_each_letter_is_read_once_for_sort_and_separator(bench: Bench) -> None:
    slips = await bench.slips(titled("B"), b"not a letter", titled("A"))
    counting = Counting(bench.pool)
    binder = bench.binder(counting, sort="h2", separator=True)
    (batch,) = await binder.bind(slips)
    await binder.announce(batch)
    assert counting.asked == 3


@pytest.mark.asyncio
async def test_without_a_child_slips_keep_their_order_and_only_one_is_tried(bench: Bench) -> None:
    slips = await bench.slips(titled("B"), titled("A"), titled("C"))
    counting = Counting(None)
    assert numbers(slips, await bench.binder(counting, sort="h2").bind(slips)) == [[0, 1, 2]]
    assert counting.asked == 1


@pytest.mark.asyncio
async def test_a_separator_that_cups_does_not_take_is_logged_and_left_out(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    slips = await bench.slips(titled("Secret title"))
    with caplog.at_level(logging.INFO, "slip-relay"):
        await bench.binder(separator=True).announce(slips)
    (line,) = [each.getMessage() for each in caplog.records if each.getMessage().startswith("event=batch ")]
    assert "separator=failed" in line
    assert "can't be reached" in line


@pytest.mark.asyncio
async def test_bytes_that_are_damaged_sort_as_without_a_value(bench: Bench) -> None:
    slips = await bench.slips(titled("B"), titled("A"))
    gone = (await bench.slips(titled("0")))[0]
    lost = replace(gone, message=replace(gone.message, sha256="0" * 64))
    assert numbers([*slips, lost], await bench.binder(sort="h2").bind([lost, *slips])) == [[1, 0, 2]]


@pytest.mark.asyncio
async def test_slips_that_may_be_merged_are_together_where_the_first_of_them_is(bench: Bench) -> None:
    slips = [replace(slip, merge=True) for slip in await bench.slips(*[titled(f"{n}") for n in range(9)])]
    slips[1] = replace(slips[1], merge=False)
    slips[3] = replace(slips[3], profile="a5")
    slips[4] = replace(slips[4], notify="SUCCESS,FAILURE")  # its sender is told of it by itself
    slips[5] = replace(slips[5], job=PrintJob("slip-x", "desk"))  # it may be on paper
    slips[6] = replace(slips[6], copies=2)
    slips[7] = replace(slips[7], profile="a5")
    batches = bench.binder(release_at=["10:00"]).groups(slips)
    assert numbers(slips, batches) == [[0, 2, 8], [1], [3, 7], [4], [5], [6]]


@pytest.mark.asyncio
async def test_bundles_are_not_merged_and_no_larger_than_they_may_be(bench: Bench) -> None:
    (slip,) = await bench.slips(titled("A"))
    slips = [replace(slip, number=number, merge=True) for number in range(2 * MOST_SLIPS + 3)]
    bundle = replace(slip, number=999, is_bundle=True)
    groups = bench.binder(release_at=["10:00"]).groups([bundle, *slips])
    assert [len(group) for group in groups] == [1, MOST_SLIPS, MOST_SLIPS, 3]
    assert [slip for group in groups for slip in group] == [bundle, *slips]


@pytest.mark.parametrize(
    ("texts"),
    [
        ["QA 9", "QA 76.9", "QA 76.10", "QA 100"],
        ["a", "B", "c"],
        ["", "1", "1a", "2", "a02", "a10"],
    ],
)
def test_natural_order(texts: list[str]) -> None:
    for given_order in permutations(texts):
        assert sorted(given_order, key=natural) == texts


@given(st.lists(st.text(max_size=200)))
def test_any_texts_can_be_sorted(texts: list[str]) -> None:
    assert len(sorted(texts, key=natural)) == len(texts)
