"""A connection and its dialogue, on top of aiosmtpd's: one command after the other, each answered, within bounds.

Promises: each side speaks in its turn (RFC 2920 3.1): what a client says ahead of the greeting, of EHLO's answer, of
354 or of TLS ends the session. Whoever is silent for too long, stays for too long, or does not listen is sent away. A
fault of ours is 451 and nothing more, and ends the session, since nobody knows what the client says next. The client
always gets time to hear why.
Known limit: VRFY and NOOP may be followed by more commands, which RFC 2920 does not want and which does no harm.
"""

from __future__ import annotations

import asyncio
import ssl
from abc import abstractmethod
from typing import AnyStr

from aiosmtpd.smtp import SMTP, TLSSetupException

from relay.config.settings import Config
from relay.errors import Goodbye, Refusal
from relay.intake import limits
from relay.intake.wire import Wire
from relay.mail import status
from relay.mail.status import Reply
from relay.maillog import MailLog

LAST_WORD = 2.0
"""Seconds that a client gets to hear why its session ended."""

_ALONE = {"AUTH", "DATA", "EHLO", "HELO", "STARTTLS"}
"""Commands whose answer a client has to wait for (RFC 2920 3.1, RFC 3207 4, RFC 4954 4)."""


class SmtpConnection(SMTP):
    """One, from the greeting to its end. Commands are the methods `smtp_*`; they answer, or raise Refusal."""

    def __init__(self, config: Config, maillog: MailLog, tls: ssl.SSLContext | None, address: str) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            handler=None,
            hostname=config.server.hostname,
            tls_context=tls,
            timeout=config.intake.idle_timeout,
            loop=loop,
        )
        self._wire = Wire(loop)
        asyncio.StreamReaderProtocol.__init__(self, self._wire, self._cb_client_connected, loop=loop)
        self._maillog = maillog
        self._budget = limits.Budget(config.intake)
        self._is_over = self._is_retired = self._is_in_handshake = False
        self._cutting_off: asyncio.TimerHandle | None = None
        self.address = address
        self._handshake_timeout = config.tls.handshake_timeout
        self.heard_at = loop.time()
        self._ends_at = self.heard_at + config.intake.session_timeout

    # --- what a session adds

    @property
    @abstractmethod
    def is_taking(self) -> bool:
        """Whether a message is under way."""

    @property
    @abstractmethod
    def _is_at_work(self) -> bool:
        """Whether it is the client who waits."""

    @abstractmethod
    def _enter(self) -> Reply | None:
        """The client's address is known; what to say to it when it can't stay."""

    @abstractmethod
    def _is_error(self, reply: Reply, stage: str) -> bool:
        """Whether a reply counts as an error of the client."""

    # --- the connection

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone."""
        self._is_over = True
        if self._cutting_off is not None:
            self._cutting_off.cancel()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """The client says something."""
        if not self._is_over:
            super().data_received(data)

    def eof_received(self) -> bool:
        """The client says no more; over TCP it may still want to hear the answers to what it said."""
        if self._is_over:
            return False
        self._wire.feed_eof()
        return not self.is_secure

    @property
    def is_secure(self) -> bool:
        """Whether what is said is encrypted."""
        return self.transport is not None and self.transport.get_extra_info("ssl_object") is not None

    def retire(self) -> None:
        """Ends the session because the service stops: at once, or after the message that it is just taking."""
        self._is_retired = True
        if not self.is_taking:
            self._say_goodbye(status.SHUTTING_DOWN)

    def dismiss(self, reply: Reply) -> None:
        """Ends the session with a word, whatever it is at."""
        if not self._is_over:
            self._note(reply, "SESSION")
            self._say_goodbye(reply)

    def cut_off(self) -> None:
        """Ends the session without another word."""
        for transport in (self.transport, self._original_transport):
            if isinstance(transport, asyncio.Transport):
                transport.abort()

    def _say_goodbye(self, reply: Reply) -> None:
        if self._is_over or self.transport is None:
            return
        if not self._is_in_handshake:
            self._writer.write(reply.line())
        self._end()
        assert self._handler_coroutine is not None
        if self._handler_coroutine is not asyncio.current_task(self.loop):
            self._handler_coroutine.cancel()

    def _end(self) -> None:
        """Reads nothing more, and closes when the last word is said.

        A socket that is closed with something unread in it is reset, and takes the last reply along: so whoever spoke
        ahead gets time to hear it. Whoever does not listen is cut off.
        """
        if self._is_over or not isinstance(self.transport, asyncio.Transport):
            return
        self._is_over = True
        if self._wire.pending and not self.is_secure:
            self._wire.discard()
            self.transport.write_eof()
        else:
            self.transport.close()
        self._cutting_off = self.loop.call_later(LAST_WORD, self.cut_off)

    async def _secure(self) -> None:
        """The handshake after STARTTLS; a client that does not end it in time is gone."""
        self._is_in_handshake = True
        try:
            async with asyncio.timeout(self._handshake_timeout):
                await super().smtp_STARTTLS("")
        except TimeoutError as error:
            raise TLSSetupException from error
        self._is_in_handshake = False

    # --- time

    def _reset_timeout(self, duration: float | None = None) -> None:
        """The client was heard. A timer for each command would cost more than the command."""
        self.heard_at = self.loop.time()
        if self._timeout_handle is None:
            self._timeout_handle = self.loop.call_at(self._due, self._timeout_cb)

    @property
    def _due(self) -> float:
        """When the client will have been silent, or here, for too long."""
        return min(self.heard_at + self._timeout_duration, self._ends_at)

    def _timeout_cb(self) -> None:
        now = self.loop.time()
        due = now + 1.0 if self._is_at_work else self._due
        if now < due:
            self._timeout_handle = self.loop.call_at(due, self._timeout_cb)
        else:
            self.dismiss(status.SESSION_TOO_LONG if now >= self._ends_at else status.TOO_LONG_SILENT)

    # --- the dialogue

    async def _handle_client(self) -> None:
        try:
            await self._greet()
            while not self._is_over:
                await self._obey()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is gone
        except TLSSetupException:
            self._note(Reply(454, "4.7.0", "handshake failed"), "STARTTLS")
        except Exception as error:
            self._maillog.fault("intake", error, client=self.address)
            await self._answer(status.LOCAL_ERROR, "FAULT")
        finally:
            self._end()
            if self._is_in_handshake:  # asyncio does not tell us the end of a connection whose TLS has not begun
                self.cut_off()
                self.connection_lost(None)

    async def _greet(self) -> None:
        reply = self._enter()
        await asyncio.sleep(0)  # whoever speaks at once is heard now
        if reply is None and self._wire.pending:
            reply = status.SPOKE_AHEAD
        if reply is not None:
            await self._answer(reply, "CONNECT")
            self._end()
        else:
            await self.push(f"220 {self.hostname} ESMTP slip-relay")

    async def _obey(self) -> None:
        """One command."""
        verb = "LINE"
        try:
            line = await self._wire.line()
            self._reset_timeout()
            self._budget.command()
            word, _, argument = line.partition(" ")
            if self._wire.pending and (word.upper() in _ALONE or not self._has_greeted):
                raise Goodbye(status.SPOKE_AHEAD)
            method = self._smtp_methods.get(word.upper())
            if method is None:
                raise Refusal(status.unknown_command("there is no such command here; HELP names those there are"))
            verb = word.upper()
            await method(argument.strip(" "))
        except Refusal as refusal:
            await self._answer(refusal.reply, verb)
            if isinstance(refusal, Goodbye):
                self._end()
        if self._is_retired:
            self._say_goodbye(status.SHUTTING_DOWN)

    @property
    def _has_greeted(self) -> bool:
        """Whether EHLO or HELO was said, since the beginning or since TLS."""
        return self.session is not None and bool(self.session.host_name)

    async def push(self, status: AnyStr) -> None:
        """Sends a line, or several."""
        line = status.encode("ascii", "replace") if isinstance(status, str) else status
        # aiosmtpd's STARTTLS has no enhanced status (RFC 2034 3).
        self._writer.write(line.replace(b"220 Ready", b"220 2.0.0 ready") + b"\r\n")
        await self._writer.drain()

    async def _answer(self, reply: Reply, stage: str = "") -> None:
        """Sends a reply to the command `stage`, and counts what is an error."""
        if reply.code >= 400:
            self._note(reply, stage)
        self._writer.write(reply.line())
        if self._writer.transport.get_write_buffer_size():
            await self._writer.drain()
        if reply.permanent and self._is_error(reply, stage) and self._budget.error():
            self.dismiss(status.TOO_MANY_ERRORS)

    def _note(self, reply: Reply, stage: str) -> None:
        self._maillog.refused(client=self.address, stage=stage, reply=reply, limit=limits.NAMES.get(reply, ""))
