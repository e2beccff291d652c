"""The chain: one line whoever writes, whenever he dies; its key, its anchor, its segments."""

import asyncio
import os
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from audits import Log, configured, opened, row
from commands import Fleet
from processes import CHECKOUT, plain_environment, running

import master_mcp.store
from fleetkit.errors import Conflict, Unavailable
from fleetkit.store import Store, open_store
from master_mcp.audit import open_audit, shape_of
from master_mcp.store import audit as table
from master_mcp.store import open_hub_store

SMALL = {"segment_rows": 20, "checkpoint_rows": 5, "keep_rows": 30}


def anchor(log: Log) -> Path:
    return log.config.data_dir / "audit" / "anchor.jsonl"


def lines(log: Log) -> list[bytes]:
    return anchor(log).read_bytes().splitlines()


# --- one chain --------------------------------------------------------------------------------------


def fifty(log: Log) -> None:
    for n in range(50):
        log.fill(1, n)


def test_two_writers_on_one_database_make_one_chain(tmp_path: Path) -> None:
    with opened(configured(tmp_path)) as one, opened(configured(tmp_path)) as two:
        threads = [threading.Thread(target=fifty, args=[log], daemon=True) for log in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report = one.verified()
    assert (report.problem, report.rows) == (None, 100)


def test_a_row_can_share_the_transaction_of_what_it_is_about(tmp_path: Path) -> None:
    def fail(db: sa.Connection) -> None:
        log.audit.write_in(db, row("second"))
        raise Conflict("changed meanwhile")

    with opened(configured(tmp_path)) as log:
        log.store.write_now(lambda db: log.audit.write_in(db, row("first")))
        with pytest.raises(Conflict):
            log.store.write_now(fail)
        log.fill(1)
        assert log.all("tool") == ["first", "os.linux.tool0"]
        assert log.verified().ok


def test_what_could_not_be_written_is_written_later_but_an_intent_is_not(tmp_path: Path) -> None:
    with opened(configured(tmp_path)) as log:
        log.run("ALTER TABLE audit RENAME TO gone")
        for outcome in ("ok", "intent"):
            with pytest.raises(Unavailable, match="audit log cannot be written"):
                log.audit.commit_now(row(f"os.{outcome}", outcome))
        log.run("ALTER TABLE gone RENAME TO audit")
        log.audit.flush().result()
        assert log.all("tool") == ["os.ok"]
        assert log.verified().ok


@pytest.mark.parametrize(
    ("outcome", "words"), [("intent", "nothing was sent"), ("ok", "what was done ended with 'ok'")]
)
def test_who_waits_is_told_what_the_missing_row_means(tmp_path: Path, outcome: str, words: str) -> None:
    with opened(configured(tmp_path)) as log:
        log.run("ALTER TABLE audit RENAME TO gone")
        with pytest.raises(Unavailable, match=words):
            log.audit.commit_now(row("os.linux.writeFile", outcome))


def test_the_arguments_of_a_call_leave_names_and_sizes_behind(tmp_path: Path) -> None:
    given = {"path": "/etc/shadow", "lines": [1, 2], "env": {"A": "b"}, "deep": None, "n": 1, "not a name!": "x"}
    assert shape_of(given) == (
        '{"?":"str 1","deep":"NoneType","env":"dict 1","lines":"list 2","n":"int","path":"str 11"}'
    )
    assert shape_of({f"key{n}": n for n in range(20)}) is not None
    assert '"...":"4"' in str(shape_of({f"key{n}": n for n in range(20)}))
    assert (shape_of({}), shape_of(None), shape_of([1])) == (None, None, None)


def test_an_event_has_the_shape_of_a_row(tmp_path: Path) -> None:
    with opened(configured(tmp_path)) as log:
        log.audit.event("policy.reload", caller="user:me", door="hub", detail={"files": 2}, approval_id="a").result()
        log.audit.event("policy.check", caller="user:\udcff\0", door="cli", correlation_id="c").result()
        assert [log.all(what) for what in ("tool", "service", "detail")] == [
            ["policy.reload", "policy.check"],
            ["hub", "hub"],
            ['{"files":2}', None],
        ]
        assert log.all("caller") == ["user:me", "user:??"]
        assert log.all("correlation_id")[1] == "c"
        assert log.verified().ok


def test_a_whole_number_of_milliseconds_is_no_difference(tmp_path: Path) -> None:
    with opened(configured(tmp_path)) as log:
        log.audit.commit_now(row("os.linux.readFile", duration_ms=5))
        assert log.verified().ok


@pytest.mark.parametrize(("error", "outcome"), [(Conflict("exists"), "conflict"), (OSError("disk"), "failed")])
def test_a_change_by_hand_that_fails_is_on_record_as_such(tmp_path: Path, error: Exception, outcome: str) -> None:
    def change() -> None:
        with log.audit.recorded("keys.create", caller="user:me", door="cli", detail={"name": "n"}) as known:
            known["id"] = "k1"
            raise error

    with opened(configured(tmp_path)) as log:
        with pytest.raises(type(error)):
            change()
        assert log.all("outcome") == ["intent", outcome]
        assert log.all("detail") == ['{"name":"n"}', '{"id":"k1","name":"n"}']
        assert len(set(log.all("args_hash"))) == len(set(log.all("correlation_id"))) == 1


# --- where it begins --------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The data directory of a hub that knew no chain, with three rows."""
    first = tmp_path / "migrations"
    first.mkdir()
    shutil.copy(Path(master_mcp.store.__file__).parent / "migrations" / "0001_keys_audit_catalog.py", first)
    store = open_store(tmp_path / "data", "hub", first)
    given = [{"at": 1.5 + n, **vars(row(f"os.old{n}", duration_ms=2.5))} for n in range(3)]
    plain = [{name: value for name, value in values.items() if name != "detail"} for values in given]
    store.write_now(lambda db: db.execute(table.insert(), plain))
    store.close()
    return tmp_path / "data"


def test_rows_from_before_the_chain_are_its_beginning(old: Path) -> None:
    with opened(configured(old)) as log:
        log.fill(1)
        report = log.verified()
        assert (report.problem, report.rows) == (None, 4)
        assert "rows 1 to 3 are older than the chain" in " ".join(report.limits)
        log.run("UPDATE audit SET outcome = 'refused' WHERE seq = 2")
        assert log.verified().first_bad_seq == 2


def test_a_chain_whose_head_is_gone_is_not_begun_anew(tmp_path: Path) -> None:
    with opened(configured(tmp_path)) as log:
        log.fill(1)
        log.run("UPDATE audit_chain SET chain = ''")
        with pytest.raises(Unavailable, match="its chain's head is gone"):
            open_audit(log.store, log.config)
        log.run("DELETE FROM audit_checkpoints")
        with pytest.raises(Unavailable, match="its chain's head is gone"):
            open_audit(log.store, log.config)
        log.run("DELETE FROM audit_chain")
        with pytest.raises(Unavailable, match="restore a backup"):
            open_audit(log.store, log.config)


def test_nothing_is_added_to_a_chain_whose_head_was_changed(tmp_path: Path) -> None:
    with opened(configured(tmp_path)) as log:
        log.fill(3)
        log.run("UPDATE audit_chain SET seq = 1")
        with pytest.raises(Unavailable, match="its head was changed"):
            log.audit.commit_now(row("os.linux.writeFile", "intent"))
        assert log.all("seq") == [1, 2, 3]


# --- its key ----------------------------------------------------------------------------------------


def test_a_key_file_of_its_own_is_made_once_and_private(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    config = configured(tmp_path / "data", key_file=outside / "audit.key", anchor_file=outside / "anchor.jsonl")
    for _ in range(2):
        with opened(config) as log:
            log.fill(2)
            log.keeper.anchor()
    with opened(config) as log:
        assert (log.verified().problem, log.verified().limits) == (None, [])
    assert stat.S_IMODE((outside / "audit.key").stat().st_mode) == 0o600
    assert sorted(path.name for path in outside.iterdir()) == ["anchor.jsonl", "audit.key"]


def test_files_in_the_data_directory_are_named_as_what_they_cannot_prove(tmp_path: Path) -> None:
    with opened(configured(tmp_path, key_file="audit.key")) as log:
        log.fill(1)
        limits = " ".join(log.verified().limits)
    assert "the chain's key lies in the data directory" in limits
    assert "the anchor lies in the data directory" in limits
    assert "the last 1 rows are not under an anchored checkpoint yet" in limits


@pytest.mark.parametrize("text", ["", "00ff", "no hex at all", "zz" * 32])
def test_a_damaged_key_is_refused_and_never_replaced(tmp_path: Path, text: str) -> None:
    key = tmp_path / "audit.key"
    key.write_text(text, encoding="utf-8")
    with pytest.raises(Unavailable, match="is damaged"), opened(configured(tmp_path / "data", key_file=key)):
        pass
    assert key.read_text(encoding="utf-8") == text


def test_another_key_is_refused_before_a_row_is_written_with_it(tmp_path: Path) -> None:
    with opened(configured(tmp_path)) as log:
        log.fill(1)
    with (
        pytest.raises(Unavailable, match="not written with this audit key"),
        opened(configured(tmp_path, key_file="k")),
    ):
        pass


def test_a_key_file_whose_directory_is_missing_says_so(tmp_path: Path) -> None:
    config = configured(tmp_path, key_file=tmp_path / "nowhere" / "audit.key")
    with pytest.raises(Unavailable, match=r"nowhere/audit.key: No such file"), opened(config):
        pass


def test_a_log_whose_root_key_is_gone_cannot_be_checked(tmp_path: Path) -> None:
    with opened(configured(tmp_path)) as log:
        (tmp_path / "keys" / "root.key").rename(tmp_path / "elsewhere")
        with pytest.raises(Unavailable, match="is gone: restore it"):
            log.verified()


# --- its anchor -------------------------------------------------------------------------------------


def test_every_checkpoint_is_repeated_in_the_anchor(tmp_path: Path) -> None:
    with opened(configured(tmp_path, checkpoint_rows=5)) as log:
        for n in range(4):
            log.fill(5, n * 5)
        log.keeper.tick()
        assert len(lines(log)) == 5
        assert log.verified().anchored_seq == 20


def test_time_passing_puts_new_rows_under_a_checkpoint(tmp_path: Path) -> None:
    with opened(configured(tmp_path, checkpoint_s=0.000001)) as log:
        log.fill(1)
        log.keeper.tick()
        assert log.verified().anchored_seq == 1
        log.keeper.tick()
        assert len(lines(log)) == 2


def test_closing_anchors_the_last_row(tmp_path: Path) -> None:
    with opened(configured(tmp_path)) as log:
        log.fill(3)
    assert b'"kind":"close"' in lines(log)[-1]
    assert b'"seq":3' in lines(log)[-1]


@pytest.mark.parametrize("left", [1, 40, 199])
def test_a_line_that_a_crash_cut_short_is_written_again(tmp_path: Path, left: int) -> None:
    with opened(configured(tmp_path)) as log:
        log.fill(3)
    whole = anchor(log).read_bytes()
    cut = whole.rstrip(b"\n").rpartition(b"\n")[0] + b"\n"
    anchor(log).write_bytes(cut + whole[len(cut) :][:left])
    with opened(configured(tmp_path)) as log:
        log.run("SELECT 1")
        assert log.verified().problem == "the anchor file was cut: 2 checkpoints were written to it, 1 are left"


def test_a_crash_between_database_and_anchor_is_made_good(tmp_path: Path) -> None:
    with opened(configured(tmp_path, checkpoint_rows=1)) as log:
        for n in range(3):
            log.fill(1, n)
        with anchor(log).open("ab") as file:
            file.write(log.store.read_now(lambda db: db.exec_driver_sql(NEWEST).scalar_one())[:70].encode())
        assert log.verified().problem is None
        log.keeper.tick()
        assert (log.verified().problem, log.verified().anchored_seq) == (None, 3)
        assert len(lines(log)) == 5


NEWEST = "SELECT line FROM audit_checkpoints WHERE number = 2"


def test_an_anchor_that_was_deleted_is_not_quietly_made_anew(tmp_path: Path) -> None:
    for _ in range(3):
        with opened(configured(tmp_path)) as log:
            log.fill(3)
            anchor(log).unlink()
    with opened(configured(tmp_path)) as log:
        assert log.verified().problem == "the anchor file does not hold checkpoint 1 in its place"


def test_an_anchor_that_knows_more_than_the_database_stops_being_written(tmp_path: Path) -> None:
    with opened(configured(tmp_path, checkpoint_rows=1)) as log:
        log.store.write_now(lambda db: db.exec_driver_sql(f"CREATE TABLE old AS SELECT * FROM {'audit_chain'}"))
        log.fill(3)
        log.keeper.tick()
        log.run("DELETE FROM audit_checkpoints WHERE number > 1")
        log.run("DELETE FROM audit_chain")
        log.run("INSERT INTO audit_chain SELECT * FROM old")
        with pytest.raises(Conflict, match="the audit's anchor knows 2 checkpoints, the database 1"):
            log.keeper.anchor()


def test_a_new_database_beside_an_old_anchor_is_told(tmp_path: Path) -> None:
    with opened(configured(tmp_path)) as log:
        log.fill(3)
    for path in tmp_path.glob("hub.db*"):
        path.unlink()
    with opened(configured(tmp_path)) as log:
        log.fill(1)
        assert "the anchor file knows of another chain" in str(log.verified().problem)
        own = log.store.read_now(lambda db: db.exec_driver_sql("SELECT chain FROM audit_chain").scalar_one())
        log.keeper.anchor()
        anchor(log).write_bytes(b"".join(line + b"\n" for line in lines(log) if own.encode() in line))
        assert log.verified().problem is None


def test_an_anchor_that_cannot_be_written_hinders_no_call(tmp_path: Path) -> None:
    config = configured(tmp_path, anchor_file="/proc/nowhere/anchor.jsonl")
    with opened(config) as log:
        log.fill(3)
        with pytest.raises(Unavailable, match="the audit's anchor /proc/nowhere"):
            log.keeper.anchor()
        assert log.verified().problem == (
            "the anchor file is missing: put it back, or set hub.audit.anchor_file to where it is now"
        )


def test_an_anchor_that_cannot_be_read_is_an_error_of_its_own(tmp_path: Path) -> None:
    with opened(configured(tmp_path, anchor_file=".")) as log, pytest.raises(Unavailable, match="Is a directory"):
        log.verified()


# --- its segments -----------------------------------------------------------------------------------


def test_full_segments_are_sealed_and_the_oldest_leave_the_table(tmp_path: Path) -> None:
    with opened(configured(tmp_path, **SMALL)) as log:
        log.fill(90)
        log.keeper.tick()
        assert log.all("seq") == list(range(61, 91))
        assert sorted(path.name for path in (tmp_path / "audit").glob("*.gz")) == [
            "000001.jsonl.gz", "000002.jsonl.gz", "000003.jsonl.gz", "000004.jsonl.gz",
        ]  # fmt: skip
        report = log.verified()
        assert (report.problem, report.rows, report.segments) == (None, 90, 4)


def test_rows_that_grow_old_are_sealed_by_the_day_and_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(configured(tmp_path, keep_days=2)) as log:
        for age in (5, 4, 1):
            monkeypatch.setattr(time, "time", lambda age=age: NOW - age * 86400)  # the clock is the subject here
            log.fill(2)
        monkeypatch.setattr(time, "time", lambda: NOW)
        log.keeper.tick()
        assert log.all("seq") == [5, 6]
        log.keeper.tick()
        report = log.verified()
        assert (report.problem, report.segments) == (None, 1)


NOW = time.time()


def test_rows_that_are_old_for_less_than_a_day_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(configured(tmp_path, keep_days=2)) as log:
        monkeypatch.setattr(time, "time", lambda: NOW - 2.5 * 86400)  # the clock is the subject here
        log.fill(2)
        monkeypatch.setattr(time, "time", lambda: NOW)
        log.keeper.tick()
        assert (log.all("seq"), log.verified().segments) == ([1, 2], 0)


def test_a_segment_whose_file_was_changed_keeps_its_rows_in_the_table(tmp_path: Path) -> None:
    with opened(configured(tmp_path, segment_rows=20)) as log:
        log.fill(50)
        log.keeper.tick()
    (tmp_path / "audit" / "000001.jsonl.gz").write_bytes(b"")
    with opened(configured(tmp_path, segment_rows=20, keep_rows=0)) as log:
        log.keeper.tick()
        assert log.all("seq") == list(range(1, 51))


def test_rows_that_were_tampered_with_are_not_sealed(tmp_path: Path) -> None:
    with opened(configured(tmp_path, **SMALL)) as log:
        log.fill(50)
        log.run("UPDATE audit SET tool = 'x' WHERE seq = 7")
        with pytest.raises(Conflict, match="audit row 7 does not fit the chain"):
            log.keeper.tick()
        assert len(log.all("seq")) == 50
        assert list((tmp_path / "audit").glob("*.gz*")) == []


def test_what_a_killed_process_left_of_a_segment_is_swept_away(tmp_path: Path) -> None:
    with opened(configured(tmp_path, **SMALL)) as log:
        old, fresh = (tmp_path / "audit" / f"000001.jsonl.gz.{n}.partial" for n in "ab")
        old.write_bytes(b"half")
        fresh.write_bytes(b"half")
        os.utime(old, (0, 0))
        log.fill(20)
        log.keeper.tick()
        assert (old.exists(), fresh.exists()) == (False, True)


class Killed(BaseException):
    """The process died here."""


def dying(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Die at the `at`-th step that leaves something behind: a write to the database, a file synced or renamed."""
    left = iter(range(at))

    def mortal(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **more: Any) -> Any:
            if next(left, None) is None:
                raise Killed
            return step(*args, **more)

        return run

    monkeypatch.setattr(Store, "write_now", mortal(Store.write_now))
    monkeypatch.setattr(Path, "replace", mortal(Path.replace))
    monkeypatch.setattr(os, "fsync", mortal(os.fsync))
    monkeypatch.setattr(os, "write", mortal(os.write))


@pytest.mark.parametrize("at", range(28))
def test_sealing_and_dropping_survive_a_death_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    with opened(configured(tmp_path, **SMALL)) as log:
        log.fill(70)
        keeper = log.keeper
        with monkeypatch.context() as patch:
            dying(patch, at)
            with pytest.raises(Killed):
                keeper.tick()
        assert log.verified().problem is None
    with opened(configured(tmp_path, **SMALL)) as log:
        assert log.verified().problem is None
        log.keeper.tick()
        report = log.verified()
        assert (report.problem, report.rows, report.segments) == (None, 70, 3)
        assert log.all("seq") == list(range(41, 71))


def test_a_deletion_that_was_cut_short_is_taken_up_again(tmp_path: Path) -> None:
    with opened(configured(tmp_path, **SMALL)) as log:
        log.fill(70)
        log.run("CREATE TABLE kept AS SELECT * FROM audit")
        log.keeper.tick()
        log.run("INSERT INTO audit SELECT * FROM kept WHERE seq BETWEEN 28 AND 40")
        report = log.verified()
        assert (report.problem, report.rows) == (None, 70)
        log.keeper.tick()
        assert log.all("seq") == list(range(41, 71))


def test_a_writer_that_is_killed_again_and_again_leaves_a_whole_log(tmp_path: Path) -> None:
    rows = 0
    for _ in range(4):
        with running(sys.executable, str(CHECKOUT / "tests" / "audit_writer.py"), str(tmp_path), env=FOR_WRITER) as it:
            it.until(lambda line: line["rounds"] >= 9)
            it.kill()
        with opened(configured(tmp_path)) as log:
            report = log.verified()
        assert report.problem is None
        assert report.last_seq >= rows + 100
        rows = report.last_seq


FOR_WRITER = plain_environment() | {"PYTHONPATH": str(CHECKOUT / "tests")}


# --- the hub keeps it -------------------------------------------------------------------------------


async def test_watching_writes_what_failed_once_it_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("master_mcp.audit.KEPT_EVERY_S", 0.01)
    with opened(configured(tmp_path, checkpoint_rows=1)) as log:
        log.run("ALTER TABLE audit RENAME TO gone")
        with pytest.raises(Unavailable):
            await log.audit.commit(row("os.late"))
        watching = asyncio.create_task(log.audit.watch())
        log.run("ALTER TABLE gone RENAME TO audit")
        while len(lines(log)) < 2:
            await asyncio.sleep(0)
        watching.cancel()
        await asyncio.wait([watching])
        assert log.all("tool") == ["os.late"]


def test_closing_without_a_store_is_no_error(tmp_path: Path) -> None:
    config = configured(tmp_path)
    store = open_hub_store(config)
    audit = open_audit(store, config)
    store.close()
    audit.close()


def test_a_key_made_by_hand_is_on_record_with_who_made_it(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    assert fleet.run("keys", "create", "alice", "--scope", "read:*").code == 0
    assert fleet.run("keys", "revoke", "alice").code == 0
    assert fleet.run("keys", "revoke", "nobody").code == 1
    with opened(configured(tmp_path)) as log:
        assert list(zip(log.all("tool"), log.all("outcome"), strict=True)) == [
            ("keys.create", "intent"), ("keys.create", "ok"), ("keys.revoke", "intent"), ("keys.revoke", "ok"),
            ("keys.revoke", "intent"), ("keys.revoke", "not_found"),
        ]  # fmt: skip
        assert '"name":"alice"' in log.all("detail")[1]
        assert all(caller.startswith("user:") for caller in log.all("caller"))
        assert log.verified().ok
