"""API keys, audit rows, the last good tool lists."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the first tables."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("mac", sa.String, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("revoked_at", sa.Float),
        sa.Column("changed", sa.BigInteger, nullable=False, index=True),
    )
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False, index=True),
        sa.Column("correlation_id", sa.String, nullable=False, index=True),
        sa.Column("caller", sa.String, nullable=False),
        sa.Column("door", sa.String, nullable=False),
        sa.Column("service", sa.String, nullable=False),
        sa.Column("tool", sa.String, nullable=False),
        sa.Column("risk", sa.String, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("duration_ms", sa.Float),
        sa.Column("args_hash", sa.String, nullable=False),
        sa.Column("approval_id", sa.String),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "catalog",
        sa.Column("service", sa.String, primary_key=True),
        sa.Column("listed_at", sa.Float, nullable=False),
        sa.Column("tools", sa.JSON, nullable=False),
    )
