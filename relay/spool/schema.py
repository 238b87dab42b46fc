"""The tables. A change here comes with a migration; a test compares the two.

Times are seconds since the epoch. A delivery is named by its message's queue id and the number of its recipient; queue
ids sort by arrival, so the key of a delivery is its place in the queue as well.

A delivery that waits has `due_at` (when it may be claimed) and, if something has to be said or done about it when it
waits too long, `deadline`. One that somebody holds, or that nothing is to be done for, has neither: their indexes hold
what waits and nothing else, so that a claim costs the same with ten deliveries in the spool as with a million.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

messages = Table(
    "messages",
    metadata,
    Column("queue_id", String(13), primary_key=True),
    Column("institution", String(63), nullable=False),
    Column("source", String(63), nullable=False),
    Column("reverse_path", Text),
    Column("smtputf8", Boolean, nullable=False),
    Column("eight_bit", Boolean, nullable=False),
    Column("ret", String(4), nullable=False),
    Column("envid", String(100), nullable=False),
    Column("received_at", Double, nullable=False),
    Column("client", Text, nullable=False),
    Column("helo", Text, nullable=False),
    Column("protocol", String(16), nullable=False),
    Column("message_id", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("about", String(20), nullable=False),
    Column("requiretls", Boolean, nullable=False, server_default=false()),
    Index(
        "ix_messages_about",
        "about",
        sqlite_where=text("about <> ''"),
        postgresql_where=text("about <> ''"),
    ),
)

# Bodies have a table of their own, so that reading a list of messages never touches their pages.
bodies = Table(
    "bodies",
    metadata,
    Column("queue_id", ForeignKey("messages.queue_id", ondelete="CASCADE"), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

# What a large body has beyond its first megabyte, in parts of that size from 1, so that nobody has to hold it whole to
# write or to copy it. It goes with its body.
body_parts = Table(
    "body_parts",
    metadata,
    Column("queue_id", ForeignKey("bodies.queue_id", ondelete="CASCADE"), primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

UNFINISHED = "lease_owner IS NULL AND state NOT IN ('delivered', 'failed', 'expired', 'cancelled')"
"""What nobody works on just now and that is not finished: what waits, and what waits for a person.

