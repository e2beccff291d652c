"""The last good lists of resources, resource templates and prompts."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "offers",
        sa.Column("service", sa.String, primary_key=True),
        sa.Column("kind", sa.String, primary_key=True),
        sa.Column("listed_at", sa.Float, nullable=False),
        sa.Column("listed", sa.JSON, nullable=False),
    )
