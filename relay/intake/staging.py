"""Where messages are while they arrive: small ones in memory, large ones in a file without a name.

Promises: all together hold `intake.max_memory` in memory, and besides it one block for each client; what is more goes
to disk as it comes. No file is written on the event loop. A message that is refused, or whose client goes away, leaves
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from relay.config.settings import Intake
from relay.errors import Goodbye, Refusal
from relay.intake.examination import Examination
from relay.mail import status
from relay.mail.status import Reply
from relay.maillog import MailLog
from relay.spool.contents import SMALL, Content, LargeContent

TOO_MUCH = 1024 * 1024
"""Bytes beyond twice the largest message after which nobody waits for the end of one any more."""

_WRITERS = 2


@dataclass(slots=True)
class Arrived:
    """A message that has come in whole, as it is kept and sent: every line ends with CRLF."""

    content: Content
    header: bytes
    "Its header section."
    sha256: str
    _staging: Staging
    _in_memory: int
    _on_disk: int

    def close(self) -> None:
        """It is in the spool now, or nowhere: gives its room back. May be called twice."""
        if isinstance(self.content, LargeContent):
            self.content.close()
        self._staging.in_memory -= self._in_memory
        self._staging.on_disk -= self._on_disk
        self.content, self._in_memory, self._on_disk = b"", 0, 0


class Staging:
    """All messages that just arrive."""

    def __init__(
        self, settings: Intake, folder: Path | None, has_room: Callable[[int], bool], maillog: MailLog
    ) -> None:
        """`folder` is for large ones; None for the system's own for temporary files. `has_room` says whether the spool
        has room for so many bytes.
        """
        self.settings = settings
        self._folder = folder
        self._has_room = has_room
        self._maillog = maillog
        # Threads of its own: a disk that is slow to take a message must not keep others from being read and sent.
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="staging")
        self.in_memory = 0
        "Bytes that are held in memory."
        self.on_disk = 0
        "Bytes that are held in files."

    @property
    def is_full(self) -> bool:
        """Whether memory is used up: what comes goes to disk."""
        return self.in_memory > self.settings.max_memory

    def has_room(self, size: int) -> bool:
        """Whether the spool has room for a message of that many bytes, besides those that just arrive."""
        in_file = size // 2 if size > SMALL else 0  # that of its file is needed besides that in the spool, twice
        return self._has_room(size + in_file + self.on_disk)

    def sink(self) -> ContentSink:
        """A place for one message."""
        return ContentSink(self)

    def file(self) -> LargeContent:
        """A file for one message; it is made when something is written to it."""
        return LargeContent(self._folder)

    def begin(self, work: Callable[[], Reply | None]) -> Future[Reply | None]:
        """Has a file written."""
        return self._writers.submit(work)

    def trouble(self, error: OSError) -> None:
        """A file could not be written."""
        self._maillog.fault("intake", error)

    def close(self) -> None:
        """Nothing arrives any more."""
        self._writers.shutdown()


class ContentSink:
    """Takes one message in blocks. `finish` gives it; `discard` leaves nothing of it, unless it was finished."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._limit = int(staging.settings.max_message_size)
        self._examination = Examination(staging.settings)
        self._blocks: list[bytes] = []
        self._waiting = 0  # bytes in these blocks
        self._file: LargeContent | None = None
        self._on_disk = 0
        self._writing: Future[Reply | None] | None = None
        self.received = 0
        "Bytes that were taken, as they came."
        self.refusal: Reply | None = None
        "Why it is not kept, as soon as that is known; what still comes is counted and dropped."

    async def take(self, block: bytes) -> None:
        """Takes the next bytes. Raises Goodbye when they are far more than a message may have."""
        self.received += len(block)
        if self.received > 2 * self._limit + TOO_MUCH:
            raise Goodbye(status.too_big(self._limit))
        if self.refusal is not None:
            return
        if self.received > self._limit:
            self._refuse(status.too_big(self._limit))
            return
        self._blocks.append(block)
        self._waiting += len(block)
        self._staging.in_memory += len(block)
        if self._waiting > SMALL or self._staging.is_full:
            await self._to_disk(last=False)

    async def finish(self) -> Arrived:
        """The message, which is the caller's to close. Raises Refusal."""
        content: Content | None = None
        if self._file is not None:
            await self._to_disk(last=True)
            content = self._file
        elif self.refusal is None:
            content = self._examination.look(b"".join(self._blocks), last=True)
            self._refuse(self._examination.fault)
        if self.refusal is not None or content is None:
            raise Refusal(self.refusal or status.LOCAL_ERROR)
        examined = self._examination
        arrived = Arrived(content, examined.header, examined.sha256, self._staging, self._waiting, self._on_disk)
        self._blocks, self._waiting, self._file, self._on_disk = [], 0, None, 0
        return arrived

    def discard(self) -> None:
        """Leaves nothing of the message."""
        self._staging.in_memory -= self._waiting
        self._staging.on_disk -= self._on_disk
        file, self._file = self._file, None
        self._blocks, self._waiting, self._on_disk = [], 0, 0
        if file is not None and self._writing is not None:
            self._writing.add_done_callback(lambda _: file.close())  # at once, if nobody is just writing to it

    async def _to_disk(self, *, last: bool) -> None:
        """Moves what waits in memory to the file."""
        if self._file is None:
            self._file = self._staging.file()
        block, waited = b"".join(self._blocks), self._waiting
        self._blocks, self._waiting = [], 0
        file, before = self._file, self._on_disk
        self._writing = self._staging.begin(lambda: self._write(file, block, last=last))
        try:
            fault = await asyncio.wrap_future(self._writing)
        except OSError as error:
            self._staging.trouble(error)
            fault = status.SPOOL_FULL
        finally:
            self._staging.in_memory -= waited
        self._on_disk = len(file)
        self._staging.on_disk += self._on_disk - before
        self._refuse(fault)

    def _write(self, file: LargeContent, block: bytes, *, last: bool) -> Reply | None:
        """In a thread: writes what came in to the file; the reply where the message is not to be taken."""
        content = self._examination.look(block, last=last)
        if self._examination.fault is None and not self._staging.has_room(len(content)):
            return status.SPOOL_FULL
        file.append(content)
        return self._examination.fault

    def _refuse(self, reply: Reply | None) -> None:
        """The message is not taken, where there is a reply that says why."""
        if reply is not None:
            self.refusal = reply
            self.discard()
