"""Searching, exporting and summing up: over the table and what has left it, by name and by time."""

import csv
import io
from collections.abc import Generator
from pathlib import Path
from typing import Any

import orjson
import pytest
from audits import Log, configured, opened, row
from commands import Fleet

from fleetkit.errors import Unavailable
from master_mcp.audit import Row, event_row
from master_mcp.audit.export import write_csv, write_lines
from master_mcp.audit.report import Account, account
from master_mcp.audit.search import Query, entries, search


@pytest.fixture
def log(tmp_path: Path) -> Generator[Log]:
    """Sixty rows: forty in two segments that left the table, twenty in it."""
    with opened(configured(tmp_path, segment_rows=20, keep_rows=20)) as made:
        made.fill(60)
        made.keeper.tick()
        assert made.all("seq") == list(range(41, 61))
        yield made


def numbers(found: Any) -> list[int]:
    return [entry["seq"] for entry in found]


# --- search -----------------------------------------------------------------------------------------


def test_the_newest_rows_come_first_and_go_on_in_the_segments(log: Log) -> None:
    assert numbers(search(log.store, log.config, Query(), 30)) == list(range(60, 30, -1))
    assert numbers(search(log.store, log.config, Query(before=22), 3)) == [21, 20, 19]
    assert numbers(entries(log.store, log.config, Query(after=38, before=43))) == [39, 40, 41, 42]
    assert numbers(entries(log.store, log.config)) == list(range(1, 61))


def test_every_field_narrows_what_is_found(log: Log) -> None:
    apart = Row("corr", "boss", "rest", "cmdb", "cmdb.deleteRecord", "destroy", "refused", "h", approval_id="apr_1")
    log.audit.commit_now(apart)
    for query in (
        Query(callers=("boss", "nobody")), Query(tool="cmdb.*"), Query(service="cmdb"), Query(door="rest"),
        Query(risk="destroy"), Query(outcome="refused"), Query(correlation_id="corr"), Query(approval_id="apr_1"),
        Query(after=60), Query(since=log.all("at")[-1]),
    ):  # fmt: skip
        assert numbers(search(log.store, log.config, query)) == [61]
    assert numbers(search(log.store, log.config, Query(tool="os.linux.tool3"))) == [4]
    assert search(log.store, log.config, Query(tool="OS.*")) == []
    assert len(search(log.store, log.config, Query(until=log.all("at")[-1]), 1000)) == 60
    assert search(log.store, log.config, Query(until=1.0)) == []


