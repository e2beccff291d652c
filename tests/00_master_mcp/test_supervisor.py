"""Spokes as processes: restarted, stopped, never orphaned, started with nothing they do not need."""

import json
import os
import select
import signal
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import processes
import pytest
from processes import CHECKOUT, Process, plain_environment

from fleetkit import trust
from master_mcp.supervisor import restart_wait

SLEEPS = "import signal\nsignal.pause()\n"
REPORTS = """import json, os, pathlib, signal
pathlib.Path(os.environ["FLEET_DATA_DIR"], "seen.json").write_text(json.dumps(dict(os.environ)))
print("I am here", flush=True)
signal.pause()
"""
DEAF = """import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
signal.pause()
"""
STUBBORN = """import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print(child.pid, flush=True)
signal.pause()
"""


@contextmanager
def _supervised(folder: Path, **programs: str) -> Generator[Process]:
    """A supervisor in a process of its own, over these programs."""
    for number, (name, source) in enumerate(programs.items(), start=71):
        program = folder / "checkout" / f"{number}_{name}_mcp" / "mcp_server.py"
        program.parent.mkdir(parents=True)
        program.write_text(source, encoding="utf-8")
    command = [
        sys.executable,
        str(CHECKOUT / "tests" / "supervised.py"),
        str(folder / "checkout"),
        str(folder / "data"),
    ]
    env = plain_environment() | {"SECRET_OF_THE_USER": "1", "FLEET_HUB__LOG_LEVEL": "debug"}
    with processes.running(*command, *programs, env=env) as process:
        yield process


def _start_of(process: Process, name: str, besides: int = 0) -> int:
    """The pid of a start of a spoke, other than one known already."""
    line = process.until(
        lambda line: line["event"] == "supervisor.spoke.started" and line["spoke"] == name and line["pid"] != besides
    )
    return int(line["pid"])


def _until_gone(pid: int) -> None:
    """Wait until a process has ended; returns at once when there is none."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], 30)[0], f"{pid} still runs"
    finally:
        os.close(handle)


def test_a_killed_spoke_is_started_again_and_the_others_stay(tmp_path: Path) -> None:
    with _supervised(tmp_path, one=SLEEPS, two=SLEEPS) as supervisor:
        first, other = _start_of(supervisor, "one"), _start_of(supervisor, "two")
        os.kill(first, signal.SIGKILL)
        ended = supervisor.until(lambda line: line["event"] == "supervisor.spoke.ended")
        second = _start_of(supervisor, "one", besides=first)
        os.kill(second, 0)
        os.kill(other, 0)
    assert (ended["spoke"], ended["code"], ended["restart_in_s"], ended["log"]) == ("one", -9, 0.2, "one.log")


def test_a_spoke_that_keeps_dying_is_started_less_and_less_often(tmp_path: Path) -> None:
    with _supervised(tmp_path, one="raise SystemExit('no')\n") as supervisor:
        found = supervisor.until(lambda line: line.get("restart_in_s", 0) >= 0.8)
    assert found["code"] == 1
    assert (tmp_path / "data" / "logs" / "one.log").read_text(encoding="utf-8").startswith("no\nno\nno\n")


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 0.2), (2, 0.4), (5, 3.2), (7, 10.0), (500, 10.0)])
def test_the_wait_doubles_up_to_ten_seconds(attempt: int, seconds: float) -> None:
    assert restart_wait(attempt) == pytest.approx(seconds)


def test_stopping_the_supervisor_stops_every_spoke(tmp_path: Path) -> None:
    with _supervised(tmp_path, one=SLEEPS, two=SLEEPS) as supervisor:
        pids = [_start_of(supervisor, "one"), _start_of(supervisor, "two")]
        assert supervisor.stop() == 0
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


def test_a_spoke_that_ignores_sigterm_is_killed_with_what_it_started(tmp_path: Path) -> None:
    with _supervised(tmp_path, one=STUBBORN) as supervisor:
        pid = _start_of(supervisor, "one")
        child = int(_first_line(tmp_path / "data" / "logs" / "one.log"))
        assert supervisor.stop() == 0
        _until_gone(pid)
        _until_gone(child)


def test_spokes_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with _supervised(tmp_path, one=SLEEPS, two=DEAF) as supervisor:
        pids = [_start_of(supervisor, "one"), _start_of(supervisor, "two")]
        _first_line(tmp_path / "data" / "logs" / "two.log")
        supervisor.kill()
        for pid in pids:
            _until_gone(pid)


def _first_line(path: Path) -> str:
    """The first line that a spoke wrote, waited for."""
    with processes.running("sh", "-c", 'exec tail -n +1 -F "$0" 2>/dev/null', str(path)) as tail:
        return tail.first_text()


def test_a_spoke_gets_the_fleet_s_settings_and_nothing_else_of_the_environment(tmp_path: Path) -> None:
    with _supervised(tmp_path, one=REPORTS):
        _first_line(tmp_path / "data" / "logs" / "one.log")
        seen = json.loads((tmp_path / "data" / "seen.json").read_text(encoding="utf-8"))
    assert set(seen) <= {"PATH", "HOME", "LANG", "LC_CTYPE", "FLEET_DATA_DIR", "FLEET_HUB__LOG_LEVEL"}
    assert (seen["FLEET_DATA_DIR"], seen["FLEET_HUB__LOG_LEVEL"]) == (str(tmp_path / "data"), "debug")


def test_each_spoke_finds_its_own_token_in_a_private_file(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with _supervised(tmp_path, one=SLEEPS, two=SLEEPS) as supervisor:
        _start_of(supervisor, "two")
        files = sorted((data_dir / "tokens").iterdir())
        assert [file.name for file in files] == ["one.token", "two.token"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in (*files, *(data_dir / "logs").iterdir())} == {0o600}
        assert files[0].read_text(encoding="utf-8") == trust.KeyRing(data_dir).service_token("one")


def test_a_spoke_without_a_program_is_named_and_the_others_run(tmp_path: Path) -> None:
    with _supervised(tmp_path, one=SLEEPS) as first:
        _start_of(first, "one")
    (tmp_path / "checkout" / "71_one_mcp" / "mcp_server.py").unlink()
    with processes.running(
        sys.executable, str(CHECKOUT / "tests/supervised.py"), str(tmp_path / "checkout"), str(tmp_path / "data"), "one"
    ) as supervisor:
        line = supervisor.until(lambda line: line["event"] == "supervisor.spoke.missing")
        assert supervisor.stop() == 0
    assert line["path"] == str(tmp_path / "checkout" / "71_one_mcp" / "mcp_server.py")


def test_a_log_that_has_grown_large_moves_aside_at_the_next_start(tmp_path: Path) -> None:
    log = tmp_path / "data" / "logs" / "one.log"
    log.parent.mkdir(parents=True)
    with log.open("wb") as file:
        file.truncate(21 * 1024 * 1024)
    with _supervised(tmp_path, one=REPORTS) as supervisor:
        _start_of(supervisor, "one")
        assert _first_line(log) == "I am here"
    assert log.with_name("one.log.1").stat().st_size == 21 * 1024 * 1024
