"""One SMTP session: the commands, in the order in which a client says them.

Promises: what is offered by EHLO is what works. Every reply has an enhanced status where RFC 2034 wants one.
"""

from __future__ import annotations

import re

from relay.config.listeners import Listener
from relay.config.settings import Config
from relay.config.sources import Source
from relay.errors import Refusal
from relay.intake.accept import Acceptance, Client
from relay.intake.auth import MECHANISMS, authenticate
from relay.intake.caller import Caller, caller_on
from relay.intake.connection import SmtpConnection
from relay.intake.connections import Connections, Stoppable
from relay.intake.passwords import Passwords
from relay.intake.policy import Policy
from relay.intake.reception import Reception
from relay.intake.tls import ServerTls
from relay.intake.wire import LONGEST_LINE
from relay.mail import status
from relay.mail.status import Reply
from relay.maillog import MailLog

_HELO_NAME = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
"""What is fit for the Received field: a domain or literal, or what clients send in its place."""


class SmtpSession(SmtpConnection):
    """The dialogue with one client on one listener."""

    def __init__(
        self,
        config: Config,
        listener: Listener,
        policy: Policy,
        passwords: Passwords,
        acceptance: Acceptance,
        maillog: MailLog,
        tls: ServerTls | None,
        caller: Caller,
        connections: Connections[Stoppable],
    ) -> None:
        super().__init__(config, maillog, tls.context if tls is not None else None, caller.address)
        self._settings = config.intake
        self._listener = listener
        self._policy = policy
        self._passwords = passwords
        self._caller = caller
        self._connections = connections
        self._reception = Reception(
            config.intake, acceptance, policy, maillog, self._budget, self._wire, self._introduce
        )
        self._login: Source | None = None
        self._is_source_by_address = False

    @property
    def is_taking(self) -> bool:
        """Whether a message is under way."""
        return self._reception.is_taking

    @property
    def is_known(self) -> bool:
        """Whether the client is a source, by its address or by AUTH."""
        return self._is_source_by_address or self._login is not None

    @property
    def _is_at_work(self) -> bool:
        return self._reception.is_at_work

    def _enter(self) -> Reply | None:
        self._is_source_by_address = self._policy.knows(self._listener, self._caller)
        return self._connections.enter(self)

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone."""
        self._connections.leave(self)
        self._reception.reset()
        super().connection_lost(error)

    def _is_error(self, reply: Reply, stage: str) -> bool:
        # A letter to a hundred patrons may have many addresses that its source may not send to.
        return not (stage == "RCPT" and self._reception.is_of_a_source)

    # --- greeting

    async def smtp_EHLO(self, argument: str) -> None:  # noqa: N802 - aiosmtpd finds commands by these names
        """EHLO: what is offered (RFC 5321 4.1.1.1)."""
        self._greeted_by(argument, is_extended=True)
        offers = [
            self.hostname,
            f"SIZE {int(self._settings.max_message_size)}",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "PIPELINING",
            "CHUNKING",
            "DSN",
            f"LIMITS MAILMAX={self._settings.max_messages} RCPTMAX={self._settings.max_recipients}",
            "HELP",
        ]
        if self.is_secure:
            offers += [f"AUTH {MECHANISMS}", "REQUIRETLS"]
        elif self.tls_context:
            offers.append("STARTTLS")
        await self.push("\r\n".join([*(f"250-{offer}" for offer in offers[:-1]), f"250 {offers[-1]}"]))

    async def smtp_HELO(self, argument: str) -> None:  # noqa: N802
        """HELO: the same without extensions."""
        self._greeted_by(argument, is_extended=False)
        await self.push(f"250 {self.hostname}")

    def _greeted_by(self, name: str, *, is_extended: bool) -> None:
        if not _HELO_NAME.fullmatch(name):
            raise Refusal(status.syntax("EHLO and HELO take a domain name or an address literal"))
        assert self.session is not None
        self._reception.reset()
        self.session.extended_smtp, self.session.host_name = is_extended, name

    async def smtp_STARTTLS(self, argument: str) -> None:  # noqa: N802
        """STARTTLS (RFC 3207), once; the client begins anew after it."""
        if argument:
            raise Refusal(status.syntax("STARTTLS takes no argument"))
        if self.is_secure:
            raise Refusal(status.bad_sequence("TLS is in use already"))
        if self.tls_context is None:
            raise Refusal(status.not_offered("TLS is not offered here"))
        await self._secure()
        self._reception.reset()
        if self.transport is not None:
            self._caller = caller_on(self.transport, self.address)

    async def smtp_AUTH(self, argument: str) -> None:  # noqa: N802
        """AUTH, over TLS only and once; a mail transaction keeps its identity (RFC 4954 4)."""
        self._check_greeted()
        if self._reception.is_open:
            raise Refusal(status.bad_sequence("AUTH is not for the middle of a mail transaction"))
        if not self.is_secure:
            raise Refusal(Reply(538, "5.7.11", "AUTH is offered over TLS only"))
        if self._login is not None:
            raise Refusal(status.bad_sequence("already authenticated"))
        self._login = await authenticate(argument, self._ask, self._passwords, self.address)
        await self._answer(Reply(235, "2.7.0", "authenticated"))

    async def _ask(self, challenge: str) -> bytes:
        await self.push(f"334 {challenge}")
        response = await self._wire.line(LONGEST_LINE)
        self._reset_timeout()
        return response.encode()

    def _check_greeted(self) -> None:
        if not self._has_greeted:
            raise Refusal(status.bad_sequence("EHLO comes first"))

    def _check_ready(self) -> None:
        self._check_greeted()
        if self._listener.kind == "submission" and self._login is None:
            raise Refusal(Reply(530, "5.7.0", "AUTH comes first"))

    # --- mail

    async def smtp_MAIL(self, argument: str) -> None:  # noqa: N802
        """MAIL FROM (RFC 5321 4.1.1.2)."""
        self._check_ready()
        sources = self._policy.sources_of(self._listener, self._caller, self._login)
        await self._answer(self._reception.mail(argument, sources, is_secure=self.is_secure))

    async def smtp_RCPT(self, argument: str) -> None:  # noqa: N802
        """RCPT TO (RFC 5321 4.1.1.3)."""
        self._check_ready()
        await self._answer(self._reception.rcpt(argument))

    async def smtp_DATA(self, argument: str) -> None:  # noqa: N802
        """DATA (RFC 5321 4.1.1.4): the 250 is sent after the message is on disk."""
        self._check_ready()
        await self._answer(self._reception.ready(argument))
        await self._answer(await self._reception.message(self._reset_timeout))

    async def smtp_BDAT(self, argument: str) -> None:  # noqa: N802
        """BDAT (RFC 3030): as DATA, in parts; the 250 to the last one is sent after the message is on disk."""
        objection = None
        try:
            self._check_ready()
        except Refusal as refusal:
            objection = refusal.reply
        await self._answer(await self._reception.chunk(argument, objection, self._reset_timeout))

    def _introduce(self, sources: tuple[Source, ...]) -> Client:
        """By RFC 3848."""
        assert self.session is not None
        protocol = "SMTP"
        if self.session.extended_smtp:
            protocol = "ESMTP" + ("S" if self.is_secure else "") + ("A" if self._login else "")
        return Client(self.address, self.session.host_name or "", protocol, sources)

    # --- the rest

    async def smtp_RSET(self, argument: str) -> None:  # noqa: N802
        """RSET (RFC 5321 4.1.1.5)."""
        if argument:
            raise Refusal(status.syntax("RSET takes no argument"))
        self._reception.reset()
        await self._answer(Reply(250, "2.0.0", "begin anew"))

    async def smtp_NOOP(self, argument: str) -> None:  # noqa: N802
        """NOOP (RFC 5321 4.1.1.9)."""
        await self._answer(Reply(250, "2.0.0", "ok"))

    async def smtp_HELP(self, argument: str) -> None:  # noqa: N802
        """HELP (RFC 5321 4.1.1.8)."""
        await self._answer(Reply(214, "2.0.0", "commands are " + " ".join(sorted(self._smtp_methods))))

    async def smtp_VRFY(self, argument: str) -> None:  # noqa: N802
        """VRFY: nobody is told who is known here (RFC 5321 3.5.3, 7.3)."""
        if not argument:
            raise Refusal(status.syntax("VRFY takes an address"))
        await self._answer(Reply(252, "2.0.0", "RCPT says whether an address is taken"))

    async def smtp_EXPN(self, argument: str) -> None:  # noqa: N802
        """EXPN: there are no lists here."""
        raise Refusal(status.not_offered("EXPN is not offered here"))

    async def smtp_QUIT(self, argument: str) -> None:  # noqa: N802
        """QUIT (RFC 5321 4.1.1.10)."""
        if argument:
            raise Refusal(status.syntax("QUIT takes no argument"))
        await self._answer(Reply(221, "2.0.0", "goodbye"))
        self._end()
