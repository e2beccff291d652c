"""Workflows: definitions by version, runs, what became of each step, signals, large results."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of the workflows; an approval may have a form, and a decision what was filled in."""
    op.add_column("approvals", sa.Column("form", sa.JSON(none_as_null=True)))
    op.add_column("decisions", sa.Column("values", sa.JSON(none_as_null=True)))
    _create_definitions()
    _create_runs()
    _create_steps()


def _create_definitions() -> None:
    op.create_table(
        "workflow_definitions",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("hash", sa.String, primary_key=True),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("owner_id", sa.String, nullable=False),
        sa.Column("owner_name", sa.String, nullable=False),
        sa.Column("saved_at", sa.Float, nullable=False),
        sa.Column("current", sa.Boolean, nullable=False),
    )
    op.create_table(
        "workflow_ticks",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("at", sa.Float, primary_key=True),
        sa.Column("run_id", sa.String, nullable=False),
    )


def _create_runs() -> None:
    op.create_table(
        "workflow_runs",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False, index=True),
        sa.Column("hash", sa.String, nullable=False),
        sa.Column("definition", sa.JSON, nullable=False),
        sa.Column("interpreter", sa.Integer, nullable=False),
        sa.Column("inputs", sa.JSON, nullable=False),
        sa.Column("status", sa.String, nullable=False, index=True),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("key", sa.String),
        sa.Column("caller_id", sa.String, nullable=False),
        sa.Column("caller_name", sa.String, nullable=False),
        sa.Column("door", sa.String, nullable=False),
        sa.Column("correlation_id", sa.String, nullable=False),
        sa.Column("parent", sa.String, index=True),
        sa.Column("depth", sa.Integer, nullable=False),
        sa.Column("approved", sa.JSON(none_as_null=True)),
        sa.Column("carried", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False, index=True),
        sa.Column("started_at", sa.Float),
        sa.Column("ended_at", sa.Float),
        sa.Column("failed_step", sa.String),
        sa.Column("reason", sa.String),
        sa.Column("outputs", sa.JSON(none_as_null=True)),
        sa.UniqueConstraint("caller_id", "key", name="workflow_runs_key"),
    )


def _create_steps() -> None:
    op.create_table(
        "workflow_steps",
        sa.Column("run_id", sa.String, primary_key=True),
        sa.Column("epoch", sa.Integer, primary_key=True),
        sa.Column("step", sa.String, primary_key=True),
        sa.Column("item", sa.Integer, primary_key=True),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("args_hash", sa.String),
        sa.Column("approval_id", sa.String, index=True),
        sa.Column("waits_for", sa.String),
        sa.Column("due_at", sa.Float),
        sa.Column("started_at", sa.Float),
        sa.Column("ended_at", sa.Float),
        sa.Column("result", sa.JSON(none_as_null=True)),
        sa.Column("error", sa.JSON(none_as_null=True)),
        sa.Column("items", sa.JSON(none_as_null=True)),
        sa.Column("unsure", sa.Boolean),
    )
    op.create_table(
        "workflow_signals",
        sa.Column("run_id", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("sent_by", sa.String, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "workflow_artifacts",
        sa.Column("run_id", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
