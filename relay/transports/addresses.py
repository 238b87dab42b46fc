"""Addresses of smarthosts, as the system knows their names: from /etc/hosts too.

Promises: once a name has been asked for, nobody waits for the DNS as long as some host has an address; what is known
is used until there is something newer, so that a DNS that fails costs no mail.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from relay.errors import DnsError

GOOD_FOR = 30.0
"""Seconds until a name is asked for again; the system does not tell how long its answer is good."""


@dataclass(frozen=True, slots=True)
class _Answer:
    addresses: tuple[str, ...]
    error: str
    asked_at: float


class Addresses:
    """What is known of the names of one next hop."""

    def __init__(self) -> None:
        self._known: dict[str, _Answer] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def of(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The addresses of each name, IPv6 first; none for one that has none, as far as that is known.

        Raises DnsError when none of them has any.
        """
        asked = {name: task for name in names if (task := self._ask(name)) is not None}
        if asked:
            await self._wait(names, asked)
        known = {name: self._known[name].addresses for name in names}
        if not any(known.values()):
            raise DnsError("; ".join(dict.fromkeys(self._known[name].error for name in names)))
        return known

    async def _wait(self, names: Sequence[str], asked: Mapping[str, asyncio.Task[None]]) -> None:
        first = [task for name, task in asked.items() if name not in self._known]
        if first:
            await asyncio.wait(first)
        if not any(self._known[name].addresses for name in names):
            await asyncio.wait(asked.values())

    def close(self) -> None:
        """Nobody waits any more."""
        for task in self._asking.values():
            task.cancel()

    def _ask(self, name: str) -> asyncio.Task[None] | None:
        """The look-up of a name under way, if one is due; an address needs none."""
        known = self._known.get(name)
        if known is not None and time.monotonic() - known.asked_at < GOOD_FOR:
            return None
        if name not in self._asking:
            if _is_address(name):
                self._known[name] = _Answer((name,), "", float("inf"))
                return None
            self._asking[name] = asyncio.create_task(self._look_up(name), name=f"address of {name}")
        return self._asking[name]

    async def _look_up(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        before = self._known.get(name)
        try:
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            kept = before.addresses if before is not None else ()
            self._known[name] = _Answer(kept, f"{name} can't be reached: {why}", time.monotonic())
        else:
            found.sort(key=lambda each: each[0] is not socket.AF_INET6)
            addresses = tuple(dict.fromkeys(str(each[4][0]) for each in found))
            self._known[name] = _Answer(addresses, "", time.monotonic())
        finally:
            del self._asking[name]


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
