"""A service's database: SQLite by default, PostgreSQL or libSQL by URL; Alembic migrations.

Writes go through one thread that commits whatever has queued up in one transaction (group commit), so
the event loop never waits for a disk and a burst costs one fsync. A write is durable when its future
resolves.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InvalidRequestError, OperationalError, SQLAlchemyError

from fleetkit import trust
from fleetkit.errors import OverBudget, Unavailable

T = TypeVar("T")
Work = Callable[[sa.Connection], Any]

BATCH = 256  # writes committed together at most
PENDING = 20_000  # writes waiting at most; beyond it the caller is refused instead of memory growing
BUSY_S = 30  # how long SQLite waits for another process's lock; `?timeout=` in a URL replaces it

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


class _Written(Future[T]):
    """A queued write is made even when its caller was cancelled: what it records may have happened."""

    def cancel(self) -> bool:
        return False


@dataclass(frozen=True)
class _Job:
    work: Work
    done: Future[Any]


class Store:
    """One open database. `close()` ends its writer after the queue is empty."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._jobs: queue.Queue[_Job | None] = queue.Queue(PENDING)
        self._closing = threading.Lock()
        self._closed = False
        self._writing = _immediate(engine)
        self._writer = threading.Thread(target=self._write_forever, name="store-writer", daemon=True)
        self._writer.start()

    async def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in the writer's transaction; returns its value once committed.

        Raises OverBudget when the queue is full, Unavailable when the database cannot be written, and
        whatever `work` itself raised. A caller that is cancelled meanwhile has still written.
        """
        return await asyncio.wrap_future(self.submit(work))

    def submit(self, work: Callable[[sa.Connection], T]) -> Future[T]:
        """Queue `work` without waiting; for callers that need not know when it is on disk."""
        done: Future[T] = _Written()
        with self._closing:
            if self._closed:
                raise Unavailable("the database is closed: this service is stopping")
            try:
                self._jobs.put_nowait(_Job(work, done))
            except queue.Full as error:
                raise OverBudget("the database cannot keep up: slow down and repeat", retry_after=1.0) from error
        return done

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` on a connection of its own in a thread; it sees only committed rows."""
        return await asyncio.to_thread(self.read_now, work)

    def read_now(self, work: Callable[[sa.Connection], T]) -> T:
        """`read` for synchronous callers (start-up, command line)."""
        try:
            with self.engine.connect() as connection:
                return work(connection)
        except DBAPIError as error:
            if _is_broken(error):
                raise _unavailable(self.engine, error) from error
            raise

    def write_now(self, work: Callable[[sa.Connection], T]) -> T:
        """`write` for synchronous callers (start-up, command line)."""
        return self.submit(work).result()

    def close(self) -> None:
        """Finish what is queued, then close every connection."""
        with self._closing:
            if not self._closed:
                self._jobs.put(None)
            self._closed = True
        self._writer.join(timeout=30)
        self.engine.dispose()

    def _write_forever(self) -> None:
        running = True
        while running:
            batch, running = self._next_batch()
            if batch:
                self._commit(batch)

    def _next_batch(self) -> tuple[list[_Job], bool]:
        first = self._jobs.get()
        if first is None:
            return [], False
        batch = [first]
        while len(batch) < BATCH:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return batch, False
            batch.append(job)
        return batch, True

    def _commit(self, batch: list[_Job]) -> None:
        """One transaction for the batch, one savepoint per job: a failing job takes nobody with it."""
        finished: list[tuple[_Job, Any]] = []
        try:
            with self._writing.begin() as connection:
                for job in batch:
                    finished.extend(_attempt(connection, job))
                    if not connection.in_transaction():
                        raise InvalidRequestError("a write ended the transaction that it shares with others")
        except SQLAlchemyError as error:
            problem = _unavailable(self.engine, _broken_in(error) or error)
            for job in batch:
                if not job.done.done():
                    job.done.set_exception(problem)
            return
        for job, value in finished:
            job.done.set_result(value)


def _attempt(connection: sa.Connection, job: _Job) -> list[tuple[_Job, Any]]:
    try:
        with connection.begin_nested():
            return [(job, job.work(connection))]
    except Exception as error:  # boundary: the job's own error belongs to its caller
        if _broken_in(error) is not None:
            raise  # the whole batch fails together
        job.done.set_exception(error)
        return []


def _broken_in(error: BaseException | None) -> DBAPIError | None:
    """The database's failure behind an error: a full disk ends the transaction, and then the savepoint is missed."""
    while isinstance(error, DBAPIError | sqlite3.Error):
        if isinstance(error, DBAPIError) and _is_broken(error):
            return error
        error = error.__context__
    return None


