"""Sessions under whatever a client may say: the appliance's intake in this process, on a real port, with a real spool.

The model of BDAT says what each command has to be answered, and which messages are in the spool in the end.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relay.config.settings import Config
from relay.intake.accept import Acceptance
from relay.intake.listener import Listeners
from relay.intake.policy import Policy
from relay.intake.staging import Staging
from relay.maillog import MailLog
from relay.spool.engine import Place
from relay.spool.records import Delivery, NewDelivery
from relay.spool.store import Store
from tests.harness.waiting import LOCALHOST, free_ports

HEADER = b"From: circ@lib.example\r\n\r\n"
REPLY = re.compile(rb"(?:[245]\d\d[ -][245]\.\d\.\d{1,3} |220 |250[ -]|354 )[\x20-\x7e]*")


class NobodyClaims:
    """Works on nothing: what is accepted stays in the spool."""

    def reserve(self, deliveries: Sequence[NewDelivery]) -> None:
        """Claims nothing."""

    def hand_over(self, deliveries: Sequence[Delivery], content: bytes | None) -> None:
        """Takes what was claimed, which is nothing."""
        assert not deliveries

    def leave(self, deliveries: Sequence[NewDelivery]) -> None:
        """Leaves it."""

    def give_back(self, deliveries: Sequence[NewDelivery], retry_at: Sequence[float | None]) -> None:
        """Takes back nothing."""


class Intake:
    """The intake, on an event loop in a thread of its own."""

    def __init__(self, config: Config, port: int, spool: Path) -> None:
        self.port, self._spool = port, spool
        self.maillog = MailLog()
        self._config = config
        self._store = Store(Place.file(spool))
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._stop = asyncio.Event()

    def __enter__(self) -> Intake:
        self._thread.start()
        assert self._started.wait(20), "the intake listens"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), "every session ended"
        self._loop.close()

    async def _run(self) -> None:
        self._store.open()
        staging = Staging(self._config.intake, None, self._store.has_room)
        policy = Policy(self._config)
        acceptance = Acceptance(self._config, policy, self._store, self.maillog, NobodyClaims(), staging)
        listeners = Listeners(self._config, policy, acceptance, self.maillog)
        await listeners.open()
        self._started.set()
        await self._stop.wait()
        listeners.close()
        await listeners.drain(5)
        assert (staging.in_memory, staging.on_disk) == (0, 0), "nothing is left of what was not accepted"
        staging.close()
        await asyncio.to_thread(self._store.close)

    @property
    def faults(self) -> float:
        """How often it said that it was at fault."""
        match = re.search(r"^slip_relay_faults_total (\S+)", self.maillog.metrics.text(), re.MULTILINE)
        return float(match[1]) if match else 0.0

    def accepted(self) -> list[str]:
        """Digests of what is in the spool, in order."""
        with sqlite3.connect(self._spool) as spool:
            return [row[0] for row in spool.execute("select sha256 from messages order by received_at, queue_id")]


@pytest.fixture
def intake(make_config: Callable[..., Config], tmp_path: Path) -> Iterator[Intake]:
    port = free_ports(1)
    config = make_config(
        listeners=[{"name": "smtp", "address": LOCALHOST, "port": port}],
        sources=[{"name": "alma", "institutions": ["demo"], "networks": [f"{LOCALHOST}/32"]}],
        intake={"max_message_size": "64KiB", "max_errors": 1000, "idle_timeout": "20s"},
    )
    with Intake(config, port, tmp_path / "spool.db") as running:
        yield running


class Client:
    """Says something and hears the reply."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((LOCALHOST, port), timeout=20)
        self._file = self._socket.makefile("rb")
        self.reply()

    def say(self, words: bytes) -> str:
        """The code of the reply."""
        self._socket.sendall(words)
        return self.reply()

    def reply(self) -> str:
        """The code of the next reply."""
        while (line := self._file.readline())[3:4] == b"-":
            assert REPLY.match(line), line
        assert REPLY.fullmatch(line.rstrip(b"\r\n")), line
        return line[:3].decode()

    def close(self) -> None:
        """Hangs up."""
        self._file.close()
        self._socket.close()


class Model:
    """What the dialogue is at, told by RFC 5321 4.1.4 and RFC 3030 2."""

    def __init__(self) -> None:
        self.accepted: list[bytes] = []
        self.reset()

    def reset(self) -> None:
        """No transaction."""
        self.open, self.recipients, self.began, self.spoilt, self.content = False, 0, False, False, b""

    def mail(self) -> str:
        """MAIL."""
        if self.open:
            return "503"
        self.open = True
        return "250"

    def rcpt(self) -> str:
        """RCPT of somebody who is taken."""
        if not self.open or self.began:
            return "503"
        self.recipients += 1
        return "250"

    def bdat(self, octets: bytes, *, last: bool) -> str:
        """BDAT with its octets."""
        if not self.recipients:
            return "503"
        self.began = True
        self.content += octets
        return self._end() if last else "250"

    def data(self, octets: bytes) -> str:
        """DATA; the message follows where it is wanted."""
        if not self.recipients or self.began:
            return "503"
        self.content = octets
        return self._end()

    def _end(self) -> str:
        content = self.content
        self.reset()
        if not content.startswith(HEADER):
            return "550"
        self.accepted.append(content)
        return "250"


