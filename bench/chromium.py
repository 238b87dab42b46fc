"""A warm headless Chromium that prints pages, for comparison: Debian's, driven over a pipe.

Speaks the DevTools protocol through file descriptors 3 and 4 of the browser (`--remote-debugging-pipe`: JSON, each
message ended by a NUL), so it needs neither a port nor a library. One browser and one page stay open; a document is
set, waited for with its pictures, and printed with `Page.printToPDF` on the paper that its `@page` names.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.harness.process import SYSTEM_PATH

FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-extensions --mute-audio --remote-debugging-pipe""".split()  # noqa: SIM905
LONGEST = 60.0
"""Seconds that one answer may take."""

_READY = (
    "Promise.all([document.fonts.ready, ...[...document.images].map(i => i.decode().catch(() => 0))]).then(() => 1)"
)


def find_chromium() -> str | None:
    """Path of the browser, or None."""
    return shutil.which("chromium", path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


class Chromium:
    """One browser with one page."""

    async def start(self) -> None:
        """Starts it in an empty profile of its own, and opens the page."""
        program = find_chromium()
        assert program is not None, "Chromium is not installed: .ci/setup-bench does that"
        self._home = Path(tempfile.mkdtemp(prefix="slip-relay-chromium-"))
        ends = [_out_of_the_way(end) for end in (*os.pipe(), *os.pipe())]
        commands, to_browser, from_browser, answers = ends
        # A shell puts the two pipes where the browser looks for them; `exec` leaves no shell behind.
        shell = f'exec "$0" "$@" 3<&{commands} 4>&{answers} {commands}<&- {answers}>&-'
        self._process = await asyncio.create_subprocess_exec(
            *("bash", "-c", shell, program, *FLAGS, f"--user-data-dir={self._home}", "about:blank"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(commands, answers),
            start_new_session=True,
            env={**os.environ, "HOME": str(self._home)},
        )
        os.close(commands)
        os.close(answers)
        loop = asyncio.get_running_loop()
        self._answers = asyncio.StreamReader(limit=256 * 1024 * 1024)
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._answers), os.fdopen(from_browser, "rb", 0)
        )
        self._commands, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(to_browser, "wb", 0))
        self._number, self._session = 0, ""
        target = await self._ask("Target.createTarget", url="about:blank")
        attached = await self._ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        await self._ask("Page.enable")
        tree = await self._ask("Page.getFrameTree")
        self._frame = tree["frameTree"]["frame"]["id"]

    @property
    def pid(self) -> int:
        """The browser's process; the others are below it."""
        return self._process.pid

    async def pdf(self, html: str) -> bytes:
        """A page as PDF."""
        await self._ask("Page.setDocumentContent", frameId=self._frame, html=html)
        await self._ask("Runtime.evaluate", expression=_READY, awaitPromise=True)
        printed = await self._ask(
            "Page.printToPDF", preferCSSPageSize=True, printBackground=True, generateTaggedPDF=False
        )
        return base64.b64decode(printed["data"])

    async def stop(self) -> None:
        """Ends it and removes its profile."""
        with contextlib.suppress(TimeoutError, EOFError, RuntimeError, OSError):
            self._session = ""
            await self._ask("Browser.close")
        self._commands.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    async def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        self._commands.write(json.dumps(command).encode() + b"\0")
        async with asyncio.timeout(LONGEST):
            while True:  # events come between; none of them is needed
                answer = json.loads((await self._answers.readuntil(b"\0"))[:-1])
                if answer.get("id") == self._number:
                    break
        if "error" in answer:
            raise RuntimeError(f"Chromium refused {method}: {answer['error'].get('message')}")
        return dict(answer["result"])


def _out_of_the_way(descriptor: int) -> int:
    """The same pipe at a number over 9: 3 and 4 are the browser's."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved
