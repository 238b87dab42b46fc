"""Mail that flows in while things break: SMTP clients that do what a mail server does with what it could not hand in.

A client offers each message until it hears a 250: what was refused with 4yz, and what a lost connection left without an
answer, it offers again, to the next node if there are several. So a message may be accepted twice, which the service
can't know (RFC 1047); what a client was told, it remembers.

Letters are of all kinds: small and large, for one recipient and for three, for recipients that the next hop refuses,
and some that it puts off until they expire. Slips are handed in only as fast as the printers print.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.harness import samples
from tests.harness.institution import PRINT_DOMAIN
from tests.harness.letters_only import letter
from tests.harness.printers import VirtualPrinter
from tests.harness.waiting import LOCALHOST

LARGE = 300_000
PER_SESSION = 7
ANSWER_SECONDS = 60.0
PAUSE = 0.05
PRINTER_PATIENCE = 30.0


class NotAnswered(Exception):
    """The connection was lost, or there was none: nobody knows whether the message was taken."""


class PutOff(Exception):
    """The service said 4yz."""


class Rejected(AssertionError):
    """The service said 5yz to a message that is in order."""


@dataclass(slots=True)
class Item:
    """One message, and what its client was told about it."""

    mark: str
    recipients: tuple[str, ...]
    message: bytes
    answered: str = ""
    "The queue id in the 250; empty while there was none."
    answered_at: float = 0.0
    port: int = 0
    "Where it was taken."
    cut_off: int = 0
    "Tries that were left without an answer."
    put_off: list[str] = field(default_factory=list)
    "Replies 4yz."

    @property
    def sender(self) -> str:
        """Its reverse-path, where DSNs go: no two items have the same."""
        return f"{self.mark}@staff.example"

    @property
    def message_id(self) -> str:
        """What stands in its Message-ID field."""
        return f"<{self.mark}@lib.example>"


class Traffic:
    """Clients that run from entering to `stop`. `async with Traffic([port], printers) as traffic:`."""

    def __init__(
        self,
        ports: Sequence[int],
        printers: Sequence[VirtualPrinter] = (),
        *,
        letters: int = 3,
        pause: float = PAUSE,
        name: str = "m",
    ) -> None:
        """`letters` clients send letters, and one for each printer sends slips; `pause` is between two messages."""
        self.items: list[Item] = []
        self.rejected: list[str] = []
        self._ports = list(ports)
        self._printers = list(printers)
        self._letters = letters
        self._pause = pause
        self._name = name
        self._numbers = itertools.count()
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        work = [self._send(n, self._next_letter) for n in range(self._letters)]
        work += [self._print(n, printer) for n, printer in enumerate(self._printers)]
        self._tasks = [asyncio.create_task(each) for each in work]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self) -> None:
        """No new messages; returns when every message was answered. The service has to run."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        assert not self.rejected, self.rejected

    @property
    def answered(self) -> list[Item]:
        """What was answered with 250."""
        return [item for item in self.items if item.answered]

    async def _send(self, number: int, make: Callable[[], Item]) -> None:
        client = Client(self._ports, number)
        while not self._stopping.is_set():
            await self._hand_in(client, make())
            await asyncio.sleep(self._pause)
        client.close()

    async def _print(self, number: int, printer: VirtualPrinter) -> None:
        client = Client(self._ports, number)
        made = 0
        while not self._stopping.is_set():
            await self._hand_in(client, self._slip(printer.name))
            made += 1
            patience = time.monotonic() + PRINTER_PATIENCE
            # ASYNC110: paper comes in its own time.
            while len(printer.papers()) < made - 1 and time.monotonic() < patience and not self._stopping.is_set():  # noqa: ASYNC110
                await asyncio.sleep(PAUSE)
        client.close()

    async def _hand_in(self, client: Client, item: Item) -> None:
        self.items.append(item)
        while not item.answered:
            try:
                item.answered, item.port = await client.offer(item), client.port
                item.answered_at = time.monotonic()
                return
            except NotAnswered:
                item.cut_off += 1
            except PutOff as reply:
                item.put_off.append(str(reply))
            except Rejected as reply:
                self.rejected.append(f"{item.mark}: {reply}")
                return
            client.go_to_next_node()
            await asyncio.sleep(PAUSE * (1 + random.random()))

    def _next_letter(self) -> Item:
        number = next(self._numbers)
        mark = f"{self._name}{number}"
        match number % 12:
            case 1:
                recipients = tuple(f"{mark}-{n}@patron.example" for n in range(3))
            case 4:
                recipients = (f"permfail-{mark}@patron.example",)
            case 7:
                recipients = (f"tempfail-{mark}@doomed.example",)
            case _:
                recipients = (f"{mark}@patron.example",)
        size = LARGE if number % 12 == 9 else random.choice((500, 2_000, 20_000))
        return Item(mark, recipients, letter(mark, recipients[0], size))

    def _slip(self, printer: str) -> Item:
        mark = f"{self._name}{next(self._numbers)}-{printer}"
        recipient = f"{printer}@{PRINT_DOMAIN}"
        return Item(mark, (recipient,), samples.transit_slip(recipient, message_id=f"<{mark}@lib.example>"))


class Client:
    """One SMTP session after the other."""

    def __init__(self, ports: list[int], number: int) -> None:
        self._ports = ports
        self._turn = number
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._offered = 0

    @property
    def port(self) -> int:
        """The node that it speaks to."""
        return self._ports[self._turn % len(self._ports)]

    def go_to_next_node(self) -> None:
        """Ends the session; the next one is with another node."""
        self.close()
        self._turn += 1

    def close(self) -> None:
        """Ends the session without a word, as clients do."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None
        self._offered = 0

    async def offer(self, item: Item) -> str:
        """Hands a message in; gives its queue id. Raises NotAnswered, PutOff, Rejected."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._offer(item)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
            self.close()
            raise NotAnswered(str(error)) from None

    async def _offer(self, item: Item) -> str:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(LOCALHOST, self.port)
            await self._answer(220)
            await self._say("EHLO app02.eu07.example", 250)
        await self._say(f"MAIL FROM:<{item.sender}>", 250)
        for recipient in item.recipients:
            await self._say(f"RCPT TO:<{recipient}>", 250)
        await self._say("DATA", 354)
        self._writer.write(item.message.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        await self._writer.drain()
        queue_id = (await self._answer(250)).rpartition(" ")[2]
        self._offered += 1
        if self._offered >= PER_SESSION:
            self.go_to_next_node()
        return queue_id

    async def _say(self, line: str, code: int) -> None:
        assert self._writer is not None
        self._writer.write(line.encode("ascii") + b"\r\n")
        await self._answer(code)

    async def _answer(self, code: int) -> str:
        assert self._reader is not None
        while (line := (await self._reader.readuntil(b"\r\n")).decode())[3:4] == "-":
            pass
        line = line.rstrip()
        if line.startswith(str(code)):
            return line
        raise (PutOff if line.startswith("4") else Rejected)(line)
