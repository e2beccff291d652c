"""`fleet backup` and `fleet restore`: a fleet as one file while it runs, and back in its place."""

import asyncio
import hashlib
import io
import json
import shutil
import sqlite3
import stat
import tarfile
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from commands import Done, Fleet
from flows import Flows, running_flows, statuses, step
from hubs import write_rows
from postgres import PASSWORD, need_postgres, running_postgres

from fleetkit import archive, settings, sqlite_files
from fleetkit.errors import Conflict, Invalid
from fleetkit.trust import KeyRing, private_dir
from master_mcp.auth.keys import Keys
from master_mcp.lock import DataDirLock
from master_mcp.store import open_hub_store

WAITS = (step("first", "write"), {"name": "word", "wait": {"signal": "go"}}, step("last", "write"))


async def fleet(data_dir: Path, *words: str | Path, **env: str) -> Done:
    """One command, while a hub of this process goes on answering."""
    return await asyncio.to_thread(Fleet(data_dir).run, *map(str, words), **env)


def stopped(data_dir: Path, **hub: Any) -> Path:
    """A data directory as a fleet leaves it: one key of its own, no hub."""
    write_rows(data_dir, {}, hub)
    store = open_hub_store(settings.load(data_dir))
    Keys(store, KeyRing(data_dir)).create("anna")
    store.close()
    return data_dir


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A fleet that is stopped, and a backup of it."""
    data_dir = stopped(tmp_path_factory.mktemp("fleet") / "data")
    for name in ("logs/hub.log", "workspace/x.txt", "tokens/works.token", "workflows/mine.yaml", "secrets/vault.kdbx"):
        (data_dir / name).parent.mkdir(exist_ok=True)
        (data_dir / name).write_text(name, encoding="utf-8")
    done = Fleet(data_dir).run("backup", str(data_dir.parent / "fleet.tar.gz"))
    assert done.code == 0, done.err
    return data_dir, data_dir.parent / "fleet.tar.gz"


def names(file: Path) -> set[str]:
    """What a backup holds."""
    with tarfile.open(file) as tar:
        return {member.name for member in tar}


# --- a run that was under way -----------------------------------------------------------------------


async def waiting(flows: Flows) -> str:
    """The id of a run whose first step is done and whose second one waits."""
    run_id = await flows.begun(*WAITS)
    await flows.waiting(run_id, "word")
    return run_id


async def finished(flows: Flows, run_id: str) -> dict[str, str]:
    """How the steps of a run ended, once the signal came that it waits for."""
    await flows.waiting(run_id, "word")
    await flows.tool("signalWorkflow", id=run_id, name="go")
    return statuses(await flows.standing(run_id, "completed"))


@pytest.mark.parametrize("lost", [(), ("workflows.db",)], ids=["whole", "without journals"])
async def test_a_run_that_waited_goes_on_where_it_is_restored_and_does_nothing_again(
    tmp_path: Path, lost: tuple[str, ...]
) -> None:
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "fleet.tar.gz"
    async with running_flows(here) as flows:
        run_id = await waiting(flows)
        made = await fleet(here, "backup", file)
        assert (made.code, flows.works.done) == (0, ["write first"])
    back = await fleet(there, "restore", file)
    assert back.code == 0, back.err
    assert f"Runs that were under way then go on when the hub starts: {run_id}." in back.err
    for name in lost:
        (there / name).unlink()
    async with running_flows(there) as flows:
        assert await finished(flows, run_id) == {"first": "completed", "word": "completed", "last": "completed"}
        assert flows.works.done == ["write last"]
        audit = await fleet(there, "audit", "verify")
        assert audit.code == 0, audit.out


async def test_runs_can_be_stopped_by_the_restore_and_resumed_by_hand(tmp_path: Path) -> None:
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "fleet.tar.gz"
    async with running_flows(here) as flows:
        run_id = await waiting(flows)
        assert (await fleet(here, "backup", file)).code == 0
    back = await fleet(there, "restore", file, "--stop-runs", "--json")
    assert back.data["runs"] == [run_id]
    async with running_flows(there) as flows:
        run = await flows.get(run_id)
        assert (run["status"], run["reason"]) == (
            "cancelled",
            "stopped when the backup was restored: `fleet workflow resume` goes on with it",
        )
        await flows.tool("resumeWorkflow", id=run_id)
        assert (await finished(flows, run_id))["last"] == "completed"
        assert flows.works.done == ["write last"]


async def test_a_backup_amid_changes_knows_of_every_change_and_lacks_none(tmp_path: Path) -> None:
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "fleet.tar.gz"
    async with running_flows(here, rows={"cmdb": {}}) as flows:
        begun = asyncio.Event()
        with closing(sqlite3.connect(here / "large.db")) as between:  # copied after cmdb.db, before hub.db
            between.executescript("CREATE TABLE t (x);" + "INSERT INTO t VALUES (zeroblob(10000000));" * 5)

        async def change(changer: int) -> None:
            for number in count():
                ci = {"ci_class": "application", "attributes": {"name": f"made-{changer}-{number}"}}
                made = await flows.run({"name": "make", "service": "cmdb", "tool": "upsertCi", "params": ci}, wait_s=9)
                assert made["status"] == "completed"
                begun.set()

        async with asyncio.TaskGroup() as tasks:
            changing = [tasks.create_task(change(changer)) for changer in range(4)]
            await begun.wait()
            made = await fleet(here, "backup", file)
            for task in changing:
                task.cancel()
        assert made.code == 0, made.err
    archive.unpack(file, private_dir(there))
    kept = {name for name in column(there / "cmdb.db", "SELECT name FROM cis") if name.startswith("made-")}
    known = (
        "SELECT json_extract(r.definition, '$.steps[0].params.attributes.name') FROM workflow_runs r "
        "JOIN workflow_steps s ON s.run_id = r.id WHERE s.status "
    )
    assert kept
    assert kept <= set(column(there / "hub.db", f"{known} IN ('running', 'completed')"))
    assert set(column(there / "hub.db", f"{known} = 'completed'")) <= kept


def test_a_file_that_is_held_still_is_read_and_not_written(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db", timeout=0)) as other:
        other.executescript("PRAGMA journal_mode=WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1);")
        with sqlite_files.held(tmp_path / "x.db"):
            assert other.execute("SELECT x FROM t").fetchall() == [(1,)]
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("INSERT INTO t VALUES (2)")
            sqlite_files.copy(tmp_path / "x.db", tmp_path / "copy.db")
        other.execute("INSERT INTO t VALUES (3)")
    assert column(tmp_path / "copy.db", "SELECT x FROM t") == [1]


def column(path: Path, query: str) -> list[Any]:
    """The first column of what a query finds."""
    with closing(sqlite3.connect(path)) as database:
        return [row[0] for row in database.execute(query)]


# --- what is in it ----------------------------------------------------------------------------------


def test_a_backup_holds_all_but_logs_workspace_and_lock(old: tuple[Path, Path]) -> None:
    data_dir, file = old
    held = names(file)
    assert {"manifest.json", "hub.db", "fleet.yaml", "keys/root.key", "policies/tests.yaml"} <= held
    assert {"audit/anchor.jsonl", "tokens/works.token", "workflows/mine.yaml", "secrets/vault.kdbx"} <= held
    assert not {name for name in held if name.startswith(("logs", "workspace", "hub.lock"))}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in data_dir.parent.iterdir() if path.name.startswith(".")] == []


def test_its_manifest_says_what_each_file_was_and_which_versions(old: tuple[Path, Path]) -> None:
    _, file = old
    with tarfile.open(file) as tar:
        manifest = json.load(tar.extractfile("manifest.json") or io.BytesIO())
        content = (tar.extractfile("fleet.yaml") or io.BytesIO()).read()
    assert manifest["files"]["fleet.yaml"] == {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    assert (manifest["format"], manifest["hub_database"], set(manifest["databases"])) == (1, "hub.db", {"hub.db"})
    assert manifest["databases"]["hub.db"].isdigit()


def test_the_workspace_comes_along_when_asked_for_and_a_directory_gets_a_named_file(
    old: tuple[Path, Path], tmp_path: Path
) -> None:
    done = Fleet(old[0]).run("backup", str(tmp_path), "--workspace", "--json")
    assert Path(done.data["file"]).parent == tmp_path
    assert "workspace/x.txt" in names(Path(done.data["file"]))


def test_a_backup_goes_neither_over_another_nor_into_what_it_copies(old: tuple[Path, Path]) -> None:
    data_dir, file = old
    before = file.read_bytes()
    over, inside = Fleet(data_dir).run("backup", str(file)), Fleet(data_dir).run("backup", str(data_dir / "x.tar.gz"))
    assert (over.code, over.err) == (1, f"fleet: {file} exists: name another file\n")
    assert (inside.code, "lies in what is backed up" in inside.err) == (2, True)
    assert file.read_bytes() == before


def test_without_a_fleet_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    done = Fleet(tmp_path / "none").run("backup", str(tmp_path))
    assert (done.code, done.err) == (1, f"fleet: no fleet in {tmp_path / 'none'}: nothing to back up\n")


def test_a_damaged_database_is_not_backed_up_as_if_it_were_good(old: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(old[0], tmp_path / "new")
    with closing(sqlite3.connect(tmp_path / "new" / "cmdb.db")) as database:
        database.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (randomblob(9000));")
    raw = bytearray((tmp_path / "new" / "cmdb.db").read_bytes())
    raw[4096:4200] = b"\xff" * 104
    (tmp_path / "new" / "cmdb.db").write_bytes(raw)
    done = Fleet(tmp_path / "new").run("backup", str(tmp_path / "x.tar.gz"))
    assert done.code == 1
    assert "cmdb.db" in done.err
    assert not (tmp_path / "x.tar.gz").exists()


@need_postgres
def test_with_postgresql_a_backup_says_how_to_copy_that_and_holds_the_rest(tmp_path: Path) -> None:
    with running_postgres() as server:
        env = {"FLEET_HUB__DATABASE_URL": server.new_database()}
        KeyRing(tmp_path / "data")
        done = Fleet(tmp_path / "data").run("backup", str(tmp_path / "x.tar.gz"), **env)
    assert done.code == 0, done.err
    assert "pg_dump --format=custom --file=hub.dump postgresql://" in done.err
    assert PASSWORD not in done.err
    assert "keys/root.key" in names(tmp_path / "x.tar.gz")
    assert "hub.db" not in names(tmp_path / "x.tar.gz")


def test_what_lies_elsewhere_is_named_and_the_database_comes_along(tmp_path: Path) -> None:
    outside = {"key_file": str(tmp_path / "chain.key"), "anchor_file": str(tmp_path / "anchor.jsonl")}
    stopped(tmp_path / "data", database_url=f"sqlite:///{tmp_path / 'other.db'}", audit=outside)
    done = Fleet(tmp_path / "data").run("backup", str(tmp_path / "x.tar.gz"))
    assert f"hub.db in it is the copy of {tmp_path / 'other.db'}: put it back there when you restore" in done.err
    assert f"the audit's key {tmp_path / 'chain.key'} is not in it: keep a copy elsewhere" in done.err
    assert f"the audit's anchor {tmp_path / 'anchor.jsonl'} is not in it" in done.err
    assert {"hub.db", "manifest.json"} <= names(tmp_path / "x.tar.gz")


# --- putting it back --------------------------------------------------------------------------------


def test_a_restored_fleet_has_its_keys_and_private_files_and_a_record_of_it(
    old: tuple[Path, Path], tmp_path: Path
) -> None:
    done = Fleet(tmp_path).run("restore", str(old[1]), "--data-dir", str(tmp_path / "deep" / "new"))
    assert done.code == 0
    assert done.err.endswith(f"To start it: FLEET_DATA_DIR={tmp_path / 'deep' / 'new'} fleet up\n")
    assert column(tmp_path / "deep" / "new" / "hub.db", "SELECT name FROM api_keys") == ["anna"]
    files = [path for path in (tmp_path / "deep" / "new").rglob("*") if path.name != "hub.lock"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600, 0o700}
    found = Fleet(tmp_path / "deep" / "new").run("audit", "search", "--json").data
    assert [(row["tool"], row["outcome"]) for row in found][:3] == [
        ("fleet.restore", "ok"),
        ("fleet.restore", "intent"),
        ("fleet.backup", "intent"),
    ]


def test_a_fleet_that_is_there_is_kept_aside_when_that_is_asked_for(old: tuple[Path, Path], tmp_path: Path) -> None:
    data_dir = stopped(tmp_path / "data")
    (data_dir / "mine.txt").write_text("mine", encoding="utf-8")
    refused = Fleet(data_dir).run("restore", str(old[1]))
    assert refused.code == 1
    assert f"a fleet is in {data_dir}: --force puts the backup in its place" in refused.err
    done = Fleet(data_dir).run("restore", str(old[1]), "--force", "--json")
    assert (Path(done.data["aside"]) / "mine.txt").read_text(encoding="utf-8") == "mine"
    assert Path(done.data["aside"]).name.startswith("data.before-restore-")
    assert not (data_dir / "mine.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", Path(done.data["aside"]).name]


def test_nothing_is_restored_under_a_running_hub(old: tuple[Path, Path], tmp_path: Path) -> None:
    data_dir = stopped(tmp_path / "data")
    before = {path: path.read_bytes() for path in data_dir.rglob("*") if path.is_file()}
    with DataDirLock(data_dir):
        done = Fleet(data_dir).run("restore", str(old[1]), "--force")
    assert done.code == 1
    assert f"runs on {data_dir}: stop it first" in done.err
    assert {path: path.read_bytes() for path in before} == before


def test_a_directory_that_is_no_fleets_is_left_alone(old: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat", encoding="utf-8")
    done = Fleet(tmp_path).run("restore", str(old[1]), "--data-dir", str(tmp_path / "photos"), "--force")
    assert done.code == 1
    assert "is no data directory of a fleet" in done.err
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_a_backup_of_a_newer_version_changes_nothing(tmp_path: Path) -> None:
    folder, data_dir = tmp_path / "made", stopped(tmp_path / "data")
    folder.mkdir()
    with closing(sqlite3.connect(folder / "hub.db")) as database:
        database.executescript("CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES (9999);")
    archive.pack(folder, tmp_path / "x.tar.gz", {"databases": {"hub.db": "9999"}, "notes": [], "made_at": 0})
    done = Fleet(data_dir).run("restore", str(tmp_path / "x.tar.gz"), "--force")
    assert done.code == 1
    assert "newer" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "made", "x.tar.gz"]


# --- bad files --------------------------------------------------------------------------------------

Member = tuple[tarfile.TarInfo, bytes]


def rewritten(file: Path, target: Path, change: Callable[[list[Member]], list[Member]]) -> Path:
    """A backup whose members were changed."""
    with tarfile.open(file) as tar:
        members = [(member, (tar.extractfile(member) or io.BytesIO()).read()) for member in tar]
    with tarfile.open(target, "w:gz") as tar:
        for member, content in change(members):
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return target


def relisted(members: list[Member], name: str) -> list[Member]:
    """With a file of that name, which the manifest knows."""
    info, text = members[0]
    manifest = json.loads(text)
    manifest["files"][name] = {"sha256": hashlib.sha256(b"evil").hexdigest(), "size": 4}
    return [(info, json.dumps(manifest).encode()), *members[1:], (tarfile.TarInfo(name), b"evil")]


def linked(members: list[Member]) -> list[Member]:
    """With a link in the place of a file."""
    info = next(info for info, _ in members if info.name == "fleet.yaml")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return [(one, b"" if one is info else content) for one, content in members]


def changed(members: list[Member]) -> list[Member]:
    """With another text in a file."""
    return [(one, b"spokes: {}" if one.name == "fleet.yaml" else content) for one, content in members]


BAD: dict[str, tuple[Callable[[list[Member]], list[Member]], str]] = {
    "a file that was changed": (changed, "fleet.yaml is not what was backed up"),
    "a file that is missing": (lambda members: [one for one in members if one[0].name != "fleet.yaml"], "is missing"),
    "a file more": (lambda members: [*members, (tarfile.TarInfo("more"), b"x")], "which its manifest does not"),
    "a file twice": (lambda members: [*members, members[-1]], "which its manifest does not"),
    "a way out": (lambda members: relisted(members, "../evil"), "leads out of the directory"),
    "a way from the root": (lambda members: relisted(members, "/evil"), "leads out of the directory"),
    "a link": (linked, "which its manifest does not"),
    "no manifest": (lambda members: members[1:], "does not begin with manifest.json"),
    "another format": (
        lambda members: [(members[0][0], b'{"format": 2, "files": {}}'), *members[1:]],
        "restore it with the version that made it",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_is_refused_that_has(what: str, old: tuple[Path, Path], tmp_path: Path) -> None:
    change, says = BAD[what]
    file, folder = rewritten(old[1], tmp_path / "bad.tar.gz", change), tmp_path / "new"
    folder.mkdir()
    with pytest.raises(Invalid, match=says):
        archive.unpack(file, folder)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("left", [0, 100, 3000])
def test_half_a_file_is_refused(old: tuple[Path, Path], tmp_path: Path, left: int) -> None:
    (tmp_path / "half.tar.gz").write_bytes(old[1].read_bytes()[:left])
    with pytest.raises(Invalid, match="use another one"):
        archive.unpack(tmp_path / "half.tar.gz", private_dir(tmp_path / "new"))


def test_nothing_is_touched_when_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tar.gz").write_text("no backup", encoding="utf-8")
    done = Fleet(tmp_path / "data").run("restore", str(tmp_path / "text.tar.gz"))
    assert (done.code, "is damaged or no backup" in done.err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["text.tar.gz"]


def test_a_packed_file_never_replaces_another(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    archive.pack(tmp_path / "x", tmp_path / "x.tar.gz", {})
    with pytest.raises(Conflict, match="exists: name another file"):
        archive.pack(tmp_path / "x", tmp_path / "x.tar.gz", {})
