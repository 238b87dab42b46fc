"""Orders on their way: what is said over the control socket, who is heard, and the way without a service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, strategies

from relay.config.settings import Config, Spool
from relay.control import protocol
from relay.control.client import metrics_of, orders_for
from relay.control.desk import Desk, account
from relay.control.place import ON_A_SERVER, socket_path
from relay.control.protocol import Request, SendTest
from relay.control.server import MAX_PEERS, ControlSocket
from relay.control.ways import Ways
from relay.errors import OrderError, StartError
from relay.maillog import MailLog
from relay.spool.engine import Place
from relay.spool.histories import message_history
from relay.spool.orders import STEP, Done, Refused, Result, Verb
from relay.spool.queries import list_deliveries
from relay.spool.records import Delivery, Key, Outcome, State
from relay.spool.store import Store
from tests.accepted import accepted, new_message
from tests.harness.postgres import Postgres
from tests.harness.waiting import until

CONTENT = b"From: a@lib.example\r\n\r\nhello\r\n"
KEY: Key = ("06GXWTSGYD8QM", 0)
ME = pwd.getpwuid(os.geteuid()).pw_name

Make = Callable[..., Config]


# --- what is said


REQUESTS = [
    Request(Verb.HOLD, (KEY,)),
    Request(Verb.RELEASE, (KEY, ("06GXWTSGYD8QM", 9999)), only=frozenset({State.HELD}), more=True),
    Request(Verb.CANCEL, (KEY,), why="ümläut \n\x1b", on_behalf_of="anna.b@lib"),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.verb)
def test_a_request_is_read_as_it_was_written(request_: Request) -> None:
    line = protocol.write_request(request_)
    assert line.index(b"\n") == len(line) - 1
    assert protocol.read_request(line) == request_


@pytest.mark.parametrize("mark", [None, True, False])
def test_an_order_for_a_reprint_is_read_as_it_was_written(mark: bool | None) -> None:
    asked = protocol.Reprint((KEY,), "wet, äh", "main-desk", mark, more=True, on_behalf_of="anna")
    assert protocol.read_request(protocol.write_request(asked)) == asked


@pytest.mark.parametrize("asked", [SendTest("a@lib.example"), SendTest("ä@lib.example", "demo", "anna")])
def test_an_order_for_a_test_letter_is_read_as_it_was_written(asked: SendTest) -> None:
    assert protocol.read_request(protocol.write_request(asked)) == asked


def test_an_answer_is_read_as_it_was_written() -> None:
    made = Done(KEY, State.DELIVERED, State.DELIVERED, "print:desk", made=3)
    result = Result([Done(KEY, State.HELD, State.QUEUED, "campus"), made], [Refused(KEY, "it is äußerst held")])
    line = protocol.write_answer(result)
    assert line.index(b"\n") == len(line) - 1
    assert protocol.read_answer(line) == result
    with pytest.raises(OrderError, match="so it is"):
        protocol.read_answer(protocol.write_answer(OrderError("so it is")))
    with pytest.raises(OrderError, match="can't be read"):
        protocol.read_answer(b'{"done": 1}\n')


NO_REQUESTS = {
    b"": "not JSON",
    b"hold it, please": "not JSON",
    b"\xff\xfe": "not JSON",
    b"[" * 50_000: "not JSON",
    b"[]": "one JSON object",
    b"{}": "not an order",
    b'{"verb": "shred", "deliveries": [["06GXWTSGYD8QM", 0]]}': "'shred' is not a valid Verb",
    b'{"verb": "reprint", "deliveries": [["06GXWTSGYD8QM", 0]], "mark": 1}': "'mark' is true or false",
    b'{"verb": "reprint", "deliveries": [["06GXWTSGYD8QM", 0]], "printer": []}': "'printer' is the name of a printer",
    b'{"verb": "reprint", "deliveries": [["06GXWTSGYD8QM", 0]], "only": ["held"]}': "a request has no 'only'",
    b'{"verb": "hold", "deliveries": [["06GXWTSGYD8QM", 0]], "mark": true}': "a request has no 'mark'",
    b'{"verb": "send-test"}': "'to' is an address",
    b'{"verb": "send-test", "to": "a@b.example", "institution": 1}': "'institution' is the name of an institution",
    b'{"verb": "send-test", "to": "a@b.example", "text": "buy this"}': "a request has no 'text'",
    b'{"verb": "send-test", "to": "a@b.example", "for": "a b"}': "'for' is the name of an account",
    b'{"verb": [], "deliveries": [["06GXWTSGYD8QM", 0]]}': "not an order",
    b'{"verb": "hold"}': "'deliveries' is a list of 1 to 200",
    b'{"verb": "hold", "deliveries": []}': "'deliveries' is a list of 1 to 200",
    b'{"verb": "hold", "deliveries": [[]]}': "a delivery is named",
    b'{"verb": "hold", "deliveries": [["06GXWTSGYD8QM", true]]}': "a delivery is named",
    b'{"verb": "hold", "deliveries": [["06GXWTSGYD8QM", -1]]}': "a delivery is named",
    b'{"verb": "hold", "deliveries": [["06GXWTSGYD8QM", 1e99]]}': "a delivery is named",
    b'{"verb": "hold", "deliveries": [["\' OR 1=1 --", 0]]}': "a delivery is named",
    b'{"verb": "hold", "deliveries": [["06GXWTSGYD8QM", 0]], "only": "held"}': "not an order",
    b'{"verb": "hold", "deliveries": [["06GXWTSGYD8QM", 0]], "why": 1}': "a reason is text",
    b'{"verb": "hold", "deliveries": [["06GXWTSGYD8QM", 0]], "more": 1}': "'more' is true or false",
    b'{"verb": "hold", "deliveries": [["06GXWTSGYD8QM", 0]], "for": "a\\nb"}': "'for' is the name of an account",
    b'{"verb": "hold", "deliveries": [["06GXWTSGYD8QM", 0]], "sudo": "x"}': "a request has no 'sudo'",
}


@pytest.mark.parametrize("line", NO_REQUESTS)
def test_what_is_no_request_is_refused_with_a_sentence(line: bytes) -> None:
    with pytest.raises(OrderError) as error:
        protocol.read_request(line)
    assert NO_REQUESTS[line] in str(error.value)


def test_a_full_step_fits_into_a_request_and_its_answer() -> None:
    keys = tuple(("06GXWTSGYD8QM", 2**31 - 1 - n) for n in range(STEP))
    line = protocol.write_request(
        Request(Verb.CANCEL, keys, why="\U0001f4a9" * protocol.MAX_WHY, on_behalf_of="a" * 64)
    )
    assert len(line) < protocol.MAX_REQUEST
    refused = Result(refused=[Refused(key, "x" * 500) for key in keys])
    assert len(protocol.write_answer(refused)) < protocol.MAX_ANSWER


@given(strategies.binary(max_size=200) | strategies.text(max_size=200).map(str.encode))
def test_whatever_comes_is_a_request_or_an_error(line: bytes) -> None:
    with contextlib.suppress(OrderError):
        protocol.read_request(line)


# --- where a delivery goes that is let go


RULES = [
    {"name": "hold-it", "recipient": "held@*", "hold": "a person decides"},
    {"name": "hold-too", "recipient": "*@patron.example", "hold": "so many"},
    {"name": "partner", "recipient": "held@partner.example", "next_hop": "partner"},
]
HOPS = [{"name": "default", "host": "127.0.0.1"}, {"name": "partner", "retry": {"warn_after": "0s"}}]


def waiting(recipient: str, route: str) -> Delivery:
    return Delivery(accepted(CONTENT), 0, recipient, route, route, State.HELD, 1, 0.0)


@pytest.mark.parametrize(
    ("recipient", "route", "verb", "goes"),
    [
        ("a@b.example", "default", Verb.RETRY, "default"),
        ("a@b.example", "discard", Verb.RELEASE, "discard"),
        ("desk@print.lib.example", "print:desk", Verb.RELEASE, "print:desk"),
        ("held@patron.example", "hold:hold-it", Verb.RELEASE, "default"),
        ("held@partner.example", "hold:hold-it", Verb.RELEASE, "partner@partner.example"),
        ("desk@print.lib.example", "hold:hold-it", Verb.RELEASE, "print:desk"),
        ("a@b.example", "gone", Verb.RETRY, "default"),
        ("held@b.example", "gone", Verb.RETRY, "hold:hold-it"),
        ("held@b.example", "gone", Verb.RELEASE, "default"),
    ],
)
def test_the_way_of_what_is_let_go(make_config: Make, recipient: str, route: str, verb: Verb, goes: str) -> None:
    way = Ways(make_config(rules=RULES, next_hops=HOPS))(waiting(recipient, route), verb)
    assert way.destination == goes
    assert way.route == goes.partition("@")[0]


def test_the_time_of_what_is_let_go_begins_anew(make_config: Make) -> None:
    config = make_config(rules=RULES, next_hops=HOPS, delivery={"warn_after": "1h", "expire_after": "2h"})
    ways = Ways(config)
    letter = ways(waiting("a@b.example", "default"), Verb.RETRY)
    assert letter.warn_at is not None
    assert letter.expires_at is not None
    assert letter.expires_at - letter.warn_at == pytest.approx(3600, abs=1)
    partner = ways(waiting("a@b.example", "partner"), Verb.RETRY)
    assert (partner.warn_at, partner.expires_at is None) == (None, False)
    slip = ways(waiting("desk@print.lib.example", "print:desk"), Verb.RETRY)
    assert (slip.warn_at, slip.expires_at) == (None, None), "slips never expire"


def test_what_belongs_to_nobody_any_more_is_refused(make_config: Make) -> None:
    law = [{"name": "law", "domains": ["law.example"], "bounce_domain": "b.law.example"}]
    config = make_config(
        institutions=law, sources=[{"name": "x", "institutions": ["law"], "networks": ["::1/128"]}], printers=[]
    )
    with pytest.raises(OrderError, match="neither the route gone nor the institution demo"):
        Ways(config)(waiting("a@b.example", "gone"), Verb.RELEASE)


# --- the socket


class Service:
    """A spool, and the control socket in front of it."""

    def __init__(self, config: Config, path: Path) -> None:
        self.config = config
        self.path = path
        self.store = Store(Place.of(config.spool))
        self.changes = 0
        maillog = MailLog()
        desk = Desk(config, self.store, maillog, self._changed)
        self.socket = ControlSocket(path, desk, {protocol.METRICS: maillog.metrics.text}, maillog)
        self.store.open()

    def _changed(self) -> None:
        self.changes += 1

    async def held(self) -> Key:
        """A delivery that is held; its key."""
        new = new_message(CONTENT, ("a@b.example", "default"))
        await self.store.accept(new, None)
        (delivery,), _ = await self.store.claim(1)
        begun = await self.store.begin(delivery, 0)
        await self.store.settle(begun, Outcome(State.HELD, "a person decides"), 0)
        return begun.key

    def state(self, key: Key) -> str:
        return next(line.state for line in list_deliveries(self.store.place) if line.key == key)

    async def give(self, *requests: Request) -> list[Result]:
        """Gives orders as the command does."""

        def give() -> list[Result]:
            with orders_for(self.config) as order:
                return [order(request) for request in requests]

        return await asyncio.to_thread(give)

    async def talk(self, *lines: bytes) -> list[bytes]:
        """Says lines, and gives an answer for each, b"" where there is none."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        answers = []
        for line in lines:
            writer.write(line)
            answers.append(await asyncio.wait_for(reader.readline(), 10))
        writer.close()
        await writer.wait_closed()
        return answers


