"""Store: real databases of every kind, real processes; what is answered as written survives everything."""

import asyncio
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, IntegrityError

from fleetkit import store as module
from fleetkit.errors import NotFound, OverBudget, Unavailable
from fleetkit.store import Store, open_store, quick_check

FIRST = '''"""First."""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None
def upgrade():
    op.create_table("thing", sa.Column("id", sa.Integer, primary_key=True), sa.Column("word", sa.String, unique=True))
'''
SECOND = '''"""Second."""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.add_column("thing", sa.Column("note", sa.String))
'''
BROKEN = SECOND.replace("def upgrade():", "def upgrade():\n    op.execute('CREATE TABLE half (id INTEGER)')").replace(
    '"note"', '"word"'
)
BUSY = "?timeout=0"


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_first.py").write_text(FIRST, encoding="utf-8")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(data: Path, migrations: Path, database_url: str) -> Generator[Store]:
    """A store on each kind of database."""
    opened = open_store(data, "demo", migrations, database_url)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(data: Path, migrations: Path) -> Generator[Store]:
    opened = open_store(data, "demo", migrations)
    yield opened
    opened.close()


def insert(word: str) -> Callable[[sa.Connection], Any]:
    statement = sa.text("INSERT INTO thing (word) VALUES (:word) RETURNING id")
    return lambda db: db.execute(statement, {"word": word}).scalar_one()


def words(db: sa.Connection) -> list[str]:
    return list(db.execute(sa.text("SELECT word FROM thing ORDER BY id")).scalars())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class Gate:
    """Work that holds the writer until it is opened, so that the next jobs queue up behind it."""

    def __init__(self, store: Store) -> None:
        self._open = threading.Event()
        entered = threading.Event()

        def wait(_db: sa.Connection) -> None:
            entered.set()
            self._open.wait()

        self.done = store.submit(wait)
        entered.wait()

    def open(self) -> None:
        self._open.set()


# --- reading and writing ----------------------------------------------------------------------------


async def test_a_write_answers_with_its_value_once_others_can_read_it(
    store: Store, data: Path, migrations: Path, database_url: str
):
    assert await store.write(insert("a")) == 1
    other = open_store(data, "demo", migrations, database_url)
    assert other.read_now(words) == ["a"]
    other.close()
    assert await store.read(words) == ["a"]


async def test_a_hundred_writes_at_once_are_all_made_in_order(store: Store):
    await asyncio.gather(*(store.write(insert(f"{n:03d}")) for n in range(100)))
    assert await store.read(words) == [f"{n:03d}" for n in range(100)]


def test_writes_that_queued_up_share_one_transaction(store: Store):
    commits: list[object] = []
    gate = Gate(store)
    event.listen(store.engine, "commit", commits.append)
    pending = [store.submit(insert(str(n))) for n in range(50)]
    gate.open()
    assert [one.result() for one in pending] == list(range(1, 51))
    assert len(commits) <= 2


def test_a_burst_larger_than_a_batch_is_committed_in_several(store: Store):
    gate = Gate(store)
    pending = [store.submit(insert(str(n))) for n in range(module.BATCH + 10)]
    gate.open()
    assert [one.result() for one in pending] == list(range(1, module.BATCH + 11))


async def test_a_reader_sees_only_committed_rows(store: Store):
    inserted, read = threading.Event(), threading.Event()

    def slow(db: sa.Connection) -> None:
        insert("later")(db)
        inserted.set()
        read.wait()

    writing = store.submit(slow)
    await asyncio.to_thread(inserted.wait)
    assert await store.read(words) == []
    read.set()
    await asyncio.wrap_future(writing)
    assert await store.read(words) == ["later"]


def test_synchronous_callers_have_the_same_two_doors(store: Store):
    assert store.write_now(insert("a")) == 1
    assert store.read_now(words) == ["a"]


