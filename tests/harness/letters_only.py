"""The appliance without printers: letters in, letters out, on 127.0.0.1, in one folder. It starts in a second.

For journeys about the spool. The service can be wrapped in another command, and have its spool elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.harness import toml
from tests.harness.appliance import Appliance, Refused, command
from tests.harness.institution import Institution, Ports
from tests.harness.next_hop import NextHop
from tests.harness.waiting import free_ports, until


class LettersOnly:
    """The service and its next hop. `async with LettersOnly(folder) as letters:`."""

    def __init__(
        self,
        folder: Path,
        *,
        spool: Path | None = None,
        extra: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        ports = Ports(free_ports(Ports.COUNT))
        folder.mkdir(parents=True, exist_ok=True)
        self.institution = Institution(folder, ports)
        self.spool = spool or self.institution.spool
        tables = self.institution.tables()
        del tables["printers"], tables["cups"]
        tables["spool"] = {"url": f"sqlite:///{self.spool}", "min_free": 0}
        self.institution.config.write_text(toml.dumps(toml.merged(tables, extra or {})), encoding="utf-8")
        self.next_hop = NextHop(ports.next_hop, folder / "next-hop")
        self.appliance = Appliance(
            self.institution.config, ports.smtp, folder, environment=environment, wrapper=wrapper
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.next_hop)
            stack.push_async_callback(self.appliance.stop)
            await self.appliance.start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def end(self, seconds: float = 30.0) -> None:
        """SIGTERM, and wait for its end; what watches it is left to end by itself."""
        os.kill(self.appliance.pid, signal.SIGTERM)
        await until(lambda: not self.appliance.alive, "the service to end", seconds=seconds)

    async def submit(self, message: bytes, recipient: str, *, seconds: float = 20.0) -> tuple[int, str]:
        """Hands a message in; gives the code and the text of the answer, whatever it is."""
        try:
            sending = self.appliance.submit(message, "alma@exlibrisgroup.example", [recipient])
            return 250, await asyncio.wait_for(sending, seconds)
        except Refused as refused:
            return refused.code, refused.text

    async def queue(self, *arguments: str, wrapper: Sequence[str] = ()) -> tuple[int, str]:
        """Runs `slip-relay queue`; gives its exit code and what it said."""
        child = await asyncio.create_subprocess_exec(
            *wrapper,
            *command(),
            "queue",
            *arguments,
            "-c",
            str(self.institution.config),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await child.communicate())[0].decode(errors="replace")
        assert child.returncode is not None
        return child.returncode, output


def letter(mark: str, recipient: str, size: int = 2000) -> bytes:
    """A plain letter with a numbered line for every 64 bytes, so that a hole in it shows."""
    head = (
        f"From: circulation@lib.example\r\nTo: {recipient}\r\nSubject: Your item\r\n"
        f"Message-ID: <{mark}@lib.example>\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\n\r\n"
    )
    lines = (f"{mark} {number:08d}".ljust(62, ".") + "\r\n" for number in range(max(1, size // 64)))
    return (head + "".join(lines)).encode()


def body(message: bytes) -> bytes:
    """What stands below the header."""
    return message.partition(b"\r\n\r\n")[2]
