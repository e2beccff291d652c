"""What is done to the database, the disk and the clock under a run: it goes on when they are well again."""

import resource
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kills import demo
from kills.stage import ENDED, ClockedHub, Stage, stage

pytestmark = pytest.mark.timeout(180)  # a hub starts several times on a machine that may be busy

HOUR_S = 3600


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stage]:
    """One hub for all faults that it outlives."""
    with stage(tmp_path_factory.mktemp("faults"), ClockedHub) as made:
        yield made


def held(on: Stage, mark: str) -> str:
    """A run whose first change is done and does not come back; its id."""
    on.beside(f"hold after {mark} one").touch()
    run_id = on.start(demo.SHORT, {"mark": mark})
    on.until(on.beside(f"held after {mark} one").exists)
    return run_id


def let_go(on: Stage, mark: str) -> None:
    """Have it come back."""
    on.beside(f"hold after {mark} one").unlink()
    on.until(on.beside(f"over {mark} one").exists)


def ends_well(on: Stage, run_id: str, mark: str) -> None:
    """The run is attended to until it has ended: each change was made once."""
    on.until(lambda: on.attend(run_id)["status"] in ENDED)
    run = on.run(run_id)
    assert (run["status"], run["reason"]) == ("completed", None)
    assert [step["status"] for step in run["results"]] == ["completed"] * 3
    assert [line for line in on.lines() if line.startswith(mark)] == [f"{mark} one", f"{mark} two"]


@contextmanager
def no_room(pid: int) -> Generator[None]:
    """No write of this process to any file succeeds (EFBIG), as on a full disk."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def locked(database: Path) -> Generator[None]:
    """Another process (this one) holds the write lock."""
    other = sqlite3.connect(database, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


def test_a_full_disk_stops_a_run_until_there_is_room(on: Stage) -> None:
    run_id, printed = held(on, "full"), on.hub.process.printed
    with no_room(on.hub.process.pid):
        let_go(on, "full")
        on.hub.process.until(lambda line: line["event"] == "workflow.look.failed", printed)
        order = {"definition": demo.SHORT, "inputs": {"mark": "refused"}, "wait_s": 0}
        status, refused = on.rest("POST", "/workflows/runs", order)
        assert (status, refused["code"]) == (503, "unavailable")
        assert on.run(run_id)["status"] == "running"  # reading needs no room
    ends_well(on, run_id, "full")
    assert [line for line in on.lines() if line.startswith("refused")] == []


@pytest.mark.parametrize("database", ["hub.db", "workflows.db"])
def test_a_locked_database_delays_a_run(on: Stage, database: str) -> None:
    mark = f"locked {database}"
    run_id = held(on, mark)
    with locked(on.hub.data_dir / database):
        let_go(on, mark)
        for _ in range(20):
            assert on.run(run_id)["status"] == "running"  # reading goes on
    ends_well(on, run_id, mark)


@pytest.mark.parametrize(("jump_h", "then_h"), [(3, 0), (-24, 27)])
def test_a_wait_ends_when_the_clock_says_so_wherever_it_jumps(on: Stage, jump_h: int, then_h: int) -> None:
    run_id = on.start({"name": "nap", "steps": [{"name": "nap", "wait": "2h"}]}, {})
    on.until(lambda: on.run(run_id)["status"] == "waiting")
    due = on.run(run_id)["results"][0]["due_at"]
    clock = on.beside("clock")
    now_s = float(clock.read_text(encoding="utf-8"))
    clock.write_text(str(now_s + jump_h * HOUR_S), encoding="utf-8")
    other = on.start(demo.SHORT, {"mark": f"jump {jump_h}"})
    ends_well(on, other, f"jump {jump_h}")  # others go on as ever
    clock.write_text(str(now_s + (jump_h + then_h) * HOUR_S), encoding="utf-8")
    on.until(lambda: on.run(run_id)["status"] in ENDED)
    [nap] = on.run(run_id)["results"]
    assert nap["status"] == "completed"
    assert nap["ended_at"] >= due


@contextmanager
def standing_run(data: Path) -> Generator[tuple[Stage, str, Callable[[], None]]]:
    """A run that waits for a signal in a hub that was killed; what starts the next."""
    with stage(data) as on:
        run_id = on.start(demo.SHORT, {"mark": "stood"})
        on.until(lambda: on.run(run_id)["status"] == "waiting")
        on.hub.process.kill()
        yield on, run_id, on.hub.restart


def test_a_damaged_journal_is_named_and_may_be_moved_away(tmp_path: Path) -> None:
    with standing_run(tmp_path) as (on, run_id, restart):
        journal = tmp_path / "workflows.db"
        tmp_path.joinpath("workflows.db-wal").unlink()
        journal.write_bytes(b"this is no database " * 500)
        restart()
        order = {"definition": demo.SHORT, "inputs": {"mark": "refused"}, "wait_s": 0}
        status, refused = on.rest("POST", "/workflows/runs", order)
        assert (status, refused["code"]) == (503, "unavailable")
        assert f"database {journal}: file is not a database. What to do: " in refused["message"]
        assert on.rest("GET", "/workflows/runs")[1]["total"] == 1  # nothing of it was begun; other calls go on
        journal.unlink()
        ends_well(on, run_id, "stood")  # what it had done stands in the hub's own database too


class Program:
    """What a pickle could do."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.trace,)


FORGED = {
    "a result": "UPDATE operation_outputs SET output = ?, serialization = 'py_pickle'",
    "an input": "UPDATE workflow_input SET inputs = ?",
}
ALSO = "UPDATE workflow_status SET serialization = 'py_pickle'"


@pytest.mark.parametrize("what", FORGED)
def test_a_pickle_in_a_journal_is_never_run_and_its_run_not_lost(tmp_path: Path, what: str) -> None:
    trace = tmp_path / "it ran"
    with standing_run(tmp_path) as (on, run_id, restart):
        forge(tmp_path / "workflows.db", FORGED[what], Program(trace))
        restart()
        on.hub.process.until(lambda line: "is marked as a pickle" in f"{line.get('reason')} {line.get('said')}")
        assert on.run(run_id)["status"] not in ENDED
        assert on.rest("POST", f"/workflows/runs/{run_id}/cancel", {})[0] == 200
        assert on.rest("POST", f"/workflows/runs/{run_id}/retry", {"step": "hear"})[0] == 200
        ends_well(on, run_id, "stood")
        assert not trace.exists()


def forge(journal: Path, update: str, program: Program) -> None:
    """Write a pickle where DBOS would read it."""
    import base64
    import pickle

    text = base64.b64encode(pickle.dumps(program)).decode()
    db = sqlite3.connect(journal)
    try:
        assert db.execute(update, (text,)).rowcount
        db.execute(ALSO)
        db.commit()
    finally:
        db.close()
