"""One playground for all journeys that don't break it, and words to tell them in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness.playground import Playground
from tests.journeys.story import EXTRA, Story


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Playground]:
    """The playground that most journeys share."""
    async with Playground(tmp_path_factory.mktemp("playground") / "all", extra=EXTRA) as playground:
        yield playground


@pytest_asyncio.fixture(loop_scope="session")
async def story(shared: Playground) -> Story:
    """A story in the shared playground."""
    return Story(shared)


@pytest_asyncio.fixture(loop_scope="session")
async def own(tmp_path: Path) -> AsyncIterator[Story]:
    """A story in a playground of its own, whose appliance starts again when it dies."""
    async with Playground(tmp_path / "own") as playground:
        yield Story(playground)
