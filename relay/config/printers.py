"""The settings of paper: CUPS, the renderer and printers. What a slip looks like is in `profiles`."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from relay.config.hours import Dates, TimeOfDay, TimeZone, Week
from relay.config.kinds import (
    Duration,
    Mailbox,
    Name,
    OptionalName,
    OptionalText,
    Secret,
    Settings,
    Size,
    Text,
    duration,
)
from relay.config.next_hops import Retry

_DEVICE = re.compile(r"[a-z][a-z0-9+.-]*:/\S+")
_LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|\[::1\]")

Trouble = Literal["paper", "jam", "cover", "supply", "offline", "paused", "other"]
"""What may be wrong with a printer: `offline` is what does not answer, `paused` a queue that somebody has stopped."""

_WITHOUT_QUEUE = {"name", "institution", "mailboxes", "forward_to", "notify", "duplicates"}
"""What may be said of a printer that has no queue."""

TROUBLES: tuple[Trouble, ...] = get_args(Trouble)


class Cups(Settings):
    """The CUPS server that has the printers."""

    server: str = "/run/cups/cups.sock"
    "Path of its socket, or host:port."
    timeout: Duration = 30.0
    "Longest wait for an answer."
    encryption: Literal["never", "if-requested", "required"] = "if-requested"
    "TLS on the way to host:port. CUPS does not check whose certificate it is (docs/design.md, Printing)."
    username: Text | None = None
    "Name it is spoken to under, and owner of the jobs; without it slip-relay."
    password: Secret | None = None
    "Password of that name, for a server that asks for one."

    @field_validator("server")
    @classmethod
    def _place(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not value.startswith("/") and not (host and colon and port.isdigit() and 1 <= int(port) <= 65535):
            raise ValueError('a CUPS server is the path of its socket, or host:port as in "localhost:631"')
        return value

    poll: Annotated[Duration, Field(ge=0.05)] = 1.0
    "Time between two questions about a job under way."

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine, as far as its name tells."""
        return self.server.startswith("/") or bool(_LOOPBACK.fullmatch(self.server.rpartition(":")[0]))

    @model_validator(mode="after")
    def _password_is_safe(self) -> Self:
        if self.password is not None and self.username is None:
            raise ValueError("a password goes with a username")
        if self.password is not None and not self.is_local and self.encryption != "required":
            raise ValueError('a password travels over TLS only: set encryption = "required"')
        return self


class Rendering(Settings):
    """The children that turn slips into PDF."""

    children: Annotated[int, Field(ge=1, le=32)] = 2
    "Warm rendering processes; with one, a letter that takes long keeps the slips of all printers waiting."
    timeout: Duration = 30.0
    "Longest time for one slip."
    memory: Annotated[Size, Field(ge=320 * 1024 * 1024)] = Size(1024 * 1024 * 1024)
    "Most memory of one child; one that is warm has up to 280 MiB mapped."
    max_pages: Annotated[int, Field(ge=1, le=1000)] = 50
    "A slip with more pages is held."


def _window(value: object) -> float:
    """Seconds; 0 for `off`."""
    if value == "off":
        return 0.0
    try:
        return duration(value)
    except ValueError:
        raise ValueError('"off", or the time within which it is the same slip, as in "10m"') from None


class Duplicates(Settings):
    """By what a printer knows that a slip came twice, and is printed once."""

    message_id: bool = True
    "The same message was handed in again: Message-ID, recipient and what is printed are the same."
    content: Annotated[float, BeforeValidator(_window)] = 0.0
    """What is printed is the same, and arrived within that time; `off` for never. Off unless said otherwise: who
    prints a letter again on purpose, in Alma, sends the same content.
    """


