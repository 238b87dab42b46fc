"""What the spool keeps, as frozen records, and which states may follow which.

A `Message` is immutable: bytes plus envelope, named by its queue id. A `Delivery` is one message for one recipient,
the unit of state, retry and proof. A `PrintJob` is what CUPS was asked to do for a delivery.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from relay.mail.address import Address, parse_address
from relay.mail.status import Reply
from relay.spool.contents import Content, LargeContent


class State(StrEnum):
    """Where a delivery stands."""

    QUEUED = "queued"
    ACTIVE = "active"
    DEFERRED = "deferred"
    PENDING = "pending"
    "Handed to CUPS, not on paper yet; or part of a bundle that is on its way there."
    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"
    HELD = "held"
    CANCELLED = "cancelled"
    UNCERTAIN = "uncertain"
    "May or may not be on paper; a person decides."
    CORRUPT = "corrupt"
    "Its bytes are not what was accepted."


OPEN = frozenset({State.QUEUED, State.ACTIVE, State.DEFERRED, State.PENDING})
"""States in which the service has work to do."""

FINAL = frozenset({State.DELIVERED, State.FAILED, State.EXPIRED, State.CANCELLED})
"""States that nothing follows."""

TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.ACTIVE, State.HELD, State.CANCELLED, State.EXPIRED}),
    State.ACTIVE: frozenset(State),
    State.DEFERRED: frozenset({State.ACTIVE, State.HELD, State.CANCELLED, State.EXPIRED}),
    State.PENDING: frozenset(State) - {State.QUEUED, State.PENDING, State.EXPIRED},
    State.HELD: frozenset({State.QUEUED, State.CANCELLED}),
    State.UNCERTAIN: frozenset({State.QUEUED, State.DELIVERED, State.CANCELLED}),
    State.CORRUPT: frozenset({State.CANCELLED}),
    **dict.fromkeys(FINAL, frozenset()),
}
"""The states that may follow a state. ACTIVE follows ACTIVE when a dead worker's delivery is taken over; QUEUED follows
it when the rules, having read the letter, send the delivery another way.
"""


DUPLICATE = "duplicate"
"""The evidence of a slip that made no paper, since another one is the same."""

AT_ONCE = -1.0
"""When a delivery is due that a person let go, whose attempt was cut off, or that another printer stands in for: before
all others, and although the hours of its printer are over. What a node only had in its hands is due at 0, before what
waits.
"""


@dataclass(frozen=True, slots=True)
class Message:
    """One accepted message without its bytes."""

    queue_id: str
    institution: str
    source: str
    reverse_path: str | None
    "None is the null reverse-path."
    smtputf8: bool
    eight_bit: bool
    received_at: float
    "Seconds since the epoch."
    client: str
    "Address of the client, as in `192.0.2.1`."
    helo: str
    protocol: str
    "What the Received field says: ESMTP, ESMTPS, ESMTPSA (RFC 3848)."
    message_id: str
    size: int
    sha256: str
    ret: str = ""
    "What a DSN brings back (RFC 3461 4.3): FULL, HDRS, or nothing said."
    envid: str = ""
    "The sender's own name for this transaction, in xtext (RFC 3461 4.4)."
    about: str = ""
    "The delivery that it tells of, as `QUEUE-ID/NUMBER`, when it is a DSN of ours."
    requiretls: bool = False
    "Whether it may go over verified TLS only, to hosts that promise the same (RFC 8689)."

    @property
    def sender(self) -> Address | None:
        """The reverse-path as an address; None for the null reverse-path."""
        return parse_address(self.reverse_path) if self.reverse_path else None


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A recipient of a message that is about to be accepted, and the way that was chosen."""

    recipient: str
    route: str
    destination: str
    "What is served as one: the route, or for mail by MX the route and the domain."
    notify: str = ""
    "When a DSN is wanted (RFC 3461 4.1): NEVER, or some of SUCCESS,FAILURE,DELAY; nothing when nothing was said."
    orcpt: str = ""
    "The original recipient, as `rfc822;` and xtext (RFC 3461 4.2)."
    warn_at: float | None = None
    "When the sender is told that it is late; None for never."
    expires_at: float | None = None
    "When it is given up; None for never."
    profile: str = ""
    "The profile that a rule lays it out with; empty for that of its printer."
    copies: int = 0
    "How often a rule prints it; 0 for what its profile says."
    copy_of: int | None = None
    "The number of the delivery that a rule made this one from; None for a recipient of the envelope."
    moved_from: str = ""
    "The printer that was in trouble, where another one prints it."
    reprint_of: int | None = None
    "The number of the delivery that a person has printed once more by this one."
    marked: bool = False
    "Whether a reprint says on paper that it is one."
    merge: bool = False
    "Whether a rule lets it come out in one document with others that wait with it."
    is_bundle: bool = False
    "Whether it is such a document: its letters are those of its slips, and not that of its own message."
    once_at: str = ""
    "The printer whose own address it goes to by mail, where a slip that is handed in again goes once."


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message on its way into the spool: what intake accepted, or a DSN of ours."""

    message: Message
    content: bytes
    deliveries: tuple[NewDelivery, ...]
    large: LargeContent | None = None
    "Its bytes, where they are too many for memory; then `content` is empty."

    @property
    def body(self) -> Content:
        """Its bytes, wherever they are."""
        return self.content if self.large is None else self.large


Key = tuple[str, int]
"""Names a delivery: the queue id of its message and the number of its recipient. Keys sort by arrival."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message for one recipient. `attempts` with the lease's owner is the fence of every write."""

    message: Message
    number: int
    "Which of the message's recipients, from 0."
    recipient: str
    route: str
    destination: str
    state: State
    attempts: int
    next_attempt_at: float
    notify: str = ""
    orcpt: str = ""
    begun_at: float | None = None
    "When the attempt began that runs now, or was cut off."
    warn_at: float | None = None
    expires_at: float | None = None
    reason: str = ""
    "Why it was put off; empty before its first attempt, and while one runs."
    profile: str = ""
    copies: int = 0
    copy_of: int | None = None
    moved_from: str = ""
    reprint_of: int | None = None
    marked: bool = False
    merge: bool = False
    is_bundle: bool = False
    bundle: str = ""
    "The bundle that it is part of, as `QUEUE-ID/NUMBER`; empty for what goes by itself."
    job: PrintJob | None = None

    @property
    def key(self) -> Key:
        """Names it; sorts by arrival."""
        return self.message.queue_id, self.number

    def __str__(self) -> str:
        return f"{self.message.queue_id}/{self.number}"


