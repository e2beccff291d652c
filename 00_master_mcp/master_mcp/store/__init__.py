"""The hub's database: tables and how it is opened."""

from pathlib import Path

import sqlalchemy as sa

from fleetkit.settings import FleetSettings
from fleetkit.store import Store, open_store

__all__ = ["api_keys", "audit", "catalog", "fleet", "open_hub_store"]

metadata = sa.MetaData()

api_keys = sa.Table(
    "api_keys",
    metadata,
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
    sqlite_autoincrement=True,
)

catalog = sa.Table(
    "catalog",
    metadata,
    sa.Column("service", sa.String, primary_key=True),
    sa.Column("listed_at", sa.Float, nullable=False),
    sa.Column("tools", sa.JSON, nullable=False),
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