def test_a_value_set_in_a_read_is_not_kept(store: Store):
    store.read_now(insert("lost"))
    assert store.read_now(words) == []


def test_foreign_keys_are_enforced(store: Store):
    store.write_now(lambda db: db.execute(sa.text("CREATE TABLE part (thing INTEGER REFERENCES thing (id))")))
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        store.write_now(lambda db: db.execute(sa.text("INSERT INTO part VALUES (99)")))


def test_a_writer_holds_the_database_from_its_first_look_so_that_nothing_changes_under_it(
    sqlite_store: Store, data: Path
):
    looked, written = threading.Event(), threading.Event()

    def look_then_write(db: sa.Connection) -> list[str]:
        before = words(db)
        looked.set()
        written.wait()
        return before

    pending = sqlite_store.submit(look_then_write)
    looked.wait()
    other = sqlite3.connect(data / "demo.db", timeout=0)
    with closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("INSERT INTO thing (word) VALUES ('between')")
    written.set()
    assert pending.result() == []


# --- one failing job costs nobody else --------------------------------------------------------------


def test_a_failing_job_fails_alone_and_leaves_nothing_behind(store: Store):
    def half(db: sa.Connection) -> None:
        insert("half")(db)
        raise NotFound("no such thing: list them first")

    gate = Gate(store)
    before, failing, after = store.submit(insert("a")), store.submit(half), store.submit(insert("b"))
    gate.open()
    assert before.result() < after.result()
    with pytest.raises(NotFound, match="list them first"):
        failing.result()
    assert store.read_now(words) == ["a", "b"]


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("INSERT INTO thing (word) VALUES ('a')", IntegrityError),
        ("INSERT INTO nowhere VALUES (1)", DBAPIError),
        ("INSERT INTO thing WHERE", DBAPIError),
    ],
)
def test_a_wrong_statement_is_its_authors_error_not_the_databases(store: Store, statement: str, error: type[Exception]):
    gate = Gate(store)
    first, wrong, second = (
        store.submit(insert("a")),
        store.submit(lambda db: db.execute(sa.text(statement))),
        store.submit(insert("b")),
    )
    gate.open()
    with pytest.raises(error):
        wrong.result()
    assert first.result() < second.result()
    assert store.read_now(words) == ["a", "b"]


def test_a_wrong_query_is_its_authors_error_too(store: Store):
    with pytest.raises(DBAPIError, match=r"no such table|does not exist"):
        store.read_now(lambda db: db.execute(sa.text("SELECT * FROM nowhere")))


@pytest.mark.parametrize("end", [sa.Connection.rollback, sa.Connection.commit, sa.Connection.close])
def test_a_job_that_ends_the_shared_transaction_never_leaves_others_with_a_false_success(
    store: Store, end: Callable[[sa.Connection], None]
):
    gate = Gate(store)
    pending = [store.submit(insert("a")), store.submit(end), store.submit(insert("b"))]
    gate.open()
    for one in pending:
        with pytest.raises(Unavailable, match="ended the transaction that it shares"):
            one.result()
    store.write_now(insert("c"))
    assert store.read_now(words)[-1] == "c"


async def test_a_caller_that_goes_away_has_still_written_and_the_writer_lives(store: Store):
    gate = Gate(store)
    gone = asyncio.create_task(store.write(insert("recorded")))
    stays = asyncio.create_task(store.write(insert("next")))
    await asyncio.sleep(0)  # let both queue their write
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    gate.open()
    assert await stays == 2
    assert await store.read(words) == ["recorded", "next"]


# --- limits and endings -----------------------------------------------------------------------------


def test_a_full_queue_refuses_at_once_and_says_when_to_return(sqlite_store: Store):
    gate = Gate(sqlite_store)
    pending = [sqlite_store.submit(lambda _db: None) for _ in range(module.PENDING)]
    with pytest.raises(OverBudget, match="slow down and repeat") as full:
        sqlite_store.submit(lambda _db: None)
    assert full.value.retry_after == 1.0
    gate.open()
    assert [one.result() for one in pending] == [None] * module.PENDING
    assert sqlite_store.write_now(insert("a")) == 1


