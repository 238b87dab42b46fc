"""Slips that come out as one document: who may, who does, and what carries them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    # With defaults, so that yesterday's code can write into today's table.
    op.add_column("deliveries", sa.Column("merge", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("deliveries", sa.Column("is_bundle", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("deliveries", sa.Column("bundle", sa.String(20), nullable=False, server_default=""))
    op.add_column("deliveries", sa.Column("place", sa.Integer(), nullable=False, server_default="0"))
    bundled = sa.text("bundle <> ''")
    op.create_index(
        "ix_deliveries_bundle",
        "deliveries",
        ["bundle", "place"],
        sqlite_where=bundled,
        postgresql_where=bundled,
    )


def downgrade() -> None:
    op.drop_index("ix_deliveries_bundle", "deliveries")
    for column in ("place", "bundle", "is_bundle", "merge"):
        op.drop_column("deliveries", column)
