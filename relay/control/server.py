"""The control socket of the running service: takes orders of people on this machine.

Does: listens on a unix socket of mode 0600, and asks the kernel who is at the other end: root, or the account that the
service runs as. Reads requests line by line, each bounded in size and time, and answers each.
Promises: what is not a request gets an error and harms nobody; an order that was begun is ended, logged and answered
before the service stops. A socket that nobody answers at was left by a crash and is replaced; one that somebody
answers at is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from relay.control import protocol
from relay.control.desk import Desk, account
from relay.control.place import reachable
from relay.errors import OrderError, RelayError, StartError
from relay.maillog import MailLog

MAX_PEERS = 16
"""Connections at the same time."""

REQUEST_TIMEOUT = 30.0
"""Seconds for a request to come, and for an answer to be taken."""

STOP_TIMEOUT = 5.0
"""Seconds that orders get to end when the service stops."""

_PEER = struct.Struct("3i")  # struct ucred: process, user, group


class ControlSocket:
    """Listens from `open` to `close`."""

    def __init__(self, path: Path, desk: Desk, questions: Mapping[str, Callable[[], object]], maillog: MailLog) -> None:
        """`questions` gives what is told to each, to be shown as JSON."""
        self._path = path
        self._desk = desk
        self._questions = questions
        self._maillog = maillog
        self._server: asyncio.Server | None = None
        self._identity: tuple[int, int] | None = None
        self._peers: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listens. Raises StartError when the socket can't be made, or is another service's."""
        try:
            listening = self._bind()
        except OSError as error:
            raise StartError(
                f"the control socket {self._path} can't be made: {error.strerror or error}; "
                "its folder must exist and be writable by the service (control.socket)"
            ) from None
        self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=protocol.MAX_REQUEST)

    async def close(self) -> None:
        """Takes no more orders, and lets those end that were begun."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        with contextlib.suppress(OSError):
            if _identity(self._path) == self._identity:
                self._path.unlink()
        for peer in self._peers - self._busy:
            peer.cancel()
        if self._peers:
            _, late = await asyncio.wait(self._peers, timeout=STOP_TIMEOUT)
            for peer in late:
                peer.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _bind(self) -> socket.socket:
        """The socket, in the place of one that nobody answers at; from the first moment only its owner may use it."""
        if _somebody_answers(self._path):
            raise StartError(f"another service answers at the control socket {self._path} (control.socket)")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            with reachable(fresh) as name:
                listening.bind(name)
            fresh.chmod(0o600)
            listening.listen(MAX_PEERS)
            fresh.replace(self._path)
            self._identity = _identity(self._path)
        except OSError:
            listening.close()
            fresh.unlink(missing_ok=True)
            raise
        return listening

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._peers.add(task)
        try:
            if (refusal := self._refusal(writer.get_extra_info("socket"))) is not None:
                await _say(writer, protocol.write_answer(refusal))
            else:
                await self._talk(reader, writer, task)
        except (TimeoutError, OSError, asyncio.CancelledError):
            pass
        except Exception as error:
            self._maillog.fault("control", error)
        finally:
            self._peers.discard(task)
            self._busy.discard(task)
            writer.close()

    def _refusal(self, peer: socket.socket) -> OrderError | None:
        if _user(peer) not in (0, os.geteuid()):
            return OrderError("orders are taken from root and from the account of the service only")
        if len(self._peers) > MAX_PEERS:
            return OrderError("too many are giving orders just now; try again in a moment")
        return None

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        user = _user(writer.get_extra_info("socket"))
        while self._server is not None:
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT):
                    line = await reader.readline()
            except ValueError:
                too_long = OrderError(f"a request has at most {protocol.MAX_REQUEST} bytes")
                await _say(writer, protocol.write_answer(too_long))
                return
            if not line.endswith(b"\n"):
                return
            self._busy.add(task)
            await _say(writer, await self._answer(line, user))
            self._busy.discard(task)

    async def _answer(self, line: bytes, user: int) -> bytes:
        asked = protocol.read_question(line)
        try:
            if asked is not None and asked in self._questions:
                return protocol.write_told(asked, self._questions[asked]())
            request = protocol.read_request(line)
            return protocol.write_answer(await self._desk.carry_out(request, account(user, request.on_behalf_of)))
        except OrderError as error:
            return protocol.write_answer(error)
        except RelayError as error:
            return protocol.write_answer(OrderError(f"nothing was changed: {error}"))


def _user(peer: socket.socket) -> int:
    """Who is at the other end, by the word of the kernel."""
    _, user, _ = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(user)


async def _say(writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(answer)
    async with asyncio.timeout(REQUEST_TIMEOUT):
        await writer.drain()


def _somebody_answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(5.0)
        try:
            with reachable(path) as name:
                asking.connect(name)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except TimeoutError:
            pass
    return True


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
