"""AUTH: the dialogue of PLAIN and LOGIN (RFC 4954, RFC 4616), and whom the client turned out to be.

Promises: a password is kept nowhere; whether it is right is said by `passwords`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable

from relay.config.sources import Source
from relay.errors import Refusal
from relay.intake.passwords import Passwords
from relay.mail import status
from relay.mail.status import Reply

MECHANISMS = "LOGIN PLAIN"
"""As EHLO offers them."""

Ask = Callable[[str], Awaitable[bytes]]
"""Sends a challenge after `334 `, and gives what the client answers, without its line end."""

_CANCELLED = Reply(501, "5.7.0", "authentication cancelled")
_NOT_BASE64 = Reply(501, "5.5.2", "this is not base64")
_WRONG = Reply(535, "5.7.8", "wrong credentials")


async def authenticate(argument: str, ask: Ask, passwords: Passwords, client: str) -> Source:
    """The source that the client at an address proves to be. Raises Refusal.

    Mechanism names have no case (RFC 4954 4).
    """
    passwords.check_open_to(client)
    words = argument.split()
    if not 1 <= len(words) <= 2:
        raise Refusal(status.syntax("AUTH takes a mechanism and at most one initial response"))
    mechanism, initial = words[0].upper(), words[1] if len(words) == 2 else None
    if mechanism == "PLAIN":
        name, password = await _plain(initial, ask)
    elif mechanism == "LOGIN":
        name, password = await _login(initial, ask)
    else:
        raise Refusal(Reply(504, "5.5.4", f"the mechanisms are {MECHANISMS}"))
    source = await passwords.source_of(client, name, password)
    if source is None:
        raise Refusal(_WRONG)
    return source


async def _plain(initial: str | None, ask: Ask) -> tuple[str, str]:
    parts = _decoded(await _first(initial, "", ask)).split(b"\0")
    if len(parts) != 3:
        raise Refusal(Reply(501, "5.5.2", "PLAIN has an identity, a user name and a password"))
    return _text(parts[1]), _text(parts[2])


async def _login(initial: str | None, ask: Ask) -> tuple[str, str]:
    name = _decoded(await _first(initial, "Username:", ask))
    return _text(name), _text(_decoded(await ask(_encoded("Password:"))))


async def _first(initial: str | None, challenge: str, ask: Ask) -> bytes:
    """The initial response, or what is answered to the challenge in its place."""
    return initial.encode("utf-8", "surrogateescape") if initial is not None else await ask(_encoded(challenge))


def _decoded(response: bytes) -> bytes:
    """A response of the client; `*` cancels (RFC 4954 4), and `=` is an empty initial response."""
    if response == b"*":
        raise Refusal(_CANCELLED)
    if response == b"=":
        return b""
    try:
        return base64.b64decode(response, validate=True)
    except binascii.Error:
        raise Refusal(_NOT_BASE64) from None


def _encoded(challenge: str) -> str:
    return base64.b64encode(challenge.encode()).decode()


def _text(word: bytes) -> str:
    return word.decode("utf-8", "replace")
