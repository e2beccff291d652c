"""The store on libSQL: what its driver gets wrong is put right before anybody sees it."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

from fleetkit import libsql
from fleetkit.errors import Invalid, Unavailable
from fleetkit.store import Store, open_store, upsert

THINGS = sa.Table(
    "thing",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("word", sa.String, unique=True),
    sa.Column("big", sa.BigInteger),
    sa.Column("part", sa.Float),
    sa.Column("raw", sa.LargeBinary),
    sa.Column("tree", sa.JSON),
)
FIRST = '''"""First."""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None
def upgrade():
    op.create_table(
        "thing", sa.Column("id", sa.Integer, primary_key=True), sa.Column("word", sa.String, unique=True),
        sa.Column("big", sa.BigInteger), sa.Column("part", sa.Float), sa.Column("raw", sa.LargeBinary),
        sa.Column("tree", sa.JSON),
    )
'''
SECOND = '''"""Second."""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.add_column("thing", sa.Column("note", sa.String))
'''
HOLDER = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
held.execute("ROLLBACK")
"""


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_first.py").write_text(FIRST, encoding="utf-8")
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.db"


@pytest.fixture
def store(tmp_path: Path, migrations: Path, path: Path) -> Generator[Store]:
    opened = open_store(tmp_path, "demo", migrations, f"sqlite+libsql:///{path}")
    yield opened
    opened.close()


