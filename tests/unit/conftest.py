"""A small correct configuration to start from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.config.settings import Config, Spool
from relay.spool.engine import Place
from tests.harness.postgres import Postgres

Tree = dict[str, Any]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """The tables of a configuration without mistakes: one institution, one source, one next hop, one printer."""
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef\n", encoding="utf-8")
    return {
        "server": {"hostname": "relay.lib.example", "secret": {"file": str(secret)}},
        "spool": {"url": f"sqlite:///{tmp_path}/spool.db"},
        "listeners": [{"name": "smtp", "address": "127.0.0.1", "port": 2525}],
        "institutions": [{"name": "demo", "domains": ["lib.example"], "bounce_domain": "bounces.lib.example"}],
        "sources": [{"name": "alma", "institutions": ["demo"], "networks": ["192.0.2.0/24"]}],
        "next_hops": [{"name": "default", "host": "127.0.0.1", "port": 2526}],
        "printers": [
            {
                "name": "desk",
                "institution": "demo",
                "mailboxes": ["desk@print.lib.example"],
                "queue": "desk",
                "profile": "a4",
            }
        ],
    }


@pytest.fixture
def make_config(tree: Tree) -> Callable[..., Config]:
    """Makes a `Config` from the small one with some tables replaced."""

    def make(**tables: Any) -> Config:
        return Config.model_validate({**copy.deepcopy(tree), **tables})

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty spool, once in a file and once on a server."""
    if request.param == "sqlite":
        return Place.file(tmp_path / "spool.db")
    postgres: Postgres = request.getfixturevalue("postgres")
    return Place.of(Spool(url=postgres.create_database()))
