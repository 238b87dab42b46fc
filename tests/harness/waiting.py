"""Waiting for a condition, never for a time; and finding free ports.

`until` asks again and again and gives up at a deadline with a sentence that says what it waited for.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import socket
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import TypeVar, overload

T = TypeVar("T")

LOCALHOST = "127.0.0.1"
PLACES = 8
"""How many test processes find ports without meeting each other."""


class TookTooLong(AssertionError):
    """A condition did not come true in time. The message says which."""


@overload
async def until(
    condition: Callable[[], Coroutine[object, object, T]],
    what: str | Callable[[], str],
    *,
    seconds: float = ...,
    every: float = ...,
) -> T: ...


@overload
async def until(
    condition: Callable[[], T],
    what: str | Callable[[], str],
    *,
    seconds: float = ...,
    every: float = ...,
) -> T: ...


async def until(
    condition: Callable[[], object],
    what: str | Callable[[], str],
    *,
    seconds: float = 30.0,
    every: float = 0.02,
) -> object:
    """The first true value of `condition` (a plain or an async function); TookTooLong after `seconds`.

    `what` ends the sentence "waited N s for ..."; as a function it is called when the wait has failed.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if time.monotonic() >= deadline:
            raise TookTooLong(f"waited {seconds:g} s for {what() if callable(what) else what}")
        await asyncio.sleep(every)


def port_is_open(port: int) -> bool:
    """Whether something on this machine takes TCP connections on that port."""
    with socket.socket() as client:
        client.settimeout(1.0)
        return client.connect_ex((LOCALHOST, port)) == 0


def busy_ports(ports: Iterable[int]) -> list[int]:
    """Those of the ports that can't be listened on now, over TCP or UDP."""
    return [port for port in ports if not _is_free(port)]


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row, below the range that the kernel gives to clients.

    Tests that run side by side (pytest-xdist) look in places of their own, or two would find the same ones.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    begin = 10_000 + worker % PLACES * (22_000 // PLACES)
    for _ in range(200):
        first = random.randrange(begin, begin + 22_000 // PLACES - count)
        if not busy_ports(range(first, first + count)):
            return first
    raise OSError(f"there are no {count} free ports in a row")


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as candidate:
            if kind == socket.SOCK_STREAM:
                candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind((LOCALHOST, port))
            except OSError:
                return False
    return True