Questions about the queue say it in these very words, for SQLite takes the index for no others. `lease_owner` stands in
the index, though it is always null there, so that counting never touches the table.
"""

deliveries = Table(
    "deliveries",
    metadata,
    Column("queue_id", ForeignKey("messages.queue_id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("recipient", Text, nullable=False),
    Column("route", String(127), nullable=False),
    Column("destination", Text, nullable=False),
    Column("notify", String(32), nullable=False),
    Column("orcpt", Text, nullable=False),
    Column("state", String(10), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", String(32), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("begun_at", Double),
    Column("next_attempt_at", Double, nullable=False),
    Column("warn_at", Double),
    Column("expires_at", Double),
    Column("settled_at", Double),
    Column("lease_owner", String(64)),
    Column("due_at", Double),
    Column("deadline", Double),
    Column("profile", String(63), nullable=False, server_default=""),
    Column("copies", Integer, nullable=False, server_default="0"),
    Column("copy_of", Integer),
    Column("moved_from", String(63), nullable=False, server_default=""),
    Column("reprint_of", Integer),
    Column("marked", Boolean, nullable=False, server_default=false()),
    Column("duplicate_of", String(20), nullable=False, server_default=""),
    Column("merge", Boolean, nullable=False, server_default=false()),
    Column("is_bundle", Boolean, nullable=False, server_default=false()),
    Column("bundle", String(20), nullable=False, server_default=""),
    Column("place", Integer, nullable=False, server_default="0"),
    Index(
        "ix_deliveries_due",
        "destination",
        "due_at",
        "queue_id",
        "number",
        sqlite_where=text("due_at IS NOT NULL"),
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    # When the first one is due, so that looking for what is due costs a single step while nothing is.
    Index(
        "ix_deliveries_due_at",
        "due_at",
        sqlite_where=text("due_at IS NOT NULL"),
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    Index(
        "ix_deliveries_deadline",
        "deadline",
        sqlite_where=text("deadline IS NOT NULL"),
        postgresql_where=text("deadline IS NOT NULL"),
    ),
    Index(
        "ix_deliveries_lease",
        "lease_owner",
        sqlite_where=text("lease_owner IS NOT NULL"),
        postgresql_where=text("lease_owner IS NOT NULL"),
    ),
    Index(
        "ix_deliveries_unfinished",
        "state",
        "route",
        "queue_id",
        "number",
        "lease_owner",
        sqlite_where=text(UNFINISHED),
        postgresql_where=text(UNFINISHED),
    ),
    Index(
        "ix_deliveries_duplicate_of",
        "duplicate_of",
        sqlite_where=text("duplicate_of <> ''"),
        postgresql_where=text("duplicate_of <> ''"),
    ),
    Index(
        "ix_deliveries_bundle",
        "bundle",
        "place",
        sqlite_where=text("bundle <> ''"),
        postgresql_where=text("bundle <> ''"),
    ),
)

_ONE_DELIVERY = ("deliveries.queue_id", "deliveries.number")

# Attempts that have ended. The one that runs stands in its delivery: `attempts` and `begun_at`.
attempts = Table(
    "attempts",
    metadata,
    Column("queue_id", String(13), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("outcome", String(10), nullable=False),
    Column("reply", Text, nullable=False),
    Column("reason", Text, nullable=False),
    ForeignKeyConstraint(["queue_id", "number"], _ONE_DELIVERY, ondelete="CASCADE"),
)

print_jobs = Table(
    "print_jobs",
    metadata,
    Column("queue_id", String(13), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("queue", Text, nullable=False),
    Column("job_id", Integer),
    Column("sent", Boolean, nullable=False),
    Column("sent_at", Double),
    Column("ended_at", Double),
    Column("impressions", Integer),
    UniqueConstraint("name"),
    ForeignKeyConstraint(["queue_id", "number"], _ONE_DELIVERY, ondelete="CASCADE"),
)

# What operators said: kept with the delivery, for nothing is discarded without somebody's word.
orders = Table(
    "orders",
    metadata,
    Column("queue_id", String(13), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("at", Double, primary_key=True),
    Column("verb", String(16), nullable=False),
    Column("who", Text, nullable=False),
    Column("was", String(10), nullable=False),
    Column("why", Text, nullable=False, server_default=""),
    ForeignKeyConstraint(["queue_id", "number"], _ONE_DELIVERY, ondelete="CASCADE"),
)

# What each slip says and on which printer, from when its job is begun: by this the same slip is known when it comes
# again. `identity` is a digest of Message-ID, recipient and content, empty without a Message-ID. Reprints have none.
slips = Table(
    "slips",
    metadata,
    Column("queue_id", String(13), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("printer", String(63), nullable=False),
    Column("identity", String(64), nullable=False),
    Column("content", String(64), nullable=False),
    Index(
        "ix_slips_identity",
        "identity",
        sqlite_where=text("identity <> ''"),
        postgresql_where=text("identity <> ''"),
    ),
    Index("ix_slips_content", "printer", "content", "queue_id"),
    ForeignKeyConstraint(["queue_id", "number"], _ONE_DELIVERY, ondelete="CASCADE"),
)

# The PDF that went to the printer, for a reprint. The index has the size as well, so that adding the sizes up touches
# no PDF.
papers = Table(
    "papers",
    metadata,
    Column("queue_id", String(13), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("made_at", Double, nullable=False),
    Column("profile", String(63), nullable=False),
    Column("pages", Integer, nullable=False),
    Column("width_mm", Double, nullable=False),
    Column("height_mm", Double, nullable=False),
    Column("size", Integer, nullable=False),
    Column("pdf", LargeBinary, nullable=False),
    Index("ix_papers_made_at", "made_at", "size"),
    ForeignKeyConstraint(["queue_id", "number"], _ONE_DELIVERY, ondelete="CASCADE"),
)

# One row per living service. What a service holds is let go of when its lease has run out.
nodes = Table(
    "nodes",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("lease_until", Double, nullable=False),
)

# One row per group commit on a server, for some minutes: after a lost connection it tells whether the commit was done.
commits = Table(
    "commits",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("at", Double, nullable=False),
)

# What people were told of and is not over: `printer:NAME:trouble`, say. A row goes when it is told to be over.
notices = Table(
    "notices",
    metadata,
    Column("key", String(160), primary_key=True),
    Column("since", Double, nullable=False),
    Column("told_at", Double, nullable=False),
)
