"""One SMTP connection at the next hop: aiosmtpd's dialogue, with a question before each stage whether to refuse.

What is answered is decided by the `NextHop`; here it is said. Lines may be as long as 1 MiB, so that what a sender
does wrong arrives as it was sent.
"""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

if TYPE_CHECKING:
    from tests.harness.next_hop import NextHop

Stage = Literal["connect", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "body"]
"""Where a refusal strikes; `body` is after the final dot, `data` is the command."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An order to refuse at a stage: with a reply, or by closing without one."""

    stage: Stage
    reply: str | None
    close: bool


class Conversation(SMTP):
    """One connection; every stage asks the next hop whether to refuse."""

    line_length_limit = 1024 * 1024
    command_size_limit = 4096

    def __init__(self, hop: NextHop) -> None:
        self._hop = hop
        self._number = 0
        self.mail_parameters = ""
        self.rcpt_parameters: tuple[str, ...] = ()
        super().__init__(
            _Answers(hop),
            data_size_limit=hop.max_size,
            enable_SMTPUTF8=True,
            hostname=hop.hostname,
            ident="ESMTP test bench",
            tls_context=hop.tls,
            timeout=3600,
            auth_require_tls=True,
            auth_exclude_mechanism={"LOGIN", "PLAIN", "XOAUTH2", "DONT"} - hop.mechanisms,
            authenticator=self._check_login,
            loop=asyncio.get_running_loop(),
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._number:
            self._number = self._hop.enter(self, transport.get_extra_info("peername")[0])
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._hop.leave(self)
        super().connection_lost(error)

    def cut(self) -> None:
        """Close at once, sending nothing more."""
        transport = self._original_transport or self.transport
        if isinstance(transport, asyncio.Transport):
            transport.abort()

    async def _go_on(self, stage: Stage) -> bool:
        """Whether to go on; when refused, the answer was sent."""
        refusal = self._hop.refusal(stage)
        if refusal is None:
            return True
        if refusal.reply is None:
            self.cut()
            return False
        await self.push(refusal.reply)
        if refusal.close and self.transport is not None:
            self.transport.close()
        return False

    async def _handle_client(self) -> None:
        if await self._go_on("connect"):
            await super()._handle_client()
        elif self.transport is not None:
            self.transport.close()

    async def smtp_EHLO(self, hostname: str) -> None:
        if await self._go_on("ehlo"):
            await super().smtp_EHLO(hostname)

    async def smtp_STARTTLS(self, arg: str) -> None:
        if await self._go_on("starttls"):
            await super().smtp_STARTTLS(arg)

    async def smtp_AUTH(self, arg: str) -> None:
        if await self._go_on("auth"):
            await super().smtp_AUTH(arg)

    async def auth_XOAUTH2(self, server: SMTP, args: list[str]) -> AuthResult:
        """A token is shown as user=USER^Aauth=Bearer TOKEN^A^A; a wrong one is answered by a challenge first."""
        shown = base64.b64decode(args[1]).decode().split("\1") if len(args) == 2 else []
        fields = dict(each.split("=", 1) for each in shown if "=" in each)
        login = LoginPassword(fields.get("user", "").encode(), fields.get("auth", "").removeprefix("Bearer ").encode())
        known = self._hop.knows("XOAUTH2", login)
        if not known:
            await self.challenge_auth('{"status":"401","schemes":"bearer"}')
        return AuthResult(success=known, handled=False, auth_data=login)

    async def smtp_MAIL(self, arg: str | None) -> None:
        if await self._go_on("mail"):
            self.mail_parameters, self.rcpt_parameters = _after_path(arg), ()
            arg = self._without_dsn(arg)
            if arg is not None and self._hop.requiretls and self.session is not None and self.session.ssl:
                arg = re.sub(r" REQUIRETLS\b", "", arg, flags=re.IGNORECASE)
            await super().smtp_MAIL(arg)

    async def smtp_RCPT(self, arg: str | None) -> None:
        if await self._go_on("rcpt"):
            known = len(self.envelope.rcpt_tos) if self.envelope is not None else 0
            await super().smtp_RCPT(self._without_dsn(arg))
            if self.envelope is not None and len(self.envelope.rcpt_tos) > known:
                self.rcpt_parameters += (_after_path(arg),)

    def _without_dsn(self, arg: str | None) -> str | None:
        """A path without the parameters that aiosmtpd does not know; they stay where DSN is not offered."""
        if arg is None or not self._hop.dsn:
            return arg
        return re.sub(r" (?:RET|ENVID|NOTIFY|ORCPT)=\S*", "", arg, flags=re.IGNORECASE)

    async def smtp_DATA(self, arg: str) -> None:
        if await self._go_on("data"):
            await super().smtp_DATA(arg)

    def close_soon(self) -> None:
        """Close in an orderly way, once the answer under way was sent."""
        if self.transport is not None:
            asyncio.get_running_loop().call_soon(self.transport.close)

    @property
    def number(self) -> int:
        """The how-manieth connection this is."""
        return self._number

    def _check_login(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, login: object
    ) -> AuthResult:
        known = isinstance(login, LoginPassword) and self._hop.knows(mechanism, login)
        return AuthResult(success=known, handled=False, auth_data=login)


class _Answers:
    """What the next hop says to recipients and to messages (aiosmtpd's handler)."""

    def __init__(self, hop: NextHop) -> None:
        self._hop = hop

    async def handle_EHLO(
        self, conversation: Conversation, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Announce AUTH only when there is somebody to log in, and what the next hop was told to offer."""
        session.host_name = hostname
        kept = [line for line in responses if self._hop.user or not line.startswith("250-AUTH")]
        if not self._hop.eight_bit:
            kept = [line for line in kept if line[4:] not in ("8BITMIME", "SMTPUTF8")]
        more = ["250-DSN"] if self._hop.dsn else []
        more += ["250-REQUIRETLS"] if self._hop.requiretls and session.ssl else []
        return [*kept[:-1], *more, kept[-1]]

    async def handle_RCPT(
        self, conversation: Conversation, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Answer by the recipient's name, as the contract says."""
        name = address.lower()
        if name.startswith("tempfail"):
            return "450 4.2.0 mailbox busy, try again later"
        if name.startswith("permfail"):
            return "550 5.1.1 no such mailbox"
        if name.startswith("hang"):
            await asyncio.Event().wait()
        if name.startswith("break"):
            conversation.cut()
            return "421 4.3.0 never seen"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 recipient ok"

    async def handle_DATA(self, conversation: Conversation, session: Session, envelope: Envelope) -> str:
        """Store the message, unless the test wants it refused."""
        refusal = self._hop.refusal("body")
        if refusal is None:
            taken = self._hop.store(
                envelope, session, conversation.number, conversation.mail_parameters, conversation.rcpt_parameters
            )
            return f"250 2.0.0 taken as {taken.number}"
        if refusal.reply is None:
            conversation.cut()
            return "421 never seen"
        if refusal.close:
            conversation.close_soon()
        return refusal.reply


def _after_path(arg: str | None) -> str:
    """The parameters of MAIL or RCPT, as they were sent."""
    return (arg or "").rpartition("> ")[2] if "> " in (arg or "") else ""
