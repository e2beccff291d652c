"""The hub's database: tables and how it is opened."""

from pathlib import Path

import sqlalchemy as sa

from fleetkit.settings import FleetSettings
from fleetkit.store import Store, open_store

__all__ = [
    "api_keys",
    "approvals",
    "audit",
    "audit_chain",
    "audit_checkpoints",
    "breakers",
    "catalog",
    "decisions",
    "external_servers",
    "fleet",
    "offers",
    "open_hub_store",
    "quotas",
]

metadata = sa.MetaData()

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("mac", sa.String, nullable=False),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("groups", sa.JSON, nullable=False, server_default="[]"),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float),
    sa.Column("revoked_at", sa.Float),
    sa.Column("changed", sa.BigInteger, nullable=False, index=True),
)

audit = sa.Table(
    "audit",
    metadata,
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
    sa.Column("detail", sa.Text),
    sa.Column("mac", sa.String),
    sqlite_autoincrement=True,
)

audit_chain = sa.Table(  # one row: the newest link, and the lock of whoever adds the next
    "audit_chain",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("chain", sa.String, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("mac", sa.String, nullable=False),
    sa.Column("checkpoints", sa.BigInteger, nullable=False),
    sa.Column("checkpoint_seq", sa.BigInteger, nullable=False),
    sa.Column("checkpoint_at", sa.Float, nullable=False),
    sa.Column("anchored", sa.BigInteger, nullable=False),
    sa.Column("signature", sa.String, nullable=False),
)

audit_checkpoints = sa.Table(
    "audit_checkpoints",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String, nullable=False, index=True),
    sa.Column("line", sa.Text, nullable=False),
)

catalog = sa.Table(
    "catalog",
    metadata,
    sa.Column("service", sa.String, primary_key=True),
    sa.Column("listed_at", sa.Float, nullable=False),
    sa.Column("tools", sa.JSON, nullable=False),
)

approvals = sa.Table(
    "approvals",
    metadata,
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
    sa.Column("form", sa.JSON(none_as_null=True)),
)

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("approval_id", sa.String, sa.ForeignKey("approvals.id"), primary_key=True),
    sa.Column("decider_id", sa.String, primary_key=True),
    sa.Column("decider_name", sa.String, nullable=False),
    sa.Column("approve", sa.Boolean, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("channel", sa.String, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("values", sa.JSON(none_as_null=True)),
)

breakers = sa.Table(  # those that are not closed
    "breakers",
    metadata,
    sa.Column("service", sa.String, primary_key=True),
    sa.Column("tool", sa.String, primary_key=True),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("wait_s", sa.Float, nullable=False),
    sa.Column("retry_at", sa.Float, nullable=False),
)

quotas = sa.Table(  # what was used of long windows
    "quotas",
    metadata,
    sa.Column("bucket", sa.String, primary_key=True),
    sa.Column("starts", sa.Float, nullable=False),
    sa.Column("ends", sa.Float, nullable=False),
    sa.Column("used", sa.Integer, nullable=False),
)

offers = sa.Table(
    "offers",
    metadata,
    sa.Column("service", sa.String, primary_key=True),
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("listed_at", sa.Float, nullable=False),
    sa.Column("listed", sa.JSON, nullable=False),
)

external_servers = sa.Table(
    "external_servers",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("approved", sa.JSON(none_as_null=True)),
    sa.Column("approved_at", sa.Float),
    sa.Column("approved_by", sa.String),
    sa.Column("seen", sa.JSON(none_as_null=True)),
    sa.Column("seen_digest", sa.String),
    sa.Column("seen_at", sa.Float),
    sa.Column("reloads", sa.Integer, nullable=False),
    sa.Column("changed", sa.BigInteger, nullable=False),
)

fleet = sa.Table(
    "fleet",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)


def open_hub_store(config: FleetSettings) -> Store:
    """The hub's database, brought up to date; raises Unavailable saying what to do when it cannot be used."""
    return open_store(config.data_dir, "hub", Path(__file__).parent / "migrations", config.hub.database_url)
