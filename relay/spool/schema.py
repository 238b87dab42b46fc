"""The tables. A change here comes with a migration; a test compares the two.

Times are seconds since the epoch. A lease that nobody holds has no owner and ends at 0.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
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
    Column("received_at", Double, nullable=False),
    Column("client", Text, nullable=False),
    Column("helo", Text, nullable=False),
    Column("protocol", String(16), nullable=False),
    Column("message_id", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
)

# Bodies have a table of their own, so that reading a list of messages never touches their pages.
bodies = Table(
    "bodies",
    metadata,
    Column("queue_id", ForeignKey("messages.queue_id", ondelete="CASCADE"), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("queue_id", ForeignKey("messages.queue_id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("state", String(10), nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("evidence", String(32), nullable=False, default=""),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt_at", Double, nullable=False),
    Column("settled_at", Double),
    Column("lease_owner", String(64)),
    Column("lease_until", Double, nullable=False, default=0.0),
    UniqueConstraint("queue_id", "number"),
    Index("ix_deliveries_due", "state", "next_attempt_at", "id"),
    Index("ix_deliveries_lease", "lease_owner"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("delivery_id", ForeignKey("deliveries.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("outcome", String(10), nullable=False, default=""),
    Column("reply", Text, nullable=False, default=""),
    Column("reason", Text, nullable=False, default=""),
)

print_jobs = Table(
    "print_jobs",
    metadata,
    Column("delivery_id", ForeignKey("deliveries.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("queue", Text, nullable=False),
    Column("job_id", Integer),
    Column("sent", Boolean, nullable=False, default=False),
    UniqueConstraint("name"),
)
