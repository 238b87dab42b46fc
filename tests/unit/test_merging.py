"""The document of a bundle: what is in it, and what leaves it before it is printed. With a real spool and renderer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import pypdf
import pytest
import pytest_asyncio
from sqlalchemy import delete, update

from relay.config.printers import Rendering
from relay.config.profiles import BUILT_IN_PROFILES, Profile
from relay.errors import RenderError
from relay.slips.pool import RenderPool
from relay.slips.slip import Occasion
from relay.slips.stack import strip
from relay.spool.engine import Place
from relay.spool.records import Delivery, State
from relay.spool.schema import bodies
from relay.spool.store import Store
from relay.transports import merging
from relay.transports.merging import NO_ROOM, Merger
from tests.accepted import new_message
from tests.harness.samples import Item, loan_receipt, request_slip, transit_slip

pytestmark = pytest.mark.asyncio(loop_scope="module")

TO = "desk@print.lib.example"
A4 = BUILT_IN_PROFILES[0]
HEADED = A4.model_copy(update={"header": "{queue_id}"})
BLANK = b"From: a@b.example\r\nContent-Type: text/html\r\n\r\n<p> </p>\r\n"


def short(title: str) -> bytes:
    return transit_slip(TO, item=Item(title=title))


class Bench:
    """A spool, a renderer, and bundles of letters."""

    def __init__(self, store: Store, pool: RenderPool) -> None:
        self.store = store
        self.pool = pool

    async def bundle(self, *letters: bytes) -> tuple[str, tuple[Delivery, ...]]:
        held = [
            delivery
            for letter in letters
            for delivery in await self.store.accept(new_message(letter, (TO, "print:desk")), [None])
        ]
        made = await self.store.bundle(held)
        return str(made.bundle), made.slips

    def merger(self, most_sheets: int = 50) -> Merger:
        return Merger(self.store, self.pool, most_sheets)

    async def text(self, bundle: str, profile: Profile = A4) -> tuple[int, str]:
        """Pages and text of a bundle's document."""
        parts = await self.merger().parts(bundle, profile, occasion)
        document = await self.merger().document(parts.slips, profile)
        pages = pypdf.PdfReader(BytesIO(document.pdf)).pages
        assert len(pages) == document.pages
        return document.pages, " ".join(" ".join(page.extract_text() for page in pages).split())


def occasion(member: Delivery) -> Occasion:
    return Occasion(queue_id=member.message.queue_id)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    folder: Path = tmp_path_factory.mktemp("merging")
    store, pool = Store(Place.file(folder / "spool.db")), RenderPool(Rendering(children=1))
    store.open()
    await pool.start()
    yield Bench(store, pool)
    await pool.stop()
    await asyncio.to_thread(store.close)


async def test_each_slip_is_rendered_for_itself_and_stands_there_in_its_order(bench: Bench) -> None:
    bundle, slips = await bench.bundle(short("Third"), short("First"), short("Second"))
    pages, text = await bench.text(bundle, HEADED)
    assert pages == 1
    assert text.index("Third") < text.index("First") < text.index("Second")
    assert [text.count(slip.message.queue_id) for slip in slips] == [1, 1, 1]


async def test_a_long_letter_is_on_sheets_of_its_own(bench: Bench) -> None:
    bundle, _ = await bench.bundle(short("Before"), loan_receipt(TO, items=60), short("After"), short("Last"))
    pages, text = await bench.text(bundle)
    alone = await bench.pool.render(loan_receipt(TO, items=60), A4)
    assert pages == alone.pages + 2
    assert text.index("Before") < text.index("After") < text.index("Last")


async def test_a_letter_too_long_for_a_strip_and_not_for_sheets_is_printed(bench: Bench) -> None:
    long = b"From: a@b.example\r\n\r\n" + b"another line\r\n" * 1500
    with pytest.raises(RenderError, match="5 m of paper"):
        await bench.pool.render(long, strip(A4))
    bundle, _ = await bench.bundle(short("A"), long)
    parts = await bench.merger().parts(bundle, A4, occasion)
    assert parts.leaving == []
    assert parts.slips[1][1].pages > 10


async def test_what_can_t_be_rendered_leaves_and_the_rest_is_printed(bench: Bench) -> None:
    bundle, slips = await bench.bundle(short("A"), BLANK, request_slip(TO), short("B"))
    spoiled = bodies.c.queue_id == slips[2].message.queue_id
    await bench.store.write(lambda c: c.execute(update(bodies).where(spoiled).values(content=b"spoiled")))
    parts = await bench.merger().parts(bundle, A4, occasion)
    assert [member.key for member, _ in parts.slips] == [slips[0].key, slips[3].key]
    assert [(member.key, outcome.state) for member, outcome in parts.leaving] == [
        (slips[1].key, State.HELD),
        (slips[2].key, State.CORRUPT),
    ]
    assert parts.leaving[0][1].reason.startswith("can't be rendered: nothing of the letter can be seen")
    with pytest.raises(RenderError, match=f"the slip {slips[1]} of it is missing .*: reprint its slips one by one"):
        await bench.merger().again(bundle, A4, occasion)


async def test_what_one_document_has_no_room_for_comes_in_the_next(bench: Bench) -> None:
    """From there on: what comes after must not overtake it."""
    bundle, slips = await bench.bundle(short("A"), short("B"), loan_receipt(TO, items=60), short("C"))
    parts = await bench.merger(most_sheets=2).parts(bundle, A4, occasion)
    assert [member.key for member, _ in parts.slips] == [slips[0].key, slips[1].key]
    assert parts.leaving == [(await member(bench, bundle, 2), NO_ROOM), (await member(bench, bundle, 3), NO_ROOM)]


async def test_a_document_is_no_larger_than_it_may_be(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "MOST_BYTES", 15_000)
    bundle, slips = await bench.bundle(short("A"), short("B"), short("C"))
    parts = await bench.merger().parts(bundle, A4, occasion)
    assert [member.key for member, _ in parts.slips] == [slips[0].key]
    assert [outcome for _, outcome in parts.leaving] == [NO_ROOM, NO_ROOM]


async def test_a_bundle_is_made_again_from_its_letters(bench: Bench) -> None:
    bundle, slips = await bench.bundle(short("A"), short("B"))
    document = await bench.merger().again(bundle, A4, occasion)
    assert document is not None
    assert document.pages == 1
    gone = bodies.c.queue_id == slips[1].message.queue_id
    await bench.store.write(lambda c: c.execute(delete(bodies).where(gone)))
    with pytest.raises(RenderError, match="not in the spool any more"):
        await bench.merger().again(bundle, A4, occasion)
    assert await bench.merger().again(str(slips[0]), A4, occasion) is None


async def test_the_notes_of_a_document_name_their_slips(bench: Bench) -> None:
    odd = b"From: a@b.example\r\nContent-Type: text/html; charset=no-such\r\n\r\n<p>Gr\xfc\xdfe</p>\r\n"
    bundle, slips = await bench.bundle(short("A"), odd)
    parts = await bench.merger().parts(bundle, A4, occasion)
    document = await bench.merger().document(parts.slips, A4)
    assert document.notes
    assert all(note.startswith(f"{slips[1]}: ") for note in document.notes)


async def member(bench: Bench, bundle: str, place: int) -> Delivery:
    return (await bench.store.members(bundle))[place]
