"""Groups of API keys."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Every key so far is in no group but its role's."""
    op.add_column("api_keys", sa.Column("groups", sa.JSON, nullable=False, server_default="[]"))
