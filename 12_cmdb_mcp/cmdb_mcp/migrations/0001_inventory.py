"""CIs, relations, classes, history, and a full-text index that triggers keep."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE classes (
    name TEXT PRIMARY KEY,
    definition TEXT NOT NULL CHECK (json_valid(definition))
) STRICT;

CREATE TABLE cis (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ci_class TEXT NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    identity TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('active', 'retired')),
    source TEXT NOT NULL,
    version INTEGER NOT NULL,
    attributes TEXT NOT NULL CHECK (json_valid(attributes)),
    provenance TEXT NOT NULL CHECK (json_valid(provenance)),
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    UNIQUE (ci_class, identity)
) STRICT;
CREATE INDEX cis_name ON cis (name_key);

CREATE TABLE relations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    from_ci INTEGER NOT NULL REFERENCES cis (id),
    type TEXT NOT NULL,
    to_ci INTEGER NOT NULL REFERENCES cis (id),
    source TEXT NOT NULL,
    added_at TEXT NOT NULL,
    ended_at TEXT,
    CHECK (from_ci <> to_ci)
) STRICT;
CREATE UNIQUE INDEX relations_now ON relations (from_ci, type, to_ci) WHERE ended_at IS NULL;
CREATE INDEX relations_from ON relations (from_ci);
CREATE INDEX relations_to ON relations (to_ci);

CREATE TABLE history (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    action TEXT NOT NULL,
    ci INTEGER REFERENCES cis (id),
    other_ci INTEGER REFERENCES cis (id),
    ci_class TEXT NOT NULL,
    label TEXT NOT NULL,
    changes TEXT NOT NULL CHECK (json_valid(changes)),
    state TEXT CHECK (state IS NULL OR json_valid(state)),
    source TEXT NOT NULL,
    who TEXT NOT NULL,
    correlation_id TEXT NOT NULL
) STRICT;
CREATE INDEX history_ci ON history (ci, seq);
CREATE INDEX history_other ON history (other_ci, seq);

CREATE VIRTUAL TABLE cis_fts USING fts5 (name, ci_class, body, tokenize = 'unicode61 remove_diacritics 2');
"""

BODY = "(SELECT group_concat(atom, ' ') FROM json_tree(new.attributes) WHERE atom IS NOT NULL)"
ADD = f"INSERT INTO cis_fts (rowid, name, ci_class, body) VALUES (new.id, new.name, new.ci_class, {BODY});"  # noqa: S608
REMOVE = "DELETE FROM cis_fts WHERE rowid = old.id;"

TRIGGERS = (
    f"CREATE TRIGGER cis_added AFTER INSERT ON cis BEGIN {ADD} END",
    f"CREATE TRIGGER cis_changed AFTER UPDATE OF name, attributes ON cis BEGIN {REMOVE} {ADD} END",
    f"CREATE TRIGGER cis_gone AFTER DELETE ON cis BEGIN {REMOVE} END",
    "CREATE TRIGGER history_is_final BEFORE UPDATE ON history BEGIN SELECT RAISE(ABORT, 'history is final'); END",
    "CREATE TRIGGER history_is_kept BEFORE DELETE ON history BEGIN SELECT RAISE(ABORT, 'history is kept'); END",
)


def upgrade() -> None:
    """Make everything, in the caller's transaction."""
    for statement in (*TABLES.split(";\n"), *TRIGGERS):
        if statement.strip():
            op.execute(statement)
