"""OAuth access tokens for AUTH XOAUTH2 (RFC 6750), from a file that somebody renews or from a program that prints one.

Promises: a program runs once for all connections that wait for its token, well or badly, without a shell, off the event
loop, within its time; what it or the file says is part of no message and of no log line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import time
from dataclasses import dataclass

from relay.config.next_hops import Token
from relay.errors import CredentialsMissing

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750 2.1."""

LONGEST = 64 * 1024
"""Bytes that a program may print."""

EARLY = 60.0
"""Seconds before its end at which a token is not used any more, or half of its time where that is shorter."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A token, or a password, and whether it was had just now: if so, another one would be no better."""

    text: str
    is_fresh: bool = True

    def __repr__(self) -> str:
        return "Credential(...)"


class Tokens:
    """The tokens of one next hop."""

    def __init__(self, settings: Token) -> None:
        self._settings = settings
        self._asking: asyncio.Task[Credential] | None = None
        self._kept = ""
        self._good_until = 0.0

    async def current(self) -> Credential:
        """The token to log in with now. Raises CredentialsMissing when there is none to be had."""
        if self._settings.file is not None:
            return Credential(_of_file(self._settings))
        if self._kept and time.monotonic() < self._good_until:
            return Credential(self._kept, is_fresh=False)
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name=f"token by {self._program}")
            self._asking.add_done_callback(self._asked)
        return await asyncio.shield(self._asking)

    def refused(self, token: Credential) -> None:
        """The host does not take it: the program is asked for another one."""
        if token.text == self._kept:
            self._good_until = 0.0

    async def _ask(self) -> Credential:
        printed = await self._run()
        self._kept, lifetime = _read(printed, f"what {self._program} printed")
        lifetime = self._settings.lifetime if lifetime is None else lifetime
        self._good_until = time.monotonic() + lifetime - min(EARLY, lifetime / 2)
        return Credential(self._kept)

    def _asked(self, task: asyncio.Task[Credential]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # told to those who waited, if somebody still did

    @property
    def _program(self) -> str:
        assert self._settings.command is not None, "the configuration was checked"
        return self._settings.command[0]

    async def _run(self) -> bytes:
        assert self._settings.command is not None, "the configuration was checked"
        timeout = self._settings.timeout
        try:
            process = await asyncio.create_subprocess_exec(
                *self._settings.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise CredentialsMissing(
                f"the token can't be had: {self._program} can't be run: {error.strerror}"
            ) from None
        try:
            async with asyncio.timeout(timeout):
                printed = await _all_of(process)
                code = await process.wait()
        except TimeoutError:
            await _end(process)
            raise CredentialsMissing(f"the token can't be had: {self._program} took more than {timeout:g} s") from None
        except BaseException:
            await _end(process)
            raise
        if code:
            ended = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
            raise CredentialsMissing(f"the token can't be had: {self._program} {ended}; run it as the service does")
        return printed


async def _all_of(process: asyncio.subprocess.Process) -> bytes:
    """What it prints to its end, or somewhat more than may be."""
    assert process.stdout is not None
    printed = b""
    while len(printed) <= LONGEST and (block := await process.stdout.read(LONGEST)):
        printed += block
    if len(printed) > LONGEST:
        await _end(process)
        raise CredentialsMissing("the token can't be had: its program does not stop printing")
    return printed


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends the program, and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _of_file(settings: Token) -> str:
    assert settings.file is not None
    try:
        content = settings.file.read_bytes()
    except OSError as error:
        raise CredentialsMissing(f"the token can't be had: {settings.file} can't be read: {error.strerror}") from None
    return _read(content, f"what stands in {settings.file}")[0]


def _read(content: bytes, where: str) -> tuple[str, float | None]:
    """The token, and the seconds for which it is good if that is told: of JSON (RFC 6749 5.1), or of a first line."""
    text = content[: LONGEST + 1].decode("utf-8", "replace").strip()
    token, lifetime = text.split("\n", 1)[0].strip(), None
    if text.startswith("{"):
        try:
            answer = json.loads(text)
        except ValueError:
            answer = {}
        token = answer.get("access_token", "")
        lifetime = _seconds(answer.get("expires_in"))
    if not isinstance(token, str) or not _TOKEN.fullmatch(token) or len(content) > LONGEST:
        raise CredentialsMissing(f"the token can't be had: {where} is no access token")
    return token, lifetime


def _seconds(value: object) -> float | None:
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return seconds if 0 < seconds < float("inf") else None
