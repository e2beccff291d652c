"""backup_postgres: a real database, dumped over SSH and proved by restoring it."""

import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from postgres import PASSWORD, USER, Postgres, need_postgres
from psycopg import sql
from shipped import Shipped, shipped
from sshd import needs_sshd, sshd
from support import need

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    needs_sshd,
    need_postgres,
    need("pg_dump", "postgresql-client"),
]

REF = "secret://files/db/backup"
RULE = {"name": "backup", "paths": ["files/db/backup"], "spokes": ["linux_cli"], "arguments": ["secrets.PGPASSWORD"]}

GOOD = """
CREATE TABLE orders (id int PRIMARY KEY, what text);
INSERT INTO orders SELECT number, 'thing ' || number FROM generate_series(1, 1000) AS number;
CREATE SCHEMA "Odd names";
CREATE TABLE "Odd names"."a|b 'c'" (id int);
INSERT INTO "Odd names"."a|b 'c'" VALUES (1), (2);
CREATE TABLE empty (id int);
"""
# A table whose rows are checked against those of another one, which come later when it is restored.
UNRESTORABLE = """
CREATE TABLE zones (name text);
INSERT INTO zones VALUES ('north');
CREATE FUNCTION is_zone(text) RETURNS boolean LANGUAGE sql AS
'SELECT EXISTS (SELECT FROM public.zones WHERE name = $1)';
CREATE TABLE addresses (zone text CHECK (is_zone(zone)));
INSERT INTO addresses VALUES ('north');
"""


@dataclass(frozen=True)
class Backups:
    """A hub that reaches the host of a server."""

    fleet: Shipped
    postgres: Postgres
    folder: Path

    def database(self, script: str) -> str:
        """The name of a new database with what a script makes."""
        url = self.postgres.new_database()
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(script.encode())
        return url.rpartition("/")[2]

    def databases(self) -> set[object]:
        """The names of all there are."""
        return {row[0] for row in self.postgres.admin(sql.SQL("SELECT datname FROM pg_database").format())}

    def inputs(self, database: str) -> dict[str, Any]:
        """What the workflow needs to know."""
        return {
            "host": "db",
            "database": database,
            "folder": str(self.folder / "it's kept"),
            "connection": f"host=127.0.0.1 port={self.postgres.port} user={USER}",
            "password": REF,
        }

    async def back_up(self, database: str, **inputs: Any) -> Any:
        """One run of the workflow."""
        return await self.fleet.run("backup_postgres", **self.inputs(database) | inputs)

    def kept(self) -> list[Path]:
        """The backups that were proved."""
        return list((self.folder / "it's kept").glob("*.dump"))


@pytest.fixture
def backups(running: Backups) -> Backups:
    """Nothing was backed up yet."""
    for path in (running.folder / "it's kept").glob("*"):
        path.unlink()
    return running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> AsyncGenerator[Backups]:
    folder = tmp_path_factory.mktemp("backing-up")
    secret = folder / "secrets" / "db" / "backup"
    secret.parent.mkdir(parents=True)
    secret.write_text(PASSWORD, encoding="utf-8")
    secret.chmod(0o600)
    row = {"secrets": {"files_paths": [str(folder / "secrets")], "rules": [RULE]}}
    with sshd(folder / "sshd") as server:
        async with shipped(folder / "data", server, row, {"db": {}}) as fleet:
            yield Backups(fleet, postgres, folder)


async def test_a_backup_is_restored_before_it_gets_its_name(backups: Backups) -> None:
    name = backups.database(GOOD)
    before = backups.databases()
    run = await backups.back_up(name)
    assert (run["status"], run["reason"]) == ("completed", None)
    outputs = run["outputs"]
    dump = Path(outputs["file"])
    assert dump.name.startswith(f"{name}-")
    content = dump.read_bytes()
    assert (outputs["bytes"], outputs["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert (outputs["tables"], outputs["rows"]) == (3, 1002)
    assert backups.kept() == [dump]
    assert backups.databases() == before
    assert PASSWORD not in str(run)


async def test_a_backup_that_cannot_be_restored_is_found_out_and_leaves_no_database_behind(backups: Backups) -> None:
    name = backups.database(UNRESTORABLE)
    before = backups.databases()
    run = await backups.back_up(name)
    assert (run["status"], run["step_failed_at"]) == ("failed", "restore")
    assert "the dump cannot be restored" in run["reason"]
    assert "addresses_zone_check" in run["reason"]
    assert backups.databases() == before
    assert backups.kept() == []
    assert (backups.folder / "it's kept" / f"{name}.unverified").exists()


async def test_rows_that_a_dump_leaves_out_are_missed(backups: Backups) -> None:
    name = backups.database(GOOD + "ALTER EXTENSION plpgsql ADD TABLE orders;")  # pg_dump leaves such a table alone
    before = backups.databases()
    run = await backups.back_up(name)
    assert (run["status"], run["step_failed_at"]) == ("failed", "compare")
    assert "public.orders|1000" in run["reason"]
    assert backups.databases() == before
    assert backups.kept() == []


async def test_a_database_that_does_not_exist_is_said_to_be_missing(backups: Backups) -> None:
    run = await backups.back_up("nowhere")
    assert (run["status"], run["step_failed_at"]) == ("failed", "dump")
    assert 'database "nowhere" does not exist' in run["reason"]
    assert backups.kept() == []


async def test_a_database_of_somebody_elses_with_the_name_of_the_scratch_one_is_left_alone(backups: Backups) -> None:
    name = backups.database(GOOD)
    theirs = f"fleet_scratch_{name}"
    backups.postgres.admin(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(theirs)))
    run = await backups.back_up(name)
    assert (run["status"], run["step_failed_at"]) == ("failed", "scratch")
    assert f'database "{theirs}" already exists' in run["reason"]
    assert theirs in backups.databases()


async def test_one_approval_of_the_run_covers_all_that_it_does(backups: Backups) -> None:
    run = await backups.fleet.approved_run("backup_postgres", **backups.inputs(backups.database(GOOD)))
    assert (run["status"], run["started_by"], run["outputs"]["rows"]) == ("completed", "client", 1002)


async def test_a_password_that_no_rule_gives_to_the_host_stops_it(backups: Backups) -> None:
    run = await backups.back_up(backups.database(GOOD), password="secret://files/db/other")
    assert (run["status"], run["step_failed_at"]) == ("failed", "dump")
    assert "spokes.secrets.rules" in run["reason"]
