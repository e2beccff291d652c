"""The store on a real PostgreSQL server that stops, starts, cuts connections and refuses."""

import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from postgres import PASSWORD, USER, Postgres, need_postgres, running_postgres
from sqlalchemy.exc import DBAPIError, ProgrammingError

from fleetkit import engines
from fleetkit.errors import Invalid, Unavailable
from fleetkit.store import Store, open_store

pytestmark = need_postgres

FIRST = '''"""First."""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None
def upgrade():
    op.create_table("thing", sa.Column("id", sa.Integer, primary_key=True), sa.Column("word", sa.String, unique=True))
'''
OWN_PID = sa.text("SELECT pg_backend_pid()")
CUT = sa.text("SELECT pg_terminate_backend(pg_backend_pid())")


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_first.py").write_text(FIRST, encoding="utf-8")
    return folder


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.new_database()


@pytest.fixture
def store(tmp_path: Path, migrations: Path, url: str) -> Generator[Store]:
    opened = open_store(tmp_path, "demo", migrations, url)
    yield opened
    opened.close()


def insert(word: str) -> Callable[[sa.Connection], Any]:
    return lambda db: db.execute(sa.text("INSERT INTO thing (word) VALUES (:word)"), {"word": word})


def words(db: sa.Connection) -> list[str]:
    return list(db.execute(sa.text("SELECT word FROM thing ORDER BY id")).scalars())


# --- connections that end ---------------------------------------------------------------------------


def test_after_every_connection_was_cut_the_next_write_and_read_work(store: Store, postgres: Postgres, url: str):
    store.write_now(insert("before"))
    assert store.read_now(words) == ["before"]
    assert postgres.cut_connections(url) >= 1
    store.write_now(insert("after"))
    postgres.cut_connections(url)
    assert store.read_now(words) == ["before", "after"]


def test_a_connection_cut_amid_a_batch_fails_the_whole_batch_and_no_later_one(store: Store):
    opened, entered = threading.Event(), threading.Event()

    def hold(_db: sa.Connection) -> None:
        entered.set()
        opened.wait()

    store.submit(hold)
    entered.wait()
    batch = [store.submit(insert("a")), store.submit(lambda db: db.execute(CUT)), store.submit(insert("b"))]
    opened.set()
    for one in batch:
        with pytest.raises(Unavailable, match="What to do: "):
            one.result()
    store.write_now(insert("c"))
    assert store.read_now(words) == ["c"]


def test_a_read_whose_connection_is_cut_is_the_databases_fault(store: Store):
    with pytest.raises(Unavailable, match="terminating connection"):
        store.read_now(lambda db: db.execute(CUT).all())
    assert store.read_now(words) == []


def test_a_server_that_restarts_loses_no_write_that_was_answered(tmp_path: Path, migrations: Path):
    with running_postgres() as server:
        store = open_store(tmp_path, "demo", migrations, server.new_database())
        for number in range(50):
            store.write_now(insert(f"{number:02d}"))
        server.stop()
        with pytest.raises(Unavailable, match=r"refused\. What to do: start the PostgreSQL server"):
            store.write_now(insert("while down"))
        with pytest.raises(Unavailable, match="start the PostgreSQL server"):
            store.read_now(words)
        server.start()
        store.write_now(insert("up again"))
        assert store.read_now(words) == [*(f"{number:02d}" for number in range(50)), "up again"]
        store.close()


# --- statements that do not end ---------------------------------------------------------------------


def test_a_statement_that_takes_too_long_fails_alone_and_may_be_repeated(
    tmp_path: Path, migrations: Path, url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engines, "STATEMENT_MS", 300)
    store = open_store(tmp_path, "demo", migrations, url)
    with pytest.raises(Unavailable, match=r"statement timeout\. What to do: try again"):
        store.read_now(lambda db: db.execute(sa.text("SELECT pg_sleep(30)")).all())
    first = store.submit(insert("a"))
    slow = store.submit(lambda db: db.execute(sa.text("SELECT pg_sleep(30)")))
    last = store.submit(insert("b"))
    with pytest.raises(Unavailable, match="statement timeout"):
        slow.result()
    first.result()
    last.result()
    assert store.read_now(words) == ["a", "b"]
    store.close()


