"""What a connection passes before its session: the header of a load balancer, and TLS that comes first.

Does: from the networks of `proxy_protocol_from` it takes a PROXY header and nothing else; with `tls = "implicit"` it
does the handshake; then it hands the connection to a session, with the client's address.
Promises: each of the two has `tls.handshake_timeout`; no byte behind the header is read before it is understood. A
connection that does not pass is closed without a word, and told in the log. During the handshake it has a place among
the `connections`, for whom there is a limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from relay.config.kinds import Network
from relay.config.listeners import Listener
from relay.intake.caller import Caller, caller_on
from relay.intake.connections import Connections, Stoppable
from relay.intake.origin import ip_address
from relay.intake.proxy_protocol import FIXED, NotAHeader, client_address, rest_length
from relay.intake.tls import ServerTls
from relay.mail.status import Reply
from relay.maillog import MailLog

NewSession = Callable[[Caller], asyncio.Protocol]


class Entrance(asyncio.BufferedProtocol):
    """One connection until its session has it. A BufferedProtocol, for that reads no more than it asks for."""

    def __init__(
        self,
        listener: Listener,
        tls: ServerTls | None,
        timeout: float,
        connections: Connections[Stoppable],
        maillog: MailLog,
        session: NewSession,
    ) -> None:
        self._listener = listener
        self._tls = tls
        self._timeout = timeout
        self._connections = connections
        self._maillog = maillog
        self._new_session = session
        self.address = "unknown"
        self.heard_at = asyncio.get_running_loop().time()
        self._header = bytearray()
        self._part = bytearray(FIXED)  # what is read next, as long as it has to be
        self._filled = 0
        self._is_gone = False
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is there."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else "unknown"
        if _is_within(self.address, self._listener.proxy_protocol_from):
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self._timeout, self._turn_away, "no PROXY header came in time")
        else:
            self._let_in()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes of the header go, and none that follow it."""
        return memoryview(self._part)[self._filled :] if self._filled < len(self._part) else memoryview(bytearray(1))

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes of the header came."""
        if self._handshake is not None:
            self._turn_away("it spoke before the greeting")
            return
        self._filled += nbytes
        if self._filled < len(self._part):
            return
        self._header += self._part
        try:
            rest = rest_length(bytes(self._header)) if len(self._header) == FIXED else 0
            if rest:
                self._part, self._filled = bytearray(rest), 0
                return
            self.address = client_address(bytes(self._header)) or self.address
        except NotAHeader as error:
            self._turn_away(str(error))
            return
        self._let_in()

    def eof_received(self) -> bool:
        """The client has said all."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone."""
        if self._deadline is not None:
            self._deadline.cancel()

    @property
    def is_known(self) -> bool:
        """Nobody is known before the session."""
        return False

    @property
    def is_taking(self) -> bool:
        """No message is under way."""
        return False

    def dismiss(self, reply: Reply) -> None:
        """Its place is needed: it can't be told."""
        self._turn_away(reply.text)

    def retire(self) -> None:
        """The service stops."""
        self.cut_off()

    def cut_off(self) -> None:
        """Closes the connection."""
        self._transport.abort()

    def _turn_away(self, why: str) -> None:
        if not self._is_gone:
            self._is_gone = True
            self._maillog.turned_away(client=self.address, listener=self._listener.name, why=why)
            self.cut_off()

    def _let_in(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        try:
            self._go_on()
        except Exception as error:
            self._fault(error)

    def _fault(self, error: Exception) -> None:
        self._maillog.fault("entrance", error, client=self.address)
        self.cut_off()

    def _go_on(self) -> None:
        if self._listener.tls != "implicit":
            self._hand_over(self._transport, self._new_session(Caller(self.address)))
        elif (reply := self._connections.enter(self)) is not None:
            self._turn_away(reply.text)
        else:
            self._handshake = asyncio.get_running_loop().create_task(self._secure())

    async def _secure(self) -> None:
        assert self._tls is not None, "the configuration was checked"
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(
                self._transport,
                self,
                self._tls.context,
                server_side=True,
                ssl_handshake_timeout=self._timeout,
            )
        except (OSError, TimeoutError) as error:  # what is wrong with TLS is an OSError, too
            self._turn_away(f"the TLS handshake failed: {error or type(error).__name__}")
            return
        except Exception as error:
            self._fault(error)
            return
        finally:
            self._connections.leave(self)
        if transport is None or transport.is_closing():
            return
        self._hand_over(transport, self._new_session(caller_on(transport, self.address)))

    def _hand_over(self, transport: asyncio.Transport, session: asyncio.Protocol) -> None:
        transport.set_protocol(session)
        session.connection_made(transport)


def _is_within(address: str, networks: tuple[Network, ...]) -> bool:
    return bool(networks) and any(ip_address(address) in network for network in networks)
