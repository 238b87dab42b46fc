"""A PostgreSQL that can be stopped, killed and started again, keeps what it committed, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.harness.postgres import Postgres
from tests.harness.waiting import LOCALHOST, free_ports, port_is_open, until

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres(port=free_ports(1)) as server:
        yield server


def _processes_in(folder: Path) -> list[str]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{entry}/cwd").startswith(str(folder)):
                found.append(entry)
        except OSError:
            continue
    return found


def _segment(folder: Path) -> str:
    """Id of the shared memory segment of a running server."""
    return (folder / "data" / "postmaster.pid").read_text().splitlines()[6].split()[1]


def _segments() -> set[str]:
    """Ids of all shared memory segments on this machine."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


def test_it_is_durable_and_private(postgres: Postgres) -> None:
    with postgres.connect() as connection:
        settings = {name: connection.execute(f"SHOW {name}").fetchone() for name in ("fsync", "synchronous_commit")}
        assert settings == {"fsync": ("on",), "synchronous_commit": ("on",)}
    assert postgres.folder.stat().st_mode & 0o077 == 0
    assert len(f"{postgres.folder}/.s.PGSQL.{postgres.port}") <= 107


def test_it_listens_on_127_0_0_1_alone(postgres: Postgres) -> None:
    assert postgres.port
    assert port_is_open(postgres.port)
    with postgres.connect() as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == (LOCALHOST,)


def test_each_database_is_fresh_and_has_a_url_for_sqlalchemy(postgres: Postgres) -> None:
    first, second = postgres.create_database(), postgres.create_database("second")
    assert first != second
    assert re.fullmatch(r"postgresql\+psycopg://relay@/second\?host=/tmp/slip-relay-pg-\w+&port=\d+", second)
    for url in (first, second, postgres.url):
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            connection.execute("CREATE TABLE same_name (number int)")
    with psycopg.connect(postgres.url_over_tcp("second").replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM same_name").fetchone() == (0,)


@pytest.mark.asyncio
async def test_what_was_committed_is_there_after_a_stop_and_after_a_kill() -> None:
    async with Postgres() as postgres:
        with postgres.connect() as connection:
            connection.execute("CREATE TABLE kept (number int)")
        for number, end in enumerate((postgres.stop, lambda: postgres.stop("immediate"), postgres.kill)):
            with postgres.connect() as connection:
                connection.execute("INSERT INTO kept VALUES (%s)", [number])
                await end()
                assert not postgres.alive
                assert _processes_in(postgres.folder) == []
                with pytest.raises(psycopg.OperationalError):
                    connection.execute("SELECT 1")
            await postgres.start()
            with postgres.connect() as connection:
                assert connection.execute("SELECT count(*) FROM kept").fetchone() == (number + 1,)
        await postgres.restart()
        with postgres.connect() as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (3,)


@pytest.mark.asyncio
async def test_closed_after_a_kill_it_leaves_nothing() -> None:
    postgres = Postgres()
    try:
        await postgres.start()
        segment = _segment(postgres.folder)
        assert segment in _segments()
        await postgres.kill()
    finally:
        await postgres.close()
    assert not postgres.folder.exists()
    assert segment not in _segments()


@pytest.mark.asyncio
async def test_a_bench_that_is_killed_leaves_nothing() -> None:
    code = (
        "import time\nfrom tests.harness.postgres import Postgres\npostgres = Postgres()\npostgres.start_sync()\n"
        "print(postgres.folder, flush=True)\ntime.sleep(1000)"
    )
    bench = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert bench.stdout is not None
    folder = Path((await asyncio.wait_for(bench.stdout.readline(), 30)).decode().strip())
    segment = _segment(folder)
    assert _processes_in(folder)
    bench.kill()
    await bench.wait()
    await until(lambda: not _processes_in(folder), "PostgreSQL to end")
    await until(lambda: not folder.exists(), "its folder to be removed")
    assert segment not in _segments()
