"""What tests of every kind share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.harness.postgres import Postgres

# `make test` shows the same for the same code; `make prove` searches further (--hypothesis-profile=search).
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=5000, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of the tests' own; `create_database` gives an empty database."""
    server = Postgres()
    try:
        server.start_sync()
        yield server
    finally:
        server.leave_sync()