@pytest_asyncio.fixture
async def service(make_config: Make, tmp_path: Path) -> AsyncIterator[Service]:
    service = Service(make_config(), tmp_path / "control.sock")
    await service.socket.open()
    yield service
    await service.socket.close()
    await asyncio.to_thread(service.store.close)


@pytest.mark.asyncio
async def test_an_order_is_carried_out_answered_logged_and_told_to_the_runner(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "slip-relay")
    key = await service.held()
    first, again = await service.give(Request(Verb.RELEASE, (key,)), Request(Verb.RETRY, (key,), more=True))
    assert first.done == [Done(key, State.HELD, State.QUEUED, "default")]
    assert again.done == [Done(key, State.QUEUED, State.QUEUED, "default")]
    assert service.changes == 1, "when no more follow"
    lines = [record.getMessage() for record in caplog.records if "event=order" in record.getMessage()]
    assert lines[0] == f"event=order id={key[0]} delivery=0 verb=release who={ME} was=held state=queued route=default"
    history = message_history(service.store.place, key[0])
    assert history is not None
    assert [(each.verb, each.who) for each in history.deliveries[0].orders] == [("release", ME), ("retry", ME)]


@pytest.mark.asyncio
async def test_the_service_says_what_it_has_counted(service: Service) -> None:
    key = await service.held()
    await service.give(Request(Verb.RELEASE, (key,)))
    text = await asyncio.to_thread(metrics_of, service.config)
    assert 'slip_relay_orders_total{verb="release"} 1.0\n' in text
    await service.socket.close()
    with pytest.raises(OrderError, match="no service answers"):
        await asyncio.to_thread(metrics_of, service.config)