def test_closing_finishes_what_is_queued(data: Path, migrations: Path, database_url: str):
    first = open_store(data, "demo", migrations, database_url)
    gate = Gate(first)
    pending = [first.submit(insert(str(n))) for n in range(20)]
    gate.open()
    first.close()
    assert all(one.done() for one in pending)
    again = open_store(data, "demo", migrations, database_url)
    assert len(again.read_now(words)) == 20
    again.close()


def test_a_write_after_closing_is_refused_instead_of_waiting_for_ever(data: Path, migrations: Path):
    closed = open_store(data, "demo", migrations)
    closed.close()
    with pytest.raises(Unavailable, match="closed: this service is stopping"):
        closed.write_now(insert("late"))


def test_closing_twice_is_closing_once(data: Path, migrations: Path):
    closed = open_store(data, "demo", migrations)
    closed.close()
    closed.close()
    assert not any(thread.name == "store-writer" and thread.is_alive() for thread in threading.enumerate())


WRITER = """
import sys
from pathlib import Path
import sqlalchemy as sa
from fleetkit.store import open_store
store = open_store(Path(sys.argv[1]), "demo", Path(sys.argv[2]), sys.argv[3])
for n in range(1_000_000):
    store.write_now(lambda db: db.execute(sa.text("INSERT INTO thing (word) VALUES (:word)"), {"word": str(n)}))
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
"""


