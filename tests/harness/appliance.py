"""The real slip-relay process: started as an administrator would, and kept running as a service manager would.

`start` returns when its listeners answer. Under `supervise` it is started again whenever it dies, and `pid_file` always
names the process that runs now. `kill` is SIGKILL to that process alone: what it leaves behind is its own business
until `stop`, which ends everything.
"""

from __future__ import annotations

import asyncio
import os
import signal
import smtplib
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.harness.process import DiedEarly, Process
from tests.harness.waiting import LOCALHOST, TookTooLong, until

START_SECONDS = 30.0
LONGEST_PAUSE = 5.0


class Refused(RuntimeError):
    """The appliance did not take a message. Has the SMTP reply."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


class Appliance:
    """One slip-relay service with its configuration."""

    def __init__(
        self,
        config: Path,
        port: int,
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        """`environment` is added to the bench's own; `wrapper` is a command that ends by running what follows it."""
        self.port = port
        self.log = folder / "relay.log"
        self.pid_file = folder / "relay.pid"
        self.starts = 0
        "How often it was started."
        self._process = Process([*wrapper, *command(), "serve", "-c", str(config)], self.log, environment=environment)
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running service."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the service runs now."""
        return self._process.alive

    @property
    def exit_code(self) -> int | None:
        """How the service ended; negative is the signal that ended it."""
        return self._process.exit_code

    async def start(self) -> None:
        """Start it; returns when it greets. Raises DiedEarly, or TookTooLong, with the end of its log."""
        self._process.start()
        self.starts += 1
        self._write_pid()
        await until(
            self._greets, lambda: f"the appliance; its log ends:\n{self._process.log_tail()}", seconds=START_SECONDS
        )

    def supervise(self) -> None:
        """From now on, start it again whenever it dies."""
        self._supervisor = asyncio.create_task(self._keep_running(), name="supervisor of the appliance")

    async def stop(self, seconds: float = 30.0) -> int | None:
        """End the supervision and the service (SIGTERM, after `seconds` SIGKILL); gives its exit code."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
            self._supervisor = None
        code = await self._process.stop(seconds)
        self.pid_file.unlink(missing_ok=True)
        return code

    def hang_up(self) -> None:
        """SIGHUP: certificates and SPF names are looked at now."""
        os.kill(self.pid, signal.SIGHUP)

    async def kill(self) -> None:
        """SIGKILL, as in a crash; returns when the process is gone."""
        starts, pid = self.starts, self.pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda: self.starts > starts or not self.alive, "the appliance to die")

    async def restarted(self, starts: int, *, seconds: float = 30.0) -> None:
        """Wait until the supervisor has started it more than `starts` times and it greets."""
        await until(lambda: self.starts > starts, "the supervisor", seconds=seconds)
        await until(self._greets, "the appliance to come back", seconds=seconds)

    async def submit(
        self,
        message: bytes,
        mail_from: str,
        rcpt_tos: Sequence[str],
        *,
        port: int | None = None,
        login: tuple[str, str] | None = None,
    ) -> str:
        """Hand in a message as Alma would; gives the text of the 250 reply. Raises Refused.

        With `login` (user, password) the dialogue goes through STARTTLS and AUTH first, as on a submission port.
        """
        return await asyncio.to_thread(_submit, port or self.port, message, mail_from, list(rcpt_tos), login)

    async def _greets(self) -> bool:
        if not self._process.alive:
            raise self._process.died("starting")
        try:
            reader, writer = await asyncio.open_connection(LOCALHOST, self.port)
        except OSError:
            return False
        try:
            return (await asyncio.wait_for(reader.readline(), 5.0)).startswith(b"220 ")
        except (TimeoutError, OSError):
            return False
        finally:
            writer.close()

    async def _keep_running(self) -> None:
        pause = 0.1
        while True:
            await until(lambda: not self.alive, "never", seconds=float("inf"), every=0.05)
            print(f"the appliance ended with {self.exit_code}; starting it again", file=sys.stderr, flush=True)
            try:
                await self.start()
                pause = 0.1
            except (DiedEarly, TookTooLong) as error:
                print(error, file=sys.stderr, flush=True)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _write_pid(self) -> None:
        fresh = self.pid_file.with_suffix(".new")
        fresh.write_text(f"{self.pid}\n")
        os.replace(fresh, self.pid_file)


def command() -> list[str]:
    """How slip-relay is called: the command of this virtual environment, or the module when it is not installed."""
    script = Path(sys.executable).with_name("slip-relay")
    return [str(script)] if script.exists() else [sys.executable, "-m", "relay.cli"]


def _submit(port: int, message: bytes, mail_from: str, rcpt_tos: list[str], login: tuple[str, str] | None) -> str:
    with smtplib.SMTP(LOCALHOST, port, local_hostname="app02.eu07.example", timeout=60) as client:
        _expect(client.ehlo(), 250)
        if login is not None:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            _expect(client.starttls(context=context), 220)
            client.ehlo()
            client.login(*login)
        _expect(client.mail(mail_from), 250)
        for recipient in rcpt_tos:
            _expect(client.rcpt(recipient), 250)
        return _expect(client.data(message), 250)


def _expect(answer: tuple[int, bytes], code: int) -> str:
    text = answer[1].decode(errors="replace")
    if answer[0] != code:
        raise Refused(answer[0], text)
    return text
