"""What a next hop can do wrong: for each fault the state that results, the time of the next attempt, and the DSN.

All faults run at the same time through one appliance, each with a next hop of its own: so they also show that none
delays another.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from relay.delivery.lanes import LOST_IN_A_ROW
from relay.spool.engine import Place
from relay.spool.histories import AttemptLine, DeliveryHistory, message_history
from relay.spool.queries import list_deliveries
from tests.harness import samples
from tests.harness.faulty_hop import CLOSE, HANG, FaultyHop, Stage
from tests.harness.letters_only import LettersOnly, letter
from tests.harness.playground import Playground
from tests.harness.waiting import free_ports, until
from tests.journeys.story import Story

pytestmark = pytest.mark.asyncio(loop_scope="session")

FIRST_WAIT = 3.0
EXPIRES = 5.0
TIMEOUT = 1.0
BROKEN_TLS = b"220 go ahead\r\nthis is no TLS"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, and what comes of it."""

    name: str
    hop: FaultyHop | None
    "None is a port where nobody listens."
    reason: str
    "What is recorded of the first attempt."
    ends: str = "expired"
    "The state in the end: `expired` for what stays temporary, `failed`, or `delivered` when it went away."
    status: str = "4.4.7"
    "Status in the DSN."
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def recipient(self) -> str:
        return f"patron@{self.name}.example"

    @property
    def sender(self) -> str:
        return f"{self.name}@exlibrisgroup.example"


VERIFIED = {"tls": "required"}
HANGS: tuple[tuple[Stage, str], ...] = (
    ("connect", "127.0.0.1 can't be reached: "),
    ("ehlo", "127.0.0.1 can't be reached: "),
    ("mail", "the connection to 127.0.0.1 was lost: "),
    ("rcpt", "the connection to 127.0.0.1 was lost: "),
    ("data", "the connection to 127.0.0.1 was lost: "),
    ("body", "the connection to 127.0.0.1 was lost: "),
)
REFUSALS: tuple[tuple[Stage, bytes, str], ...] = (
    ("mail", b"550 5.7.1 not from you", "5.7.1"),
    ("rcpt", b"550 5.1.1 no such mailbox", "5.1.1"),
    ("data", b"554 5.5.1 no valid recipients", "5.5.1"),
    ("body", b"554 5.6.0 looks like spam", "5.6.0"),
)
LASTING = [
    Fault("nobody-there", None, "127.0.0.1 can't be reached: "),
    Fault("greeting-421", FaultyHop("connect", b"421 4.3.2 closing"), "refused the session: 421 4.3.2 closing"),
    Fault("greeting-554", FaultyHop("connect", b"554 5.7.1 go away"), "refused the session: 554 5.7.1 go away"),
    Fault("ehlo-4", FaultyHop("ehlo", b"451 4.3.0 not now"), "refused the session: 451 4.3.0 not now"),
    Fault("mail-4", FaultyHop("mail", b"451 4.3.0 not now"), "127.0.0.1 put it off: 451 4.3.0 not now"),
    Fault("rcpt-4", FaultyHop("rcpt", b"450 4.2.1 greylisted"), "127.0.0.1 put it off: 450 4.2.1 greylisted"),
    Fault("data-4", FaultyHop("data", b"452 4.3.1 full"), "127.0.0.1 put it off: 452 4.3.1 full"),
    Fault("body-4", FaultyHop("body", b"451 4.3.0 later"), "127.0.0.1 put it off: 451 4.3.0 later"),
    *(Fault(f"{stage}-hangs", FaultyHop(stage, HANG), reason) for stage, reason in HANGS),
    Fault("tls-missing", FaultyHop(), "127.0.0.1 can't be reached: ", settings=VERIFIED),
    Fault(
        "tls-refused",
        FaultyHop("starttls", b"454 4.7.0 no TLS now", offers=(b"STARTTLS",)),
        "454 4.7.0 no TLS now",
        settings=VERIFIED,
    ),
    Fault(
        "tls-broken",
        FaultyHop("starttls", BROKEN_TLS, offers=(b"STARTTLS",)),
        "127.0.0.1 can't be reached: ",
        settings=VERIFIED,
    ),
    Fault(
        "tls-hangs",
        FaultyHop("starttls", HANG, offers=(b"STARTTLS",)),
        "127.0.0.1 can't be reached: ",
        settings=VERIFIED,
    ),
]
FINAL = [
    Fault(f"{stage}-5", FaultyHop(stage, reply), f"127.0.0.1 refused it: {reply.decode()}", "failed", status)
    for stage, reply, status in REFUSALS
]
PASSING = [
    Fault(
        "lost-after-the-dot",
        FaultyHop("body", CLOSE, times=1),
        "the connection to 127.0.0.1 was lost: ",
        "delivered",
        settings={"retry": {"first": "0.3s"}},
    ),
    Fault("weak-tls-broken", FaultyHop("starttls", BROKEN_TLS, offers=(b"STARTTLS",)), "", "delivered"),
    Fault("weak-tls-refused", FaultyHop("starttls", b"454 4.7.0 no", offers=(b"STARTTLS",)), "", "delivered"),
]
FAULTS = {fault.name: fault for fault in (*LASTING, *FINAL, *PASSING)}