def _is_broken(error: DBAPIError) -> bool:
    """Whether the database failed, rather than this statement."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    return isinstance(error, OperationalError) if code is None else code & 0xFF in _BROKEN


def open_store(data_dir: Path, name: str, migrations: Path, url: str | None = None) -> Store:
    """The database of one service, brought up to date.

    `name` names the file `$data_dir/<name>.db` unless `url` points elsewhere. `migrations` holds Alembic
    files named after their revision (`0001_what.py`). A SQLite file is backed up before one runs. Raises
    Unavailable, saying what to do, when the file is damaged, locked or newer than this program.
    """
    own = sa.URL.create("sqlite", database=str(data_dir / f"{name}.db"))
    engine = _engine(sa.make_url(url) if url else own)
    try:
        if url is None:
            trust.private_dir(data_dir)
        _migrate(engine, migrations)
    except OSError as error:
        raise Unavailable(
            f"database {_where(engine)}: {error.strerror}. What to do: make its directory, writable for this user."
        ) from error
    except DBAPIError as error:
        raise _unavailable(engine, error) from error
    finally:
        engine.dispose()
    return Store(engine)


def quick_check(path: Path) -> None:
    """Read a SQLite file through; raises Unavailable, saying what to do, when it is damaged."""
    engine = _engine(sa.URL.create("sqlite", database=str(path)))
    try:
        with engine.connect() as connection:
            found = str(connection.exec_driver_sql("PRAGMA quick_check").scalar())
        if found != "ok":
            where = f"database {path}: {found.splitlines()[-1]}"
            raise Unavailable(f"{where}. What to do: restore a backup (*.bak beside it).")
    except DBAPIError as error:
        raise _unavailable(engine, error) from error
    finally:
        engine.dispose()


def _engine(at: sa.URL) -> sa.Engine:
    if at.get_backend_name() != "sqlite":
        return sa.create_engine(at)
    engine = sa.create_engine(at, connect_args={} if "timeout" in at.query else {"timeout": BUSY_S})
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def _set_pragmas(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _immediate(engine: sa.Engine) -> sa.Engine:
    """The same pool for writers: SQLite takes its write lock at BEGIN, so a transaction never fails half-way."""
    return engine.execution_options(immediate=True)


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("immediate") else "BEGIN")


def _migrate(engine: sa.Engine, migrations: Path) -> None:
    """Up to the newest revision in one transaction: killed half-way, the database is the old one."""
    path = _sqlite_file(engine)
    existed = path is not None and path.exists() and path.stat().st_size > 0
    if path is not None:
        path.touch(mode=0o600)
        path.chmod(0o600)
    with engine.connect() as connection:
        if _current_revision(connection) == _newest(migrations):
            return
    from fleetkit.migrate import Migrations  # Alembic: slow to load and seldom needed

    scripts = Migrations(migrations)
    with _immediate(engine).begin() as connection:
        current = _current_revision(connection)
        if scripts.pending(current, _where(engine)):
            if path is not None and existed:
                _back_up(path, current)
            scripts.upgrade(connection)


def _newest(migrations: Path) -> str | None:
    """The newest revision: a migration's file name starts with its revision, four digits."""
    return max((file.name[:4] for file in migrations.glob("[0-9][0-9][0-9][0-9]_*.py")), default=None)


def _sqlite_file(engine: sa.Engine) -> Path | None:
    return Path(engine.url.database) if engine.dialect.name == "sqlite" and engine.url.database else None


def _current_revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _back_up(path: Path, revision: str | None) -> None:
    """A whole copy or none; the caller holds the write lock, so nothing changes meanwhile."""
    copy = path.with_name(f"{path.name}.{revision or 'empty'}.bak")
    partial = copy.with_name(f"{copy.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(partial)) as target:
        source.backup(target)
    partial.replace(copy)


def _where(engine: sa.Engine) -> str:
    return engine.url.database or engine.url.render_as_string()


def _unavailable(engine: sa.Engine, error: Exception) -> Unavailable:
    cause = str(getattr(error, "orig", None) or error).splitlines()[0]
    hint = {
        "malformed": "restore a backup (*.bak beside it) or move the file away to start empty",
        "not a database": "it is another kind of file: move it away to start empty",
        "locked": "another process holds it: stop that one first",
        "full": "free disk space; nothing was written",
        "readonly": "make it writable for this user",
    }
    advice = next((text for key, text in hint.items() if key in cause), "run `fleet doctor`")
    return Unavailable(f"database {_where(engine)}: {cause}. What to do: {advice}.")
