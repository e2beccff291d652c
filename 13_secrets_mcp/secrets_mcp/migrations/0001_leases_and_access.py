"""Leases, spent grants and the record of every use. Never a value."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the three tables."""
    op.create_table(
        "leases",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("caller_id", sa.Text, nullable=False),
        sa.Column("caller_name", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("revoked_at", sa.Float),
        sa.Column("uses", sa.Integer, nullable=False),
        sa.Column("max_uses", sa.Integer),
    )
    op.create_table(
        "spent_grants",
        sa.Column("jti", sa.Text, primary_key=True),
        sa.Column("expires_at", sa.Float, nullable=False),
    )
    op.create_table(
        "access",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("correlation_id", sa.Text, nullable=False),
        sa.Column("caller_id", sa.Text, nullable=False),
        sa.Column("caller_name", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("spoke", sa.Text, nullable=False),
        sa.Column("tool", sa.Text, nullable=False),
        sa.Column("argument", sa.Text, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("lease_id", sa.Text),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("rule", sa.Text),
    )
    op.create_index("access_by_reference", "access", ["reference", "seq"])
    op.create_index("leases_by_caller", "leases", ["caller_id", "created_at"])
