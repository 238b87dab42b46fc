"""Messages that may go over verified TLS only (RFC 8689)."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    # With a default, so that yesterday's code can write into today's table.
    op.add_column("messages", sa.Column("requiretls", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("messages", "requiretls")
