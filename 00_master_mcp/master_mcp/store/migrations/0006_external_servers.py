"""What was approved of each external server, and what it showed last."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of pins."""
    op.create_table(
        "external_servers",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("approved", sa.JSON),
        sa.Column("approved_at", sa.Float),
        sa.Column("approved_by", sa.String),
        sa.Column("seen", sa.JSON),
        sa.Column("seen_digest", sa.String),
        sa.Column("seen_at", sa.Float),
        sa.Column("reloads", sa.Integer, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
    )
