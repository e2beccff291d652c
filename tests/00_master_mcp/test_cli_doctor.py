"""`fleet doctor`: what is wrong and what to do, with the hub running or stopped."""

import hashlib
import http.server
import json
from collections.abc import Generator
from pathlib import Path

import processes
import pytest
from commands import Fleet
from support import free_port

from master_mcp.cli import findings


def _findings(fleet: Fleet, **env: str) -> dict[str, tuple[str, str]]:
    return {row["check"]: (row["state"], row["detail"]) for row in fleet.run("doctor", "--json", **env).data}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """A data directory that a hub has used, with the hub still running."""
    data_dir: Path = tmp_path_factory.mktemp("fleet")
    with processes.hub(data_dir, {"cmdb": {}}) as hub:
        yield Fleet(data_dir, hub.port)


@pytest.fixture
def stopped(tmp_path: Path) -> Fleet:
    """A data directory whose hub has been stopped."""
    with processes.hub(tmp_path, {"cmdb": {}}) as hub:
        port = hub.port
    return Fleet(tmp_path, port)


def test_a_healthy_fleet_is_all_ok(fleet: Fleet) -> None:
    done = fleet.run("doctor")
    assert done.code == 0
    found = _findings(fleet)
    assert "error" not in {state for state, _ in found.values()}
    assert found["hub"] == ("ok", f"answers at http://127.0.0.1:{fleet.port}")
    assert found["service cmdb"][0] == "ok"
    assert found["policy"] == ("ok", "6 rules")
    assert "runs as pid" in found["process"][1]


def test_a_stopped_fleet_is_examined_too(stopped: Fleet) -> None:
    found = _findings(stopped)
    assert found["port"] == (
        "ok",
        f"{stopped.port} is free; the hub is stopped: start it with `fleet up`",
    )
    assert found["database hub"] == ("ok", "whole")
    assert found["database cmdb"] == ("ok", "whole")
    assert stopped.run("doctor").code == 0


def test_before_the_first_start_nothing_is_broken(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "none", free_port())
    found = _findings(fleet)
    assert found["data directory"] == ("warning", f"{tmp_path}/none does not exist yet: `fleet up` makes it")
    assert found["client.key"][0] == "warning"
    assert fleet.run("doctor").code == 0
    assert not fleet.data_dir.exists()


def test_the_sandbox_of_commands_is_tried(tmp_path: Path) -> None:
    state, detail = _findings(Fleet(tmp_path / "none", free_port()))["spoke linux_cli"]
    assert (state, detail.rpartition(" ")[0]) == ("ok", "commands are confined by")


def test_a_damaged_database_is_named_with_its_remedy(stopped: Fleet) -> None:
    path = stopped.data_dir / "cmdb.db"
    content = bytearray(path.read_bytes())
    content[4096:12288] = b"\xff" * 8192
    path.write_bytes(bytes(content))
    state, detail = _findings(stopped)["database cmdb"]
    assert state == "error"
    assert "restore a backup" in detail
    assert stopped.run("doctor").code == 1


def test_a_file_that_is_no_database_is_named(stopped: Fleet) -> None:
    (stopped.data_dir / "cmdb.db").write_bytes(b"not a database" * 1000)
    assert "move it away to start empty" in _findings(stopped)["database cmdb"][1]


def test_a_key_that_others_can_read_is_named_with_the_command(stopped: Fleet) -> None:
    (stopped.data_dir / "client.key").chmod(0o644)
    state, detail = _findings(stopped)["data directory"]
    assert (state, detail) == ("error", f"open to other users: chmod go= {stopped.data_dir}/client.key")


def test_a_lost_root_key_is_an_error_because_no_key_is_valid_without_it(stopped: Fleet) -> None:
    (stopped.data_dir / "keys" / "root.key").unlink()
    state, detail = _findings(stopped)["keys/root.key"]
    assert state == "error"
    assert "restore it from a backup" in detail


def test_a_taken_port_is_an_error(tmp_path: Path) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as other:
        found = _findings(Fleet(tmp_path, other.server_port))
    assert found["port"][0] == "error"
    assert "stop what uses it, or set FLEET_HUB__PORT" in found["port"][1]


def test_a_wrong_setting_is_the_finding(tmp_path: Path) -> None:
    state, detail = _findings(Fleet(tmp_path), FLEET_HUB__PRT="1")["configuration"]
    assert state == "error"
    assert "hub.prt" in detail


def test_a_wrong_policy_is_its_finding(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "mine.yaml").write_text("rules: [{name: one, risk: red, answer: deny}]", encoding="utf-8")
    state, detail = _findings(Fleet(tmp_path, free_port()))["policy"]
    assert state == "error"
    assert "mine.yaml, rule 'one', key risk" in detail


def test_a_wrong_option_of_a_spoke_is_its_finding(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text("spokes: {cmdb: {sed_example: true}}", encoding="utf-8")
    state, detail = _findings(Fleet(tmp_path, free_port()))["spoke cmdb"]
    assert state == "error"
    assert "spokes.cmdb.sed_example" in detail


def test_a_hub_that_refuses_the_key_is_an_error(fleet: Fleet) -> None:
    key = fleet.data_dir / "client.key"
    good = key.read_text(encoding="utf-8")
    key.write_text("flt_00000000_wrong", encoding="utf-8")
    found = _findings(fleet)
    key.write_text(good, encoding="utf-8")
    assert found["hub"][0] == "error"
    assert "unknown, revoked or expired" in found["hub"][1]


@pytest.mark.parametrize(
    ("version", "in_venv", "state"),
    [((3, 11, 2), True, "ok"), ((3, 13, 0), True, "ok"), ((3, 11, 2), False, "warning"), ((3, 10, 9), True, "error")],
)
def test_the_interpreter_is_judged(version: tuple[int, ...], in_venv: bool, state: str) -> None:
    assert findings.python(version, in_venv).state == state


def test_packages_are_compared_with_the_lock(tmp_path: Path) -> None:
    assert findings.installed(tmp_path).detail == "installed without a checkout"
    (tmp_path / "requirements.lock").write_text("a==1\n", encoding="utf-8")
    assert findings.installed(tmp_path).detail == "not installed by run_fleet.py: `python3 run_fleet.py` does it"
    (tmp_path / ".venv").mkdir()
    stamp = tmp_path / ".venv" / "fleet-stamp.json"
    stamp.write_text(json.dumps({"locks": {"requirements.lock": "old"}}), encoding="utf-8")
    assert findings.installed(tmp_path).detail == "requirements.lock is newer: `python3 run_fleet.py` installs it"
    digest = hashlib.sha256(b"a==1\n").hexdigest()
    stamp.write_text(json.dumps({"locks": {"requirements.lock": digest}}), encoding="utf-8")
    assert findings.installed(tmp_path).detail == "as in requirements.lock"


def test_a_directory_of_another_user_is_named(tmp_path: Path) -> None:
    found = next(iter(findings.data_directory(tmp_path, user=tmp_path.stat().st_uid + 1)))
    assert (found.state, found.detail) == ("error", f"{tmp_path} belongs to another user: run `fleet` as that user")
