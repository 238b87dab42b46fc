"""Mail of one session comes in: MAIL, RCPT, and the message itself by DATA or BDAT.

Promises: a message is accepted whole or not at all, whatever the client does; after a BDAT that was refused, nothing of
that message is taken any more until the client begins anew (RFC 3030 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relay.config.settings import Intake, Source
from relay.errors import Refusal, SpoolAway, SpoolError
from relay.intake.accept import Acceptance, Client
from relay.intake.commands import read_mail, read_rcpt
from relay.intake.content import read_data
from relay.intake.limits import Budget
from relay.intake.policy import Policy
from relay.intake.transaction import Transaction
from relay.intake.wire import Wire
from relay.mail import status
from relay.mail.status import Reply
from relay.maillog import MailLog

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
        """No transaction is open any more."""
        self._transaction = None

    def mail(self, argument: str, sources: Sequence[Source]) -> Reply:
        """MAIL FROM (RFC 5321 4.1.1.2). Raises Refusal."""
        if self._transaction is not None:
            raise Refusal(status.bad_sequence("a sender was given already; RSET begins anew"))
        mail = read_mail(argument)
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
        rcpt = read_rcpt(argument, smtputf8=self._transaction.mail.smtputf8)
        if len(self._transaction) >= self._settings.max_recipients:
            raise Refusal(status.TOO_MANY_RECIPIENTS)
        self._policy.check_recipient(self._transaction.sources, rcpt.recipient)
        self._transaction.add(rcpt)
        self._budget.moved()
        return status.RECIPIENT_OK

    def ready(self, argument: str) -> Reply:
        """DATA (RFC 5321 4.1.1.4): what to say before the message. Raises Refusal."""
        if argument:
            raise Refusal(status.syntax("DATA takes no argument"))
        if self._transaction is None or not len(self._transaction):
            raise Refusal(status.bad_sequence("RCPT comes first"))
        return status.GO_AHEAD

    async def message(self, alive: Callable[[], None]) -> Reply:
        """What follows 354, to its end. The 250 means that the message is on disk. Raises Refusal."""
        transaction = self._transaction
        assert transaction is not None
        self.is_taking = True
        try:
            content = await read_data(self._wire, int(self._settings.max_message_size), alive)
            self.reset()
            if content is None:
                raise Refusal(status.too_big(int(self._settings.max_message_size)))
            return await self._accept(transaction, content)
        finally:
            self.is_taking = False

    async def _accept(self, transaction: Transaction, content: bytes) -> Reply:
        self.is_at_work = True
        try:
            client = self._introduce(transaction.sources)
            queue_id = await self._acceptance.accept(client, transaction.envelope(), content)
        except SpoolError as error:
            self._maillog.fault("spool", error)
            raise Refusal(status.SPOOL_AWAY if isinstance(error, SpoolAway) else status.SPOOL_FULL) from error
        finally:
            self.is_at_work = False
        self._budget.accepted()
        return status.queued(queue_id)
