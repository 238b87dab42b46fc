"""Questions about the spool: summary, list, histories, trace, bytes. On both engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import text, update

from relay.errors import SpoolError
from relay.mail.queue_id import new_queue_id
from relay.mail.status import Reply
from relay.spool.engine import Place
from relay.spool.histories import message_history, stored, trace
from relay.spool.queries import Filter, keys_of, list_deliveries, list_keys, reading, summary
from relay.spool.records import NewDelivery, NewMessage, Outcome, PrintJob, State
from relay.spool.schema import deliveries
from relay.spool.store import Store
from tests.accepted import accepted, new_message

pytestmark = pytest.mark.asyncio

CONTENT = b"From: a@lib.example\r\n\r\nhello\r\n"
HOUR = 3600.0


class Spool:
    """A spool, and what is put into it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.store = Store(place)
        self.store.open()

    async def put(
        self,
        *recipients: str,
        route: str = "campus",
        state: State = State.QUEUED,
        reason: str = "",
        hours_ago: float = 0.0,
        **fields: object,
    ) -> str:
        """A message whose deliveries are in a state; gives its queue id."""
        at = time.time() - hours_ago * HOUR
        message = replace(accepted(CONTENT), queue_id=new_queue_id(at), received_at=at, **fields)  # type: ignore[arg-type]
        ways = tuple(NewDelivery(recipient, route, route) for recipient in recipients)
        await self.store.accept(NewMessage(message, CONTENT, ways), None)
        of_it = deliveries.c.queue_id == message.queue_id
        values = {"state": state.value, "reason": reason}
        await self.store.write(lambda c: c.execute(update(deliveries).where(of_it).values(values)))
        return message.queue_id

    def found(self, **only: object) -> list[str]:
        """Queue ids of a listing."""
        return [line.queue_id for line in list_deliveries(self.place, only=Filter(**only))]  # type: ignore[arg-type]


@pytest_asyncio.fixture
async def spool(place: Place) -> AsyncIterator[Spool]:
    spool = Spool(place)
    yield spool
    await asyncio.to_thread(spool.store.close)


async def test_the_summary_counts_what_is_not_finished(spool: Spool) -> None:
    assert summary(spool.place) == []
    await spool.put("a@b.example", "b@b.example", state=State.DEFERRED, hours_ago=1)
    oldest = await spool.put("c@b.example", state=State.DEFERRED, hours_ago=5)
    await spool.put("d@b.example", state=State.DEFERRED, route="print:desk")
    await spool.put("e@b.example", state=State.HELD, route="hold:it")
    for state in (State.DELIVERED, State.FAILED, State.EXPIRED, State.CANCELLED):
        await spool.put("f@b.example", state=state)
    groups = summary(spool.place)
    assert [(group.state, group.route, group.count) for group in groups] == [
        ("deferred", "campus", 3),
        ("deferred", "print:desk", 1),
        ("held", "hold:it", 1),
    ]
    (line,) = [line for line in list_deliveries(spool.place) if line.queue_id == oldest]
    assert groups[0].oldest == line.received_at


async def test_the_summary_counts_what_a_node_holds_too(spool: Spool) -> None:
    await spool.put("a@b.example", state=State.DEFERRED, hours_ago=1)
    await spool.put("b@b.example", state=State.DEFERRED)
    (first, *_), _ = await spool.store.claim(1)
    begun = await spool.store.begin(first, time.time() + 60)
    assert [(group.state, group.count) for group in summary(spool.place)] == [("active", 1), ("deferred", 1)]
    await spool.store.settle(begun, Outcome(State.DEFERRED), time.time() + 60)
    assert [(group.state, group.count) for group in summary(spool.place)] == [("deferred", 2)]


