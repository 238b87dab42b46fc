"""Every setting, its type, default and reason.

One TOML file (and the files of `conf.d/` beside it) becomes one `Config`. The commented sample `config/relay.toml` is
the manual; a test keeps the two together. What is wrong is refused with its place (`relay.config.load`).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from relay.config.dns import Dns
from relay.config.hours import TimeZone
from relay.config.institutions import Institution
from relay.config.kinds import Domain, Duration, Secret, Settings, Size
from relay.config.listeners import Listener, Tls
from relay.config.mta_sts import MtaSts
from relay.config.next_hops import Delivery, NextHop
from relay.config.notices import Notices
from relay.config.pictures import Pictures
from relay.config.printers import Cups, Printer, Rendering
from relay.config.profiles import BUILT_IN_PROFILES, Profile
from relay.config.rules import Rule
from relay.config.sources import Auth, Source
from relay.mail.address import Address, parse_address

_Named = TypeVar("_Named", Institution, NextHop, Printer, Profile)


class Server(Settings):
    """The appliance itself."""

    hostname: Domain
    "Name in the greeting, in EHLO and in Received; its PTR record should say the same."
    time_zone: TimeZone | None = None
    "Whose clock hours of printers and rules mean, as in `Europe/Berlin`; without it that of the machine."
    secret: Secret | None = None
    """Key that signs VERP addresses: at least 16 characters, the same on all nodes. Needed when an institution
    uses VERP.
    """


class Intake(Settings):
    """Bounds on what clients may send."""

    max_message_size: Annotated[Size, Field(ge=64 * 1024)] = Size(35 * 1024 * 1024)
    "Largest message, announced by SIZE; more is `552 5.3.4`."
    max_recipients: Annotated[int, Field(ge=100, le=10000)] = 1000
    "Most recipients of one message (RFC 5321 4.5.3.1.8: at least 100); more is `452 4.5.3`."
    idle_timeout: Duration = 300.0
    "Time without a command, or within DATA, after which a session is closed."
    session_timeout: Duration = 4 * 3600.0
    "Time after which a session is ended, whatever it does: `421 4.7.0`."
    max_messages: Annotated[int, Field(ge=1)] = 10000
    "Mail transactions of one session, announced by LIMITS (RFC 9422, MAILMAX); more is `421 4.7.0`."
    max_commands: Annotated[int, Field(ge=50)] = 1000
    """Commands between two accepted messages, not counting recipients that are taken; more is `421 4.7.0`."""
    max_errors: Annotated[int, Field(ge=1)] = 20
    """Replies 5yz between two accepted messages, not counting recipients that a source may not send to; then
    `421 4.7.0`.
    """
    max_connections: Annotated[int, Field(ge=1)] = 1000
    "Sessions at a time. When all places are taken, a source by its address gets that of a silent stranger."
    max_connections_per_address: Annotated[int, Field(ge=1)] = 100
    "Sessions at a time from one address (IPv6: from one /64); more is `421 4.7.0`."
    max_messages_per_minute: Annotated[int, Field(ge=0)] = 0
    "Messages a minute from each source, on average; more is `451 4.7.1`. 0 for no limit."
    min_data_rate: Size = Size(256)
    "Bytes per second of a message, over any 30 s, below which the client is sent away with `421 4.4.2`; 0 for none."
    malformed: Literal["normalise", "refuse"] = "normalise"
    """A bare CR or LF becomes CRLF, NUL is left out, a line of more than 998 bytes is taken as it is; or each of them
    is `550 5.6.0`.
    """
    max_memory: Size = Size(64 * 1024 * 1024)
    "All messages together that are just coming in, or wait to be written; what is more is on disk meanwhile."
    folder: Path | None = None
    """Folder where messages of more than 256 KiB are while they come in. Without it that of the spool, or on a server
    that of the system (TMPDIR).
    """

    @field_validator("folder")
    @classmethod
    def _folder(cls, value: Path | None) -> Path | None:
        if value is not None and not os.access(value, os.W_OK | os.X_OK):
            raise ValueError(f"the folder {value} does not exist or can't be written to")
        return value


class Spool(Settings):
    """Where accepted mail lives until it is settled."""

    url: str
    """`sqlite:////var/lib/slip-relay/spool.db` (one node; the folder must exist and be writable by the service), or
    `postgresql+psycopg://USER@HOST/DATABASE` (one node or several).
    """
    password: Secret | None = None
    "Password of the PostgreSQL user."
    min_free: Size = Size(100 * 1024 * 1024)
    "Free space on its disk below which no mail is taken: senders are told 452 and keep theirs. (SQLite)"
    lease: Annotated[Duration, Field(ge=2)] = 60.0
    "After so long without a sign of life a node is taken for dead, and others take over its work. (PostgreSQL)"
    keep_bodies: Duration = 30 * 86400.0
    "Time after which the bytes of a settled message are removed."
    keep_history: Duration = 90 * 86400.0
    "Time after which a settled message is forgotten altogether."
    keep_pdfs: Duration | None = None
    """Time for which what was printed is kept as a PDF, for reprints; 0 for never. Without it 14 days, or keep_bodies
    when that is shorter.
    """
    max_pdf_size: Annotated[Size, Field(le=64 * 1024 * 1024)] = Size(2 * 1024 * 1024)
    "A larger PDF is not kept; its reprint is rendered again."
    max_pdfs_size: Size = Size(1024 * 1024 * 1024)
    "All PDFs together; the oldest go first."

    @field_validator("url")
    @classmethod
    def _engine(cls, value: str) -> str:
        if value.startswith("sqlite:///"):
            path = Path(value.removeprefix("sqlite:///"))
            if not path.name or path.is_dir():
                raise ValueError('a spool in a file is named as in "sqlite:////var/lib/slip-relay/spool.db"')
        elif not re.fullmatch(r"postgresql\+psycopg://[^:/@\s]*(@[^/\s]*)?/[^/?\s]+(\?\S*)?", value):
            raise ValueError(
                'a spool is named as in "sqlite:////var/lib/slip-relay/spool.db" or '
                '"postgresql+psycopg://slip-relay@db.example/spool"; a password stands in spool.password'
            )
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.password is not None and self.path is not None:
            raise ValueError("password is for PostgreSQL only")
        if self.keep_history < self.keep_bodies:
            raise ValueError("keep_history can't be shorter than keep_bodies")
        if self.keep_pdfs is not None and self.keep_pdfs > self.keep_bodies:
            raise ValueError("keep_pdfs can't be longer than keep_bodies")
        return self

    @property
    def pdfs_kept_for(self) -> float:
        """Seconds for which PDFs are kept."""
        return min(14 * 86400.0, self.keep_bodies) if self.keep_pdfs is None else self.keep_pdfs

    @property
    def path(self) -> Path | None:
        """The database file; None on a server."""
        return Path(self.url.removeprefix("sqlite:///")) if self.url.startswith("sqlite:///") else None


class Control(Settings):
    """How commands reach the running service."""

    socket: Path | None = None
    "Socket for `slip-relay queue`; without it `control.sock` beside the spool, or /run/slip-relay/control.sock."


class Log(Settings):
    """The mail log on standard error: one line per event."""

    addresses: Literal["domain", "hashed", "shown"] = "domain"
    """`domain` hides the local part of addresses; `hashed` puts a hash in its place, keyed with `server.secret`, so
    that mail for the same person can be told without knowing who it is; `shown` writes them whole.
    """


class Config(Settings):
    """The whole configuration."""

    server: Server
    listeners: Annotated[tuple[Listener, ...], Field(min_length=1)]
    tls: Tls = Tls()
    intake: Intake = Intake()
    auth: Auth = Auth()
    spool: Spool
    control: Control = Control()
    log: Log = Log()
    dns: Dns = Dns()
    mta_sts: MtaSts = MtaSts()
    institutions: Annotated[tuple[Institution, ...], Field(min_length=1)]
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    next_hops: tuple[NextHop, ...] = ()
    delivery: Delivery = Delivery()
    notices: Notices = Notices()
    cups: Cups = Cups()
    rendering: Rendering = Rendering()
    pictures: Pictures = Pictures()
    profiles: tuple[Profile, ...] = ()
    printers: tuple[Printer, ...] = ()
    rules: tuple[Rule, ...] = ()

    def copies(self) -> Pictures:
        """The settings of pictures with the folder of copies filled in; without one when none may be fetched."""
        if not self.pictures.allow:
            return Pictures()
        beside = self.spool.path.parent / "pictures" if self.spool.path is not None else None
        return self.pictures.model_copy(update={"folder": self.pictures.folder or beside})

    def spf_file(self) -> Path | None:
        """Where the last answers about SPF names are kept; None where nothing says so."""
        beside = self.spool.path.with_name("spf.json") if self.spool.path is not None else None
        return self.dns.spf_file or beside

    @property
    def uses_mta_sts(self) -> bool:
        """Whether policies of MTA-STS are asked for: where mail goes by MX."""
        return self.mta_sts.enabled and any(hop.goes_by_mx for hop in self.next_hops)

    def mta_sts_file(self) -> Path | None:
        """Where MTA-STS policies are kept; None where nothing says so."""
        beside = self.spool.path.with_name("mta-sts.json") if self.spool.path is not None else None
        return self.mta_sts.policies or beside

    def institution(self, name: str) -> Institution:
        """The institution of that name; KeyError when there is none."""
        return _by_name(self.institutions, name)

    def hops_of(self, institution: Institution) -> list[NextHop]:
        """The next hops that letters of an institution may go by: its own, and those that rules choose."""
        by_rules = [rule for rule in self.rules if rule.institution in (None, institution.name)]
        names = {institution.next_hop or "default", *(rule.next_hop for rule in by_rules)}
        return [hop for hop in self.next_hops if hop.name in names]

    def next_hop(self, name: str) -> NextHop:
        """The next hop of that name; KeyError when there is none."""
        return _by_name(self.next_hops, name)

    def printer(self, name: str) -> Printer:
        """The printer of that name; KeyError when there is none."""
        return _by_name(self.printers, name)

    def profile(self, name: str) -> Profile:
        """The profile of that name, the configuration's own before a built-in one; KeyError when there is none."""
        return _by_name([*self.profiles, *BUILT_IN_PROFILES], name)

    def delivery_for(self, route: str) -> Delivery:
        """When the deliveries of a route are tried again, late, and given up."""
        return self._deliveries_by_route.get(route, self.delivery)

    @cached_property
    def _deliveries_by_route(self) -> dict[str, Delivery]:
        hops = {hop.name: self.delivery.for_route(hop.retry) for hop in self.next_hops}
        # Slips neither expire nor are they reported late, unless a printer says so itself.
        slips = self.delivery.model_copy(update={"warn_after": 0.0, "expire_after": math.inf})
        # What waits to be sorted by the rules is not late before it has a way.
        sorted_first = {f"{word}:{each.name}": slips for each in self.institutions for word in ("sort", "released")}
        return hops | sorted_first | {f"print:{each.name}": slips.for_route(each.retry) for each in self.printers}

    @cached_property
    def reads_letters(self) -> bool:
        """Whether a rule looks into letters."""
        return any(rule.reads_letter for rule in self.rules)

    @property
    def queues(self) -> tuple[Printer, ...]:
        """The printers that print here: those that have a queue."""
        return tuple(printer for printer in self.printers if printer.queue)

    @cached_property
    def _printers_by_own_address(self) -> dict[tuple[str, str], Printer]:
        return {
            (printer.institution, parse_address(address).key): printer
            for printer in reversed(self.printers)
            for address in printer.forward_to
        }

    def printer_at(self, institution: str, address: Address) -> Printer | None:
        """The printer of an institution that has an address as its own (`forward_to`), or None."""
        return self._printers_by_own_address.get((institution, address.key))

    def printer_for(self, recipient: Address) -> Printer | None:
        """The printer that a recipient's mailbox stands for, or None."""
        return self._printers_by_mailbox.get(recipient.key)

    @cached_property
    def _printers_by_mailbox(self) -> dict[str, Printer]:
        return {parse_address(mailbox).key: printer for printer in self.printers for mailbox in printer.mailboxes}


def _by_name(items: Sequence[_Named], name: str) -> _Named:
    for item in items:
        if item.name == name:
            return item
    raise KeyError(name)