class Scene:
    """The appliance with all its bad next hops; each has been sent one letter."""

    def __init__(self, playground: Playground, queue_ids: dict[str, str]) -> None:
        self.story = Story(playground)
        self._queue_ids = queue_ids

    def delivery(self, fault: Fault) -> DeliveryHistory:
        place = Place.file(self.story.playground.institution.spool)
        message = message_history(place, self._queue_ids[fault.name])
        assert message is not None
        return message.deliveries[0]

    async def ended(self, fault: Fault, *, attempts: int = 1) -> DeliveryHistory:
        """The delivery, once that many attempts have ended."""
        await until(
            lambda: len([each for each in self.delivery(fault).attempts if each.outcome]) >= attempts,
            lambda: f"{attempts} attempts; it is {self.delivery(fault)}",
            seconds=40,
        )
        return self.delivery(fault)

    async def settled(self, fault: Fault) -> DeliveryHistory:
        await until(
            lambda: self.delivery(fault).line.state == fault.ends,
            lambda: f"{fault.ends}; it is {self.delivery(fault)}",
            seconds=60,
        )
        return self.delivery(fault)

    async def dsn(self, fault: Fault) -> dict[str, str]:
        """The fields of the DSN about its recipient."""
        await until(lambda: self.story.taken_for(fault.sender), "the DSN", seconds=40)
        taken = self.story.taken_for(fault.sender)
        assert len(taken) == 1
        assert taken[0].mail_from == "", "a DSN has the null reverse-path"
        report = email.message_from_bytes(taken[0].content, policy=email.policy.SMTP)
        assert report.get_content_type() == "multipart/report"
        parts: list[Any] = list(report.walk())
        recipient = next(part for part in parts if part["Final-Recipient"])
        return {name.lower(): str(value) for name, value in recipient.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        hops, rules = [], []
        for fault in FAULTS.values():
            port = await stack.enter_async_context(fault.hop.listening()) if fault.hop else free_ports(1)
            common = {
                "name": fault.name,
                "host": "127.0.0.1",
                "port": port,
                "timeout": TIMEOUT,
                "data_timeout": TIMEOUT,
            }
            hops.append(common | fault.settings)
            rules.append({"name": fault.name, "recipient": fault.recipient, "next_hop": fault.name})
        extra = {
            "next_hops": hops,
            "rules": rules,
            "delivery": {"retry_first": FIRST_WAIT, "warn_after": "0s", "expire_after": EXPIRES},
        }
        folder = tmp_path_factory.mktemp("faults") / "all"
        playground = await stack.enter_async_context(Playground(folder, extra=extra))
        story = Story(playground)
        queue_ids = {}
        for fault in FAULTS.values():
            letter = samples.patron_letter(recipient=fault.recipient)
            queue_ids[fault.name] = await story.submit(letter, fault.recipient, sender=fault.sender)
        yield Scene(playground, queue_ids)


def wait_after(attempts: tuple[AttemptLine, ...], number: int) -> float:
    """Seconds between the end of an attempt and the beginning of the next."""
    ended_at = attempts[number - 1].ended_at
    assert ended_at is not None
    return attempts[number].started_at - ended_at


@pytest.mark.parametrize("fault", LASTING, ids=lambda fault: fault.name)
async def test_a_fault_that_may_pass_is_tried_again_and_told_in_the_end(scene: Scene, fault: Fault) -> None:
    first = (await scene.ended(fault)).attempts[0]
    assert first.outcome == "deferred"
    assert fault.reason in first.reason
    delivery = await scene.ended(fault, attempts=2)
    assert wait_after(delivery.attempts, 1) >= FIRST_WAIT
    line = (await scene.settled(fault)).line
    assert "not delivered in time" in line.reason
    told = await scene.dsn(fault)
    assert told["action"] == "failed"
    assert told["status"] == fault.status
    assert told["final-recipient"] == f"rfc822; {fault.recipient}"


@pytest.mark.parametrize("fault", FINAL, ids=lambda fault: fault.name)
async def test_a_refusal_is_final_and_told_at_once(scene: Scene, fault: Fault) -> None:
    delivery = await scene.settled(fault)
    assert len(delivery.attempts) == 1
    assert delivery.line.reason == fault.reason
    told = await scene.dsn(fault)
    assert (told["action"], told["status"]) == ("failed", fault.status)
    assert told["diagnostic-code"] == f"smtp; {fault.reason.partition(': ')[2]}"
    assert told["remote-mta"] == "dns; 127.0.0.1"


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name)
async def test_a_fault_that_passed_ends_well_and_is_told_to_nobody(scene: Scene, fault: Fault) -> None:
    delivery = await scene.settled(fault)
    assert fault.reason in delivery.attempts[0].reason
    assert not scene.story.taken_for(fault.sender)


