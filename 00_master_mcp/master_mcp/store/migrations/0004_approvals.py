"""Calls that are held until somebody decides, and what was decided."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of the approvals."""
    op.create_table(
        "approvals",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("status", sa.String, nullable=False, index=True),
        sa.Column("service", sa.String, nullable=False),
        sa.Column("tool", sa.String, nullable=False),
        sa.Column("schema_hash", sa.String, nullable=False),
        sa.Column("args_hash", sa.String, nullable=False),
        sa.Column("arguments", sa.JSON(none_as_null=True)),
        sa.Column("requester_id", sa.String, nullable=False, index=True),
        sa.Column("requester_name", sa.String, nullable=False),
        sa.Column("door", sa.String, nullable=False),
        sa.Column("correlation_id", sa.String, nullable=False),
        sa.Column("risk", sa.String, nullable=False),
        sa.Column("plan", sa.String, nullable=False),
        sa.Column("rule", sa.String, nullable=False),
        sa.Column("effect", sa.String, nullable=False),
        sa.Column("quorum", sa.Integer, nullable=False),
        sa.Column("group_name", sa.String, nullable=False),
        sa.Column("escalate_to", sa.String),
        sa.Column("execute_on_approval", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("execution_s", sa.Float, nullable=False),
        sa.Column("execution_expires_at", sa.Float),
        sa.Column("escalates_at", sa.Float),
        sa.Column("escalated_at", sa.Float),
        sa.Column("due_at", sa.Float, index=True),
        sa.Column("started_at", sa.Float),
        sa.Column("ended_at", sa.Float),
        sa.Column("claim", sa.String),
        sa.Column("result", sa.JSON(none_as_null=True)),
        sa.Column("note", sa.String),
    )
    op.create_table(
        "decisions",
        sa.Column("approval_id", sa.String, sa.ForeignKey("approvals.id"), primary_key=True),
        sa.Column("decider_id", sa.String, primary_key=True),
        sa.Column("decider_name", sa.String, nullable=False),
        sa.Column("approve", sa.Boolean, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("channel", sa.String, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
