"""CUPS servers that ask for a password, or for TLS: what is sent, and that nothing hangs when they refuse."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from relay.config.kinds import Secret
from relay.config.printers import Cups
from relay.errors import NotPermitted, PrintError
from relay.printing.cups import CupsServer
from relay.printing.queues import read_queues, read_settings
from tests.harness.cupsd import Cupsd
from tests.harness.guarded_ipp import GuardedIpp
from tests.harness.waiting import free_ports

pytestmark = pytest.mark.asyncio(loop_scope="module")

SINK = "ipp://localhost:9/ipp/print"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded() -> AsyncIterator[Cupsd]:
    """A CUPS that lets only its administrators change queues and read its settings."""
    async with Cupsd(free_ports(1), guarded=True, log_level="debug") as cupsd:
        yield cupsd


def secret(folder: Path, password: str) -> Secret:
    path = folder / "password"
    path.write_text(password + "\n")
    return Secret(file=path)


async def add_queue(server: CupsServer, name: str) -> None:
    await server.ask(lambda connection: connection.addPrinter(name, device=SINK))


async def test_without_a_password_cups_refuses_and_says_to_whom(guarded: Cupsd) -> None:
    server = CupsServer(Cups(server=guarded.address))
    with pytest.raises(NotPermitted, match=r"does not let the user 'slip-relay' do this without a password"):
        await add_queue(server, "mine")
    assert await read_queues(server, ["mine"]) == {"mine": None}
    assert await read_settings(server) is None


async def test_a_wrong_password_is_refused_and_does_not_hang(guarded: Cupsd, tmp_path: Path) -> None:
    """The library asks for the password again as long as it is wrong: once is enough."""
    cups = Cups(server=guarded.address, username="root", password=secret(tmp_path, "wrong"), timeout=25)
    began = time.monotonic()
    with pytest.raises(NotPermitted, match="the user 'root' do this: the password is wrong, or"):
        await add_queue(CupsServer(cups), "mine")
    assert time.monotonic() - began < 20
    assert await read_queues(CupsServer(cups), ["mine"]) == {"mine": None}


@pytest.mark.skipif(os.geteuid() != 0, reason="SystemGroup of the private CUPS is root's")
async def test_on_its_socket_cups_knows_who_is_there(guarded: Cupsd) -> None:
    server = CupsServer(Cups(server=str(guarded.socket)))
    await add_queue(server, "by-socket")
    queue = (await read_queues(server, ["by-socket"]))["by-socket"]
    assert queue is not None
    assert queue.device == SINK
    assert (await read_settings(server) or {})["maxjobtime"] == "0"


async def test_user_and_password_are_sent_when_they_are_asked_for(tmp_path: Path) -> None:
    with GuardedIpp("alice", "right") as guard:
        server = CupsServer(Cups(server=guard.address, username="alice", password=secret(tmp_path, "right")))
        assert await server.queues() == []
        assert guard.offered[0] is None
        assert guard.offered[-1] == ("alice", "right")


async def test_a_wrong_password_is_offered_once(tmp_path: Path) -> None:
    with GuardedIpp("alice", "right") as guard:
        cups = Cups(server=guard.address, username="alice", password=secret(tmp_path, "wrong"), timeout=10)
        with pytest.raises(NotPermitted, match="the password is wrong"):
            await CupsServer(cups).queues()
        assert set(guard.offered) == {None, ("alice", "wrong")}
        assert len(guard.offered) <= 4


async def test_a_changed_password_counts_at_once(tmp_path: Path) -> None:
    with GuardedIpp("alice", "right") as guard:
        server = CupsServer(Cups(server=guard.address, username="alice", password=secret(tmp_path, "old")))
        with pytest.raises(NotPermitted):
            await server.queues()
        secret(tmp_path, "right")
        assert await server.queues() == []


@pytest.mark.parametrize(("encryption", "encrypted"), [("never", False), ("if-requested", False), ("required", True)])
async def test_tls_as_it_is_asked_for(guarded: Cupsd, encryption: str, encrypted: bool) -> None:
    before = guarded.error_log.read_text().count("Connection now encrypted")
    await CupsServer(Cups.model_validate({"server": guarded.address, "encryption": encryption})).queues()
    assert (guarded.error_log.read_text().count("Connection now encrypted") > before) is encrypted


async def test_required_tls_is_never_given_up(tmp_path: Path) -> None:
    """A server without TLS, or somebody in the middle who pretends so, hears no password."""
    with GuardedIpp("alice", "right") as guard:
        cups = Cups(
            server=guard.address,
            username="alice",
            password=secret(tmp_path, "right"),
            encryption="required",
            timeout=10,
        )
        with pytest.raises(PrintError, match="can't be reached"):
            await CupsServer(cups).queues()
        assert guard.offered == []