CHUNKS = st.sampled_from(
    [b"", HEADER, b"text\r\n", b"QUIT\r\n", b".\r\n", b"RSET\r\nMAIL FROM:<a@b.example>\r\n", b"x" * 3000]
)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["mail", "rcpt", "rset", "noop", "ehlo", "frob"])),
    st.tuples(st.sampled_from(["bdat", "last", "data"]), CHUNKS),
)


def play(client: Client, model: Model, step: tuple[Any, ...]) -> None:
    """One step, on both sides."""
    name, octets = step[0], step[1] if len(step) > 1 else b""
    plain = {
        "mail": (b"MAIL FROM:<circ@lib.example>\r\n", model.mail),
        "rcpt": (b"RCPT TO:<anna@patron.example>\r\n", model.rcpt),
        "noop": (b"NOOP\r\n", lambda: "250"),
        "frob": (b"FROB\r\n", lambda: "500"),
    }
    if name in plain:
        words, answer = plain[name]
        assert client.say(words) == answer()
    elif name in ("rset", "ehlo"):
        model.reset()
        assert client.say(b"RSET\r\n" if name == "rset" else b"EHLO a.example\r\n") == "250"
    elif name == "data":
        expected = model.data(octets)
        first = client.say(b"DATA\r\n")
        assert first == ("503" if expected == "503" else "354")
        if first == "354":
            assert client.say(octets.replace(b".\r\n", b"..\r\n") + b".\r\n") == expected
    else:
        words = b"BDAT %d%s\r\n" % (len(octets), b" LAST" if name == "last" else b"")
        assert client.say(words + octets) == model.bdat(octets, last=name == "last")


@pytest.mark.hypothesis
def test_bdat_does_what_its_model_does(intake: Intake) -> None:
    @settings(suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(STEPS, max_size=25))
    @example([("mail",), ("rcpt",), ("bdat", HEADER), ("data", b""), ("last", b"text\r\n")])
    @example([("mail",), ("rcpt",), ("bdat", HEADER), ("rset",), ("last", HEADER)])
    @example([("mail",), ("bdat", HEADER), ("rcpt",), ("last", HEADER)])
    def runs(steps: list[tuple[Any, ...]]) -> None:
        before, model, client = len(intake.accepted()), Model(), Client(intake.port)
        try:
            assert client.say(b"EHLO a.example\r\n") == "250"
            for step in steps:
                play(client, model, step)
        finally:
            client.close()
        expected = [hashlib.sha256(content).hexdigest() for content in model.accepted]
        assert intake.accepted()[before:] == expected
        assert intake.faults == 0

    runs()


WORDS = st.sampled_from(
    [
        *(b"EHLO a\r\n", b"HELO [1.2.3.4]\r\n", b"MAIL FROM:<circ@lib.example>\r\n", b"RCPT TO:<a@b.example>\r\n"),
        *(b"DATA\r\n", b".\r\n", b"BDAT 5\r\n", b"BDAT 3 LAST\r\n", b"BDAT x\r\n", b"RSET\r\n", b"QUIT\r\n"),
        *(b"AUTH PLAIN\r\n", b"STARTTLS\r\n", b"VRFY a\r\n", b"HELP\r\n", b"EXPN a\r\n", HEADER),
        *(b"\n", b"\r", b"\x00", b"\xff", b" ", b"x" * 2500, b"y" * 13000),
    ]
)


@pytest.mark.hypothesis
def test_no_words_get_through_to_an_exception(intake: Intake) -> None:
    @settings(suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(WORDS | st.binary(max_size=30), max_size=20), st.booleans())
    def runs(words: list[bytes], greets: bool) -> None:
        with socket.create_connection((LOCALHOST, intake.port), timeout=20) as client:
            file = client.makefile("rb")
            try:
                heard = file.readline()
                if greets:
                    client.sendall(b"EHLO a.example\r\n")
                client.sendall(b"".join(words))
                client.shutdown(socket.SHUT_WR)
                heard += file.read()
            except ConnectionError:
                heard = b""
        for line in heard.splitlines():
            assert REPLY.fullmatch(line) or line.startswith(b"334 "), line
        assert intake.faults == 0
        assert b"451" not in heard

    runs()