def test_a_tool_that_no_row_of_a_page_has_is_looked_for_in_the_next(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("master_mcp.audit.search.PAGE", 7)  # 5,000 rows would only take longer
    assert numbers(search(log.store, log.config, Query(tool="os.linux.tool4*"))) == [*range(50, 40, -1), 5]
    assert numbers(entries(log.store, log.config)) == list(range(1, 61))


def test_a_segment_that_is_needed_and_gone_is_an_error(log: Log) -> None:
    (log.config.data_dir / "audit" / "000001.jsonl.gz").unlink()
    assert len(search(log.store, log.config, Query(), 40)) == 40
    with pytest.raises(Unavailable, match=r"000001.jsonl.gz is missing"):
        search(log.store, log.config, Query(), 41)


def test_the_detail_is_an_object_also_when_somebody_damaged_it(log: Log) -> None:
    log.audit.commit_now(event_row("keys.create", caller="c", door="cli", detail={"name": "n"}))
    log.run("UPDATE audit SET detail = '{\"name' WHERE seq = 60")
    found = search(log.store, log.config, Query(), 3)
    assert [entry["detail"] for entry in found] == [{"name": "n"}, {"damaged": '{"name'}, None]


# --- export -----------------------------------------------------------------------------------------


def test_json_lines_hold_every_column(log: Log) -> None:
    out = io.StringIO()
    assert write_lines(out, entries(log.store, log.config)) == 60
    rows = [orjson.loads(line) for line in out.getvalue().splitlines()]
    assert [entry["tool"] for entry in rows] == [f"os.linux.tool{n}" for n in range(60)]
    assert len(rows[0]["mac"]) == 64


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_no_cell_of_a_csv_starts_a_formula(log: Log, text: str) -> None:
    log.audit.commit_now(Row(text, "k", "mcp", "s", "os.t", "read", "ok", "h", 1.5, None, '{"a":"=1"}'))
    out = io.StringIO(newline="")
    write_csv(out, entries(log.store, log.config, Query(after=60)))
    head, cells = csv.reader(io.StringIO(out.getvalue(), newline=""))
    found = dict(zip(head, cells, strict=True))
    assert found["correlation_id"] == f"'{text}"
    assert (found["tool"], found["duration_ms"], found["detail"]) == ("os.t", "1.5", '{"a":"=1"}')


# --- report -----------------------------------------------------------------------------------------


def told(*rows: Row) -> Account:
    return account({"seq": n, "at": float(n), **vars(one)} for n, one in enumerate(rows, 1))


def test_a_change_counts_once_with_the_approval_it_ran_under() -> None:
    found = told(
        row("os.rm", "intent", "destroy", approval_id="apr_1"),
        row("os.ls", "ok", "read"),
        row("os.rm", "ok", "destroy", approval_id="apr_1"),
    )
    line = found.changes[0]
    assert (found.executed, found.complete, len(found.changes), found.reads) == (1, True, 1, {"k": 1})
    assert (line.tool, line.outcome, line.approval_id, line.count, line.last_at) == ("os.rm", "ok", "apr_1", 1, 3.0)
    assert (found.rows, found.first_at, found.last_at) == (3, 1.0, 3.0)


def test_an_intent_without_an_outcome_is_listed() -> None:
    found = told(row("os.rm", "intent", "destroy"), row("os.rm", "intent", "destroy"), row("os.rm", "ok", "destroy"))
    assert (numbers(found.without_outcome), found.complete) == ([2], False)


def test_a_change_that_no_intent_announced_is_listed() -> None:
    found = told(row("os.rm", "refused", "destroy"), row("os.rm", "ok", "destroy"))
    assert (numbers(found.without_intent), found.complete, found.executed) == ([2], False, 0)
    assert [(line.outcome, line.count) for line in found.changes] == [("refused", 1), ("ok", 1)]


def test_what_was_assessed_as_harmless_after_its_intent_is_one_executed_change() -> None:
    found = told(row("os.run", "intent", "destroy"), row("os.run", "ok", "read"))
    assert (found.complete, found.changes[0].risk) == (True, "destroy")


def test_decisions_stand_apart_from_calls() -> None:
    found = told(
        event_row("approvals.approve", caller="boss", door="cli", approval_id="apr_1"),
        event_row("keys.create", caller="user:me", door="cli", outcome="intent"),
    )
    assert [(line.caller, line.tool, line.approval_id) for line in found.events] == [
        ("boss", "approvals.approve", "apr_1")
    ]
    assert numbers(found.without_outcome) == [2]


def test_nothing_is_a_report_too() -> None:
    assert told().as_dict() == {
        "rows": 0, "first_at": None, "last_at": None, "executed": 0, "changes": [], "events": [], "reads": {},
        "without_outcome": [], "without_intent": [], "complete": True,
    }  # fmt: skip


# --- the command ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A stopped fleet in whose log an agent read, changed, and died in a change; a key was made."""
    config = configured(tmp_path_factory.mktemp("fleet"))
    fleet = Fleet(config.data_dir)
    key = fleet.run("keys", "create", "alice").out.split("_")[1]
    with opened(config) as log:
        log.audit.commit_now(Row("c1", key, "mcp", "linux_cli", "os.linux.readFile", "read", "ok", "h", 1.5))
        for outcome in ("intent", "ok"):
            log.audit.commit_now(
                Row("c2", key, "mcp", "linux_cli", "os.linux.rm", "destroy", outcome, "h", 2.5, "apr_7")
            )
        log.audit.commit_now(Row("c3", key, "mcp", "linux_cli", "os.linux.rm", "destroy", "intent", "h"))
    return fleet


def test_rows_are_found_by_the_name_of_a_key(fleet: Fleet) -> None:
    found = fleet.run("audit", "search", "--caller", "alice", "--risk", "destroy", "--since", "1h", "--json").data
    assert [(entry["correlation_id"], entry["outcome"]) for entry in found] == [
        ("c3", "intent"), ("c2", "ok"), ("c2", "intent"),
    ]  # fmt: skip


def test_the_table_names_keys_and_approvals(fleet: Fleet) -> None:
    done = fleet.run("audit", "search", "--approval-id", "apr_7", "--until", "2999-01-01", "-n", "1")
    assert done.lines[0].split() == ["seq", "at", "caller", "door", "tool", "risk", "outcome", "ms", "approval",
                                     "correlation", "id"]  # fmt: skip
    assert all(word in done.lines[1] for word in ("alice (", "os.linux.rm", "ok", "2.5", "apr_7", "c2"))
    assert len(done.lines) == 2


def test_a_time_that_is_none_is_refused(fleet: Fleet) -> None:
    done = fleet.run("audit", "search", "--since", "yesterday")
    assert (done.code, "'yesterday' is no time" in done.err) == (2, True)


def test_the_log_is_exported_to_a_new_file_or_to_a_pipe(fleet: Fleet, tmp_path: Path) -> None:
    piped = fleet.run("audit", "export", "--tool", "os.*")
    assert [orjson.loads(line)["correlation_id"] for line in piped.out.splitlines()] == ["c1", "c2", "c2", "c3"]
    target = tmp_path / "log.csv"
    done = fleet.run("audit", "export", "--csv", "--correlation-id", "c2", "--out", str(target))
    assert (done.code, done.err) == (0, f"2 rows are in {target}.\n")
    assert [line.split(",")[6] for line in target.read_text(encoding="utf-8").splitlines()] == ["tool"] + [
        "os.linux.rm"
    ] * 2
    assert target.stat().st_mode & 0o777 == 0o600
    assert fleet.run("audit", "export", "--out", str(target)).err == f"fleet: {target} exists: name a new file\n"


def test_the_report_says_who_did_what_and_what_is_missing(fleet: Fleet) -> None:
    done = fleet.run("audit", "report")
    assert {"Changes", "Decisions and administration", "Other calls"} <= set(done.lines)
    assert "Intents without an outcome" in done.out
    assert "Every executed change" not in done.out
    assert any("alice (" in line and "apr_7" in line and "destroy" in line for line in done.lines)
    assert any("keys.create" in line and "user:" in line for line in done.lines)
    found = fleet.run("audit", "report", "--json", "--until", "2999-01-01").data
    assert (found["executed"], found["complete"], len(found["without_outcome"])) == (2, False, 1)
    assert "alice" in found["names"].values()
    assert "Every executed change (1) has its intent" in fleet.run("audit", "report", "--tool", "keys.*").out


def test_verify_says_what_it_looked_at_and_what_it_cannot_prove(fleet: Fleet) -> None:
    done = fleet.run("audit", "verify", "--since", "5")
    assert (done.code, done.out) == (0, "The log is whole.\n")
    assert "Not proven: the chain's key lies in the data directory" in done.err
    assert "Checked" in done.err


def test_a_directory_without_a_log_says_so(tmp_path: Path) -> None:
    done = Fleet(tmp_path).run("audit", "verify")
    assert (done.code, done.err) == (
        1,
        f"fleet: there is no audit log in {tmp_path}: set FLEET_DATA_DIR, or start the fleet once\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_never_had_a_chain_says_so(tmp_path: Path) -> None:
    Fleet(tmp_path).run("keys", "list")
    done = Fleet(tmp_path).run("audit", "verify")
    assert (done.code, "there is no audit chain yet" in done.err) == (1, True)