@contextmanager
def held(path: Path) -> Generator[subprocess.Popen[str]]:
    """Another process has the file's write lock until its stdin is closed."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


@pytest.mark.parametrize("number", [0, 2**31 - 1, 2**31, -(2**31) - 1, 1_792_345_678_901_234_567, -(2**63), 2**63 - 1])
def test_a_whole_number_comes_back_as_it_was_and_is_found_by_it(store: Store, number: int):
    store.write_now(lambda db: db.execute(THINGS.insert().values(big=number)))
    query = sa.select(THINGS.c.big).where(THINGS.c.big == number)
    assert store.read_now(lambda db: db.execute(query).scalar_one()) == number
    above = sa.select(sa.func.max(THINGS.c.big)).where(THINGS.c.big >= number)
    assert store.read_now(lambda db: db.execute(above).scalar_one()) == number


def test_every_kind_of_value_comes_back_as_it_was(store: Store):
    row = {"id": 7, "word": "ü", "big": 2**40, "part": 0.1, "raw": b"\x00\xff", "tree": {"a": [1, None]}}
    many = [{**row, "id": number, "word": str(number)} for number in (8, 9)]
    store.write_now(lambda db: db.execute(THINGS.insert().values(row)))
    store.write_now(lambda db: db.execute(THINGS.insert(), many))
    query = sa.select(THINGS).order_by(THINGS.c.id)
    assert [dict(one) for one in store.read_now(lambda db: db.execute(query).mappings().all())] == [row, *many]


def test_a_constraint_that_is_broken_is_an_integrity_error(store: Store):
    store.write_now(lambda db: db.execute(THINGS.insert().values(word="a")))
    with pytest.raises(IntegrityError, match="UNIQUE constraint failed"):
        store.write_now(lambda db: db.execute(THINGS.insert().values(word="a")))


def test_an_error_found_while_rows_are_fetched_is_the_statements_too(store: Store):
    with pytest.raises(OperationalError):
        store.read_now(lambda db: db.execute(sa.text("SELECT json('{') FROM (SELECT 1)")).all())


def test_a_row_is_inserted_or_replaced_by_its_key(store: Store):
    for word in ("a", "b"):
        store.write_now(lambda db, word=word: upsert(db, THINGS, {"id": 1, "word": word}))
    assert store.read_now(lambda db: db.execute(sa.select(THINGS.c.id, THINGS.c.word)).all()) == [(1, "b")]


def test_waiting_for_another_processs_lock_lets_other_threads_run(store: Store, path: Path):
    counted, stop = [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            counted[0] += 1
            stop.wait(0.001)

    with held(path) as holder:
        pending = store.submit(lambda db: db.execute(THINGS.insert().values(word="late")))
        counter = threading.Thread(target=count)
        counter.start()
        while counted[0] < 50:
            assert not pending.done()
            stop.wait(0.001)
        assert holder.stdin is not None
        holder.stdin.close()
        pending.result()
        stop.set()
        counter.join()
    assert store.read_now(lambda db: db.execute(sa.select(THINGS.c.word)).scalars().all()) == ["late"]


def test_a_lock_that_is_not_given_back_is_waited_for_as_long_as_the_url_says(
    tmp_path: Path, migrations: Path, path: Path
):
    opened = open_store(tmp_path, "demo", migrations, f"sqlite+libsql:///{path}?timeout=0.1")
    with held(path), pytest.raises(Unavailable, match=r"hub\.db: database is locked\. What to do: another process"):
        opened.write_now(lambda db: db.execute(THINGS.insert().values(word="never")))
    opened.write_now(lambda db: db.execute(THINGS.insert().values(word="now")))
    opened.close()


def test_a_migration_keeps_the_rows_and_leaves_the_old_database_beside_it(tmp_path: Path, migrations: Path, path: Path):
    url = f"sqlite+libsql:///{path}"
    first = open_store(tmp_path, "demo", migrations, url)
    first.write_now(lambda db: db.execute(THINGS.insert().values(word="old")))
    first.close()
    (migrations / "0002_second.py").write_text(SECOND, encoding="utf-8")
    again = open_store(tmp_path, "demo", migrations, url)
    assert again.read_now(lambda db: db.execute(sa.text("SELECT word, note FROM thing")).all()) == [("old", None)]
    again.close()
    backup = sqlite3.connect(tmp_path / "hub.db.0001.bak")
    assert backup.execute("SELECT word FROM thing").fetchall() == [("old",)]
    backup.close()


def test_the_file_is_private_and_is_one_that_sqlite_reads(store: Store, path: Path):
    store.write_now(lambda db: db.execute(THINGS.insert().values(word="a")))
    assert path.stat().st_mode & 0o777 == 0o600
    reader = sqlite3.connect(path)
    assert reader.execute("SELECT word FROM thing").fetchall() == [("a",)]
    assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    reader.close()


@pytest.mark.parametrize("url", ["sqlite+libsql://db.example:8080/hub", "sqlite+libsql://"])
def test_a_server_is_not_a_file(tmp_path: Path, migrations: Path, url: str):
    with pytest.raises(Invalid, match="used as a local file"):
        open_store(tmp_path, "demo", migrations, url)


def test_the_driver_itself_takes_no_urls():
    with pytest.raises(Invalid, match="is a local file"):
        libsql.connect("http://db.example/hub")


@pytest.mark.parametrize(
    ("content", "words"), [("a letter\n" * 500, "not a database. What to do: it is another kind of file")]
)
def test_another_kind_of_file_is_named_with_what_to_do(
    tmp_path: Path, migrations: Path, path: Path, content: str, words: str
):
    path.write_text(content, encoding="utf-8")
    with pytest.raises(Unavailable, match=words):
        open_store(tmp_path, "demo", migrations, f"sqlite+libsql:///{path}")


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path, migrations: Path):
    with pytest.raises(Unavailable, match=r"nowhere/hub\.db: No such file"):
        open_store(tmp_path, "demo", migrations, f"sqlite+libsql:///{tmp_path}/nowhere/hub.db")
    with pytest.raises(sqlite3.OperationalError, match="nable to open"):
        libsql.connect(str(tmp_path / "nowhere" / "hub.db"))


def test_the_driver_is_a_python_database_module(path: Path):
    connection = libsql.connect(str(path), timeout=0)
    cursor = connection.execute("CREATE TABLE t (a INTEGER)")
    assert cursor.description is None
    cursor.executemany("INSERT INTO t VALUES (?)", [(1,), (2**40,)])
    connection.execute("BEGIN")
    assert connection.execute("UPDATE t SET a = 3 WHERE a = 1").rowcount == 1
    connection.rollback()
    connection.rollback()
    connection.execute("BEGIN")
    assert connection.execute("INSERT INTO t VALUES (4)").lastrowid == 3
    connection.commit()
    connection.commit()
    cursor = connection.execute("SELECT a FROM t ORDER BY a")
    assert cursor.description[0][0] == "a"
    assert (cursor.fetchone(), cursor.fetchmany(1), cursor.fetchall()) == ((1,), [(4,)], [(2**40,)])
    cursor.close()
    connection.close()
