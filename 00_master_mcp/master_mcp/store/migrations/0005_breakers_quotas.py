"""Breakers that are open, and what was used of long quotas."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "breakers",
        sa.Column("service", sa.String, primary_key=True),
        sa.Column("tool", sa.String, primary_key=True),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("since", sa.Float, nullable=False),
        sa.Column("wait_s", sa.Float, nullable=False),
        sa.Column("retry_at", sa.Float, nullable=False),
    )
    op.create_table(
        "quotas",
        sa.Column("bucket", sa.String, primary_key=True),
        sa.Column("starts", sa.Float, nullable=False),
        sa.Column("ends", sa.Float, nullable=False),
        sa.Column("used", sa.Integer, nullable=False),
    )