async def test_an_answer_that_never_came_makes_a_second_copy_with_the_same_message_id(scene: Scene) -> None:
    fault = FAULTS["lost-after-the-dot"]
    delivery = await scene.settled(fault)
    assert [attempt.outcome for attempt in delivery.attempts] == ["deferred", "delivered"]
    assert fault.hop is not None
    ids = [email.message_from_bytes(content)["Message-ID"] for content in fault.hop.taken]
    assert len(ids) == 2
    assert len(set(ids)) == 1


@pytest.mark.parametrize("name", ["tls-missing", "tls-refused", "tls-broken", "tls-hangs"])
async def test_verified_tls_never_falls_back_to_plain_text(scene: Scene, name: str) -> None:
    fault = FAULTS[name]
    await scene.settled(fault)
    assert fault.hop is not None
    assert fault.hop.seen
    assert not any(command.startswith(b"MAIL") for command in fault.hop.seen)


async def test_one_recipient_of_three_that_is_refused_fails_alone(scene: Scene) -> None:
    story = scene.story
    recipients = ("one@patron.example", "permfail-two@patron.example", "three@patron.example")
    mail = samples.patron_letter(recipient=recipients[0])
    number = await story.submit(mail, *recipients, sender="three@exlibrisgroup.example")

    def states() -> list[str]:
        return [line.state for line in story.deliveries(number)]

    await until(lambda: states() == ["delivered", "failed", "delivered"], lambda: f"two of three; they are {states()}")
    await until(lambda: story.taken_for("three@exlibrisgroup.example"), "the DSN")
    await asyncio.sleep(0.5)  # time in which another could come
    (dsn,) = story.taken_for("three@exlibrisgroup.example")
    assert b"permfail-two@patron.example" in dsn.content
    assert b"one@patron.example" not in dsn.content.partition(b"message/delivery-status")[2].partition(b"\r\n--")[0]


async def test_a_dead_next_hop_is_asked_by_one_delivery_at_a_time(tmp_path: Path) -> None:
    """However much waits for it: the others stay queued, without an attempt, until it answers again."""
    extra = {
        "next_hops": [{"name": "dead", "host": "127.0.0.1", "port": free_ports(1), "backoff_longest": "60s"}],
        "rules": [{"name": "dead", "recipient": "*@dead.example", "next_hop": "dead"}],
        "delivery": {"retry_first": "30s"},
    }
    async with Playground(tmp_path / "dead", extra=extra) as playground:
        story = Story(playground)
        mail = samples.patron_letter(recipient="a@dead.example")
        first = await story.submit(mail, "a@dead.example")
        await story.settled(first, state="deferred")
        others = [await story.submit(mail, f"{n}@dead.example") for n in range(20)]
        quick = await story.submit(samples.patron_letter(recipient="b@patron.example"), "b@patron.example")
        await story.settled(quick)
        assert {(line.state, line.attempts) for line in story.deliveries(*others)} == {("queued", 0)}


async def test_one_letter_that_breaks_every_connection_holds_up_nobody_else(tmp_path: Path) -> None:
    """It says something of that letter, not of the next hop, which gets no rest for it."""
    extra = {"delivery": {"retry_first": "1s", "retry_longest": "1s"}}
    async with LettersOnly(tmp_path / "broken", extra=extra) as letters:

        def attempts() -> int:
            return sum(line.attempts for line in list_deliveries(Place.file(letters.spool), limit=10))

        await letters.submit(letter("bad", "break@patron.example"), "break@patron.example")
        await until(lambda: attempts() > LOST_IN_A_ROW, "several attempts")
        await letters.submit(letter("good", "good@patron.example"), "good@patron.example")
        (taken,) = await letters.next_hop.wait_for(1, seconds=5)
        assert taken.rcpt_to == ["good@patron.example"]
        assert "event=backoff" not in letters.appliance.log.read_text(encoding="utf-8")
