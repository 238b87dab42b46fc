"""The proof about a million deferred deliveries, in short: what a claim costs does not grow with the backlog."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select, update

from bench.backlog import BIG, ROUTE, fill
from relay.mail.address import parse_address
from relay.spool import claims
from relay.spool.engine import Place, writing_engine
from relay.spool.schema import attempts, bodies, deliveries, messages

FEW, MANY = 200, 6000


def steps(connection: Connection, work: Callable[[], None]) -> int:
    """What some work costs: steps of SQLite's machine, in hundreds. They do not depend on how busy this one is."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    raw.set_progress_handler(step, 100)
    work()
    raw.set_progress_handler(None, 0)
    return count


def cost(place: Place, due: str) -> int:
    """What it costs to claim the oldest deliveries that are due."""
    engine = writing_engine(place)
    now = time.time()
    try:
        with engine.connect() as connection:
            first, count = {"nothing": (0, 0), "one destination": (0, 100), "many": (100, 100), "late": (0, 100)}[due]
            oldest = select(deliveries.c.queue_id).order_by(deliveries.c.queue_id).offset(first).limit(count)
            column = "deadline" if due == "late" else "due_at"
            chosen = deliveries.c.queue_id.in_(list(connection.execute(oldest).scalars()))
            connection.execute(update(deliveries).where(chosen).values({column: now - 1}))
            claimed = 0

            def claim() -> None:
                nonlocal claimed
                if due == "late":
                    claimed = len(claims.claim_overdue(connection, "node", 1000))
                else:
                    claimed = len(claims.claim(connection, "node", 1000, {}, {})[0])

            took = steps(connection, claim)
            assert claimed == count
            connection.rollback()
            return took
    finally:
        engine.dispose()


@pytest.fixture(scope="module")
def spools(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Place]:
    folder: Path = tmp_path_factory.mktemp("backlog")
    few, many = Place.file(folder / "few.db"), Place.file(folder / "many.db")
    fill(few, FEW, time.time())
    fill(many, MANY, time.time())
    return few, many


def test_a_backlog_is_what_it_says(spools: tuple[Place, Place]) -> None:
    engine = writing_engine(spools[1])
    with engine.begin() as connection:
        for table in (messages, bodies, deliveries, attempts):
            assert connection.execute(select(func.count()).select_from(table)).scalar_one() == MANY
        destinations = select(deliveries.c.destination, func.count()).group_by(deliveries.c.destination)
        waiting: dict[str, int] = dict(connection.execute(destinations).all())
        recipients = [parse_address(each) for each in connection.execute(select(deliveries.c.recipient)).scalars()]
        due = connection.execute(select(func.min(deliveries.c.due_at))).scalar_one()
    engine.dispose()
    assert {f"{ROUTE}@{recipient.domain}" for recipient in recipients} == waiting.keys()
    assert len(waiting) == 201
    assert 0.3 * MANY < waiting[f"{ROUTE}@{BIG}"] < 0.5 * MANY
    assert due > time.time() + 1800


@pytest.mark.parametrize("due", ["nothing", "one destination", "many", "late"])
def test_a_claim_costs_the_same_with_a_backlog(spools: tuple[Place, Place], due: str) -> None:
    few, many = spools
    assert cost(many, due) <= 2 * cost(few, due) + 30, "it looks at what is not due"