def test_a_row_that_another_program_holds_is_not_waited_for_without_end(
    tmp_path: Path, migrations: Path, url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engines, "STATEMENT_MS", 900)
    store = open_store(tmp_path, "demo", migrations, url)
    store.write_now(insert("a"))
    other = engines.engine_for(url)
    with other.begin() as holder:
        holder.execute(sa.text("UPDATE thing SET word = 'b'"))
        with pytest.raises(Unavailable, match="lock timeout"):
            store.write_now(lambda db: db.execute(sa.text("UPDATE thing SET word = 'c'")))
    assert store.read_now(words) == ["b"]
    other.dispose()
    store.close()


def test_connections_are_few_and_a_wait_for_one_ends(
    tmp_path: Path, migrations: Path, url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engines, "POOL", {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1})
    store = open_store(tmp_path, "demo", migrations, url)
    with store.engine.connect(), pytest.raises(Unavailable, match="every connection is in use"):
        store.read_now(words)
    assert store.read_now(words) == []
    store.close()


def test_an_error_inside_a_job_that_it_swallowed_spoils_only_that_job(store: Store):
    def careless(db: sa.Connection) -> None:
        with pytest.raises(DBAPIError):
            db.execute(sa.text("SELECT * FROM nowhere"))
        insert("never")(db)

    pending = [store.submit(insert("a")), store.submit(careless), store.submit(insert("b"))]
    with pytest.raises(DBAPIError, match="aborted"):
        pending[1].result()
    assert store.read_now(words) == ["a", "b"]


# --- servers that refuse ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words_"),
    [
        ({"port": 9}, "Connection refused. What to do: start the PostgreSQL server"),
        ({"password": "wrong-and-secret"}, "What to do: correct the password"),
        ({"password": None}, "What to do: give the URL with its password in the secret file"),
        ({"database": "nowhere"}, "What to do: make it on the server: createdb"),
        ({"host": "nohost.invalid"}, "What to do: correct the host"),
    ],
)
def test_a_server_that_cannot_be_used_is_named_with_what_to_do_and_without_its_password(
    tmp_path: Path, migrations: Path, postgres: Postgres, changes: dict[str, Any], words_: str
):
    good: dict[str, Any] = {
        "username": USER,
        "password": PASSWORD,
        "host": "127.0.0.1",
        "port": postgres.port,
        "database": "postgres",
    }
    at = sa.URL.create("postgresql+psycopg", **{**good, **changes})
    with pytest.raises(Unavailable) as refused:
        open_store(tmp_path, "demo", migrations, at.render_as_string(hide_password=False))
    assert words_ in refused.value.message
    assert f"postgresql://fleet@{at.host}:{at.port}/{at.database}" in refused.value.message
    assert PASSWORD not in refused.value.message
    assert "wrong-and-secret" not in refused.value.message


def test_a_user_who_may_not_make_tables_is_told_to_become_the_owner(
    tmp_path: Path, migrations: Path, postgres: Postgres, url: str
):
    admin = engines.engine_for(url)
    with admin.begin() as db:
        db.execute(sa.text("DROP ROLE IF EXISTS guest"))
        db.execute(sa.text("CREATE ROLE guest LOGIN PASSWORD 'guest'"))
    admin.dispose()
    with pytest.raises(Unavailable, match=r"permission denied .*ALTER DATABASE name OWNER TO user"):
        open_store(tmp_path, "demo", migrations, url.replace("fleet:" + PASSWORD, "guest:guest"))


def test_what_the_url_says_of_an_option_wins(postgres: Postgres):
    engine = engines.engine_for(postgres.url("postgres") + "?application_name=mine")
    with engine.connect() as db:
        assert db.execute(sa.text("SELECT current_setting('application_name')")).scalar() == "mine"
        assert db.execute(sa.text("SELECT current_setting('statement_timeout')")).scalar() == "30s"
    engine.dispose()


def test_a_wrong_statement_keeps_its_own_error(store: Store):
    with pytest.raises(ProgrammingError, match="nowhere"):
        store.read_now(lambda db: db.execute(sa.text("SELECT * FROM nowhere")))


@pytest.mark.parametrize(
    "url",
    [
        "mysql://fleet:hunter2@db/fleet",
        "postgresql+asyncpg://fleet:hunter2@db/fleet",
        "sqlite+aiosqlite:////x.db",
        "not a url: hunter2",
        "postgresql+nothing://fleet:hunter2@db/fleet",
    ],
)
def test_a_url_that_names_no_known_database_is_invalid_and_not_repeated(tmp_path: Path, migrations: Path, url: str):
    with pytest.raises(Invalid, match="names no database known here: write sqlite") as refused:
        open_store(tmp_path, "demo", migrations, url)
    assert "hunter2" not in refused.value.message
