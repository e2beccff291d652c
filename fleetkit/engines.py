"""How each kind of database is opened, what its errors mean, and what to do about them.

SQLite (the default), libSQL (`sqlite+libsql:///path`, a local file) and PostgreSQL
(`postgresql+psycopg://user@host/name`) are one thing to everyone else.
"""

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from fleetkit.errors import Invalid, Unavailable

BUSY_S = 30  # how long SQLite waits for another process's lock; `?timeout=` in a URL replaces it
POOL = {"pool_size": 5, "max_overflow": 5, "pool_timeout": 10}  # of PostgreSQL's connections; a writer and readers
STATEMENT_MS = 30_000  # PostgreSQL ends a statement after this long, and a wait for a lock after a third of it

_BROKEN = {  # SQLite's own words for "the database", as opposed to "your statement"
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOTADB,
}
# PostgreSQL's classes for it: connection, a standby, login, catalog, resources, intervention, system, internal.
_BROKEN_CLASSES = ("08", "25006", "28", "3D", "53", "57P", "58", "XX")
_TRY_AGAIN = {"57014", "55P03", "40001", "40P01"}  # took too long, lock not had, serialization, deadlock

_HINTS = {  # the first that fits
    "QueuePool": "try again soon: every connection is in use",
    "malformed": "restore a backup (*.bak beside it) or move the file away to start empty",
    "not a database": "it is another kind of file: move it away to start empty",
    "locked": "another process holds it: stop that one first",
    "full": "free disk space; nothing was written",
    "readonly": "make it writable for this user",
    "password authentication failed": "correct the password: hub.database_url belongs in the secret file "
    "fleet_hub__database_url or in FLEET_HUB__DATABASE_URL",
    "no password supplied": "give the URL with its password in the secret file fleet_hub__database_url",
    "starting up": "wait a moment: it has just been started",
    "too many clients": "raise its max_connections, or stop other clients",
    "remaining connection slots": "raise its max_connections, or stop other clients",
    'role "': "correct the user in hub.database_url, or make it on the server (createuser)",
    '" does not exist': "make it on the server: createdb -O <user> <name>",
    "permission denied": "make this user the owner of the database: ALTER DATABASE name OWNER TO user",
    "no pg_hba.conf entry": "allow this user and address in the server's pg_hba.conf",
    "resolve": "correct the host in hub.database_url",
    "connection": "start the PostgreSQL server, or correct host and port in hub.database_url",
    "statement timeout": "try again; if it happens often the server is overloaded",
}


def engine_for(url: str | sa.URL) -> sa.Engine:
    """An engine with the options of its kind. Raises Invalid for a URL that names no kind known here."""
    at = _read(url)
    if at.get_backend_name() == "postgresql":
        return sa.create_engine(at, pool_pre_ping=True, connect_args=_postgres_options(at), **POOL)
    engine = _libsql(at) if at.get_driver_name() == "libsql" else _sqlite(at)
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def immediate(engine: sa.Engine) -> sa.Engine:
    """The same pool for writers: SQLite takes its write lock at BEGIN, so a transaction never fails half-way."""
    return engine.execution_options(immediate=True)


def broken_in(error: BaseException | None) -> DBAPIError | None:
    """The database's failure behind an error: a full disk ends the transaction, and then the savepoint is missed."""
    while isinstance(error, DBAPIError | sqlite3.Error):
        if isinstance(error, DBAPIError) and is_broken(error):
            return error
        error = error.__context__
    return None


def is_broken(error: DBAPIError) -> bool:
    """Whether the database failed, rather than this statement."""
    if error.connection_invalidated:
        return True
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _BROKEN
    state = _sql_state(error)
    return isinstance(error, OperationalError) if state is None else state.startswith(_BROKEN_CLASSES)


def may_be_repeated(error: DBAPIError) -> bool:
    """Whether PostgreSQL gave this statement up for reasons that pass: too slow, a lock, a deadlock."""
    return _sql_state(error) in _TRY_AGAIN


def _sql_state(error: DBAPIError) -> str | None:
    """PostgreSQL's five characters for what went wrong, None where there are none."""
    return getattr(error.orig, "sqlstate", None)


def unavailable(engine: sa.Engine, error: Exception) -> Unavailable:
    """What happened, in one line that says what to do and holds no password."""
    text = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    cause = text.splitlines()[0].rstrip(".")
    if engine.url.password:
        cause = cause.replace(str(engine.url.password), "***")
    advice = next((advice for words, advice in _HINTS.items() if words in text), "run `fleet doctor`")
    return Unavailable(f"database {where(engine)}: {cause}. What to do: {advice}.")


def where(engine: sa.Engine) -> str:
    """The database as a person would name it: a file, or a URL without its password and options."""
    at = engine.url
    if at.get_backend_name() == "sqlite":
        return at.database or at.render_as_string()
    return sa.URL.create("postgresql", at.username, None, at.host, at.port, at.database).render_as_string()


def sqlite_file(engine: sa.Engine) -> Path | None:
    """The file of a SQLite or libSQL database."""
    return Path(engine.url.database) if engine.dialect.name == "sqlite" and engine.url.database else None


def _read(url: str | sa.URL) -> sa.URL:
    try:
        at = sa.make_url(url)
        at.get_dialect()
    except (ArgumentError, NoSuchModuleError) as error:
        raise Invalid(_UNKNOWN) from error
    if (at.get_backend_name(), at.get_driver_name()) not in _KNOWN:
        raise Invalid(_UNKNOWN)
    return at


_KNOWN = (("sqlite", "pysqlite"), ("sqlite", "libsql"), ("postgresql", "psycopg"))
_UNKNOWN = (
    "hub.database_url names no database known here: write sqlite:////path/to/hub.db, "
    "sqlite+libsql:////path/to/hub.db or postgresql+psycopg://user:password@host/name"
)


def _sqlite(at: sa.URL) -> sa.Engine:
    return sa.create_engine(at, connect_args={} if "timeout" in at.query else {"timeout": BUSY_S})


def _libsql(at: sa.URL) -> sa.Engine:
    from fleetkit import libsql

    if at.host or not at.database:
        raise Invalid("libSQL is used as a local file: write sqlite+libsql:////path/to/hub.db")
    return sa.create_engine(at, module=libsql)


def _postgres_options(at: sa.URL) -> dict[str, Any]:
    """For libpq: notice a dead server, never wait for ever. What the URL says wins."""
    limits = {
        "statement_timeout": STATEMENT_MS,
        "lock_timeout": STATEMENT_MS // 3,
        "idle_in_transaction_session_timeout": 2 * STATEMENT_MS,
    }
    options: dict[str, Any] = {
        "application_name": "mcp-fleet",
        "connect_timeout": 5,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": STATEMENT_MS,
        "options": " ".join(f"-c {name}={value}" for name, value in limits.items()),
    }
    return {name: value for name, value in options.items() if name not in at.query}


def _set_pragmas(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("immediate") else "BEGIN")
