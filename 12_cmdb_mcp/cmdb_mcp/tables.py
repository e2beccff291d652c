"""The database as SQLAlchemy sees it. The truth about constraints and triggers is in `migrations/`."""

import sqlalchemy as sa

metadata = sa.MetaData()

classes = sa.Table(
    "classes",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("definition", sa.JSON),
)

cis = sa.Table(
    "cis",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("ci_class", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("name_key", sa.Text),  # the name folded, for looking it up
    sa.Column("identity", sa.Text),  # the folded identity values as JSON; unique within the class
    sa.Column("status", sa.Text),  # active | retired
    sa.Column("source", sa.Text),  # who created it
    sa.Column("version", sa.Integer),
    sa.Column("attributes", sa.JSON),
    sa.Column("provenance", sa.JSON),  # attribute -> {source, at}
    sa.Column("created_at", sa.Text),
    sa.Column("updated_at", sa.Text),
)

relations = sa.Table(
    "relations",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("from_ci", sa.Integer),
    sa.Column("type", sa.Text),
    sa.Column("to_ci", sa.Integer),
    sa.Column("source", sa.Text),
    sa.Column("added_at", sa.Text),
    sa.Column("ended_at", sa.Text),  # NULL while it holds
)

history = sa.Table(
    "history",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at", sa.Text),  # UTC, microseconds, strictly later with every transaction
    sa.Column("action", sa.Text),
    sa.Column("ci", sa.Integer),
    sa.Column("other_ci", sa.Integer),  # the far end, when a relation changed
    sa.Column("ci_class", sa.Text),
    sa.Column("label", sa.Text),  # class:name at that time
    sa.Column("changes", sa.JSON),
    sa.Column("state", sa.JSON(none_as_null=True)),  # the whole CI after it; NULL when the CI itself did not change
    sa.Column("source", sa.Text),
    sa.Column("who", sa.Text),
    sa.Column("correlation_id", sa.Text),
)
