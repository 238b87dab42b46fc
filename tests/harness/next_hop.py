"""The next hop: a real SMTP server that stores what it takes and refuses what it is told to.

Each message becomes `<n>.eml` (the bytes as they were sent, dot-stuffing undone) and then `<n>.json` with mail_from
(empty for the null path), rcpt_to, tls, helo, user and connection (the how-manieth). The .json comes last, so a
message is complete when it has one.

By recipient: tempfail*@ is answered 450, permfail*@ 550, hang*@ never, break*@ by the end of the connection;
the rest is taken. Tests script more with `refuse_next` and `drop_next`; each counts for one occasion and is used up.

Offers STARTTLS when it has a certificate, AUTH (over TLS) when it has a user: PLAIN and LOGIN with its password,
XOAUTH2 with its token, which may change. Besides SIZE; 8BITMIME and SMTPUTF8, unless it is told not to; DSN, and over
TLS REQUIRETLS, when it is told to; without it their parameters are answered 555. Not offered: PIPELINING, CHUNKING.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from aiosmtpd.smtp import Envelope, LoginPassword, Session

from tests.harness.next_hop_session import Conversation, Refusal, Stage
from tests.harness.waiting import LOCALHOST, until


@dataclass(frozen=True, slots=True)
class Taken:
    """One message that the next hop took, with its envelope."""

    number: int
    mail_from: str
    rcpt_to: list[str]
    tls: bool
    helo: str
    user: str | None
    connection: int
    path: Path
    mail_parameters: str = ""
    "What followed the reverse-path, as it was sent."
    rcpt_parameters: tuple[str, ...] = ()
    "What followed each recipient, as it was sent."

    @property
    def content(self) -> bytes:
        """The message as it arrived."""
        return self.path.read_bytes()


class NextHop:
    """The server. `async with NextHop(port, folder) as next_hop:`."""

    def __init__(
        self,
        port: int,
        folder: Path,
        *,
        certificate: tuple[Path, Path] | None = None,
        user: str | None = None,
        password: str = "",
        token: str = "",
        address: str = LOCALHOST,
        hostname: str = "next-hop.example",
        max_size: int = 64 * 1024 * 1024,
        dsn: bool = False,
        eight_bit: bool = True,
        requiretls: bool = False,
    ) -> None:
        self.port = port
        self.folder = folder
        self.hostname = hostname
        self.max_size = max_size
        self.dsn = dsn
        self.eight_bit = eight_bit
        self.requiretls = requiretls
        self.user = user
        self.connections = 0
        "Connections that were made to it."
        self.taken: list[Taken] = []
        "What it took, in order."
        self.token = token
        "The access token that it takes."
        self.logins: list[tuple[str, bool]] = []
        "AUTH as it was tried: the mechanism, and whether it was right."
        self.clients: list[str] = []
        "From where each connection came."
        self._address = address
        self._password = password
        self._refusals: deque[Refusal] = deque()
        self._conversations: set[Conversation] = set()
        self._server: asyncio.Server | None = None
        self.tls: ssl.SSLContext | None = None
        if certificate is not None:
            self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self.tls.load_cert_chain(*certificate)
        folder.mkdir(parents=True, exist_ok=True)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Conversation(self), self._address, self.port
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.drop_connections()

    def refuse_next(self, code: int, *, at: Stage = "body", text: str | None = None, times: int = 1) -> None:
        """Answer the next `times` occasions of that stage with `code`; 421 closes the connection too."""
        reply = f"{code} {text or f'{code // 100}.3.0 refused by the test'}"
        self._refusals.extend([Refusal(at, reply, close=code == 421)] * times)

    def drop_next(self, *, at: Stage = "body", times: int = 1) -> None:
        """Close the connection, without an answer, on the next `times` occasions of that stage."""
        self._refusals.extend([Refusal(at, None, close=True)] * times)

    def take_again(self) -> None:
        """Forget what was ordered to be refused and was not."""
        self._refusals.clear()

    def drop_connections(self) -> None:
        """Cut every open connection."""
        for conversation in list(self._conversations):
            conversation.cut()

    @property
    def open_connections(self) -> int:
        """Connections open now."""
        return len(self._conversations)

    async def wait_for(self, count: int, *, seconds: float = 20.0) -> list[Taken]:
        """What it took, once that is at least `count` messages."""
        await until(
            lambda: len(self.taken) >= count,
            lambda: f"{count} messages at the next hop; it has {len(self.taken)}",
            seconds=seconds,
        )
        return self.taken

    def refusal(self, stage: Stage) -> Refusal | None:
        """The refusal that was ordered for this occasion, used up now; None to go on."""
        found = next((refusal for refusal in self._refusals if refusal.stage == stage), None)
        if found is not None:
            self._refusals.remove(found)
        return found

    def store(
        self,
        envelope: Envelope,
        session: Session,
        connection: int,
        mail_parameters: str = "",
        rcpt_parameters: tuple[str, ...] = (),
    ) -> Taken:
        """Write the message and then its envelope; the message counts as taken when both are there."""
        number = len(self.taken) + 1
        taken = Taken(
            number=number,
            mail_from="" if envelope.mail_from in (None, "<>") else str(envelope.mail_from),
            rcpt_to=list(envelope.rcpt_tos),
            tls=session.ssl is not None,
            helo=str(session.host_name or ""),
            user=session.auth_data.login.decode() if isinstance(session.auth_data, LoginPassword) else None,
            connection=connection,
            path=self.folder / f"{number}.eml",
            mail_parameters=mail_parameters,
            rcpt_parameters=rcpt_parameters,
        )
        unrecorded = ("number", "path", "mail_parameters", "rcpt_parameters")
        record = {key: value for key, value in asdict(taken).items() if key not in unrecorded}
        _write(taken.path, bytes(envelope.original_content or b""))
        _write(self.folder / f"{number}.json", json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self.taken.append(taken)
        return taken

    def enter(self, conversation: Conversation, client: str) -> int:
        """Count a new connection; gives its number."""
        self.connections += 1
        self.clients.append(client)
        self._conversations.add(conversation)
        return self.connections

    def leave(self, conversation: Conversation) -> None:
        """A connection has ended."""
        self._conversations.discard(conversation)

    @property
    def mechanisms(self) -> set[str]:
        """The mechanisms of AUTH that it offers."""
        if not self.user:
            return set()
        return ({"PLAIN", "LOGIN"} if self._password else set()) | ({"XOAUTH2"} if self.token else set())

    def knows(self, mechanism: str, login: LoginPassword) -> bool:
        """Whether these are its user and password, or token."""
        secret = self.token if mechanism == "XOAUTH2" else self._password
        known = login.login == (self.user or "").encode() and login.password == secret.encode()
        self.logins.append((mechanism, known))
        return known


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(content)
    os.replace(temporary, path)
