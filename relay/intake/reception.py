"""Mail of one session comes in: MAIL, RCPT, and the message itself by DATA or BDAT.

Promises: a message is accepted whole or not at all, whatever the client does; after a BDAT that was refused, nothing of
that message is taken any more until the client begins anew (RFC 3030 2).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from relay.config.settings import Intake
from relay.config.sources import Source
from relay.errors import Goodbye, Refusal, SpoolAway, SpoolError
from relay.intake.accept import Acceptance, Client
from relay.intake.commands import read_bdat, read_mail, read_rcpt
from relay.intake.content import Pace, read_chunk, read_data
from relay.intake.limits import Budget
from relay.intake.policy import Policy
from relay.intake.staging import ContentSink
from relay.intake.transaction import Transaction
from relay.intake.wire import Wire
from relay.mail import status
from relay.mail.status import Reply
from relay.maillog import MailLog

_WORTH_A_COMMAND = 1024
"""Octets of a chunk from which on BDAT is no idle talk."""

Introduce = Callable[[tuple[Source, ...]], Client]
"""Says who the client is, in a transaction in which it may be these sources."""


class Reception:
    """That of one session."""

    def __init__(
        self,
        settings: Intake,
        acceptance: Acceptance,
        policy: Policy,
        maillog: MailLog,
        budget: Budget,
        wire: Wire,
        introduce: Introduce,
    ) -> None:
        self._settings = settings
        self._acceptance = acceptance
        self._policy = policy
        self._maillog = maillog
        self._budget = budget
        self._wire = wire
        self._introduce = introduce
        self._transaction: Transaction | None = None
        self._chunks: ContentSink | None = None  # of the message that BDAT began
        self.is_taking = False
        "Whether a message is under way."
        self.is_at_work = False
        "Whether it is the client who waits."

    @property
    def is_open(self) -> bool:
        """Whether a mail transaction is open."""
        return self._transaction is not None

    @property
    def is_of_a_source(self) -> bool:
        """Whether the transaction is one of somebody who may send something."""
        return self._transaction is not None and bool(self._transaction.sources)

    def reset(self) -> None:
        """No transaction is open any more, and nothing is left of a message that BDAT began."""
        self._transaction = None
        if self._chunks is not None:
            self._chunks.discard()
            self._chunks = None

    def mail(self, argument: str, sources: Sequence[Source], *, is_secure: bool) -> Reply:
        """MAIL FROM (RFC 5321 4.1.1.2), over TLS or not. Raises Refusal."""
        if self._transaction is not None:
            raise Refusal(status.bad_sequence("a sender was given already; RSET begins anew"))
        mail = read_mail(argument, is_secure=is_secure)
        if mail.size > int(self._settings.max_message_size):
            raise Refusal(status.too_big(int(self._settings.max_message_size)))
        if not self._acceptance.has_room(mail.size):
            raise Refusal(status.SPOOL_FULL)
        if self._acceptance.rates.are_spent(source.name for source in sources):
            raise Refusal(status.TOO_FAST)
        self._budget.transaction()
        self._transaction = Transaction(mail, sources)
        return status.SENDER_OK

    def rcpt(self, argument: str) -> Reply:
        """RCPT TO (RFC 5321 4.1.1.3). Raises Refusal."""
        if self._transaction is None:
            raise Refusal(status.bad_sequence("MAIL comes first"))
        if self._chunks is not None:
            raise Refusal(status.bad_sequence("the message has begun; RSET begins anew"))
        rcpt = read_rcpt(argument, smtputf8=self._transaction.mail.smtputf8)
        if len(self._transaction) >= self._settings.max_recipients:
            raise Refusal(status.TOO_MANY_RECIPIENTS)
        to = self._policy.addressee(self._transaction.sources, rcpt.recipient)
        if rcpt.recipient.has_route:  # a next hop might go it, to where the source may not send
            raise Refusal(status.ROUTED)
        if to.diverted_by:
            self._maillog.diverted(source=to.diverted_by, recipient=str(rcpt.recipient), to=str(to.address))
        self._transaction.add(replace(rcpt, recipient=to.address))
        self._budget.moved()
        return status.RECIPIENT_OK

    def ready(self, argument: str) -> Reply:
        """DATA (RFC 5321 4.1.1.4): what to say before the message. Raises Refusal."""
        if argument:
            raise Refusal(status.syntax("DATA takes no argument"))
        if self._chunks is not None:
            raise Refusal(status.bad_sequence("BDAT began this message; RSET begins anew"))
        if not self._transaction:
            raise Refusal(status.bad_sequence("RCPT comes first"))
        return status.GO_AHEAD

    async def message(self, alive: Callable[[], None]) -> Reply:
        """What follows 354, to its end. The 250 means that the message is on disk. Raises Refusal."""
        sink = self._acceptance.sink()
        self.is_taking = True
        try:
            await read_data(self._wire, sink, self._pace(), alive)
            return await self._accept(sink)
        finally:
            self.is_taking = False
            sink.discard()

    async def chunk(self, argument: str, objection: Reply | None, alive: Callable[[], None]) -> Reply:
        """BDAT (RFC 3030 2): takes a part of the message, and after the last one all of it. Raises Refusal.

        The octets are read in any case, or they would be taken for commands; with an `objection` they are dropped.
        """
        octets, is_last = read_bdat(argument)
        if octets > 2 * int(self._settings.max_message_size):
            raise Goodbye(status.too_big(int(self._settings.max_message_size)))
        sink = self._chunks or self._acceptance.sink()
        if sink.refusal is not None:
            objection = status.bad_sequence("this message was refused; RSET begins anew")
        elif objection is None and not self._transaction:
            objection = status.bad_sequence("RCPT comes first")
        if objection is None:
            self._chunks = sink
        elif sink.refusal is None:
            sink.refusal = objection
        self.is_taking = True
        try:
            await read_chunk(self._wire, octets, sink, self._pace(), alive)
            if (refusal := objection or sink.refusal) is not None:
                raise Refusal(refusal)
            if octets >= _WORTH_A_COMMAND:
                self._budget.moved()
            return await self._accept(sink) if is_last else status.chunk(octets)
        finally:
            self.is_taking = False
            if is_last and self._chunks is sink:
                self.reset()

    def _pace(self) -> Pace:
        return Pace(int(self._settings.min_data_rate), time.monotonic)

    async def _accept(self, sink: ContentSink) -> Reply:
        """The message is here: it goes into the spool, and the transaction is over in any case."""
        transaction, self._transaction, self._chunks = self._transaction, None, None
        assert transaction is not None
        self.is_at_work = True
        try:
            client = self._introduce(transaction.sources)
            queue_id = await self._acceptance.accept(client, transaction.envelope(), await sink.finish())
        except SpoolError as error:
            self._maillog.fault("spool", error)
            raise Refusal(status.SPOOL_AWAY if isinstance(error, SpoolAway) else status.SPOOL_FULL) from error
        finally:
            self.is_at_work = False
            sink.discard()
        self._budget.accepted()
        return status.queued(queue_id)