@dataclass(frozen=True, slots=True)
class PrintJob:
    """A job that was created in CUPS for a delivery, or is about to be (`job_id` None)."""

    name: str
    "Unique and opaque; by it the job is found again after a crash."
    queue: str
    job_id: int | None = None
    sent: bool = False
    "Whether the whole document was handed over."
    sent_at: float | None = None
    "When it was, in seconds since the epoch."
    ended_at: float | None = None
    """When it was known how the job ended. In the spool before the delivery is settled only when the device completed
    the job: then it is on paper, whatever happens.
    """
    impressions: int | None = None
    "Sides that came out by the device's count; None when it does not count."


@dataclass(frozen=True, slots=True)
class Paper:
    """A slip as it goes to a printer: what it says, and its PDF."""

    printer: str
    content: str
    "Digest of what it says, however it is laid out (`relay.slips.content`)."
    profile: str
    pages: int
    width_mm: float
    height_mm: float
    pdf: bytes | None
    "None when it is not to be kept."


@dataclass(frozen=True, slots=True)
class Sameness:
    """By what a printer knows that a slip is the same as another one."""

    message_id: bool = True
    "Message-ID, recipient and content are the same."
    content: float = 0.0
    "The content is, and the two arrived within so many seconds of each other; 0 for never."


@dataclass(frozen=True, slots=True)
class Twin:
    """Another delivery that is the same slip."""

    key: Key
    is_printed: bool
    "False while the service still has work with it."
    by: Literal["message-id", "content"]

    def __str__(self) -> str:
        return f"{self.key[0]}/{self.key[1]}"


@dataclass(frozen=True, slots=True)
class Onward:
    """Where a delivery goes on that was sorted by the rules, and what was made from it."""

    way: NewDelivery | None
    "How it goes on itself; None when it ends here, since others go in its stead."
    more: tuple[NewDelivery, ...] = ()
    "Deliveries of the same message that are added: copies, and what is forwarded."
    at_once: bool = False
    "Whether it waits for no printer's hours: a person let it go, or it was let out at another printer."


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: the state that follows, and why."""

    state: State
    reason: str = ""
    "One sentence for people; no patron data."
    reply: Reply | None = None
    "What the next hop answered, when it did."
    evidence: str = ""
    "What is known of the paper: handed-over, spooler-confirmed, device-confirmed."
    notes: tuple[str, ...] = field(default=())
    "What was odd about a slip that was printed all the same."
    trouble: Literal["", "unreachable", "lost"] = ""
    """What the attempt says of the destination as a whole: no session was to be had, or a transaction was lost in the
    middle.
    """
    shut_for: float | None = None
    "Seconds for which the whole route is shut, where the fault is not this delivery's: it keeps its place."
    remote_host: str = ""
    "The host that gave `reply`; empty where the reply is our own judgement."
    dsn_passed_on: bool = False
    "Whether the next hop took over what the sender asked about DSNs (RFC 3461 5.2.1)."
    job: PrintJob | None = None
    "What is known in the end of the print job, where there was one."
    duplicate_of: str = ""
    "The printed delivery that is the same slip, as `QUEUE-ID/NUMBER`: this one makes no paper."
    onward: Onward | None = None
    "What the rules made of it, where the attempt was to ask them: `state` is QUEUED, or DELIVERED when it ends here."
