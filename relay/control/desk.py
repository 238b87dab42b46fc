"""The desk: takes an order, has the spool carry it out, writes it into the mail log, and lets the runner know."""

from __future__ import annotations

import pwd
import time
from collections.abc import Callable

from relay.config.settings import Config
from relay.control.protocol import Request
from relay.control.ways import Ways
from relay.maillog import MailLog
from relay.spool import orders
from relay.spool.orders import Order, Result, Verb
from relay.spool.store import Store


class Desk:
    """Carries out the orders of one spool."""

    def __init__(self, config: Config, store: Store, maillog: MailLog, changed: Callable[[], None]) -> None:
        """`changed` is called when something waits that may go now."""
        self._store = store
        self._maillog = maillog
        self._ways = Ways(config)
        self._changed = changed

    async def carry_out(self, request: Request, who: str) -> Result:
        """Carries out an order of `who` on the deliveries it names, as one transaction. Raises SpoolError."""
        order = Order(request.verb, who, time.time(), request.why, request.only)
        result = await self._store.write(lambda c: orders.carry_out(c, order, request.keys, self._ways))
        for done in result.done:
            queue_id, number = done.key
            self._maillog.order(
                queue_id,
                number,
                verb=order.verb.value,
                who=who,
                was=done.was.value,
                state=done.now.value,
                route=done.route,
            )
        if not request.more and request.verb in (Verb.RELEASE, Verb.RETRY):
            self._changed()
        return result


def account(user: int, on_behalf_of: str) -> str:
    """The name of whoever orders: of the account, and with root of the account for which root speaks."""
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    return f"{on_behalf_of} ({name})" if user == 0 and on_behalf_of not in ("", name) else name