def test_a_process_killed_while_writing_keeps_every_row_it_had_answered_for(
    data: Path, migrations: Path, database_url: str
):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, data, migrations, database_url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    answered = [int(process.stdout.readline()) for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    answered += [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    again = open_store(data, "demo", migrations, database_url)
    kept = [int(word) for word in again.read_now(words)]
    assert kept[: len(answered)] == answered == list(range(len(answered)))
    assert len(kept) <= len(answered) + 1
    again.close()


# --- files ------------------------------------------------------------------------------------------


def test_the_directory_and_every_file_are_private(sqlite_store: Store, data: Path):
    sqlite_store.write_now(insert("a"))
    assert mode(data) == 0o700
    assert {path.name: mode(path) for path in data.iterdir()} == dict.fromkeys(
        ["demo.db", "demo.db-wal", "demo.db-shm"], 0o600
    )


def test_a_file_that_was_opened_to_others_is_closed_again(data: Path, migrations: Path):
    open_store(data, "demo", migrations).close()
    (data / "demo.db").chmod(0o644)
    open_store(data, "demo", migrations).close()
    assert mode(data / "demo.db") == 0o600


def test_a_path_with_url_characters_is_still_a_path(tmp_path: Path, migrations: Path):
    odd = tmp_path / "50% off?x=#1"
    open_store(odd, "demo", migrations).close()
    assert (odd / "demo.db").stat().st_size > 0


def test_a_url_puts_the_database_elsewhere_as_privately(tmp_path: Path, data: Path, migrations: Path):
    elsewhere = tmp_path / "elsewhere.db"
    opened = open_store(data, "demo", migrations, f"sqlite:///{elsewhere}")
    opened.write_now(insert("a"))
    opened.close()
    assert mode(elsewhere) == 0o600
    assert not data.exists()


# --- migrations -------------------------------------------------------------------------------------


def test_opening_an_up_to_date_database_changes_nothing(data: Path, migrations: Path, database_url: str):
    first = open_store(data, "demo", migrations, database_url)
    first.write_now(insert("kept"))
    first.close()
    again = open_store(data, "demo", migrations, database_url)
    assert again.read_now(words) == ["kept"]
    assert sorted(path.name for path in data.parent.glob("*.bak*")) == []
    again.close()


def test_a_migration_keeps_the_rows_and_leaves_the_old_database_beside_it(data: Path, migrations: Path):
    first = open_store(data, "demo", migrations)
    first.write_now(insert("old"))
    first.close()
    (migrations / "0002_second.py").write_text(SECOND, encoding="utf-8")
    again = open_store(data, "demo", migrations)
    row = again.read_now(lambda db: db.execute(sa.text("SELECT word, note FROM thing")).one())
    assert tuple(row) == ("old", None)
    again.close()
    backup = data / "demo.db.0001.bak"
    assert mode(backup) == 0o600
    with closing(sqlite3.connect(backup)) as old:
        assert old.execute("SELECT * FROM thing").fetchall() == [(1, "old")]


def test_a_backup_holds_rows_that_were_still_in_the_write_ahead_log(data: Path, migrations: Path):
    first = open_store(data, "demo", migrations)
    with closing(sqlite3.connect(data / "demo.db")) as holder:
        holder.execute("SELECT 1").fetchall()
        first.write_now(insert("in the log"))
        (migrations / "0002_second.py").write_text(SECOND, encoding="utf-8")
        open_store(data, "demo", migrations).close()
    first.close()
    with closing(sqlite3.connect(data / "demo.db.0001.bak")) as old:
        assert old.execute("SELECT word FROM thing").fetchall() == [("in the log",)]


def test_a_migration_that_fails_half_way_leaves_the_old_database(data: Path, migrations: Path, database_url: str):
    first = open_store(data, "demo", migrations, database_url)
    first.write_now(insert("old"))
    first.close()
    second = migrations / "0002_second.py"
    second.write_text(BROKEN, encoding="utf-8")
    with pytest.raises(Unavailable, match=r"duplicate column name|already exists"):
        open_store(data, "demo", migrations, database_url)
    second.unlink()
    again = open_store(data, "demo", migrations, database_url)
    assert again.read_now(words) == ["old"]
    assert not again.read_now(lambda db: sa.inspect(db).has_table("half"))
    again.close()


def test_a_database_of_a_newer_version_is_refused_and_not_touched(data: Path, migrations: Path):
    second = migrations / "0002_second.py"
    second.write_text(SECOND, encoding="utf-8")
    open_store(data, "demo", migrations).close()
    second.unlink()
    shutil.rmtree(migrations / "__pycache__", ignore_errors=True)
    before = (data / "demo.db").read_bytes()
    with pytest.raises(Unavailable, match=r"demo\.db was written by a newer version .*: update this program"):
        open_store(data, "demo", migrations)
    assert (data / "demo.db").read_bytes() == before
    assert list(data.glob("*.bak*")) == []


OPENER = """
import sys
from pathlib import Path
from fleetkit.store import open_store
sys.stdin.readline()
open_store(Path(sys.argv[1]), "demo", Path(sys.argv[2]), sys.argv[3]).close()
"""


def test_two_processes_that_open_a_new_database_at_once_both_succeed(data: Path, migrations: Path, database_url: str):
    command = [sys.executable, "-c", OPENER, data, migrations, database_url]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in both:
        process.communicate()
    assert [process.returncode for process in both] == [0, 0]


# --- broken databases -------------------------------------------------------------------------------


def test_another_kind_of_file_is_named_with_what_to_do(data: Path, migrations: Path):
    data.mkdir()
    (data / "demo.db").write_text("this is a letter, not a database\n" * 40, encoding="utf-8")
    with pytest.raises(Unavailable, match=r"demo\.db: file is not a database\. What to do: .*move it away"):
        open_store(data, "demo", migrations)


def test_a_damaged_file_is_named_with_what_to_do(data: Path, migrations: Path):
    first = open_store(data, "demo", migrations)
    for n in range(200):
        first.submit(insert(f"{n}" * 50))
    first.close()
    path = data / "demo.db"
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(Unavailable, match=r"demo\.db: .*malformed\. What to do: restore a backup"):
        open_store(data, "demo", migrations)


def test_damage_found_while_running_is_the_databases_fault_for_readers_and_writers(data: Path, migrations: Path):
    opened = open_store(data, "demo", migrations, f"sqlite:///{data.parent / 'demo.db'}")
    root = "SELECT rootpage FROM sqlite_master WHERE name = 'thing'"
    page = opened.read_now(lambda db: db.execute(sa.text(root)).scalar_one())
    opened.engine.dispose()
    with (data.parent / "demo.db").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(Unavailable, match="malformed"):
        opened.read_now(words)
    with pytest.raises(Unavailable, match="malformed"):
        opened.write_now(insert("a"))
    opened.close()


def test_a_database_held_by_another_process_is_unavailable_to_all_that_wait(tmp_path: Path, migrations: Path):
    path = tmp_path / "demo.db"
    opened = open_store(tmp_path, "demo", migrations, f"sqlite:///{path}{BUSY}")
    gate = Gate(opened)
    pending = [opened.submit(insert("a")), opened.submit(insert("b"))]
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as holder:
        gate.open()
        assert [one.result() for one in pending] == [1, 2]
        holder.execute("BEGIN IMMEDIATE")
        late = [opened.submit(insert("c")), opened.submit(insert("d"))]
        for one in late:
            with pytest.raises(Unavailable, match=r"locked\. What to do: another process holds it"):
                one.result()
        holder.execute("ROLLBACK")
    assert opened.write_now(insert("e")) == 3
    opened.close()


def test_a_new_database_that_another_process_holds_is_not_opened(tmp_path: Path, migrations: Path):
    path = tmp_path / "demo.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("PRAGMA journal_mode=WAL")
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            open_store(tmp_path, "demo", migrations, f"sqlite:///{path}{BUSY}")


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path, migrations: Path):
    with pytest.raises(
        Unavailable, match=r"nowhere/demo\.db: No such file or directory. What to do: make its directory"
    ):
        open_store(tmp_path, "demo", migrations, f"sqlite:///{tmp_path / 'nowhere' / 'demo.db'}")


def test_a_whole_database_passes_its_check(sqlite_store: Store, data: Path):
    sqlite_store.write_now(insert("a"))
    quick_check(data / "demo.db")


def test_damage_is_found_by_the_check_before_anybody_reads_it(data: Path, migrations: Path):
    opened = open_store(data, "demo", migrations)
    for n in range(500):
        opened.submit(insert(f"{n}" * 50))
    opened.close()
    path = data / "demo.db"
    half = path.stat().st_size // 4096 // 2 * 4096
    content = path.read_bytes()
    path.write_bytes(content[:half] + b"\xff" * 4096 + content[half + 4096 :])
    with pytest.raises(Unavailable, match=r"demo\.db: .*What to do: restore a backup"):
        quick_check(path)


def test_a_file_of_another_kind_fails_its_check(tmp_path: Path):
    (tmp_path / "letter.db").write_text("no database\n" * 100, encoding="utf-8")
    with pytest.raises(Unavailable, match="not a database"):
        quick_check(tmp_path / "letter.db")


async def test_a_full_disk_fails_the_whole_batch_and_is_named(sqlite_store: Store):
    def fill(db: sa.Connection) -> None:
        db.exec_driver_sql("PRAGMA max_page_count = 1")
        db.execute(sa.text("INSERT INTO thing (word) VALUES (:word)"), {"word": "x" * 100_000})

    gate = Gate(sqlite_store)
    before, full, after = (
        sqlite_store.submit(insert("before")),
        sqlite_store.submit(fill),
        sqlite_store.submit(insert("after")),
    )
    gate.open()
    for one in (before, full, after):
        with pytest.raises(Unavailable, match=r"is full.*free disk space"):
            await asyncio.wrap_future(one)
    assert await sqlite_store.read(words) == []