async def test_the_summary_and_its_lists_go_along_the_index(tmp_path: Path) -> None:
    spool = Spool(Place.file(tmp_path / "spool.db"))
    said: list[str] = []

    def plan(connection: object) -> None:
        rows = connection.execute(  # type: ignore[attr-defined]
            text(
                "EXPLAIN QUERY PLAN SELECT state, route, count(*), min(queue_id) FROM deliveries WHERE (lease_owner IS "
                "NULL AND state NOT IN ('delivered', 'failed', 'expired', 'cancelled')) GROUP BY state, route"
            )
        )
        said.extend(row.detail for row in rows)

    await spool.store.write(plan)
    await asyncio.to_thread(spool.store.close)
    assert said == ["SCAN deliveries USING COVERING INDEX ix_deliveries_unfinished"]


async def test_a_list_has_what_fits_everything_that_is_asked(spool: Spool) -> None:
    old = await spool.put("Anna_1@patron.example", state=State.DEFERRED, reason="451 50% FULL", hours_ago=5)
    held = await spool.put("bert@patron.example", state=State.HELD, route="hold:it", institution="law")
    done = await spool.put("anna-1@other.example", state=State.DELIVERED, reverse_path=None)
    everything = [old, held, done]
    assert spool.found() == everything
    assert spool.found(states=(State.DEFERRED,)) == [old]
    assert spool.found(states=(State.DEFERRED, State.HELD)) == [old, held]
    assert spool.found(states=(State.DELIVERED, State.HELD)) == [held, done]
    assert spool.found(states=(State.HELD,), route="hold:it") == [held]
    assert spool.found(states=(State.HELD,), route="campus") == []
    assert spool.found(route="campus") == [old, done]
    assert spool.found(institution="law") == [held]
    assert spool.found(states=(State.HELD,), institution="demo") == []
    assert spool.found(recipient="*@PATRON.example") == [old, held]
    assert spool.found(recipient="anna_1@*") == [old], "an underscore is an underscore"
    assert spool.found(recipient="anna?1@*") == [old, done]
    assert spool.found(recipient="patron.example") == []
    assert spool.found(sender="ALMA@*") == [old, held]
    assert spool.found(sender="<>") == [done]
    assert spool.found(reason="50% full") == [old]
    assert spool.found(reason="50%451") == []
    assert spool.found(before=time.time() - 4 * HOUR) == [old]
    assert spool.found(before=time.time() - 4 * HOUR, states=(State.HELD,)) == []


@pytest.mark.parametrize("state", [State.DEFERRED, State.DELIVERED])
async def test_a_list_is_in_order_of_arrival_whichever_end_it_takes(spool: Spool, state: State) -> None:
    ids = [await spool.put("a@b.example", route=f"r{i % 3}", state=state, hours_ago=9 - i) for i in range(9)]
    only = Filter(states=(state,))
    assert [line.queue_id for line in list_deliveries(spool.place, only=only, limit=4)] == ids[-4:]
    assert [line.queue_id for line in list_deliveries(spool.place, only=only, limit=4, oldest=True)] == ids[:4]
    steps, after = [], None
    while keys := list_keys(spool.place, only, after=after, limit=2):
        steps += [queue_id for queue_id, _ in keys]
        after = keys[-1]
    assert steps == ids


async def test_a_list_has_what_a_node_holds_too(spool: Spool) -> None:
    first = await spool.put("a@b.example", state=State.DEFERRED, hours_ago=1)
    second = await spool.put("b@b.example", state=State.DEFERRED)
    await spool.store.claim(1)
    assert spool.found(states=(State.DEFERRED,)) == [first, second]


async def test_the_keys_of_a_message(spool: Spool) -> None:
    queue_id = await spool.put("a@b.example", "b@b.example")
    assert keys_of(spool.place, queue_id) == [(queue_id, 0), (queue_id, 1)]
    assert keys_of(spool.place, "0000000000000") == []


