"""The fence: a worker changes a delivery only while it owns it, and only along `records.TRANSITIONS`.

Promises: a worker that lost its lease, or whose attempt is not the latest any more, changes nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, literal_column, update

from relay.errors import LeaseLost
from relay.spool.prepared import Prepared
from relay.spool.records import TRANSITIONS, Delivery, State
from relay.spool.schema import deliveries

_BEFORE = {state: [known.value for known in State if known is state or state in TRANSITIONS[known]] for state in State}


def change(connection: Connection, node: str, delivery: Delivery, state: State, **values: Any) -> None:
    """Changes a delivery behind its fence. Raises LeaseLost where the fence does not match."""
    fence = {
        "of": delivery.message.queue_id,
        "recipient_number": delivery.number,
        "owner": node,
        "attempt": delivery.attempts,
    }
    if _change_to(state, tuple(values)).run(connection, {**values, **fence}) != 1:
        raise LeaseLost(f"delivery {delivery} is not held by this node any more")


@cache
def _change_to(state: State, columns: tuple[str, ...]) -> Prepared:
    """The statement that brings a delivery into a state, sets some columns, and minds the fence."""
    return Prepared(
        update(deliveries)
        .where(
            deliveries.c.queue_id == _given("of"),
            deliveries.c.number == _given("recipient_number"),
            deliveries.c.lease_owner == _given("owner"),
            deliveries.c.attempts == _given("attempt"),
            deliveries.c.state.in_(_BEFORE[state]),
        )
        .values({"state": literal_column(f"'{state.value}'")} | {name: _given(name) for name in columns})
    )


def _given(name: str) -> BindParameter[Any]:
    return bindparam(name, required=False)