class Printer(Settings):
    """A printer: the mailboxes Alma writes to and the CUPS queue the paper comes from, or the printer's own address."""

    name: Name
    institution: Name
    "Institution whose slips it prints; nobody else's."
    mailboxes: Annotated[tuple[Mailbox, ...], Field(min_length=1)]
    "Addresses that stand for it, as entered in Alma."
    queue: OptionalText = ""
    "Name of its CUPS queue; empty for a printer that has only an address of its own."
    profile: OptionalName = ""
    "Profile that lays out its slips; only a printer with a queue has one."
    forward_to: tuple[Mailbox, ...] = ()
    """Addresses of its own, as printers with a mail service have: its slips go there as well, or without a queue there
    alone.
    """
    device: Text | None = None
    "Device URI that `slip-relay printers setup` gives its queue, as in `ipp://10.0.0.5/ipp/print`."
    desk: Annotated[str, Field(max_length=100)] | None = None
    "What slips call the desk; without it the printer's name."
    alternates: tuple[Name, ...] = ()
    "Printers of the same institution that print its slips while it is in trouble: the first one that is well."
    alternate_after: Duration = 600.0
    "How long it has to be in trouble for that."
    alternate_for: tuple[Trouble, ...] = TROUBLES
    "What trouble counts: `paper`, `jam`, `cover`, `supply`, `offline`, `paused`, `other`."
    moved_note: Annotated[str, Field(max_length=100)] = "For {desk}"
    "What stands on a slip that moved; `{desk}` is what its slips call it."
    shares_with: tuple[Name, ...] = ()
    "Printers of the same institution that print its slips when it is busy and they are not: a pool."
    hours: Week | None = None
    """When slips come out, by day of the week: `{ mon-fri = ["08:00-12:00", "13:00-18:00"], sat = ["10:00-14:00"] }`.
    Other days are closed; without hours it is always open.
    """
    holidays: tuple[Dates, ...] = ()
    "Days on which it is closed all the same, as in `2026-12-24 to 2027-01-02`; a night counts to the day it begins on."
    time_zone: TimeZone | None = None
    "Whose clock its hours mean, as in `Europe/Berlin`; without it `server.time_zone`."
    outside_hours: Literal["hold", "print"] = "hold"
    "`hold`: slips wait until it opens; `print`: they are printed all the same."
    release_at: tuple[TimeOfDay, ...] = ()
    "Slips come out at these times only, on days on which it is open, as in `10:00`."
    separator: bool = False
    "Print a page before each batch, with its time, its number of slips and a list of them."
    max_batch: Annotated[int, Field(ge=1, le=2000)] | None = None
    "Most slips of a batch; what is more comes in further batches right after it."
    sort: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    "CSS selector of the element by whose text a batch is sorted; without it slips come in order of arrival."
    retry: Retry = Retry()
    "Other times than those of [delivery]."
    duplicates: Duplicates = Duplicates()
    "Which slips are printed once though they come twice."
    mark_reprints: bool = True
    "Whether a reprint says on paper that it is one, where the person who orders it does not say."

    @property
    def names_of_others(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The settings that name other printers, with what they say."""
        return ("alternates", self.alternates), ("shares_with", self.shares_with)

    @field_validator("moved_note")
    @classmethod
    def _note(cls, value: str) -> str:
        try:
            value.format(desk="")
        except (KeyError, IndexError, ValueError, AttributeError):
            raise ValueError('may have {desk} in it and no other braces, as in "For {desk}"') from None
        return value

    @field_validator("device")
    @classmethod
    def _is_uri(cls, value: str | None) -> str | None:
        if value is not None and not _DEVICE.fullmatch(value):
            raise ValueError('a device is a URI, as in "ipp://10.0.0.5/ipp/print" or "socket://10.0.0.6"')
        if value is not None and "@" in value.split("?")[0]:
            raise ValueError("names and passwords do not stand in the configuration: leave out what is before @")
        return value

    @property
    def slips_wait(self) -> bool:
        """Whether there are times at which slips wait for it."""
        is_closed_sometimes = self.hours is not None or bool(self.holidays)
        return bool(self.release_at) or (is_closed_sometimes and self.outside_hours == "hold")

    @property
    def has_batches(self) -> bool:
        """Whether what waited is let out as a batch, and not slip by slip."""
        return self.separator or self.sort is not None

    @model_validator(mode="after")
    def _has_a_way(self) -> Self:
        if self.queue:
            if not self.profile:
                raise ValueError("profile is missing: it lays out the slips of the queue")
            return self
        if not self.forward_to:
            raise ValueError("queue is missing, or forward_to for a printer that has an address of its own")
        if self.duplicates.content:
            raise ValueError("duplicates.content is for a printer with a queue: by mail a slip is not read")
        for name in sorted(self.model_fields_set - _WITHOUT_QUEUE):
            if getattr(self, name) == type(self).model_fields[name].default:
                continue
            raise ValueError(
                f"{name} is for a printer with a queue: what is sent to its own address is not laid out here"
            )
        return self

    @model_validator(mode="after")
    def _hours_make_sense(self) -> Self:
        is_closed_sometimes = bool(self.hours is not None or self.holidays)
        if self.outside_hours == "print" and not is_closed_sometimes:
            raise ValueError('outside_hours = "print" is for a printer that has hours or holidays')
        for name in ("separator", "max_batch", "sort"):
            if getattr(self, name) and not self.slips_wait:
                raise ValueError(f"{name} is for batches: it needs release_at, or hours outside of which slips wait")
        if self.max_batch is not None and not self.separator:
            raise ValueError("max_batch needs separator = true, or nobody could tell the batches apart")
        if self.time_zone is not None and not is_closed_sometimes and not self.release_at:
            raise ValueError("time_zone goes with hours, holidays or release_at")
        return self

    notify: Mailbox | None = None
    "Who is told of trouble and of slips that wait too long; without it `notify` of its institution."
    trouble_after: Duration | None = None
    "Instead of `notices.trouble_after`."
    waiting_after: Duration | None = None
    "Instead of `notices.waiting_after`."

    @model_validator(mode="after")
    def _never_given_up(self) -> Self:
        if self.retry.expire_after is not None:
            raise ValueError("slips never expire: leave out retry.expire_after")
        return self
