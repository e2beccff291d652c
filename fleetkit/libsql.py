"""libSQL's driver as a DBAPI module that SQLAlchemy and this code can rely on.

The driver raises ValueError for everything, rounds whole numbers beyond 32 bits to floats, and waits for a
lock without letting other threads run. Here its errors are sqlite3's own with their codes, numbers are
exact, and waiting happens in Python. Local files only; one hub per file.
"""

import sqlite3
import time
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

from fleetkit.errors import Invalid

__all__ = ["Binary", "connect", "paramstyle", "sqlite_version_info"]

driver: Any = import_module("libsql_experimental")  # it has no types

apilevel, threadsafety, paramstyle = "2.0", 1, "qmark"
sqlite_version_info: tuple[int, ...] = tuple(driver.sqlite_version_info)
Binary = bytes
Error, DatabaseError, InterfaceError = sqlite3.Error, sqlite3.DatabaseError, sqlite3.InterfaceError
OperationalError, IntegrityError, ProgrammingError = (
    sqlite3.OperationalError,
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
)
InternalError, DataError, NotSupportedError = sqlite3.InternalError, sqlite3.DataError, sqlite3.NotSupportedError

BUSY_S = 30.0
LOOK_AGAIN_S = 0.01  # between two looks at a lock that somebody else holds
_EXACT = 2**31  # from here on the driver makes a float of a whole number

_CODES = {
    "is locked": sqlite3.SQLITE_BUSY,
    "disk image is malformed": sqlite3.SQLITE_CORRUPT,
    "not a database": sqlite3.SQLITE_NOTADB,
    "readonly": sqlite3.SQLITE_READONLY,
    "disk I/O": sqlite3.SQLITE_IOERR,
    "is full": sqlite3.SQLITE_FULL,
    "nable to open": sqlite3.SQLITE_CANTOPEN,
    "constraint failed": sqlite3.SQLITE_CONSTRAINT,
}

Parameters = Sequence[Any]


class Cursor:
    """A cursor whose errors are sqlite3's."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._cursor: Any = connection.driven.cursor()

    @property
    def description(self) -> Any:
        """As the DBAPI has it; None when the statement answers no rows."""
        return self._cursor.description or None

    @property
    def rowcount(self) -> int:
        """Rows changed."""
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """Id of the row inserted last."""
        return self._cursor.lastrowid

    def execute(self, statement: str, parameters: Parameters = ()) -> "Cursor":
        """Run one statement. Waits for another process's lock as long as the connection's timeout says."""
        self._waiting(lambda: self._cursor.execute(statement, _exact(parameters)))
        return self

    def executemany(self, statement: str, rows: Iterable[Parameters]) -> "Cursor":
        """Run one statement for each row of parameters."""
        all_rows = [_exact(row) for row in rows]
        self._waiting(lambda: self._cursor.executemany(statement, all_rows))
        return self

    def fetchone(self) -> Any:
        """The next row, None after the last."""
        return self._translated(self._cursor.fetchone)

    def fetchmany(self, size: int = 1) -> list[Any]:
        """The next rows, at most `size`."""
        return self._translated(lambda: self._cursor.fetchmany(size))

    def fetchall(self) -> list[Any]:
        """Every row that is left."""
        return self._translated(self._cursor.fetchall)

    def close(self) -> None:
        """Let go of the statement."""
        self._cursor.close()

    def _waiting(self, work: Any) -> None:
        until = time.monotonic() + self._connection.timeout
        while True:
            try:
                return self._translated(work)
            except OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                    raise
            time.sleep(LOOK_AGAIN_S)

    def _translated(self, work: Any) -> Any:
        try:
            return work()
        except ValueError as error:
            raise _error(str(error)) from error


class Connection:
    """A connection in autocommit mode: the caller says BEGIN."""

    def __init__(self, driven: Any, timeout: float) -> None:
        self.driven = driven
        self.timeout = timeout
        self.isolation_level: str | None = None

    def cursor(self) -> Cursor:
        """A new cursor."""
        return Cursor(self)

    def execute(self, statement: str, parameters: Parameters = ()) -> Cursor:
        """Run one statement on a cursor of its own."""
        return self.cursor().execute(statement, parameters)

    def commit(self) -> None:
        """End the transaction under way, if there is one."""
        if self.driven.in_transaction:
            self.execute("COMMIT").close()

    def rollback(self) -> None:
        """Undo the transaction under way, if there is one."""
        if self.driven.in_transaction:
            self.execute("ROLLBACK").close()

    def close(self) -> None:
        """Close it; what is not committed is gone."""
        self.driven.close()

    def create_function(self, *_: object, **__: object) -> None:
        """Nothing: SQLAlchemy offers every SQLite connection a REGEXP, and this driver takes no functions."""


def connect(database: str, timeout: float = BUSY_S, **_: object) -> Connection:
    """Open a local file; `timeout` is how many seconds a statement waits for another process's lock."""
    if "://" in database:
        raise Invalid("libSQL here is a local file: write sqlite+libsql:////path/to/hub.db")
    try:
        driven: Any = driver.connect(database, isolation_level=None, check_same_thread=False)
    except ValueError as error:
        raise _error(str(error)) from error
    return Connection(driven, timeout)


def _exact(parameters: Parameters) -> tuple[Any, ...]:
    """Large whole numbers as text: a column of whole numbers turns them back without loss."""
    return tuple(str(one) if isinstance(one, int) and not -_EXACT <= one < _EXACT else one for one in parameters)


def _error(message: str) -> sqlite3.DatabaseError:
    code = next((code for words, code in _CODES.items() if words in message), sqlite3.SQLITE_ERROR)
    error = (IntegrityError if code == sqlite3.SQLITE_CONSTRAINT else OperationalError)(message)
    error.sqlite_errorcode = code
    return error
