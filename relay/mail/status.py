"""SMTP replies with their enhanced status (RFC 5321 4.2, RFC 3463, RFC 2034): the one place that knows the numbers.

A reply of ours is made here by name; a reply of somebody else's is read with `Reply.parse` and classed by its first
digit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reply:
    """Code, enhanced status ("" when there is none) and text of one reply."""

    code: int
    enhanced: str
    text: str

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)

    def line(self) -> bytes:
        """As it is sent: ASCII on one line of at most 512 octets (RFC 5321 4.5.3.1.5)."""
        return str(self).encode("ascii", "replace")[:510] + b"\r\n"

    @property
    def permanent(self) -> bool:
        """Whether trying again is pointless (5yz)."""
        return 500 <= self.code <= 599

    @classmethod
    def parse(cls, code: int, text: str) -> Reply:
        """Somebody else's reply; the enhanced status is taken off the text when it is there."""
        line = printable(text)
        match = _ENHANCED.fullmatch(line)
        if match and match[1][0] == str(code)[:1]:
            return cls(code, match[1], match[2])
        return cls(code, "", line)


def printable(text: str, longest: int = 500) -> str:
    """Text from outside on one line: what could not be stored, or would command a terminal, becomes a question mark."""
    line = " ".join(text.split())[:longest]
    if line.isprintable():
        return line
    return "".join(character if character.isprintable() else "?" for character in line)


def queued(queue_id: str) -> Reply:
    """The message is ours now."""
    return Reply(250, "2.0.0", f"queued as {queue_id}")


def chunk(octets: int) -> Reply:
    """A part of a message was taken."""
    return Reply(250, "2.0.0", f"{octets} octets taken")


def syntax(text: str) -> Reply:
    """A command or parameter that can't be read."""
    return Reply(501, "5.5.4", text)


def unknown_command(text: str) -> Reply:
    """No command of ours."""
    return Reply(500, "5.5.2", text)


def unreadable(text: str) -> Reply:
    """A line that is no command."""
    return Reply(500, "5.5.2", text)


def bad_sender(text: str) -> Reply:
    """The reverse-path is no address."""
    return Reply(501, "5.1.7", text)


def bad_recipient(text: str) -> Reply:
    """The recipient is no address."""
    return Reply(501, "5.1.3", text)


def bad_sequence(text: str) -> Reply:
    """A command out of order."""
    return Reply(503, "5.5.1", text)


def not_offered(text: str) -> Reply:
    """A command that we know and don't offer."""
    return Reply(502, "5.5.1", text)


def not_permitted(text: str) -> Reply:
    """Policy says no."""
    return Reply(550, "5.7.1", text)


def too_big(limit: int) -> Reply:
    """Over the size limit, in bytes."""
    return Reply(552, "5.3.4", f"message is larger than the {limit} bytes taken here")


def bad_content(text: str) -> Reply:
    """The message itself can't be vouched for."""
    return Reply(550, "5.6.0", text)


def unknown_parameter(text: str) -> Reply:
    """A MAIL or RCPT parameter that is not offered."""
    return Reply(555, "5.5.4", text)


LINE_TOO_LONG = Reply(500, "5.5.2", "the line is too long")
LINE_WITHOUT_END = Reply(500, "5.5.2", "the line is far too long")
SPOKE_AHEAD = Reply(554, "5.5.0", "you spoke before it was your turn (RFC 2920 3.1)")
TOO_MANY_COMMANDS = Reply(421, "4.7.0", "too many commands without a message")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "too many errors")
TOO_MANY_MESSAGES = Reply(421, "4.7.0", "enough messages for one session; send the rest in another one")
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "too many connections; try again later")
TOO_MANY_CONNECTIONS_OF_YOURS = Reply(421, "4.7.0", "too many connections from your address; try again later")
MAKE_ROOM = Reply(421, "4.7.0", "your place is needed for somebody else; try again later")
TOO_LONG_SILENT = Reply(421, "4.4.2", "nothing was heard for too long")
SESSION_TOO_LONG = Reply(421, "4.7.0", "the session has lasted too long")
ROUTED = Reply(553, "5.1.3", "a local part with %, ! or @ is not taken: some read a route into it")
TOO_FAST = Reply(451, "4.7.1", "too many messages a minute; try again later")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "too many recipients; send the rest in another message")
LOCAL_ERROR = Reply(451, "4.3.0", "a fault on our side; try again later")
SPOOL_FULL = Reply(452, "4.3.1", "the spool can't take the message now; try again later")
SPOOL_AWAY = Reply(451, "4.3.0", "the spool's database can't be reached now; try again later")
SHUTTING_DOWN = Reply(421, "4.3.2", "the service is stopping; try again later")
GO_AHEAD = Reply(354, "", "end the message with <CR><LF>.<CR><LF>")
TOO_SLOW = Reply(421, "4.4.2", "the message comes in too slowly; try again later")
SENDER_OK = Reply(250, "2.1.0", "sender ok")
RECIPIENT_OK = Reply(250, "2.1.5", "recipient ok")
SOURCE_UNKNOWN = Reply(451, "4.4.3", "it can't be looked up now whether you may send; try again later")
CERTIFICATE_NEEDED = Reply(530, "5.7.0", "STARTTLS with a client certificate comes first")
LOCKED_OUT = Reply(421, "4.7.0", "too many wrong passwords from your address; try again later")
AUTH_BUSY = Reply(454, "4.7.0", "too many are logging in just now; try again in a moment")
