"""The real service, made to die by its own hand at a chosen point of the journey.

    python -m tests.harness.crash_points slip-relay serve -c CONFIG

runs what follows it in this process, after it has laid tripwires around the service's classes; the service itself knows
nothing of them. Each tripwire is a named point (`points()` has all): before and after each commit, and within its
transaction when all is written; before and after each command to the next hop; between the final dot and its answer;
around each question to CUPS, within a document, within a dialogue with a client.

The file ORDER says where to die: `{"point": "MAIL: before", "pass": 2}` is the second time that somebody gets there.
The process then kills itself with SIGKILL; with `"signal": "STOP"` it only falls asleep. With `"ahead": 86400` the
clock of the printers' hours is a day ahead, so that what waits for a time comes out now.

The file DIARY is told, in lines `PID WHAT OF`, what a crash leaves in doubt, so that each duplicate can be explained:
`dot` before a letter is written to the next hop and `settled` after its commit (or `lease-lost`), `taking` before a
message is committed and `answered` after its 250, and `died` where it died; and the name of its `node`.

`SABOTAGE` are faults that are put into the service on purpose, to show that they would be found.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import aiosmtplib

from relay import app
from relay.delivery import runner
from relay.errors import LeaseLost
from relay.intake.session import SmtpSession
from relay.mail.status import Reply
from relay.printing.cups import CupsServer
from relay.printing.witness import Witness
from relay.slips.pool import RenderPool
from relay.spool import commit, leases, migrations, writes
from relay.spool.records import Delivery, NewMessage, Outcome
from relay.spool.store import Store
from relay.transports.dialogue import Dialogue
from relay.transports.printer import PrinterTransport
from relay.transports.smtp import SmtpTransport

ORDER, DIARY = "CRASH_ORDER", "CRASH_DIARY"
"""Names in the environment of the two files."""

VERBS = (
    "accept",
    "claim",
    "claim_overdue",
    "begin",
    "begin_job",
    "record_job",
    "forget_job",
    "pending",
    "settle",
    "sort",
    "put_off",
    "give_up",
    "warned",
    "renew",
    "release",
)
"""The verbs of the store, each a commit."""

IN_BATCHES = ("claim_batch", "bundle", "part", "begin_bundle")
"""Those of what waited for a printer; no crash of `points()` comes by, for that takes a clock that is `ahead`."""

METHODS = {"begin": "begin_and_read"}
"""What a verb is called in the store, where it has another name."""

STARTING = ("schema: written", "open: before", "open: written", "open: committed")
CHECKPOINT = ("checkpoint: before", "checkpoint: after")
STOPPING = ("sign out: before", "sign out: written")
COMMANDS = ("EHLO", "STARTTLS", "MAIL", "RCPT", "DATA", "RSET")
DIALOGUE = ("connection", "EHLO", "MAIL", "RCPT", "DATA")
QUESTIONS = ("queues", "create_job", "send_document", "job", "find_job", "cancel_job")
ASKED_OF_DEVICE = "jobs_named"
NEXT_HOP = (
    "next hop connection: before",
    "next hop connection: greeted",
    *(f"next hop {name}: {when}" for name in COMMANDS for when in ("before", "answered")),
    "dot: before",
    "dot: sent, no answer",
    "dot: answered, not settled",
)
CLIENT = (
    *(f"client {name}: {when}" for name in DIALOGUE for when in ("before", "answered")),
    "250: before",
    "250: sent",
)
PRINTING = (
    "describe: before",
    "describe: after",
    "render: before",
    "render: after",
    *(f"{name}: {when}" for name in (*QUESTIONS, ASKED_OF_DEVICE) for when in ("before", "answered")),
    "document: begun",
    "document: half sent",
    "document: not ended",
)


def points() -> list[str]:
    """All points, in about the order of the journey."""
    commits = [f"{verb}: {when}" for verb in VERBS for when in ("before", "written", "committed")]
    return [*STARTING, *CLIENT, *commits, *CHECKPOINT, *NEXT_HOP, *PRINTING, *STOPPING]


class Tripwires:
    """Where this process is to die, and its diary."""

    def __init__(self, point: str | None, passes: int, diary: Path, sends: signal.Signals = signal.SIGKILL) -> None:
        self.point = point
        self._left = passes
        self._sends = sends
        self._lock = threading.Lock()
        self._diary = os.open(diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def pass_by(self, point: str) -> None:
        """Somebody gets to a point; for the last time, if it is the one."""
        if point != self.point:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self.note("died" if self._sends == signal.SIGKILL else "asleep", point)
                os.kill(os.getpid(), self._sends)

    def note(self, what: str, of: str) -> None:
        """A line in the diary: it is with the kernel, and so outlives this process."""
        os.write(self._diary, f"{os.getpid()} {what} {of}\n".encode())


_verb: ContextVar[str] = ContextVar("verb", default="")
_delivery: ContextVar[str] = ContextVar("delivery", default="")


def lay(wires: Tripwires) -> None:
    """Lays all tripwires."""
    _around_the_store(wires)
    _around_start_and_stop(wires)
    _around_the_next_hop(wires)
    _around_clients(wires)
    _around_printing(wires)


def _replace(owner: Any, name: str, made: Callable[[Any], Any]) -> None:
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(made(original)))


def _around(wires: Tripwires, owner: Any, name: str, before: str, after: str) -> None:
    def made(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def watched(*args: Any, **named: Any) -> Any:
            wires.pass_by(before)
            result = await original(*args, **named)
            wires.pass_by(after)
            return result

        return watched

    _replace(owner, name, made)


# --- the spool


def _around_the_store(wires: Tripwires) -> None:
    for verb in (*VERBS, *IN_BATCHES):
        _replace(Store, METHODS.get(verb, verb), functools.partial(_watched_verb, wires, verb))

    def made(original: Callable[..., Any]) -> Callable[..., Any]:
        def post(self: commit.GroupCommit, work: Callable[[Any], Any], size: int = 0, *, urgent: bool = True) -> Any:
            verb = _verb.get()

            def watched(connection: Any) -> Any:
                result = work(connection)
                if _did_something(verb, result):
                    wires.pass_by(f"{verb}: written")
                return result

            return original(self, watched if verb else work, size, urgent=urgent)

        return post

    _replace(commit.GroupCommit, "post", made)

    def checkpoint(original: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any) -> Any:
            wires.pass_by("checkpoint: before")
            result = original(*args)
            wires.pass_by("checkpoint: after")
            return result

        return watched

    _replace(commit, "checkpoint", checkpoint)
    commit.CHECKPOINT_AFTER = 256 * 1024  # else no crash test would come to one


def _watched_verb(wires: Tripwires, verb: str, original: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    async def watched(self: Store, *args: Any, **named: Any) -> Any:
        if verb == "accept":
            wires.note("taking", args[0].message.queue_id)
        if verb != "release" or args[0]:
            wires.pass_by(f"{verb}: before")
        token = _verb.set(verb)
        try:
            result = await original(self, *args, **named)
        except LeaseLost:
            wires.note("lease-lost", str(args[0]))
            raise
        finally:
            _verb.reset(token)
        if verb in ("settle", "put_off"):
            wires.note("settled", str(args[0]))
        if _did_something(verb, result):
            wires.pass_by(f"{verb}: committed")
        return result

    def accept(*args: Any) -> asyncio.Future[Any]:
        return asyncio.ensure_future(watched(*args))

    return accept if verb == "accept" else watched


def _did_something(verb: str, result: Any) -> bool:
    """Whether it was a pass: a claim that found nothing is none."""
    if verb == "claim":
        return bool(result[0])
    return bool(result) or verb not in ("claim_overdue", "claim_batch")


def _around_start_and_stop(wires: Tripwires) -> None:
    def after(point: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any) -> Any:
            result = original(*args)
            if _verb.get() == "open":
                wires.pass_by(point)
            return result

        return watched

    def opening(original: Callable[[Store], None]) -> Callable[[Store], None]:
        def watched(self: Store) -> None:
            wires.note("node", self.node)
            wires.pass_by("open: before")
            token = _verb.set("open")
            original(self)
            _verb.reset(token)
            wires.pass_by("open: committed")

        return watched

    def closing(original: Callable[..., None]) -> Callable[..., None]:
        def watched(*args: Any) -> None:
            wires.pass_by("sign out: before")
            original(*args)
            wires.pass_by("sign out: written")

        return watched

    _replace(migrations, "upgrade", functools.partial(after, "schema: written"))
    _replace(leases, "sign_in", functools.partial(after, "open: written"))
    _replace(Store, "open", opening)
    _replace(leases, "sign_out", closing)
    runner.LOOK_FOR_LATE = 0.5  # else no crash test would come to it


# --- the next hop


def _around_the_next_hop(wires: Tripwires) -> None:
    client = aiosmtplib.SMTP
    _around(wires, client, "connect", "next hop connection: before", "next hop connection: greeted")
    _around(wires, client, "starttls", "next hop STARTTLS: before", "next hop STARTTLS: answered")

    _around(wires, client, "ehlo", "next hop EHLO: before", "next hop EHLO: answered")

    def deliver(original: Callable[..., Awaitable[Outcome]]) -> Callable[..., Awaitable[Outcome]]:
        async def watched(self: SmtpTransport, delivery: Delivery, content: bytes) -> Outcome:
            token = _delivery.set(str(delivery))
            try:
                return await original(self, delivery, content)
            finally:
                _delivery.reset(token)

        return watched

    def say(original: Callable[..., None]) -> Callable[..., None]:
        def watched(self: Dialogue, *commands: bytes) -> None:
            for command in commands:
                _is_said(wires, self, _name_of(command))
            original(self, *commands)

        return watched

    def send(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def watched(self: Dialogue, blocks: Iterable[bytes]) -> None:
            _is_said(wires, self, MESSAGE)
            await original(self, blocks)

        return watched

    def reply(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def watched(self: Dialogue, timeout: float) -> Any:
            name = _said[self].popleft()
            if name == MESSAGE:
                # ASYNC110: a transport does not say when it is empty.
                while self._transport.get_write_buffer_size() and self.is_open:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                wires.pass_by("dot: sent, no answer")
            answer = await original(self, timeout)
            wires.pass_by("dot: answered, not settled" if name == MESSAGE else f"next hop {name}: answered")
            return answer

        return watched

    _replace(SmtpTransport, "deliver", deliver)
    _replace(Dialogue, "say", say)
    _replace(Dialogue, "send", send)
    _replace(Dialogue, "reply", reply)


MESSAGE = "message"
_said: WeakKeyDictionary[Dialogue, deque[str]] = WeakKeyDictionary()
"""What was said in each session and waits for its reply."""


def _name_of(command: bytes) -> str:
    """The name of a command; MESSAGE for a message with its end mark."""
    name = command[:8].split()[0].decode("latin-1")
    return name if name in (*COMMANDS, "QUIT", ".") else MESSAGE


def _is_said(wires: Tripwires, dialogue: Dialogue, name: str) -> None:
    _said.setdefault(dialogue, deque()).append(name)
    if name == MESSAGE:
        wires.pass_by("dot: before")
        wires.note("dot", _delivery.get())
    else:
        wires.pass_by(f"next hop {name}: before")


# --- clients


def _around_clients(wires: Tripwires) -> None:
    for name in DIALOGUE[1:]:
        _around(wires, SmtpSession, f"smtp_{name}", f"client {name}: before", f"client {name}: answered")

    def connection(original: Callable[..., None]) -> Callable[..., None]:
        def watched(self: SmtpSession, transport: asyncio.BaseTransport) -> None:
            wires.pass_by("client connection: before")
            original(self, transport)

        return watched

    def push(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def watched(self: SmtpSession, status: Any) -> None:
            await original(self, status)
            if (status if isinstance(status, str) else status.decode("latin-1")).startswith("220 "):
                wires.pass_by("client connection: answered")

        return watched

    def answer(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def watched(self: SmtpSession, reply: Reply, stage: str = "") -> None:
            is_queued = reply.text.startswith("queued as ")
            if is_queued:
                wires.pass_by("250: before")
            await original(self, reply, stage)
            if is_queued:
                wires.note("answered", reply.text.split()[-1])
                wires.pass_by("250: sent")

        return watched

    _replace(SmtpSession, "connection_made", connection)
    _replace(SmtpSession, "push", push)
    _replace(SmtpSession, "_answer", answer)


# --- paper


def _around_printing(wires: Tripwires) -> None:
    _around(wires, RenderPool, "describe", "describe: before", "describe: after")
    _around(wires, RenderPool, "render", "render: before", "render: after")
    _around(wires, RenderPool, "stack", "stack: before", "stack: after")
    for name in QUESTIONS:
        _around(wires, CupsServer, name, f"{name}: before", f"{name}: answered")
    _around(wires, Witness, ASKED_OF_DEVICE, f"{ASKED_OF_DEVICE}: before", f"{ASKED_OF_DEVICE}: answered")

    def connect(original: Callable[[CupsServer, str], Any]) -> Callable[[CupsServer, str], Any]:
        def watched(self: CupsServer, user: str) -> _Watched:
            return _Watched(original(self, user), wires)

        return watched

    _replace(CupsServer, "_connect", connect)


@dataclass(frozen=True)
class _Watched:
    """A connection of pycups, with tripwires in the middle of a document."""

    connection: Any
    wires: Tripwires

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def startDocument(self, *args: Any) -> Any:
        answer = self.connection.startDocument(*args)
        self.wires.pass_by("document: begun")
        return answer

    def writeRequestData(self, block: bytes, size: int) -> Any:
        half = size // 2
        self.connection.writeRequestData(block[:half], half)
        self.wires.pass_by("document: half sent")
        return self.connection.writeRequestData(block[half:], size - half)

    def finishDocument(self, *args: Any) -> Any:
        self.wires.pass_by("document: not ended")
        return self.connection.finishDocument(*args)


# --- faults put in on purpose


def _answer_before_the_commit() -> None:
    """A group commit that lets the client go before it has committed."""

    def made(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        background = set()

        async def late(self: Store, new: NewMessage, retry_at: Sequence[float | None] | None) -> None:
            await asyncio.sleep(0.3)  # the client is gone by then
            await original(self, new, retry_at)

        async def accept(self: Store, new: NewMessage, retry_at: Sequence[float | None] | None) -> list[Delivery]:
            task = asyncio.ensure_future(late(self, new, retry_at))
            background.add(task)
            task.add_done_callback(background.discard)
            return writes.held_at_once(new, retry_at) if retry_at is not None else []

        return accept

    _replace(Store, "accept", made)


def _print_anew() -> None:
    """A printer that begins anew after a crash, without asking CUPS."""

    async def resume(self: PrinterTransport, delivery: Delivery, job: object, content: bytes) -> Outcome:
        return await self._print(await self._store.forget_job(delivery), content)

    _replace(PrinterTransport, "_resume", lambda original: resume)


def _settle_before_sending() -> None:
    """A next hop that is believed before it was asked: a letter counts as delivered that nobody has."""

    def made(original: Callable[..., Awaitable[Outcome]]) -> Callable[..., Awaitable[Outcome]]:
        async def deliver(self: SmtpTransport, delivery: Delivery, content: bytes) -> Outcome:
            if delivery.attempts > 1:
                return Outcome(delivery.state.DELIVERED, "surely the first attempt has done it")
            return await original(self, delivery, content)

        return deliver

    _replace(SmtpTransport, "deliver", made)


SABOTAGE: dict[str, Callable[[], None]] = {
    "answer before the commit": _answer_before_the_commit,
    "print anew": _print_anew,
    "settle before sending": _settle_before_sending,
}


def main() -> None:
    """Runs the service with tripwires; the command line is that of `slip-relay`, path and all."""
    order = json.loads(Path(os.environ[ORDER]).read_text(encoding="utf-8"))
    if sabotage := order.get("sabotage"):
        SABOTAGE[sabotage]()
    if ahead := float(order.get("ahead", 0)):
        _replace(app, "Gate", lambda gate: functools.partial(gate, clock=lambda: time.time() + ahead))
    sends = signal.Signals[f"SIG{order.get('signal', 'KILL')}"]
    lay(Tripwires(order.get("point"), int(order.get("pass", 1)), Path(os.environ[DIARY]), sends))
    sys.argv = ["slip-relay", *sys.argv[sys.argv.index("serve") :]]
    from relay.cli import main as slip_relay

    slip_relay()


if __name__ == "__main__":
    main()
