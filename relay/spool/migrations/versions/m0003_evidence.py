"""What is known of a print job: when it was handed over, when it ended, how many sides came out; and what moved."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("moved_from", sa.String(63), nullable=False, server_default=""))
    op.add_column("print_jobs", sa.Column("sent_at", sa.Double()))
    op.add_column("print_jobs", sa.Column("ended_at", sa.Double()))
    op.add_column("print_jobs", sa.Column("impressions", sa.Integer()))


def downgrade() -> None:
    for column in ("impressions", "ended_at", "sent_at"):
        op.drop_column("print_jobs", column)
    op.drop_column("deliveries", "moved_from")
