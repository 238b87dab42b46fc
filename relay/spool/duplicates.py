"""The beginning of a print job, where the same slip is known when it comes a second time.

Does: in one transaction, behind the fence, keeps the name of the job, what the slip says (table `slips`) and its PDF
(table `papers`), unless another delivery is the same slip: then nothing, and that one is named.
Promises: of two that begin at the same moment, on whatever node, one begins and the other finds it. Only a delivery
that was printed or that the service still has work with counts: what is held, cancelled, uncertain or corrupt keeps
no other from being printed. Deliveries of one message never count as each other's duplicates, nor do reprints; an
uncertain slip that a person has printed again begins whatever there is. A slip that goes to a printer's own address by
mail is known here, too, but by less.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    String,
    Table,
    TextClause,
    cast,
    delete,
    exists,
    func,
    literal,
    select,
    text,
    update,
)

from relay.errors import LeaseLost
from relay.mail.address import parse_address
from relay.mail.queue_id import new_queue_id
from relay.spool import members
from relay.spool.fence import change
from relay.spool.records import (
    DUPLICATE,
    OPEN,
    Delivery,
    Key,
    Message,
    NewDelivery,
    Paper,
    PrintJob,
    Sameness,
    State,
    Twin,
)
from relay.spool.schema import deliveries, orders, papers, slips
from relay.spool.writes import add_delivery, record_job, upsert

_ONE_BEGINS = 0x736C6971
"""Names a lock of PostgreSQL: no two transactions begin a job at once, or neither would see the other's."""

_COUNTS = [state.value for state in (State.DELIVERED, *OPEN)]


def begin_job(
    connection: Connection, node: str, delivery: Delivery, job: PrintJob, paper: Paper, sameness: Sameness
) -> Delivery | Twin:
    """The job's name, the slip and its PDF are kept; or the delivery that is the same slip."""
    if delivery.reprint_of is None:
        _one_begins(connection)
        change(connection, node, delivery, State.ACTIVE)  # who is late must not take back what another has begun
        identity = _identity(delivery, paper)
        twin = _twin(connection, delivery, paper, identity, sameness)
        # An earlier attempt may have left its own: the PDF is that of the job that begins now, or none.
        connection.execute(delete(papers).where(*_is(papers, delivery.key)))
        if twin is not None:
            # It does not begin: should both wait for one another, one would wait for ever.
            connection.execute(delete(slips).where(*_is(slips, delivery.key)))
            return twin
        _put(connection, slips, delivery.key, printer=paper.printer, identity=identity, content=paper.content)
        if paper.pdf is not None:
            _put_paper(connection, delivery.key, paper, paper.pdf)
    return record_job(connection, node, delivery, job)


def begin_bundle(
    connection: Connection,
    node: str,
    bundle: Delivery,
    job: PrintJob,
    paper: Paper,
    slips_of_it: Sequence[tuple[Delivery, Paper]],
    sameness: Sameness,
) -> Delivery | list[tuple[Delivery, Twin]]:
    """As `begin_job` for a bundle: its slips are kept as those that its document has. Or it does not begin, and those
    are named that are the same as another delivery, or as one before them in the bundle.

    Raises LeaseLost where the fence does not match, or the bundle has other slips now.
    """
    _one_begins(connection)
    change(connection, node, bundle, State.ACTIVE)
    if members.waiting_in(connection, bundle) != {slip.key for slip, _ in slips_of_it}:
        raise LeaseLost(f"the bundle {bundle} has other slips than those that were rendered")
    is_again = _was_said_to_print_again(connection, bundle.key)
    twins: list[tuple[Delivery, Twin]] = []
    for slip, its in slips_of_it:
        identity = _identity(slip, its)
        twin = _twin(connection, slip, its, identity, sameness) if not is_again else None
        if twin is None:
            _put(connection, slips, slip.key, printer=its.printer, identity=identity, content=its.content)
        else:
            twins.append((slip, twin))
            connection.execute(delete(slips).where(*_is(slips, slip.key)))
    if twins:
        return twins
    connection.execute(delete(papers).where(*_is(papers, bundle.key)))
    if paper.pdf is not None:
        _put_paper(connection, bundle.key, paper, paper.pdf)
    return record_job(connection, node, bundle, job)


@dataclass(frozen=True, slots=True)
class Again:
    """A slip for a printer's own address that was sent there already."""

    number: int
    printer: str
    of: str
    "The delivery that is the same slip, as QUEUE-ID/NUMBER."


