"""A library outgrows its first machine: the spool moves to PostgreSQL with all that waits in it."""

from __future__ import annotations

import asyncio
import os
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from relay.config.load import load
from relay.spool.engine import Place
from relay.spool.queries import list_deliveries
from tests.harness import toml
from tests.harness.appliance import command
from tests.harness.letters_only import LettersOnly, body, letter
from tests.harness.postgres import Postgres
from tests.harness.waiting import free_ports, until
from tests.journeys.story import queue_id

pytestmark = pytest.mark.asyncio(loop_scope="session")

LATER = "later@patron.example"
HELD = "held@patron.example"
IMPATIENT = [
    sys.executable,
    "-c",
    "import sys; from relay.spool import retention; retention.FIRST_PASS = retention.EVERY = 0.3;"
    "del sys.argv[:1]; from relay.cli import main; main()",
]
"""Runs the command that follows with a clean-up every moment instead of every hour."""


@pytest_asyncio.fixture(loop_scope="session")
async def letters(tmp_path: Path) -> AsyncIterator[LettersOnly]:
    """A service whose next hop can't be reached, so that mail waits, and with a rule that holds some."""
    extra = {
        "next_hops": [{"name": "default", "port": free_ports(1)}],
        "rules": [{"name": "hold-it", "recipient": HELD, "hold": "a person decides"}],
    }
    async with LettersOnly(tmp_path / "library", extra=extra) as letters:
        yield letters


async def test_a_spool_moves_to_postgresql_with_what_waits_in_it(letters: LettersOnly, postgres: Postgres) -> None:
    sent = {LATER: letter("later", LATER), HELD: letter("held", HELD)}
    ids = {name: queue_id((await letters.submit(message, name))[1]) for name, message in sent.items()}
    await _states_are(letters, {ids[LATER]: "deferred", ids[HELD]: "held"})
    url = postgres.create_database()

    code, said = await _spool(letters, "copy", url)
    assert (code, said) == (1, f"slip-relay: another slip-relay is using the spool {letters.spool}\n")

    await letters.end()
    code, said = await _spool(letters, "copy", url)
    assert code == 0, said
    assert "messages             2 rows, the same in both: " in said
    assert f"Set spool.url in {letters.institution.config} to {url}, and start the service." in said

    _configure(letters, spool={"url": url}, next_hops=[{"name": "default", "port": letters.next_hop.port}])
    code, said = await _spool(letters, "check")
    assert code == 0
    assert said.endswith("every body is as it was accepted (2 of them)\n")
    await letters.appliance.start()
    (taken,) = await letters.next_hop.wait_for(1)
    assert taken.rcpt_to == [LATER]
    assert body(taken.content) == body(sent[LATER])
    await _states_are(letters, {ids[LATER]: "delivered", ids[HELD]: "held"})

    code, text = await letters.submit(letter("new", LATER), LATER)
    assert code == 250
    await letters.next_hop.wait_for(2)
    await _states_are(letters, {ids[LATER]: "delivered", ids[HELD]: "held", queue_id(text): "delivered"})

    back = f"sqlite:///{letters.spool}"
    code, said = await _spool(letters, "copy", back)
    assert code == 1
    assert "is using the spool postgresql+psycopg://relay@/" in said


async def test_a_copy_to_nowhere_says_what_is_wrong(letters: LettersOnly, postgres: Postgres, tmp_path: Path) -> None:
    await letters.end()
    refused = {
        "mysql://somewhere/spool": "TARGET_URL: a spool is named as in",
        "postgresql+psycopg://relay:secret@db.example/spool": "a password stands in spool.password",
        f"sqlite:///{tmp_path}": "TARGET_URL: a spool in a file is named as in",
        f"sqlite:///{letters.spool}": "is the spool to copy from; a copy needs another place to go to",
        f"sqlite:///{tmp_path}/nowhere/spool.db": "it must exist and be writable by the service",
        f"postgresql+psycopg://relay@/nowhere?host={postgres.folder}": 'database "nowhere" does not exist',
    }
    for url, why in refused.items():
        code, said = await _spool(letters, "copy", url)
        assert code == 1, (url, said)
        assert why in said
        assert "secret" not in said
        assert "Traceback" not in said
    code, said = await _spool(letters, "copy", postgres.create_database(), "--password-file", str(tmp_path / "none"))
    assert code == 1
    assert f"the file {tmp_path}/none does not exist or can't be read" in said


async def test_a_spool_goes_into_a_file_that_only_its_owner_reads(letters: LettersOnly, tmp_path: Path) -> None:
    await letters.submit(letter("held", HELD), HELD)
    await letters.end()
    target = tmp_path / "new.db"
    code, said = await _spool(letters, "copy", f"sqlite:///{target}")
    assert code == 0, said
    assert _modes(tmp_path) == {"new.db": "0o600", "new.db.lock": "0o600"}
    _configure(letters, spool={"url": f"sqlite:///{target}"})
    assert await _spool(letters, "check") == (0, f"{target}: every body is as it was accepted (1 of them)\n")


async def test_what_is_settled_leaves_the_spool_in_time(tmp_path: Path) -> None:
    extra = {
        "spool": {"keep_bodies": "1s", "keep_history": "2s"},
        "rules": [{"name": "hold-it", "recipient": HELD, "hold": "a person decides"}],
    }
    async with LettersOnly(tmp_path / "library", extra=extra, wrapper=IMPATIENT) as letters:
        held = queue_id((await letters.submit(letter("held", HELD), HELD))[1])
        gone = queue_id((await letters.submit(letter("now", LATER), LATER))[1])
        await letters.next_hop.wait_for(1)
        await _states_are(letters, {held: "held"})
        assert gone not in {line.queue_id for line in list_deliveries(Place.file(letters.spool))}
        log = letters.appliance.log

        def said() -> list[str]:
            lines = log.read_text(encoding="utf-8").splitlines()
            return [line.partition("event=cleaned ")[2] for line in lines if "event=cleaned" in line]

        await until(lambda: sum("messages=1" in line for line in said()) == 1, lambda: f"one to be cleaned: {said()}")
        assert await _spool(letters, "check") == (
            0,
            f"{letters.spool}: every body is as it was accepted (1 of them)\n",
        )
        await letters.end()


def _modes(folder: Path) -> dict[str, str]:
    return {path.name: oct(path.stat().st_mode & 0o777) for path in folder.glob("new.db*")}


async def _states_are(letters: LettersOnly, states: dict[str, str]) -> None:
    seen: dict[str, str] = {}

    place = Place.of(load(letters.institution.config).spool)

    def they_are() -> bool:
        nonlocal seen
        seen = {line.queue_id: line.state for line in list_deliveries(place)}
        return seen == states

    await until(they_are, lambda: f"{states}; they are {seen}")


def _configure(letters: LettersOnly, **tables: Any) -> None:
    path = letters.institution.config
    tree = tomllib.loads(path.read_text(encoding="utf-8"))
    path.write_text(toml.dumps(toml.merged(tree, tables)), encoding="utf-8")


async def _spool(letters: LettersOnly, *arguments: str) -> tuple[int, str]:
    """Runs `slip-relay spool`; gives its exit code and what it said."""
    config = str(letters.institution.config)
    child = await asyncio.create_subprocess_exec(
        *command(),
        "spool",
        *arguments,
        "-c",
        config,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "COLUMNS": "100"},
    )
    said = (await child.communicate())[0].decode(errors="replace")
    assert child.returncode is not None
    return child.returncode, said
