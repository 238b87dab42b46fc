"""Large bodies: in parts, the same on both engines, and those from before there were parts."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, delete, func, insert, inspect, select, update

from relay.errors import CorruptBody, SpoolError
from relay.spool import migrations
from relay.spool.bodies import has_body
from relay.spool.contents import PART, LargeContent, parts
from relay.spool.digests import check_bodies
from relay.spool.engine import Place, writing_engine
from relay.spool.histories import stored
from relay.spool.records import NewMessage
from relay.spool.schema import bodies, body_parts, messages
from relay.spool.store import Store
from tests.accepted import new_message

WAY = ("reader@patron.example", "default")

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = Store(place)
    store.open()
    yield store
    await asyncio.to_thread(store.close)


def on_disk(content: bytes, folder: Path) -> NewMessage:
    """A message as it is after it came in by way of the disk."""
    large = LargeContent(folder)
    large.append(content)
    return replace(new_message(content, WAY), content=b"", large=large)


async def rows_of(store: Store, new: NewMessage) -> int:
    query = select(func.count()).select_from(body_parts).where(body_parts.c.queue_id == new.message.queue_id)
    return await store.write(lambda c: c.execute(query).scalar_one())


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, 5 * PART + 17])
async def test_a_body_is_kept_in_parts_and_given_back_whole(store: Store, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    for new in (new_message(content, WAY), on_disk(content, tmp_path)) if size else (new_message(b"", WAY),):
        await store.accept(new, None)
        assert await store.content(new.message) == content
        assert await rows_of(store, new) == max(0, -(-size // PART) - 1)
        assert stored(store.place, new.message.queue_id) == (new.message, content)
        if new.large is not None:
            new.large.close()
    assert check_bodies(store.place)[1] == []


async def test_a_part_that_is_missing_or_not_the_same_is_found(store: Store, tmp_path: Path) -> None:
    missing, changed, cut_off = (on_disk(os.urandom(3 * PART), tmp_path) for _ in range(3))
    for new in (missing, changed, cut_off):
        await store.accept(new, None)

    def spoil(connection: Connection) -> None:
        part = [(body_parts.c.queue_id == new.message.queue_id) for new in (missing, changed, cut_off)]
        connection.execute(delete(body_parts).where(part[0], body_parts.c.part == 1))
        connection.execute(update(body_parts).where(part[1], body_parts.c.part == 2).values(content=b"x" * PART))
        connection.execute(delete(body_parts).where(part[2]))

    await store.write(spoil)
    for new in (missing, changed, cut_off):
        with pytest.raises(CorruptBody, match="not those that were accepted"):
            await store.content(new.message)
    wanted = sorted(new.message.queue_id for new in (missing, changed, cut_off))
    assert check_bodies(store.place) == (3, wanted)
    for new in (missing, changed, cut_off):
        assert new.large is not None
        new.large.close()


async def test_a_body_is_removed_with_its_parts(store: Store) -> None:
    new = new_message(b"x" * 3 * PART, WAY)
    await store.accept(new, None)
    await store.write(lambda c: c.execute(delete(bodies)).rowcount)
    assert await rows_of(store, new) == 0
    with pytest.raises(CorruptBody, match="not in the spool any more"):
        await store.content(new.message)
    assert not await store.write(lambda c: has_body(c, new.message.queue_id))


async def test_a_file_that_can_t_be_read_keeps_nothing(store: Store, tmp_path: Path) -> None:
    gone = on_disk(b"x" * 3 * PART, tmp_path)
    assert gone.large is not None
    os.ftruncate(gone.large._file.fileno(), PART + 10)  # type: ignore[union-attr]
    good = new_message(b"good", WAY)
    failed, kept = await asyncio.gather(store.accept(gone, None), store.accept(good, None), return_exceptions=True)
    assert isinstance(failed, SpoolError)
    assert kept == []
    assert stored(store.place, gone.message.queue_id) is None
    gone.large.close()


async def test_bodies_from_before_there_were_parts_stay_as_they_are(place: Place) -> None:
    """Nothing of them is written again: a spool may have gigabytes of them."""
    old = [new_message(os.urandom(size), WAY) for size in (10, PART, PART + 1, 3 * PART)]
    engine = writing_engine(place)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        for new in old:
            _as_before(connection, new)
    engine.dispose()
    store = Store(place)
    store.open()
    try:
        for new in old:
            assert await store.content(new.message) == new.content
            assert await rows_of(store, new) == 0
        assert check_bodies(place) == (len(old), [])
    finally:
        await asyncio.to_thread(store.close)


def _as_before(connection: Connection, new: NewMessage) -> None:
    columns = [column["name"] for column in inspect(connection).get_columns(messages.name)]
    connection.execute(insert(messages), {name: getattr(new.message, name) for name in columns})
    connection.execute(insert(bodies), {"queue_id": new.message.queue_id, "content": new.content})


async def test_content_is_cut_at_the_same_places_wherever_it_is(tmp_path: Path) -> None:
    content = os.urandom(2 * PART + 5)
    large = on_disk(content, tmp_path).large
    assert large is not None
    assert list(parts(content)) == list(parts(large))
    assert hashlib.sha256(b"".join(parts(large))).digest() == hashlib.sha256(content).digest()
    large.close()
