"""What rules say of a delivery: profile and copies, and from which one it was made."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # With defaults, so that yesterday's code can write into today's table.
    op.add_column("deliveries", sa.Column("profile", sa.String(63), nullable=False, server_default=""))
    op.add_column("deliveries", sa.Column("copies", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("deliveries", sa.Column("copy_of", sa.Integer()))


def downgrade() -> None:
    for column in ("copy_of", "copies", "profile"):
        op.drop_column("deliveries", column)
