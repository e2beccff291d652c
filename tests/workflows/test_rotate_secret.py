"""rotate_secret: a KeePass entry, the PostgreSQL role and the file that use it, each on a host over SSH."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pykeepass
import pytest
import pytest_asyncio
from postgres import PASSWORD as ADMIN_PASSWORD
from postgres import USER, Postgres, need_postgres
from psycopg import sql
from shipped import Shipped, shipped
from sshd import needs_sshd, sshd
from support import free_port, need
from vaults import PASSWORD

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    needs_sshd,
    need_postgres,
    need("psql", "postgresql-client"),
]

UNTYPED: Any = pykeepass  # a library without types
OLD = "first-value-of-the-shop"
REF = "secret://keepass/db/shop"
RULE = {
    "name": "rotate",
    "paths": ["keepass/db/shop"],
    "spokes": ["linux_cli"],
    "tools": ["os.linux.sshExecuteCommand"],
    "arguments": ["secrets.SECRET"],
}


@dataclass(frozen=True)
class Shop:
    """A role and a file that know the same secret as the KeePass entry."""

    fleet: Shipped
    postgres: Postgres
    folder: Path

    @property
    def file(self) -> Path:
        """What the application reads."""
        return self.folder / "app" / "password"

    @property
    def places(self) -> list[dict[str, Any]]:
        """Where the secret is used."""
        psql = f"psql -X -w -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p {self.postgres.port} -d postgres"
        line = '"\\\\getenv new SECRET" "ALTER ROLE shop PASSWORD :\'new\';"'
        role = f"printf '%s\\n' {line} | PGPASSFILE={self.folder}/pgpass {psql} -U {USER}"
        file = f'umask 077; printf %s "$SECRET" > {self.file}'
        return [
            {"host": "db", "apply": role, "check": f'PGPASSWORD="$SECRET" {psql} -U shop -c "SELECT 1"'},
            {"host": "web", "apply": file, "check": f'test "$(cat {self.file})" = "$SECRET"'},
        ]

    def opens(self, value: str) -> bool:
        """Whether the role lets in who knows this value."""
        try:
            psycopg.connect(
                host="127.0.0.1", port=self.postgres.port, user="shop", dbname="postgres", password=value
            ).close()
        except psycopg.OperationalError:
            return False
        return True

    def values(self) -> list[str]:
        """The value in KeePass, then the older ones."""
        entry = UNTYPED.PyKeePass(str(self.folder / "fleet.kdbx"), PASSWORD).find_entries(path=["db", "shop"])
        return [entry.password, *(one.password for one in reversed(entry.history))]

    async def rotate(self, **inputs: Any) -> Any:
        """One run of the workflow."""
        return await self.fleet.run("rotate_secret", **{"reference": REF, "places": self.places, **inputs})

    def files_with(self, value: str) -> list[Path]:
        """Files of the fleet that hold a value: databases, logs, anything."""
        files = [path for path in (self.folder / "data").rglob("*") if path.is_file()]
        assert any(path.suffix == ".db" for path in files)
        return [path for path in files if value.encode() in path.read_bytes()]


def new_vault(path: Path) -> None:
    """A KeePass file with the entry, and a key derivation that costs nothing."""
    kp = UNTYPED.create_database(str(path), PASSWORD)
    cheap = kp.kdbx.header.value.dynamic_header.kdf_parameters.data.dict
    cheap["I"].value, cheap["M"].value = 1, 64 * 1024
    kp.add_entry(kp.add_group(kp.root_group, "db"), "shop", "shop", OLD)
    kp.save()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> AsyncGenerator[Shop]:
    folder = tmp_path_factory.mktemp("rotating")
    (folder / "master").write_text(PASSWORD, encoding="utf-8")
    pgpass = folder / "pgpass"
    pgpass.write_text(f"127.0.0.1:{postgres.port}:*:{USER}:{ADMIN_PASSWORD}\n", encoding="utf-8")
    pgpass.chmod(0o600)
    new_vault(folder / "fleet.kdbx")
    postgres.admin(sql.SQL("CREATE ROLE shop LOGIN").format())
    secrets = {
        "keepass_path": str(folder / "fleet.kdbx"),
        "keepass_password_file": str(folder / "master"),
        "rules": [RULE],
    }
    hosts: dict[str, Any] = {"db": {}, "web": {}, "dead": {"port": free_port()}}
    with sshd(folder / "sshd") as server:
        async with shipped(folder / "data", server, {"secrets": secrets}, hosts) as fleet:
            yield Shop(fleet, postgres, folder)
    postgres.admin(sql.SQL("DROP ROLE shop").format())


@pytest.fixture
def shop(running: Shop) -> Shop:
    """Everything agrees on one value."""
    (value, *_) = running.values()
    running.file.parent.mkdir(exist_ok=True)
    running.file.write_text(value, encoding="utf-8")
    running.postgres.admin(sql.SQL("ALTER ROLE shop PASSWORD {}").format(sql.Literal(value)))
    return running


async def test_a_secret_is_new_at_every_place_and_nowhere_to_be_read(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    before = shop.values()[0]
    run = await shop.rotate()
    after = shop.values()[0]
    assert (run["status"], run["reason"]) == ("completed", None)
    assert run["outputs"] == {"reference": REF, "version": len(shop.values()), "places": ["db", "web"]}
    assert after != before
    assert (shop.opens(after), shop.opens(before), shop.file.read_text()) == (True, False, after)
    shop.fleet.hub.audit_rows()  # written out
    assert shop.files_with(REF) != []
    for value in (before, after):
        assert shop.files_with(value) == []
        assert value not in str(run) + "".join(capfd.readouterr())


async def test_a_place_that_fails_brings_the_old_value_back_everywhere(
    shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    (before, *older) = shop.values()
    role, file = shop.places
    run = await shop.rotate(places=[role, file | {"apply": "true"}])
    assert (run["status"], run["step_failed_at"]) == ("failed", "check")
    assert "does not work with the new value at web" in run["reason"]
    assert shop.values()[0] == before
    (tried,) = set(shop.values()) - {before, *older}
    assert (shop.opens(before), shop.opens(tried), shop.file.read_text()) == (True, False, before)
    for value in (before, tried):
        assert shop.files_with(value) == []
        assert value not in str(run) + "".join(capfd.readouterr())


async def test_a_place_to_which_the_old_value_does_not_come_back_is_told_of(shop: Shop) -> None:
    before = shop.values()[0]
    role, file = shop.places
    once = shop.file.with_name("once")
    run = await shop.rotate(
        places=[role, file | {"apply": f"set -e; mkdir {once}; {file['apply']}", "check": f"! test -e {once}"}]
    )
    assert (run["status"], run["step_failed_at"]) == ("failed", "check")
    assert run["reason"].endswith("not undone: ways_back")
    assert (shop.values()[0], shop.opens(before)) == (before, True)


async def test_one_approval_of_the_run_covers_the_way_back_too(shop: Shop) -> None:
    before = shop.values()[0]
    role, file = shop.places
    places = [role, file | {"apply": "no-such-program"}]
    run = await shop.fleet.approved_run("rotate_secret", reference=REF, places=places)
    assert (run["status"], run["step_failed_at"], run["started_by"]) == ("failed", "apply", "client")
    assert "not applied at web: " in run["reason"]
    assert (shop.values()[0], shop.opens(before), shop.file.read_text()) == (before, True, before)


async def test_a_place_that_does_not_work_beforehand_stops_it_before_anything_changes(shop: Shop) -> None:
    shop.file.write_text("somebody changed it by hand", encoding="utf-8")
    values = shop.values()
    run = await shop.rotate()
    assert (run["status"], run["step_failed_at"]) == ("failed", "check_before")
    assert "nothing was changed: web" in run["reason"]
    assert (shop.values(), shop.opens(values[0])) == (values, True)
    assert shop.file.read_text() == "somebody changed it by hand"


async def test_a_place_that_cannot_be_reached_stops_it_before_anything_changes(shop: Shop) -> None:
    values = shop.values()
    role, file = shop.places
    run = await shop.rotate(places=[role, file | {"host": "dead"}])
    assert (run["status"], run["step_failed_at"]) == ("failed", "check_before")
    assert "dead (127.0.0.1:" in run["reason"]
    assert (shop.values(), shop.file.read_text()) == (values, values[0])


async def test_a_secret_that_no_rule_gives_to_a_host_is_not_rotated(shop: Shop) -> None:
    await shop.fleet.tool("secrets.createSecret", reference="secret://keepass/other/key")
    run = await shop.rotate(reference="secret://keepass/other/key")
    assert (run["status"], run["step_failed_at"]) == ("failed", "check_before")
    assert "spokes.secrets.rules" in run["reason"]
    described = await shop.fleet.tool("secrets.describeSecret", reference="secret://keepass/other/key")
    assert described["version"] == 1
