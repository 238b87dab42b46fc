"""The same slip twice, and slips printed again: what each slip says, the paper that it became, and who ordered why."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    # With defaults, so that yesterday's code can write into today's table.
    op.add_column("deliveries", sa.Column("reprint_of", sa.Integer()))
    op.add_column("deliveries", sa.Column("marked", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("deliveries", sa.Column("duplicate_of", sa.String(20), nullable=False, server_default=""))
    duplicate = sa.text("duplicate_of <> ''")
    op.create_index(
        "ix_deliveries_duplicate_of",
        "deliveries",
        ["duplicate_of"],
        sqlite_where=duplicate,
        postgresql_where=duplicate,
    )
    op.add_column("orders", sa.Column("why", sa.Text(), nullable=False, server_default=""))
    op.create_table(
        "slips",
        sa.Column("queue_id", sa.String(13), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("printer", sa.String(63), nullable=False),
        sa.Column("identity", sa.String(64), nullable=False),
        sa.Column("content", sa.String(64), nullable=False),
        _of_delivery("slips"),
        sa.PrimaryKeyConstraint("queue_id", "number", name="pk_slips"),
    )
    known = sa.text("identity <> ''")
    op.create_index("ix_slips_identity", "slips", ["identity"], sqlite_where=known, postgresql_where=known)
    op.create_index("ix_slips_content", "slips", ["printer", "content", "queue_id"])
    op.create_table(
        "papers",
        sa.Column("queue_id", sa.String(13), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.Column("profile", sa.String(63), nullable=False),
        sa.Column("pages", sa.Integer(), nullable=False),
        sa.Column("width_mm", sa.Double(), nullable=False),
        sa.Column("height_mm", sa.Double(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("pdf", sa.LargeBinary(), nullable=False),
        _of_delivery("papers"),
        sa.PrimaryKeyConstraint("queue_id", "number", name="pk_papers"),
    )
    op.create_index("ix_papers_made_at", "papers", ["made_at", "size"])


def _of_delivery(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["queue_id", "number"],
        ["deliveries.queue_id", "deliveries.number"],
        name=f"fk_{table}_queue_id_deliveries",
        ondelete="CASCADE",
    )


def downgrade() -> None:
    op.drop_table("papers")
    op.drop_table("slips")
    op.drop_column("orders", "why")
    op.drop_index("ix_deliveries_duplicate_of", "deliveries")
    for column in ("duplicate_of", "marked", "reprint_of"):
        op.drop_column("deliveries", column)
