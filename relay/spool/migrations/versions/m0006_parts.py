"""Large bodies in parts. What is there stays where it is: a body in one piece is one whose first part is the last."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "body_parts",
        sa.Column("queue_id", sa.String(13), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("queue_id", "part", name="pk_body_parts"),
        sa.ForeignKeyConstraint(
            ["queue_id"], ["bodies.queue_id"], name="fk_body_parts_queue_id_bodies", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    op.drop_table("body_parts")
