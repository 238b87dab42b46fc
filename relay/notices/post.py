"""Looks now and then how it stands, and puts what is to be told into the spool.

Promises: what was told, and the e-mail, are one transaction; several nodes of a spool, and a restart, tell once. What
goes wrong, a spool that is away among it, is logged, and the next look tries again. What nobody is named to be told of
is logged and counted all the same. Notices go on to the spool alone: no mail is lost or late for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from functools import partial

from relay.bounces.own_mail import SOURCE
from relay.config.settings import Config
from relay.maillog import MailLog
from relay.notices.conditions import Condition, conditions
from relay.notices.hours import Hours
from relay.notices.letter import Letters
from relay.notices.watch import Step, Watch
from relay.routing.rules import PRINT
from relay.spool import notices
from relay.spool.notices import Told
from relay.spool.standing import LastMail, Standing, standings
from relay.spool.store import Store


class Post:
    """The notices of one node."""

    def __init__(self, config: Config, store: Store, maillog: MailLog) -> None:
        """Raises StartError when the hostname has no ASCII form."""
        self._config = config
        self._store = store
        self._maillog = maillog
        self._hours = Hours(config)
        self._letters = Letters(config)
        self._watch = Watch()
        self._running_since = time.time()
        self._last_mail = LastMail(store.place, [each.name for each in config.institutions], SOURCE)

    async def run(self, stop: asyncio.Event) -> None:
        """Looks until `stop` is set."""
        while not stop.is_set():
            try:
                await self.look()
            except Exception as error:
                self._maillog.fault("notices", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.notices.look_every):
                    await stop.wait()

    async def look(self) -> None:
        """One look, and what follows from it. Raises SpoolError."""
        told, slips, last_mail = await asyncio.to_thread(self._observe)
        now = time.time()
        found = list(conditions(self._config, slips, last_mail, now, self._running_since, self._hours))
        self._show(found, slips, last_mail, now)
        for step in self._watch.decide(found, told):
            await self._take(step, now)

    def _observe(self) -> tuple[dict[str, Told], dict[str, Standing], dict[str, float]]:
        """What was told comes first: what another node tells meanwhile is then not new, and what it ends stays so."""
        place = self._store.place
        routes = [PRINT + printer.name for printer in self._config.queues]
        return notices.told(place), standings(place, routes), self._last_mail.look()

    async def _take(self, step: Step, now: float) -> None:
        condition, known = step.condition, step.known
        since = condition.since if known is None else known.since
        letter = self._letters.write(condition, since, now, is_over=known is not None)
        if known is None:
            work = partial(notices.tell, new=Told(condition.key, since, now), letter=letter)
        else:
            work = partial(notices.end, known=known, letter=letter)
        if await self._store.write(work, len(letter.content) if letter is not None else 0):
            self._maillog.notice(
                condition.kind,
                condition.name,
                is_over=known is not None,
                seconds=now - since,
                queue_id=letter.message.queue_id if letter is not None else "",
                why=condition.reason,
            )

    def _show(
        self,
        found: Sequence[Condition],
        slips: Mapping[str, Standing],
        last_mail: Mapping[str, float],
        now: float,
    ) -> None:
        """Sets the gauges."""
        metrics = self._maillog.metrics
        for printer in self._config.queues:
            standing = slips[PRINT + printer.name]
            age = now - standing.oldest_at if standing.oldest_at is not None else 0.0
            metrics.open_slips.labels(printer.name).set(standing.open)
            metrics.oldest_slip.labels(printer.name).set(age)
            metrics.for_a_person.labels(printer.name).set(standing.for_a_person)
        for condition in found:
            if condition.kind == "trouble":
                metrics.trouble.labels(condition.name).set(condition.is_bad)
        for institution, at in last_mail.items():
            metrics.since_mail.labels(institution).set(now - at)
