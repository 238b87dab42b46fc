"""One SMTP session: aiosmtpd's dialogue, with the parts replaced that are not fit for the open internet.

Ours are: EHLO's list, what commands say (`commands`), the mail transaction, the policy at each step, AUTH (`auth`),
reading DATA in blocks, enhanced status codes on every reply (RFC 2034), and faults answered with 451 and nothing more.
Known limits: MAIL takes SIZE, BODY, SMTPUTF8, RET and ENVID, RCPT NOTIFY and ORCPT.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import defaultdict
from typing import AnyStr

from aiosmtpd.smtp import SMTP, TLSSetupException

from relay.config.settings import Config, Listener, Source
from relay.errors import Goodbye, Refusal, SpoolAway, SpoolError
from relay.intake.accept import Acceptance, Client
from relay.intake.auth import MECHANISMS, authenticate
from relay.intake.commands import read_mail, read_rcpt
from relay.intake.content import Pace, read_data
from relay.intake.policy import Policy
from relay.intake.staging import ContentSink
from relay.intake.transaction import Transaction
from relay.mail import status
from relay.mail.status import Reply
from relay.maillog import MailLog

_BARE_REPLY = re.compile(r"([245]\d\d) (?![245]\.\d)(.*)", re.DOTALL)
_ENHANCED = {
    "250": "2.0.0",
    "221": "2.0.0",
    "454": "4.7.0",
    "500": "5.5.2",
    "501": "5.5.4",
    "502": "5.5.1",
    "503": "5.5.1",
}

COMMAND_LIMIT = 2048
"""Octets of a command line: room for the longest path with its parameters (RFC 5321 4.5.3.1.4, RFC 3461)."""


class SmtpSession(SMTP):
    """The dialogue with one client on one listener."""

    # aiosmtpd uses this as the reader's buffer too: the size of the blocks that DATA is read in.
    line_length_limit = 256 * 1024
    command_size_limit = COMMAND_LIMIT
    command_size_limits = defaultdict(lambda: COMMAND_LIMIT)  # noqa: RUF012 - aiosmtpd has it so

    def __init__(
        self,
        config: Config,
        listener: Listener,
        policy: Policy,
        acceptance: Acceptance,
        maillog: MailLog,
        tls: ssl.SSLContext | None,
        open_sessions: set[SmtpSession],
    ) -> None:
        super().__init__(
            handler=None,
            data_size_limit=int(config.intake.max_message_size),
            enable_SMTPUTF8=True,
            hostname=config.server.hostname,
            ident="ESMTP slip-relay",
            tls_context=tls,
            timeout=config.intake.idle_timeout,
            auth_required=listener.kind == "submission",
            auth_require_tls=True,
            loop=asyncio.get_running_loop(),
        )
        self._intake = config.intake
        self._listener = listener
        self._policy = policy
        self._acceptance = acceptance
        self._maillog = maillog
        self._open_sessions = open_sessions
        self._taking = self._retired = self._in_handshake = False
        self._client, self._idle_until = "unknown", 0.0
        self._login: Source | None = None
        self._transaction: Transaction | None = None

    # --- what every command needs

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is here (or is here again, after STARTTLS)."""
        self._open_sessions.add(self)
        super().connection_made(transport)
        if self.session is not None and self.session.peer:
            self._client = str(self.session.peer[0])

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone."""
        self._open_sessions.discard(self)
        super().connection_lost(error)

    @property
    def is_secure(self) -> bool:
        """Whether what is said is encrypted."""
        return self.transport is not None and self.transport.get_extra_info("ssl_object") is not None

    @property
    def is_taking(self) -> bool:
        """Whether a message is under way."""
        return self._taking

    def retire(self) -> None:
        """Ends the session because the service stops: at once, or after the message that it is just taking."""
        self._retired = True
        if self._taking or self.transport is None:
            return
        if not self._in_handshake:
            self._writer.write(f"{status.SHUTTING_DOWN}\r\n".encode("ascii"))
        self.transport.close()

    def cut_off(self) -> None:
        """Ends the session without another word."""
        for transport in (self.transport, self._original_transport):
            if isinstance(transport, asyncio.Transport):
                transport.abort()

    def _reset_timeout(self, duration: float | None = None) -> None:
        """The client has time again. A timer for each command would cost more than the command."""
        self._idle_until = self.loop.time() + (duration or self._timeout_duration)
        if self._timeout_handle is None:
            self._timeout_handle = self.loop.call_at(self._idle_until, self._timeout_cb)

    def _timeout_cb(self) -> None:
        if self.loop.time() < self._idle_until:
            self._timeout_handle = self.loop.call_at(self._idle_until, self._timeout_cb)
        else:
            super()._timeout_cb()  # type: ignore[no-untyped-call]

    def _set_rset_state(self) -> None:
        super()._set_rset_state()  # type: ignore[no-untyped-call]
        self._transaction = None

    async def push(self, status: AnyStr) -> None:
        """Sends a reply; one of aiosmtpd's own gets the enhanced status it lacks."""
        text = status if isinstance(status, str) else status.decode("utf-8", "surrogateescape")
        if (match := _BARE_REPLY.fullmatch(text)) and match[1] in _ENHANCED:
            text = f"{match[1]} {_ENHANCED[match[1]]} {match[2]}"
        await super().push(text)

    async def _answer(self, reply: Reply, stage: str = "") -> None:
        if reply.code >= 400:
            self._maillog.refused(client=self._client, stage=stage, reply=reply)
        await super().push(str(reply))

    async def handle_exception(self, error: Exception) -> str:
        """A fault of ours: the sender keeps the message, and learns nothing else."""
        if isinstance(error, TLSSetupException):
            self._maillog.refused(client=self._client, stage="STARTTLS", reply=Reply(454, "4.7.0", "handshake failed"))
        else:
            self._maillog.fault("intake", error)
        return str(status.LOCAL_ERROR)

    # --- greeting and authentication

    async def smtp_EHLO(self, hostname: str) -> None:  # noqa: N802 - aiosmtpd finds commands by these names
        """EHLO: what is offered (RFC 5321 4.1.1.1)."""
        assert self.session is not None
        if not _is_helo_name(hostname):
            await self._answer(status.syntax("EHLO takes a domain name or an address literal"), "EHLO")
            return
        self._set_rset_state()
        self.session.extended_smtp, self.session.host_name = True, hostname
        offers = [
            self.hostname,
            f"SIZE {self.data_size_limit}",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "PIPELINING",
            "DSN",
        ]
        if self.is_secure:
            offers.append(f"AUTH {MECHANISMS}")
        elif self.tls_context:
            offers.append("STARTTLS")
        lines = [f"250-{offer}" for offer in offers[:-1]] + [f"250 {offers[-1]}"]
        await super().push("\r\n".join(lines))

    async def smtp_HELO(self, hostname: str) -> None:  # noqa: N802
        """HELO: the same without extensions."""
        assert self.session is not None
        if not _is_helo_name(hostname):
            await self._answer(status.syntax("HELO takes a domain name or an address literal"), "HELO")
            return
        self._set_rset_state()
        self.session.extended_smtp, self.session.host_name = False, hostname
        await super().push(f"250 {self.hostname}")

    async def smtp_STARTTLS(self, arg: str) -> None:  # noqa: N802
        """STARTTLS (RFC 3207), once."""
        if self.is_secure:
            await self._answer(status.bad_sequence("TLS is in use already"), "STARTTLS")
            return
        self._in_handshake = True
        try:
            await super().smtp_STARTTLS(arg)
        finally:
            self._in_handshake = False

    async def smtp_AUTH(self, arg: str | None) -> None:  # noqa: N802
        """AUTH, over TLS only; a mail transaction keeps its identity (RFC 4954 4)."""
        assert self.session is not None
        if await self.check_helo_needed("EHLO"):
            return
        if self._transaction is not None:
            await self._answer(status.bad_sequence("AUTH is not for the middle of a mail transaction"), "AUTH")
        elif not self.is_secure:
            await self._answer(Reply(538, "5.7.11", "AUTH is offered over TLS only"), "AUTH")
        elif self._login is not None:
            await self._answer(status.bad_sequence("already authenticated"), "AUTH")
        else:
            try:
                self._login = await authenticate(arg or "", self._ask, self._policy)
            except Refusal as refusal:
                await self._answer(refusal.reply, "AUTH")
            else:
                self.session.authenticated = True
                await self._answer(Reply(235, "2.7.0", "authenticated"))

    async def _ask(self, challenge: str) -> bytes:
        await super().push(f"334 {challenge}")
        return (await self._reader.readline()).rstrip(b"\r\n")

    # --- the mail transaction

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        """MAIL FROM (RFC 5321 4.1.1.2)."""
        if await self.check_helo_needed() or await self.check_auth_needed("MAIL"):
            return
        try:
            await self._answer(self._mail(arg or ""), "MAIL")
        except Refusal as refusal:
            await self._answer(refusal.reply, "MAIL")

    def _mail(self, arg: str) -> Reply:
        if self._transaction is not None:
            return status.bad_sequence("a sender was given already; RSET begins anew")
        mail = read_mail(arg)
        if mail.size > int(self._intake.max_message_size):
            return status.too_big(int(self._intake.max_message_size))
        if not self._acceptance.has_room(mail.size):
            return status.SPOOL_FULL
        sources = (self._login,) if self._login else self._policy.sources_at(self._listener, self._client)
        self._transaction = Transaction(mail, sources)
        return status.SENDER_OK

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        """RCPT TO (RFC 5321 4.1.1.3)."""
        if await self.check_helo_needed() or await self.check_auth_needed("RCPT"):
            return
        try:
            await self._answer(self._rcpt(arg or ""), "RCPT")
        except Refusal as refusal:
            await self._answer(refusal.reply, "RCPT")

    def _rcpt(self, arg: str) -> Reply:
        if self._transaction is None:
            return status.bad_sequence("MAIL comes first")
        rcpt = read_rcpt(arg, smtputf8=self._transaction.mail.smtputf8)
        if len(self._transaction) >= self._intake.max_recipients:
            return status.TOO_MANY_RECIPIENTS
        self._policy.check_recipient(self._transaction.sources, rcpt.recipient)
        self._transaction.add(rcpt)
        return status.RECIPIENT_OK

    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802
        """DATA (RFC 5321 4.1.1.4): the 250 is sent after the message is on disk."""
        if await self.check_helo_needed() or await self.check_auth_needed("DATA"):
            return
        transaction = self._transaction
        if transaction is None or not len(transaction):
            await self._answer(status.bad_sequence("RCPT comes first"), "DATA")
            return
        if arg:
            await self._answer(status.syntax("DATA takes no argument"), "DATA")
            return
        self._taking = True
        sink = self._acceptance.sink()
        try:
            await self.push("354 end data with <CR><LF>.<CR><LF>")
            await read_data(self._reader, sink, Pace(self._intake.min_data_rate, self.loop.time), self._reset_timeout)
            self._set_rset_state()
            await self._answer(await self._accept(transaction, sink), "DATA")
        except Goodbye as goodbye:
            await self._answer(goodbye.reply, "DATA")
            if self.transport is not None:
                self.transport.close()
        finally:
            self._taking = False
            sink.discard()
        if self._retired:
            self.retire()

    async def _accept(self, transaction: Transaction, sink: ContentSink) -> Reply:
        assert self.session is not None
        client = Client(self._client, self.session.host_name or "", self._protocol(), transaction.sources)
        try:
            return status.queued(await self._acceptance.accept(client, transaction.envelope(), await sink.finish()))
        except Refusal as refusal:
            return refusal.reply
        except SpoolError as error:
            self._maillog.fault("spool", error)
            return status.SPOOL_AWAY if isinstance(error, SpoolAway) else status.SPOOL_FULL

    def _protocol(self) -> str:
        assert self.session is not None
        if not self.session.extended_smtp:
            return "SMTP"
        return "ESMTP" + ("S" if self.is_secure else "") + ("A" if self._login else "")


def _is_helo_name(name: str | None) -> bool:
    """Whether the name is fit for the Received field: a domain or literal, or what clients send in its place."""
    return bool(name) and len(str(name)) <= 255 and re.fullmatch(r"[A-Za-z0-9._:\[\]-]+", str(name)) is not None
