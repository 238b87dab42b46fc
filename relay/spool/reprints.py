"""A slip once more, because a person says so: a further delivery of the same message, which goes its own way to paper.

Does: adds the delivery, with the next number, due at once; keeps with it who ordered it, when and why. All of a call is
one transaction.
Promises: the new delivery goes through queue, order and care as any other, so that one order is one reprint whatever
crashes. What is a reprint already is taken for what it is a reprint of.
Refuses, with a sentence for each: what is not settled (it is released, or waits its turn), what is no slip or can't go
to that printer (`Again` says so), and a message whose bytes are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from sqlalchemy import Connection, func, insert, select

from relay.errors import OrderError
from relay.mail.status import printable
from relay.spool.bodies import has_body
from relay.spool.orders import Done, Refused, Result
from relay.spool.records import AT_ONCE, FINAL, Delivery, Key, NewDelivery, State
from relay.spool.rows import delivery_of, joined
from relay.spool.schema import deliveries, messages, orders
from relay.spool.writes import add_delivery

REPRINT = "reprint"
"""How the order is called in the table `orders`, in the log and over the control socket."""

Again = Callable[[Delivery], NewDelivery]
"""Says how a delivery is printed once more. Raises OrderError when it can't be."""

_OTHERWISE = {
    State.HELD: "it is held: release it, then it is printed",
    State.UNCERTAIN: "it is uncertain: release it, then it is printed again",
    State.CORRUPT: "its bytes are not those that were accepted",
}


def reprint(connection: Connection, keys: Collection[Key], again: Again, who: str, at: float, why: str) -> Result:
    """Has some deliveries printed once more, in the order in which they are named."""
    result = Result()
    for key in dict.fromkeys(keys):
        try:
            delivery = _settled(connection, key)
            new = again(delivery)
        except OrderError as error:
            result.refused.append(Refused(key, str(error)))
            continue
        of_message = deliveries.c.queue_id == key[0]
        number = int(connection.execute(select(func.max(deliveries.c.number)).where(of_message)).scalar_one()) + 1
        add_delivery(connection, key[0], number, new, AT_ONCE)
        kept = {"at": at, "verb": REPRINT, "who": printable(who, 100), "why": printable(why, 500)}
        connection.execute(insert(orders), {"queue_id": key[0], "number": number, "was": delivery.state.value, **kept})
        result.done.append(Done(key, delivery.state, delivery.state, new.route, number))
    return result


def _settled(connection: Connection, key: Key) -> Delivery:
    """A delivery that may be printed once more, with its message locked: nobody numbers deliveries or cleans up."""
    connection.execute(select(messages.c.queue_id).where(messages.c.queue_id == key[0]).with_for_update())
    one = (deliveries.c.queue_id == key[0]) & (deliveries.c.number == key[1])
    row = connection.execute(joined().where(one)).one_or_none()
    if row is None:
        raise OrderError("there is no such delivery")
    delivery = delivery_of(row)
    if delivery.state not in FINAL:
        raise OrderError(_OTHERWISE.get(delivery.state, f"it is {delivery.state} still, and is printed in its turn"))
    if not has_body(connection, key[0]):
        raise OrderError("its bytes are gone: they are removed some days after it is settled (spool.keep_bodies)")
    return delivery
