"""Gives orders for the command line: to the running service, or to the spool itself when no service runs.

Promises: an SQLite spool has one writer, so while a service has it, orders go through the service or not at all. A
spool on a server is written to directly where no service of this machine answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from relay.config.settings import Config
from relay.control import protocol
from relay.control.desk import Desk, account
from relay.control.place import reachable, socket_path
from relay.control.protocol import AnyRequest
from relay.errors import NoService, OrderError, StartError
from relay.maillog import MailLog
from relay.spool.engine import Place
from relay.spool.orders import Result
from relay.spool.store import Store

ANSWER_TIMEOUT = 120.0
"""Seconds for an answer: a server that is away is waited for by the service."""

Give = Callable[[AnyRequest], Result]
"""Gives an order. Raises OrderError when it was not carried out, or nobody can tell."""


@contextlib.contextmanager
def orders_for(config: Config) -> Iterator[Give]:
    """Where orders are taken. Raises OrderError or StartError when they are taken nowhere."""
    path = socket_path(config)
    connection = _connect(path)
    if connection is not None:
        with connection, connection.makefile("rb") as answers:
            yield lambda request: _ask(connection, answers.readline, request)
        return
    with _without_service(config, path) as give:
        yield give


def metrics_of(config: Config) -> str:
    """What the running service has counted. Raises OrderError when none runs, or it does not answer."""
    return str(_told(config, protocol.METRICS, "it counts while it runs"))


def sources_of(config: Config) -> list[dict[str, Any]]:
    """Who may send by what the running service knows (`relay.control.sources`). Raises OrderError as `metrics_of`."""
    told = _told(config, protocol.SOURCES, "it looks SPF names up while it runs")
    if not isinstance(told, list):
        raise OrderError("the service gave an answer that can't be read")
    return told


def take_keys(config: Config) -> dict[str, list[str]]:
    """Has the running service take its signing keys anew; what signs then, by institution. Raises NoService, or
    OrderError when it can't, and signs as before.
    """
    told = _told(config, protocol.KEYS, "nothing is signed just now")
    if not isinstance(told, dict):
        raise OrderError("the service gave an answer that can't be read")
    return told


def trials_of(config: Config) -> dict[str, list[dict[str, Any]]]:
    """What the running service saw of its test letters (`relay.control.trials`). Raises OrderError as `metrics_of`."""
    told = _told(config, protocol.TRIALS, "it sends test letters while it runs")
    if not isinstance(told, dict):
        raise OrderError("the service gave an answer that can't be read")
    return told


def _told(config: Config, what: str, why: str) -> Any:
    path = socket_path(config)
    connection = _connect(path)
    if connection is None:
        raise NoService(f"no service answers at {path}: {why}")
    with connection, connection.makefile("rb") as answers:
        return protocol.read_told(what, _said(connection, answers.readline, protocol.write_question(what)) or b"")


def on_behalf_of() -> str:
    """The account for which root speaks, where sudo says so."""
    name = os.environ.get("SUDO_USER", "")
    return name if os.geteuid() == 0 and protocol.ACCOUNT.fullmatch(name) else ""


def _connect(path: Path) -> socket.socket | None:
    """A connection to the service; None when none is running."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_TIMEOUT)
    try:
        with reachable(path) as name:
            connection.connect(name)
        return connection
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        if isinstance(error, PermissionError):
            raise OrderError(
                f"orders are taken from root and from the account of the service only (control socket {path})"
            ) from None
        raise OrderError(f"the service can't be reached at {path}: {error.strerror or error}") from None


def _ask(connection: socket.socket, readline: Callable[[int], bytes], request: AnyRequest) -> Result:
    line = _said(connection, readline, protocol.write_request(request))
    if line is None:
        raise OrderError("the service gave no answer: the order may have been carried out or not; look at the queue")
    return protocol.read_answer(line)


def _said(connection: socket.socket, readline: Callable[[int], bytes], request: bytes) -> bytes | None:
    """The line that answers a request; None when there came none."""
    with contextlib.suppress(OSError):  # it may have said no already, and gone
        connection.sendall(request)
    try:
        line = readline(protocol.MAX_ANSWER)
    except OSError:
        return None
    return line if line.endswith(b"\n") else None


@contextlib.contextmanager
def _without_service(config: Config, path: Path) -> Iterator[Give]:
    """Carries orders out here. The service, should it start meanwhile, finds the lock of an SQLite spool taken."""
    place = Place.of(config.spool)
    if place.path is not None and not place.path.exists():
        raise OrderError(f"there is no spool at {place}; the service makes it at its first start")
    store = Store(place, lease=config.spool.lease)
    try:
        store.open()
    except StartError as error:
        raise OrderError(f"{error}; no service answers at {path}") from None
    desk = Desk(config, store, MailLog.of(config), lambda: None)
    try:
        with asyncio.Runner() as loop:
            yield lambda request: loop.run(desk.carry_out(request, account(os.getuid(), request.on_behalf_of)))
    finally:
        store.close()