async def test_a_history_tells_all_that_is_known(spool: Spool) -> None:
    ways = (NewDelivery("a@b.example", "campus", "campus", notify="FAILURE", orcpt="rfc822;x@b.example"),)
    message = replace(accepted(CONTENT), ret="HDRS", envid="QQ314")
    (delivery,) = await spool.store.accept(NewMessage(message, CONTENT, ways), (None,))
    begun = await spool.store.begin(delivery, time.time())
    refused = Outcome(State.FAILED, "no such mailbox", Reply(550, "5.1.1", "no"))
    dsn = NewMessage(
        replace(accepted(b"x", reverse_path=None), about=str(delivery)),
        b"x",
        (NewDelivery("alma@x.example", "d", "d"),),
    )
    await spool.store.settle(begun, refused, 0, [dsn])
    history = message_history(spool.place, message.queue_id)
    assert history is not None
    assert (history.message, history.has_body) == (message, True)
    told = history.deliveries[0]
    assert (told.line.notify, told.line.orcpt) == ("FAILURE", "rfc822;x@b.example")
    assert [(each.number, each.outcome, each.reply) for each in told.attempts] == [(1, "failed", "550 5.1.1 no")]
    assert [(each.queue_id, each.recipient, each.state) for each in told.dsns] == [
        (dsn.message.queue_id, "alma@x.example", "queued")
    ]
    about = message_history(spool.place, dsn.message.queue_id)
    assert about is not None
    assert about.message.about == f"{message.queue_id}/0"


async def test_a_history_has_the_attempt_that_runs_and_the_print_job(spool: Spool) -> None:
    (delivery,) = await spool.store.accept(new_message(CONTENT, ("desk@b.example", "print:desk")), (None,))
    begun = await spool.store.begin(delivery, time.time())
    job = PrintJob("slip-1", "desk", 17, sent=True)
    await spool.store.record_job(begun, job)
    history = message_history(spool.place, delivery.message.queue_id)
    assert history is not None
    (attempt,) = history.deliveries[0].attempts
    assert (attempt.number, attempt.ended_at, attempt.outcome) == (1, None, "")
    assert history.deliveries[0].job == job


async def test_mail_is_traced_by_address_message_id_and_queue_id(spool: Spool) -> None:
    first = await spool.put("Anna@patron.example", "bert@patron.example", hours_ago=2, message_id="<1@alma>")
    second = await spool.put("anna@patron.example", hours_ago=1, message_id="<2@alma>", reverse_path="law@law.example")
    await spool.put("carl@patron.example", message_id="<3@alma>")

    def traced(name: str, limit: int = 10) -> list[tuple[str, list[str]]]:
        found = trace(spool.place, name, limit)
        return [(each.message.queue_id, [d.line.recipient for d in each.deliveries]) for each in found]

    both = [(first, ["Anna@patron.example"]), (second, ["anna@patron.example"])]
    assert traced("ANNA@patron.example") == both
    assert traced("anna@patron.example", limit=1) == both[1:], "the newest"
    assert traced("<1@alma>") == traced("1@alma") == [(first, ["Anna@patron.example", "bert@patron.example"])]
    assert traced(first.lower()) == traced("<1@alma>")
    assert traced("law@law.example") == both[1:]
    assert traced("nobody@patron.example") == traced("0000000000000") == []


async def test_the_stored_bytes_are_given_as_they_are(spool: Spool) -> None:
    queue_id = await spool.put("a@b.example")
    found = stored(spool.place, queue_id)
    assert found is not None
    assert found[1] == CONTENT
    await spool.store.write(lambda c: c.execute(text("DELETE FROM bodies")))
    found = stored(spool.place, queue_id)
    assert found is not None
    assert found[1] is None
    assert stored(spool.place, "0000000000000") is None
    history = message_history(spool.place, queue_id)
    assert history is not None
    assert not history.has_body


async def test_a_reader_can_change_nothing(spool: Spool) -> None:
    with pytest.raises(SpoolError, match="can't be read"), reading(spool.place) as connection:
        connection.execute(update(deliveries).values(state="delivered"))


async def test_a_spool_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match=r"there is no spool at .*; the service makes it at its first start"):
        summary(Place.file(tmp_path / "none.db"))
