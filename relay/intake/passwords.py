"""AUTH: whether a name and a password belong to a source (RFC 4954).

Promises: the answer takes as long for a name that does not exist as for one that does; a failure is answered late, and
so many of them lock an address out (`lockout`); the hashes of all clients together have CONCURRENT times the memory of
one (64 MiB as `slip-relay hash-password` makes them), and only the time that nothing else needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

from relay.config.settings import Config
from relay.config.sources import Source
from relay.errors import Goodbye, Refusal
from relay.intake.lockout import Lockout
from relay.mail import status
from relay.maillog import MailLog

CONCURRENT = 2
"""Hashes that are computed at the same time."""

NICENESS = 5
"""Of the threads that compute them (nice(2)): mail goes first."""

MAX_WAITING = 64
"""Clients that may wait for one; others are told to come again."""


class Passwords:
    """Checks names and passwords by one configuration."""

    def __init__(self, config: Config, maillog: MailLog) -> None:
        self._by_username = {source.username: source for source in config.sources if source.username}
        self._decoy = _decoy(source.password_hash for source in config.sources if source.password_hash)
        self._lockout = Lockout(config.auth)
        self._maillog = maillog
        self._places = asyncio.Semaphore(CONCURRENT)
        self._threads = ThreadPoolExecutor(CONCURRENT, "passwords", initializer=_give_way)
        self._waiting = 0

    async def source_of(self, client: str, username: str, password: str) -> Source | None:
        """The source of a user name and password; None, after a while, when they are wrong. Raises Refusal when
        passwords of this client's address are not looked at now.
        """
        if self._waiting >= MAX_WAITING:
            raise Refusal(status.AUTH_BUSY)
        self._waiting += 1
        try:
            async with self._places:
                # Asked with a place at hand: what was sent at the same moment must not be tried all at once.
                self.check_open_to(client)
                loop = asyncio.get_running_loop()
                source = await loop.run_in_executor(self._threads, self._verified, username, password)
                delay = 0.0 if source is not None else self._lockout.failed(client)
        finally:
            self._waiting -= 1
        if source is not None:
            self._lockout.succeeded(client)
            return source
        if self._lockout.is_locked(client):
            self._maillog.locked_out(client)
        await asyncio.sleep(delay)
        return None

    def check_open_to(self, client: str) -> None:
        """Raises Refusal when an address is locked out."""
        if self._lockout.is_locked(client):
            raise Goodbye(status.LOCKED_OUT)

    def _verified(self, username: str, password: str) -> Source | None:
        source = self._by_username.get(username)
        known = source.password_hash if source is not None else None
        try:
            PasswordHasher().verify(known or self._decoy, password)
        except (VerificationError, InvalidHashError):
            return None
        return source


def _give_way() -> None:
    """On Linux each thread has a niceness of its own, and those that argon2 begins take it over."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _decoy(hashes: Iterable[str]) -> str:
    """A hash for names that do not exist, as costly as the costliest of the configured ones."""
    costs = []
    for known in hashes:
        try:
            found = extract_parameters(known)
        except InvalidHashError:
            continue
        costs.append((found.time_cost * found.memory_cost, found))
    if not costs:
        return PasswordHasher().hash("no such user")
    most = max(costs, key=lambda cost: cost[0])[1]
    return PasswordHasher(
        time_cost=most.time_cost,
        memory_cost=most.memory_cost,
        parallelism=most.parallelism,
        hash_len=most.hash_len,
        salt_len=most.salt_len,
        type=most.type,
    ).hash("no such user")