@pytest.mark.asyncio
async def test_what_is_no_order_gets_an_error_and_the_service_lives(service: Service) -> None:
    key = await service.held()
    good = protocol.write_request(Request(Verb.CANCEL, (key,)))
    answers = await service.talk(b"GET / HTTP/1.1\r\n", b'{"verb": "shred"}\n', b"\0\n", good)
    assert [b'"error"' in answer for answer in answers] == [True, True, True, False]
    too_long = await service.talk(b"x" * (protocol.MAX_REQUEST + 1))
    assert b"a request has at most 65536 bytes" in too_long[0]
    _, writer = await asyncio.open_unix_connection(service.path)
    writer.write(b'{"verb": "hold"')  # and goes away in the middle
    writer.close()
    await writer.wait_closed()
    assert service.state(key) == "cancelled"
    assert (await service.give(Request(Verb.CANCEL, (key,))))[0].refused[0].why == "it is cancelled already"


@pytest.mark.asyncio
async def test_a_fault_of_the_spool_is_an_error_and_changes_nothing(service: Service) -> None:
    key = await service.held()
    await service.store.write(lambda c: c.exec_driver_sql("ALTER TABLE orders RENAME TO gone"))
    with pytest.raises(OrderError, match="nothing was changed: the spool could not write"):
        await service.give(Request(Verb.CANCEL, (key,)))
    assert service.state(key) == "held"