def add_once(connection: Connection, message: Message, number: int, new: NewDelivery) -> Again | None:
    """Adds a delivery to a printer's own address; one that is the same slip as another, which went there or is on its
    way, is added as cancelled, and named.

    The same are messages with one Message-ID, byte for byte: nobody lays this slip out, so nothing else is known of
    what it says. Should the other one fail in the end, somebody is told of that one.
    """
    identity = ""
    if message.message_id:
        parts = (message.message_id, parse_address(new.recipient).key, "mail", message.sha256)
        identity = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
    _one_begins(connection)
    add_delivery(connection, message.queue_id, number, new, message.received_at)
    key = message.queue_id, number
    found = _other(connection, message.queue_id, slips.c.identity == identity, text("identity <> ''"))
    if not identity or found is None:
        _put(connection, slips, key, printer=new.once_at, identity=identity, content=message.sha256)
        return None
    again = Again(number, new.once_at, f"{found[0]}/{found[1]}")
    ended: dict[str, Any] = {"state": State.CANCELLED.value, "evidence": DUPLICATE, "duplicate_of": again.of}
    ended |= {"reason": f"the same slip as {again.of}: it came in again", "settled_at": time.time()}
    ended |= {"due_at": None, "deadline": None}
    connection.execute(update(deliveries).where(*_is(deliveries, key)).values(ended))
    return again


def _one_begins(connection: Connection) -> None:
    if connection.dialect.name != "sqlite":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_ONE_BEGINS})"))


def paper_of(connection: Connection, key: Key) -> Paper | None:
    """The paper that a delivery became, as it was kept; None when it was not, or is not any more."""
    row = connection.execute(select(papers).where(*_is(papers, key))).one_or_none()
    if row is None:
        return None
    return Paper("", "", row.profile, row.pages, row.width_mm, row.height_mm, bytes(row.pdf))


def _identity(delivery: Delivery, paper: Paper) -> str:
    """What a message that is handed in again has in common with the first time; "" without a Message-ID.

    The content belongs to it: a sender that gives all its mail one Message-ID must not lose a slip by that. The printer
    does not, for another one may stand in for it; but a rule's copy is not the slip that the rule sends elsewhere.
    """
    message_id = delivery.message.message_id
    if not message_id:
        return ""
    kind = "slip" if delivery.copy_of is None else "copy"
    parts = (message_id, parse_address(delivery.recipient).key, kind, paper.content)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _twin(connection: Connection, delivery: Delivery, paper: Paper, identity: str, sameness: Sameness) -> Twin | None:
    if _was_said_to_print_again(connection, delivery.key):
        return None
    if sameness.message_id and identity:
        found = _other(connection, delivery.message.queue_id, slips.c.identity == identity, text("identity <> ''"))
        if found is not None:
            return _as_twin(found, "message-id")
    if sameness.content:
        arrived = delivery.message.received_at
        near = slips.c.queue_id.between(
            new_queue_id(arrived - sameness.content), new_queue_id(arrived + sameness.content)
        )
        here = slips.c.printer == paper.printer
        found = _other(connection, delivery.message.queue_id, here, slips.c.content == paper.content, near)
        if found is not None:
            return _as_twin(found, "content")
    return None


def _other(
    connection: Connection, queue_id: str, *same: ColumnElement[bool] | TextClause
) -> tuple[str, int, str] | None:
    """Key and state of the delivery of another message that is the same; one that is printed before one that is not."""
    query = (
        select(deliveries.c.queue_id, deliveries.c.number, deliveries.c.state)
        .join_from(
            slips,
            deliveries,
            (deliveries.c.queue_id == slips.c.queue_id) & (deliveries.c.number == slips.c.number),
        )
        .where(*same, slips.c.queue_id != queue_id)
        .where(deliveries.c.state.in_(_COUNTS), ~_bundle_waits_for_a_person())
        .order_by((deliveries.c.state == State.DELIVERED.value).desc(), deliveries.c.queue_id)
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else (row.queue_id, row.number, row.state)


def _bundle_waits_for_a_person() -> ColumnElement[bool]:
    """That a slip is in a bundle of which nobody knows when it is printed, and whether."""
    bundle = deliveries.alias("its_bundle")
    name = deliveries.c.bundle
    return exists().where(
        bundle.c.queue_id == func.substr(name, 1, 13),
        cast(bundle.c.number, String) == func.substr(name, 15),
        bundle.c.state.not_in(_COUNTS),
    )


def _as_twin(found: tuple[str, int, str], by: Literal["message-id", "content"]) -> Twin:
    queue_id, number, state = found
    return Twin((queue_id, number), state == State.DELIVERED.value, by)


def _was_said_to_print_again(connection: Connection, key: Key) -> bool:
    """Whether a person released it as uncertain, which says that it is to be printed though it may be twice."""
    again = select(literal(1)).where(
        *_is(orders, key), orders.c.verb == "release", orders.c.was == State.UNCERTAIN.value
    )
    return connection.execute(again.limit(1)).first() is not None


def _put_paper(connection: Connection, key: Key, paper: Paper, pdf: bytes) -> None:
    _put(
        connection,
        papers,
        key,
        made_at=time.time(),
        profile=paper.profile,
        pages=paper.pages,
        width_mm=paper.width_mm,
        height_mm=paper.height_mm,
        size=len(pdf),
        pdf=pdf,
    )


def _put(connection: Connection, table: Table, key: Key, **values: Any) -> None:
    """A row of a delivery, in the place of one that an earlier attempt left."""
    put = upsert(connection)(table).values(queue_id=key[0], number=key[1], **values)
    connection.execute(put.on_conflict_do_update(index_elements=["queue_id", "number"], set_=values))


def _is(table: Table, key: Key) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.queue_id == key[0], table.c.number == key[1]
