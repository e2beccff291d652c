"""A service's database: SQLite by default, PostgreSQL or libSQL by URL; Alembic migrations.

Writes go through one thread that commits whatever has queued up in one transaction (group commit), so
the event loop never waits for a disk and a burst costs one fsync. A write is durable when its future
resolves.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from fleetkit import engines, trust
from fleetkit.errors import OverBudget, Unavailable

T = TypeVar("T")
Work = Callable[[sa.Connection], Any]

BATCH = 256  # writes committed together at most
MIGRATING = 0x666C656574  # PostgreSQL's advisory lock for it: hubs that start together take turns
PENDING = 20_000  # writes waiting at most; beyond it the caller is refused instead of memory growing


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
        self._writing = engines.immediate(engine)
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
        except NoConnectionFree as error:
            raise engines.unavailable(self.engine, error) from error
        except DBAPIError as error:
            if engines.is_broken(error) or engines.may_be_repeated(error):
                raise engines.unavailable(self.engine, error) from error
            raise

    def write_now(self, work: Callable[[sa.Connection], T]) -> T:
        """`write` for synchronous callers (start-up, command line)."""
        return self.submit(work).result()

    @property
    def waiting(self) -> int:
        """How many writes are queued now."""
        return self._jobs.qsize()

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
        """One transaction for the batch, one savepoint per job of several: a failing job takes nobody with it."""
        finished: list[tuple[_Job, Any]] = []
        try:
            with self._writing.begin() as connection:
                for job in batch:
                    finished.extend(_attempt(connection, job, alone=len(batch) == 1))
                    if not connection.in_transaction() and not job.done.done():
                        raise InvalidRequestError("a write ended the transaction that it shares with others")
        except SQLAlchemyError as error:
            problem = engines.unavailable(self.engine, engines.broken_in(error) or error)
            for job in batch:
                if not job.done.done():
                    job.done.set_exception(problem)
            return
        for job, value in finished:
            job.done.set_result(value)


def _attempt(connection: sa.Connection, job: _Job, *, alone: bool) -> list[tuple[_Job, Any]]:
    try:
        with nullcontext() if alone else connection.begin_nested():
            return [(job, job.work(connection))]
    except Exception as error:  # boundary: the job's own error belongs to its caller
        if engines.broken_in(error) is not None:
            raise  # the whole batch fails together
        if alone:
            connection.rollback()
        repeatable = isinstance(error, DBAPIError) and engines.may_be_repeated(error)
        job.done.set_exception(engines.unavailable(connection.engine, error) if repeatable else error)
        return []


def upsert(db: sa.Connection, table: sa.Table, values: Mapping[str, Any]) -> None:
    """Insert a row, or replace the one with the same primary key, whatever another process does meanwhile."""
    if db.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert  # only where it is used: 10 ms at every start
    else:
        from sqlalchemy.dialects.sqlite import insert
    keys = [column.name for column in table.primary_key]
    changed = {name: value for name, value in values.items() if name not in keys}
    db.execute(insert(table).values(**values).on_conflict_do_update(index_elements=keys, set_=changed))


def open_store(data_dir: Path, name: str, migrations: Path, url: str | None = None) -> Store:
    """The database of one service, brought up to date.

    `name` names the file `$data_dir/<name>.db` unless `url` points elsewhere. `migrations` holds Alembic
    files named after their revision (`0001_what.py`). A SQLite file is backed up before one runs. Raises
    Unavailable, saying what to do, when the database is down, damaged, locked or newer than this program,
    Invalid when `url` is no database known here.
    """
    own = sa.URL.create("sqlite", database=str(data_dir / f"{name}.db"))
    engine = engines.engine_for(url or own)
    try:
        if url is None:
            trust.private_dir(data_dir)
        _migrate(engine, migrations)
    except OSError as error:
        what = f"database {engines.where(engine)}: {error.strerror}"
        raise Unavailable(f"{what}. What to do: make its directory, writable for this user.") from error
    except DBAPIError as error:
        raise engines.unavailable(engine, error) from error
    finally:
        engine.dispose()
    return Store(engine)


def ping(url: str) -> str:
    """Connect to a database without changing it; its name for people.

    Raises Unavailable, saying what to do, when it cannot be reached, Invalid when the URL is none known here.
    """
    engine = engines.engine_for(url)
    file = engines.sqlite_file(engine)
    if file is not None and not file.exists():
        raise Unavailable(f"database {file} does not exist yet: `fleet up` makes it")
    try:
        with engine.connect() as connection:
            connection.execute(sa.select(1))
        return engines.where(engine)
    except DBAPIError as error:
        raise engines.unavailable(engine, error) from error
    finally:
        engine.dispose()


def quick_check(path: Path) -> None:
    """Read a SQLite file through; raises Unavailable, saying what to do, when it is damaged."""
    engine = engines.engine_for(sa.URL.create("sqlite", database=str(path)))
    try:
        with engine.connect() as connection:
            found = str(connection.exec_driver_sql("PRAGMA quick_check").scalar())
        if found != "ok":
            where = f"database {path}: {found.splitlines()[-1]}"
            raise Unavailable(f"{where}. What to do: restore a backup (*.bak beside it).")
    except DBAPIError as error:
        raise engines.unavailable(engine, error) from error
    finally:
        engine.dispose()


def _migrate(engine: sa.Engine, migrations: Path) -> None:
    """Up to the newest revision in one transaction: killed half-way, the database is the old one."""
    path = engines.sqlite_file(engine)
    existed = path is not None and path.exists() and path.stat().st_size > 0
    if path is not None:
        path.touch(mode=0o600)
        path.chmod(0o600)
    with engine.connect() as connection:
        if _current_revision(connection) == _newest(migrations):
            return
    from fleetkit.migrate import Migrations  # Alembic: slow to load and seldom needed

    scripts = Migrations(migrations)
    with engines.immediate(engine).begin() as connection:
        if path is None:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATING})
        current = _current_revision(connection)
        if scripts.pending(current, engines.where(engine)):
            if path is not None and existed:
                _back_up(engine, path, current)
            scripts.upgrade(connection)


def _newest(migrations: Path) -> str | None:
    """The newest revision: a migration's file name starts with its revision, four digits."""
    return max((file.name[:4] for file in migrations.glob("[0-9][0-9][0-9][0-9]_*.py")), default=None)


def _current_revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _back_up(engine: sa.Engine, path: Path, revision: str | None) -> None:
    """A whole copy or none; the caller holds the write lock, so nothing changes meanwhile."""
    copy = path.with_name(f"{path.name}.{revision or 'empty'}.bak")
    partial = copy.with_name(f"{copy.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    source = engine.raw_connection()  # by the driver that holds the lock: another one's would drop it
    try:
        source.cursor().execute("VACUUM INTO ?", (str(partial),))
    finally:
        source.close()
    partial.replace(copy)
