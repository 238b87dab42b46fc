"""The first schema: messages, bodies, deliveries, attempts, print jobs, orders, nodes, commits."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "messages",
        sa.Column("queue_id", sa.String(13), nullable=False),
        sa.Column("institution", sa.String(63), nullable=False),
        sa.Column("source", sa.String(63), nullable=False),
        sa.Column("reverse_path", sa.Text()),
        sa.Column("smtputf8", sa.Boolean(), nullable=False),
        sa.Column("eight_bit", sa.Boolean(), nullable=False),
        sa.Column("ret", sa.String(4), nullable=False),
        sa.Column("envid", sa.String(100), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("helo", sa.Text(), nullable=False),
        sa.Column("protocol", sa.String(16), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("about", sa.String(20), nullable=False),
        sa.PrimaryKeyConstraint("queue_id", name="pk_messages"),
    )
    _partial_index("ix_messages_about", "messages", ["about"], "about <> ''")
    op.create_table(
        "bodies",
        sa.Column("queue_id", sa.String(13), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("queue_id", name="pk_bodies"),
        sa.ForeignKeyConstraint(
            ["queue_id"], ["messages.queue_id"], name="fk_bodies_queue_id_messages", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "deliveries",
        sa.Column("queue_id", sa.String(13), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("route", sa.String(127), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("notify", sa.String(32), nullable=False),
        sa.Column("orcpt", sa.Text(), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.String(32), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("begun_at", sa.Double()),
        sa.Column("next_attempt_at", sa.Double(), nullable=False),
        sa.Column("warn_at", sa.Double()),
        sa.Column("expires_at", sa.Double()),
        sa.Column("settled_at", sa.Double()),
        sa.Column("lease_owner", sa.String(64)),
        sa.Column("due_at", sa.Double()),
        sa.Column("deadline", sa.Double()),
        sa.PrimaryKeyConstraint("queue_id", "number", name="pk_deliveries"),
        sa.ForeignKeyConstraint(
            ["queue_id"], ["messages.queue_id"], name="fk_deliveries_queue_id_messages", ondelete="CASCADE"
        ),
    )
    _partial_index(
        "ix_deliveries_due", "deliveries", ["destination", "due_at", "queue_id", "number"], "due_at IS NOT NULL"
    )
    _partial_index("ix_deliveries_due_at", "deliveries", ["due_at"], "due_at IS NOT NULL")
    _partial_index("ix_deliveries_deadline", "deliveries", ["deadline"], "deadline IS NOT NULL")
    _partial_index("ix_deliveries_lease", "deliveries", ["lease_owner"], "lease_owner IS NOT NULL")
    _partial_index(
        "ix_deliveries_unfinished",
        "deliveries",
        ["state", "route", "queue_id", "number", "lease_owner"],
        "lease_owner IS NULL AND state NOT IN ('delivered', 'failed', 'expired', 'cancelled')",
    )
    _table_of_deliveries(
        "attempts",
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.Column("outcome", sa.String(10), nullable=False),
        sa.Column("reply", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("queue_id", "number", "attempt", name="pk_attempts"),
    )
    _table_of_deliveries(
        "print_jobs",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Integer()),
        sa.Column("sent", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("queue_id", "number", name="pk_print_jobs"),
        sa.UniqueConstraint("name", name="uq_print_jobs_name"),
    )
    _table_of_deliveries(
        "orders",
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("verb", sa.String(16), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("was", sa.String(10), nullable=False),
        sa.PrimaryKeyConstraint("queue_id", "number", "at", name="pk_orders"),
    )
    op.create_table(
        "nodes",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_nodes"),
    )
    op.create_table(
        "commits",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_commits"),
    )


def _partial_index(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _table_of_deliveries(name: str, *more: sa.schema.SchemaItem) -> None:
    op.create_table(
        name,
        sa.Column("queue_id", sa.String(13), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        *more,
        sa.ForeignKeyConstraint(
            ["queue_id", "number"],
            ["deliveries.queue_id", "deliveries.number"],
            name=f"fk_{name}_queue_id_deliveries",
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    for table in ("commits", "nodes", "orders", "print_jobs", "attempts", "deliveries", "bodies", "messages"):
        op.drop_table(table)
