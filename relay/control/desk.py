"""The desk: takes an order, has the spool carry it out, writes it into the mail log, and lets the runner know."""

from __future__ import annotations

import pwd
import time
from collections.abc import Callable

from relay.config.settings import Config
from relay.control.again import again
from relay.control.protocol import SEND_TEST, AnyRequest, Reprint, SendTest
from relay.control.trials import Trials
from relay.control.ways import Ways
from relay.errors import OrderError
from relay.maillog import MailLog
from relay.spool import orders, reprints
from relay.spool.orders import Done, Order, Result, Verb
from relay.spool.records import State
from relay.spool.store import Store


class Desk:
    """Carries out the orders of one spool."""

    def __init__(
        self,
        config: Config,
        store: Store,
        maillog: MailLog,
        changed: Callable[[], None],
        trials: Trials | None = None,
    ) -> None:
        """`changed` is called when something waits that may go now. Without `trials` no test letter is sent."""
        self._config = config
        self._store = store
        self._maillog = maillog
        self._ways = Ways(config)
        self._changed = changed
        self._trials = trials

    async def carry_out(self, request: AnyRequest, who: str) -> Result:
        """Carries out an order of `who` on the deliveries it names, as one transaction. Raises SpoolError, and
        OrderError when it can't be carried out at all.
        """
        if isinstance(request, Reprint):
            return await self._reprint(request, who)
        if isinstance(request, SendTest):
            return await self._send_test(request, who)
        order = Order(request.verb, who, time.time(), request.why, request.only)
        result = await self._store.write(lambda c: orders.carry_out(c, order, request.keys, self._ways))
        for done in result.done:
            self._log(order.verb.value, who, done)
        if not request.more and request.verb in (Verb.RELEASE, Verb.RETRY):
            self._changed()
        return result

    async def _reprint(self, request: Reprint, who: str) -> Result:
        new, at = again(self._config, request.printer, request.mark), time.time()
        result = await self._store.write(lambda c: reprints.reprint(c, request.keys, new, who, at, request.why))
        for done in result.done:
            self._log(reprints.REPRINT, who, done)
        if not request.more:
            self._changed()
        return result

    async def _send_test(self, request: SendTest, who: str) -> Result:
        if self._trials is None:
            raise OrderError("a test letter is sent by the running service, and none runs")
        new = self._trials.write(request.to, request.institution)
        await self._store.accept(new, None)
        message, route = new.message, new.deliveries[0].route
        self._maillog.accepted(
            message.queue_id,
            source=message.source,
            institution=message.institution,
            client="",
            sender=message.reverse_path or "<>",
            recipients=1,
            size=message.size,
            seconds=time.time() - message.received_at,
        )
        done = Done((message.queue_id, 0), State.QUEUED, State.QUEUED, route)
        self._log(SEND_TEST, who, done)
        self._changed()
        return Result([done])

    def _log(self, verb: str, who: str, done: Done) -> None:
        queue_id, number = done.key
        state, route = done.now.value, done.route
        self._maillog.order(
            queue_id, number, verb=verb, who=who, was=done.was.value, state=state, route=route, made=done.made
        )


def account(user: int, on_behalf_of: str) -> str:
    """The name of whoever orders: of the account, and with root of the account for which root speaks."""
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    return f"{on_behalf_of} ({name})" if user == 0 and on_behalf_of not in ("", name) else name
