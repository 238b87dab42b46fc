"""What one session may cost: commands and errors between two messages, and messages in all.

A message that was accepted makes up for what came before it, so that a night's thousand letters over one connection are
no abuse, and a thousand NOOPs are.
"""

from __future__ import annotations

from relay.config.settings import Intake
from relay.errors import Goodbye
from relay.mail import status

NAMES = {
    status.SPOKE_AHEAD: "turn",
    status.LINE_TOO_LONG: "line",
    status.LINE_WITHOUT_END: "line",
    status.TOO_MANY_RECIPIENTS: "max_recipients",
    status.TOO_MANY_COMMANDS: "max_commands",
    status.TOO_MANY_ERRORS: "max_errors",
    status.TOO_MANY_MESSAGES: "max_messages",
    status.TOO_MANY_CONNECTIONS: "max_connections",
    status.MAKE_ROOM: "max_connections",
    status.TOO_MANY_CONNECTIONS_OF_YOURS: "max_connections_per_address",
    status.TOO_FAST: "max_messages_per_minute",
    status.TOO_SLOW: "min_data_rate",
    status.TOO_LONG_SILENT: "idle_timeout",
    status.SESSION_TOO_LONG: "session_timeout",
}
"""Which limit a reply is about, as it is counted: the name of the setting, where there is one."""


class Budget:
    """That of one session."""

    def __init__(self, settings: Intake) -> None:
        self._settings = settings
        self._commands = self._errors = self._messages = 0

    def command(self) -> None:
        """The client said something. Raises Goodbye when that was too often."""
        self._commands += 1
        if self._commands > self._settings.max_commands:
            raise Goodbye(status.TOO_MANY_COMMANDS)

    def moved(self) -> None:
        """The last command brought a message on: it does not count."""
        self._commands -= 1

    def error(self) -> bool:
        """The client was told no; whether that was too often."""
        self._errors += 1
        return self._errors >= self._settings.max_errors

    def transaction(self) -> None:
        """A mail transaction begins (RFC 9422, MAILMAX). Raises Goodbye when there were enough."""
        if self._messages >= self._settings.max_messages:
            raise Goodbye(status.TOO_MANY_MESSAGES)
        self._messages += 1

    def accepted(self) -> None:
        """A message was accepted."""
        self._commands = self._errors = 0
