"""Sessions under whatever a client may say: the appliance's intake in this process, on a real port, with a real spool.

The model of BDAT says what each command has to be answered, and which messages are in the spool in the end.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import select
import socket
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relay.config.settings import Config
from relay.intake.accept import Acceptance
from relay.intake.content import Pace
from relay.intake.listener import Listeners
from relay.intake.policy import Policy
from relay.intake.staging import Staging
from relay.maillog import MailLog
from relay.spool.engine import Place
from relay.spool.records import Delivery, NewDelivery
from relay.spool.store import Store
from tests.harness.waiting import LOCALHOST, free_ports
from tests.unit.test_policy import NoNames

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
        staging = Staging(self._config.intake, None, self._store.has_room, self.maillog)
        policy = Policy(self._config, NoNames())
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
def tuned(make_config: Callable[..., Config], tmp_path: Path) -> Callable[..., Intake]:
    """Makes an intake with these settings."""

    def make(**intake: Any) -> Intake:
        port = free_ports(1)
        config = make_config(
            listeners=[{"name": "smtp", "address": LOCALHOST, "port": port}],
            sources=[{"name": "alma", "institutions": ["demo"], "networks": [f"{LOCALHOST}/32"]}],
            intake={"max_message_size": "64KiB", "max_errors": 1000, "idle_timeout": "20s", **intake},
        )
        return Intake(config, port, tmp_path / "spool.db")

    return make


@pytest.fixture
def intake(tuned: Callable[..., Intake]) -> Iterator[Intake]:
    with tuned() as running:
        yield running


class Client:
    """Says something and hears the reply."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((LOCALHOST, port), timeout=20)
        self._file = self._socket.makefile("rb")
        self.reply()

    def say(self, words: bytes) -> str:
        """The code of the reply."""
        self.send(words)
        return self.reply()

    def send(self, words: bytes) -> None:
        """Says something that has no reply."""
        self._socket.sendall(words)

    def has_a_reply(self, *, within: float) -> bool:
        """Whether a reply is there, or comes within so many seconds."""
        return bool(select.select([self._socket], [], [], within)[0])

    def slam(self) -> None:
        """Will hang up with a reset (SO_LINGER of 0 seconds)."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def reply(self) -> str:
        """The code of the next reply."""
        while (line := self._file.readline())[3:4] == b"-":
            assert REPLY.match(line), line
        assert REPLY.fullmatch(line.rstrip(b"\r\n")), line
        return line[:3].decode()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
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
        before, model = len(intake.accepted()), Model()
        with Client(intake.port) as client:
            assert client.say(b"EHLO a.example\r\n") == "250"
            for step in steps:
                play(client, model, step)
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


LETTER = (b"EHLO a.example\r\n", b"MAIL FROM:<circ@lib.example>\r\n", b"RCPT TO:<anna@patron.example>\r\n", b"DATA\r\n")


@pytest.mark.parametrize("where", [(Policy, "admit"), (Policy, "addressee"), (Policy, "sources_of")])
def test_a_fault_of_ours_is_451_and_has_an_id_in_the_log(
    intake: Intake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: tuple[type, str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the shelf of <anna@patron.example> fell down")

    monkeypatch.setattr(*where, fail)
    with socket.create_connection((LOCALHOST, intake.port), timeout=20) as client:
        file = client.makefile("rb")
        heard = file.readline()
        for words in (*LETTER, HEADER + b".\r\n"):
            if b"451" in heard:
                break
            client.sendall(words)
            while (line := file.readline())[3:4] == b"-":
                pass
            heard = line
        assert heard == b"451 4.3.0 a fault on our side; try again later\r\n"
        assert file.read() == b"", "the session is over"
    assert intake.accepted() == []
    (record,) = [each for each in caplog.records if "event=fault" in each.getMessage()]
    assert re.search(r"event=fault where=intake error=RuntimeError trace=[0-9a-f]{12} client=127.0.0.1", record.message)
    assert record.exc_info is not None
    assert intake.faults == 1


@pytest.mark.parametrize("abruptly", [False, True])
def test_a_client_that_vanishes_leaves_nothing(intake: Intake, abruptly: bool) -> None:
    for said in range(1, 6):
        with Client(intake.port) as client:
            for words in (*LETTER, HEADER + b"half a let")[:said]:
                if words.startswith(HEADER):
                    client.send(words)
                else:
                    client.say(words)
            if abruptly:
                client.slam()
    with Client(intake.port) as client:
        assert client.say(b"NOOP\r\n") == "250"
    assert intake.accepted() == []
    assert intake.faults == 0


def test_a_session_ends_when_it_has_lasted_too_long(tuned: Callable[..., Intake]) -> None:
    with tuned(session_timeout="1s", max_commands=100_000) as intake, Client(intake.port) as client:
        began = time.monotonic()
        while client.say(b"NOOP\r\n") == "250":
            assert time.monotonic() - began < 10
        assert time.monotonic() - began > 0.9
        assert 'slip_relay_intake_limits_total{limit="session_timeout"} 1.0' in intake.maillog.metrics.text()


def test_a_client_that_is_too_slow_within_a_message_hears_so(
    tuned: Callable[..., Intake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pace.__init__, "__defaults__", (1.0,))
    with tuned(min_data_rate="1KiB") as intake:
        for command in (b"DATA\r\n", b"BDAT 60000 LAST\r\n"):
            with Client(intake.port) as client:
                assert [client.say(words) for words in LETTER[:3]] == ["250", "250", "250"]
                client.send(command)
                if command == b"DATA\r\n":
                    assert client.reply() == "354"
                began = time.monotonic()
                while not client.has_a_reply(within=0.1):
                    client.send(b"x")
                    assert time.monotonic() - began < 10
                assert client.reply() == "421"
        assert intake.accepted() == []


def test_a_source_that_is_too_fast_is_put_off(tuned: Callable[..., Intake]) -> None:
    with tuned(max_messages_per_minute=2) as intake, Client(intake.port) as client:
        for _ in range(2):
            assert [client.say(words) for words in LETTER] == ["250", "250", "250", "354"]
            assert client.say(HEADER + b".\r\n") == "250"
        assert client.say(LETTER[1]) == "451"
        assert len(intake.accepted()) == 2