@pytest.mark.asyncio
async def test_only_its_owner_may_use_the_socket(service: Service) -> None:
    assert stat.S_IMODE(service.path.stat().st_mode) == 0o600


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account of the machine can enter."""
    folder = Path(tempfile.mkdtemp(prefix="slip-relay-control-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.asyncio
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
async def test_the_kernel_says_who_asks_and_a_stranger_is_refused(make_config: Make, open_folder: Path) -> None:
    service = Service(make_config(), open_folder / "control.sock")
    await service.socket.open()
    service.path.chmod(0o666)  # as if somebody had
    key = await service.held()
    ask = (
        "import contextlib, os, pwd, socket, sys\n"
        "os.setuid(pwd.getpwnam('nobody').pw_uid)\n"
        "peer = socket.socket(socket.AF_UNIX)\n"
        "peer.connect(sys.argv[1])\n"
        "with contextlib.suppress(BrokenPipeError):\n"
        "    peer.sendall(sys.argv[2].encode() + b'\\n')\n"
        "sys.stdout.write(peer.makefile().readline())\n"
    )
    request = protocol.write_request(Request(Verb.CANCEL, (key,), on_behalf_of="root")).decode().strip()
    stranger = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-I", "-S", "-c", ask, str(service.path), request],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "orders are taken from root and from the account of the service only" in stranger.stdout
    assert service.state(key) == "held"
    await service.socket.close()
    await asyncio.to_thread(service.store.close)


def test_root_may_say_for_whom_it_speaks() -> None:
    assert account(0, "anna") == "anna (root)"
    assert account(0, "") == account(0, "root") == "root"
    nobody = pwd.getpwnam("nobody")
    assert account(nobody.pw_uid, "anna") == "nobody"
    assert account(4_000_000_000, "") == "4000000000"


@pytest.mark.asyncio
async def test_a_socket_left_by_a_crash_is_replaced_and_a_living_one_is_not(make_config: Make, tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    service = Service(make_config(), path)
    await service.socket.open()
    second = ControlSocket(path, Desk(service.config, service.store, MailLog(), print), {}, MailLog())
    with pytest.raises(StartError, match="another service answers at the control socket"):
        await second.open()
    key = await service.held()
    assert len((await service.give(Request(Verb.CANCEL, (key,))))[0].done) == 1
    await service.socket.close()
    assert "control.sock" not in " ".join(os.listdir(tmp_path))
    await asyncio.to_thread(service.store.close)


@pytest.mark.asyncio
async def test_a_socket_may_have_a_long_path(make_config: Make, tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 40)
    folder.mkdir()
    config = make_config(control={"socket": str(folder / "control.sock")})
    service = Service(config, socket_path(config))
    await service.socket.open()
    key = await service.held()
    assert len((await service.give(Request(Verb.CANCEL, (key,))))[0].done) == 1
    await service.socket.close()
    await asyncio.to_thread(service.store.close)


@pytest.mark.asyncio
async def test_a_socket_without_a_folder_says_what_to_mend(make_config: Make, tmp_path: Path) -> None:
    service = Service(make_config(), tmp_path / "none" / "control.sock")
    with pytest.raises(
        StartError, match=r"can't be made: No such file or directory; its folder must exist .*control\."
    ):
        await service.socket.open()
    await service.socket.close()
    await asyncio.to_thread(service.store.close)


@pytest.mark.asyncio
async def test_many_idle_peers_keep_neither_orders_nor_the_stop_waiting(service: Service) -> None:
    idle = [await asyncio.open_unix_connection(service.path) for _ in range(MAX_PEERS)]
    await until(lambda: len(service.socket._peers) == MAX_PEERS, "all of them")
    assert b"too many are giving orders" in (await service.talk(b""))[0]
    idle[0][1].close()
    await until(lambda: len(service.socket._peers) < MAX_PEERS, "one to go")
    assert len((await service.give(Request(Verb.CANCEL, (await service.held(),))))[0].done) == 1
    await asyncio.wait_for(service.socket.close(), 2)
    for _, writer in idle:
        writer.close()


@pytest.mark.asyncio
async def test_an_order_that_was_begun_is_ended_and_answered_before_the_service_stops(service: Service) -> None:
    key = await service.held()
    let_go = asyncio.Event()
    write = service.store.write

    async def slowly(work: Any, size: int = 0) -> Any:
        await let_go.wait()
        return await write(work, size)

    service.store.write = slowly  # type: ignore[method-assign]
    asked = asyncio.create_task(service.give(Request(Verb.CANCEL, (key,))))
    await until(lambda: service.socket._busy, "the order to begin")
    closing = asyncio.create_task(service.socket.close())
    await until(lambda: not service.path.exists(), "the stop to begin")
    let_go.set()
    await closing
    assert [done.key for done in (await asked)[0].done] == [key]
    service.store.write = write  # type: ignore[method-assign]


# --- without a service


def test_where_the_socket_is(make_config: Make, tmp_path: Path) -> None:
    assert socket_path(make_config()) == tmp_path / "control.sock"
    assert socket_path(make_config(spool={"url": "postgresql+psycopg://relay@/spool"})) == ON_A_SERVER
    elsewhere = make_config(control={"socket": str(tmp_path / "x.sock")})
    assert socket_path(elsewhere) == tmp_path / "x.sock"


def order(config: Config, request: Request) -> Result:
    with orders_for(config) as give:
        return give(request)


def make_held(config: Config) -> Key:
    """A spool with one delivery that is held, and nobody who has it."""

    async def make() -> Key:
        service = Service(config, Path("/nowhere"))
        key = await service.held()
        await asyncio.to_thread(service.store.close)
        return key

    return asyncio.run(make())


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_without_a_service_orders_are_carried_out_all_the_same(
    make_config: Make, tmp_path: Path, request: pytest.FixtureRequest, engine: str
) -> None:
    config = make_config(control={"socket": str(tmp_path / "control.sock")})
    if engine == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        config = config.model_copy(update={"spool": Spool(url=postgres.create_database())})
    key = make_held(config)
    with orders_for(config) as give:
        assert give(Request(Verb.RELEASE, (key,))).done[0].now is State.QUEUED
        assert give(Request(Verb.CANCEL, (key,))).done[0].was is State.QUEUED
    history = message_history(Place.of(config.spool), key[0])
    assert history is not None
    assert history.deliveries[0].line.state == "cancelled"
    assert [(each.verb, each.who) for each in history.deliveries[0].orders] == [("release", ME), ("cancel", ME)]


def test_a_spool_that_another_has_is_left_alone(make_config: Make) -> None:
    config = make_config()
    key = make_held(config)
    store = Store(Place.of(config.spool))
    store.open()
    with pytest.raises(
        OrderError, match=r"another slip-relay is using the spool .*; no service answers at .*control.sock"
    ):
        order(config, Request(Verb.CANCEL, (key,)))
    store.close()


def test_no_spool_is_made_by_an_order(make_config: Make, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OrderError, match="there is no spool at"):
        order(make_config(), Request(Verb.CANCEL, (KEY,)))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and another account")
def test_root_leaves_the_spool_to_the_account_of_the_service(make_config: Make, tmp_path: Path) -> None:
    config = make_config()
    key = make_held(config)
    owner = pwd.getpwnam("nobody").pw_uid
    for file in tmp_path.glob("spool.db*"):
        os.chown(file, owner, -1)
    with orders_for(config) as give:
        assert len(give(Request(Verb.CANCEL, (key,))).done) == 1
        assert {file.stat().st_uid for file in tmp_path.glob("spool.db*")} == {owner}, "the log of the database too"
    assert {file.stat().st_uid for file in tmp_path.glob("spool.db*")} == {owner}
