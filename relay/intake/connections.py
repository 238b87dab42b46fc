"""Everybody who is connected, and whether there is room for one more.

Promises: there are never more than `intake.max_connections` sessions, and of one address (for IPv6: of one /64) never
more than `intake.max_connections_per_address`. When all places are taken, a client that is a source by its address gets
the place of the stranger who has been silent for longest, so that strangers can't keep the mail of sources out.
Known limit: who logs in is a stranger until then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from relay.config.settings import Intake
from relay.intake.origin import neighbourhood
from relay.mail import status
from relay.mail.status import Reply
from relay.metrics import Metrics


class Guest(Protocol):
    """A session, as far as its place is concerned."""

    @property
    def address(self) -> str:
        """The client's."""
        ...

    @property
    def is_known(self) -> bool:
        """Whether the client is a source, by its address or by AUTH."""
        ...

    @property
    def heard_at(self) -> float:
        """When the client last said something, by the clock of the event loop."""
        ...

    def dismiss(self, reply: Reply) -> None:
        """Ends the session with a word."""
        ...


class Stoppable(Guest, Protocol):
    """A session, or a connection on its way to one, which ends when the service stops."""

    @property
    def is_taking(self) -> bool:
        """Whether a message is under way."""
        ...

    def retire(self) -> None:
        """Ends it: at once, or after the message that it is just taking."""
        ...

    def cut_off(self) -> None:
        """Ends it without another word."""
        ...


G = TypeVar("G", bound=Guest)


class Connections(Generic[G]):
    """All sessions of the service."""

    def __init__(self, settings: Intake, metrics: Metrics) -> None:
        self._settings = settings
        self._open = metrics.connections
        self._guests: set[G] = set()
        self._of_address: Counter[str] = Counter()

    def __iter__(self) -> Iterator[G]:
        return iter(list(self._guests))

    def enter(self, guest: G) -> Reply | None:
        """Gives a session its place; what to say to it when there is none."""
        origin = neighbourhood(guest.address)
        if self._of_address[origin] >= self._settings.max_connections_per_address:
            return status.TOO_MANY_CONNECTIONS_OF_YOURS
        if len(self._guests) >= self._settings.max_connections and not self._make_room(guest):
            return status.TOO_MANY_CONNECTIONS
        self._guests.add(guest)
        self._of_address[origin] += 1
        self._open.set(len(self._guests))
        return None

    def leave(self, guest: G) -> None:
        """A session is over; one that had no place may leave too."""
        if guest not in self._guests:
            return
        self._guests.remove(guest)
        origin = neighbourhood(guest.address)
        self._of_address[origin] -= 1
        if not self._of_address[origin]:
            del self._of_address[origin]
        self._open.set(len(self._guests))

    def _make_room(self, guest: G) -> bool:
        strangers = [other for other in self._guests if not other.is_known] if guest.is_known else []
        if not strangers:
            return False
        silent = min(strangers, key=lambda other: other.heard_at)
        self.leave(silent)
        silent.dismiss(status.MAKE_ROOM)
        return True
