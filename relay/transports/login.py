"""AUTH at a next hop (RFC 4954): PLAIN, LOGIN, XOAUTH2, or the strongest of CRAM-MD5, PLAIN and LOGIN that is offered.

Promises: never without TLS. A login that is refused is logged once, and once more when it works again.
"""

from __future__ import annotations

import ssl

import aiosmtplib

from relay.config.next_hops import NextHop
from relay.errors import CredentialsMissing
from relay.mail.status import Reply
from relay.maillog import MailLog
from relay.transports.tokens import Credential, Tokens

WRONG = 535
"""The reply to credentials that are not good (RFC 4954 6)."""


class LoginRefused(Exception):
    """The host does not let us in: a mistake in our configuration, never the fault of a mail."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class StaleToken(LoginRefused):
    """What it does not take is a token that was had for an earlier login; a fresh one may do."""


class NoSuchLogin(Exception):
    """The host does not offer the login that is asked for; the text says what it offers."""


class Login:
    """The login at the hosts of one next hop that has a username."""

    def __init__(self, hop: NextHop, username: str, maillog: MailLog) -> None:
        self._hop = hop
        self._username = username
        self._maillog = maillog
        self._tokens = Tokens(hop.token) if hop.token is not None else None
        self._refused_at: set[str] = set()

    async def credential(self) -> Credential:
        """What to log in with now. Raises CredentialsMissing."""
        if self._tokens is not None:
            return await self._tokens.current()
        assert self._hop.password is not None, "the configuration was checked"
        try:
            return Credential(self._hop.password.reveal())
        except (OSError, ValueError):
            raise CredentialsMissing(f"the password of the next hop {self._hop.name} can't be read") from None

    async def log_in(self, client: aiosmtplib.SMTP, host: str, credential: Credential) -> None:
        """Logs in at a host that has been greeted.

        Raises LoginRefused or NoSuchLogin, and what aiosmtplib raises when the session breaks.
        """
        if not isinstance(client.get_transport_info("ssl_object"), ssl.SSLObject):
            raise NoSuchLogin("passwords and tokens travel over TLS only")
        try:
            await self._say(client, credential.text)
        except aiosmtplib.SMTPAuthenticationError as error:
            reply = Reply.parse(error.code, error.message)
            if self._tokens is not None and reply.code == WRONG:
                self._tokens.refused(credential)
                if not credential.is_fresh:
                    raise StaleToken(reply) from None
            if host not in self._refused_at:
                self._refused_at.add(host)
                self._maillog.login(self._hop.name, host=host, what="refused", why=str(reply))
            raise LoginRefused(reply) from None
        if host in self._refused_at:
            self._refused_at.discard(host)
            self._maillog.login(self._hop.name, host=host, what="works")

    async def _say(self, client: aiosmtplib.SMTP, secret: str) -> None:
        wanted = "xoauth2" if self._tokens is not None else self._hop.auth
        offered = client.server_auth_methods
        if wanted not in offered if wanted is not None else not client.supported_auth_methods:
            shown = " ".join(each.upper() for each in offered) or "no AUTH"
            raise NoSuchLogin(f"it offers {shown}{f', not {wanted.upper()}' if wanted and offered else ''}")
        match wanted:
            case "xoauth2":
                await client.auth_xoauth2(self._username, secret)
            case "plain":
                await client.auth_plain(self._username, secret)
            case "login":
                await client.auth_login(self._username, secret)
            case None:
                await client.login(self._username, secret)
