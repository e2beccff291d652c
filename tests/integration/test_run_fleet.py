"""`python3 run_fleet.py` as a newcomer runs it: the real program, a real virtual environment, a real hub."""

import json
import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import processes
import pytest
from commands import Fleet
from hubs import OWN
from processes import CHECKOUT, plain_environment
from support import free_port

RUN_FLEET = str(CHECKOUT / "run_fleet.py")
PYPROJECT = """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "stub"
version = "1.0"
"""


@pytest.fixture(scope="module", autouse=True)
def _installed_by_run_tests() -> None:
    """Anything else would be replaced under the feet of the running tests."""
    assert (CHECKOUT / ".venv" / "fleet-stamp.json").exists(), "start the tests by `python3 run_tests.py`"


class Started:
    """A start of the fleet whose output is read line by line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []

    def until(self, text: str) -> str:
        """The first line that holds `text`; fails with everything printed when it does not come."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if text in line:
                return self.lines[-1]
        raise AssertionError(f"{text!r} was not printed: {self.lines}")

    def stop(self) -> int:
        """SIGTERM; reads the rest and returns the exit code."""
        assert self.process.stdout is not None
        self.process.terminate()
        # Not communicate(): it reads past what `until` left in the buffer of this very object.
        self.lines += self.process.stdout.read().splitlines()
        return self.process.wait(timeout=45)


@contextmanager
def _start(program: str, *words: str, env: dict[str, str]) -> Generator[Started]:
    with subprocess.Popen(
        [sys.executable, program, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield Started(process)
        finally:
            process.kill()


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A fresh data directory and a free port."""
    return Fleet(tmp_path / "data", free_port())


def test_one_command_gives_a_hub_a_client_can_use(fleet: Fleet) -> None:
    with _start(RUN_FLEET, env=fleet.env()) as started:
        started.until(f"The fleet is ready: http://127.0.0.1:{fleet.port}/mcp")
        key = (fleet.data_dir / "client.key").read_text(encoding="utf-8").strip()
        started.until("fleet status")
        status = fleet.run("status", "--json").data
        assert (fleet.data_dir / "hub.lock").read_text(encoding="utf-8") == str(started.process.pid)  # one pid
        assert started.stop() == 0
    url = f"http://127.0.0.1:{fleet.port}/mcp"
    assert f'  claude mcp add --transport http fleet {url} --header "Authorization: Bearer {key}"' in started.lines
    snippets = [json.loads(line) for line in started.lines if line.startswith("  {")]
    bearer = {"Authorization": f"Bearer {key}"}
    assert snippets[0] == {"mcpServers": {"fleet": {"url": url, "headers": bearer}}}
    assert snippets[1] == {"servers": {"fleet": {"type": "http", "url": url, "headers": bearer}}}
    assert snippets[2]["mcpServers"]["fleet"]["args"] == ["stdio"]
    assert key not in json.dumps(snippets[2])
    assert any(line.endswith("fleet approvals list") for line in started.lines), started.lines
    assert started.lines[-1] == "The fleet has stopped."
    assert {s["name"]: s["health"] for s in status["services"]} == dict.fromkeys(
        (*OWN, "linux_cli", "cmdb", "secrets"), "healthy"
    )


def test_a_stopped_hub_leaves_whole_databases_and_starts_again(fleet: Fleet) -> None:
    for _ in range(2):
        with _start(RUN_FLEET, env=fleet.env()) as started:
            started.until("The fleet is ready")
            started.until("fleet status")
            assert started.stop() == 0
        assert list(fleet.data_dir.glob("*.db-wal")) == []


def test_a_second_start_on_the_same_data_says_which_process_holds_it(fleet: Fleet) -> None:
    with _start(RUN_FLEET, env=fleet.env()) as first:
        first.until("The fleet is ready")
        with _start(RUN_FLEET, env=fleet.env(FLEET_HUB__PORT=str(free_port()))) as second:
            line = second.until("fleet: ")
            assert second.process.wait(45) == 1
    assert line.startswith(f"fleet: {fleet.data_dir} is in use by the hub with pid {first.process.pid}")
    assert f"`kill {first.process.pid}`" in line


def test_a_hub_that_was_killed_does_not_hold_its_data(fleet: Fleet) -> None:
    for _ in range(2):
        with _start(RUN_FLEET, env=fleet.env()) as started:
            started.until("The fleet is ready")


def test_a_taken_port_is_one_clear_line(fleet: Fleet) -> None:
    with (
        socket.create_server(("127.0.0.1", fleet.port)),
        _start(RUN_FLEET, env=fleet.env()) as started,
    ):
        line = started.until("fleet: ")
        assert started.process.wait(45) == 1
    assert line == (
        f"fleet: cannot listen on 127.0.0.1:{fleet.port} (Address already in use): stop what uses it, "
        "or set FLEET_HUB__PORT"
    )


def test_a_wrong_setting_stops_the_start_with_its_name(fleet: Fleet) -> None:
    with _start(RUN_FLEET, env=fleet.env(FLEET_HUB__PROT="1")) as started:
        line = started.until("fleet: ")
        assert started.process.wait(45) == 2
    assert "hub.prot" in line


def test_only_the_named_spokes_start(fleet: Fleet) -> None:
    with _start(RUN_FLEET, "--only", "cmdb", env=fleet.env()) as started:
        started.until("fleet status")
        services = fleet.run("status", "--json").data["services"]
    assert [service["name"] for service in services] == [*OWN, "cmdb"]


def test_a_spoke_that_does_not_exist_is_named_before_anything_starts(fleet: Fleet) -> None:
    with _start(RUN_FLEET, "--only", "nonesuch", env=fleet.env()) as started:
        line = started.until("fleet: ")
        assert started.process.wait(45) == 2
    assert "no spoke 'nonesuch' in fleet.yaml; it lists linux_cli, cmdb, secrets" in line


def test_spokes_as_processes_come_back_after_a_kill_and_go_with_the_hub(fleet: Fleet) -> None:
    with _start(RUN_FLEET, "--processes", "--only", "cmdb", env=fleet.env()) as started:
        started.until("fleet status")
        log = fleet.data_dir / "logs" / "hub.log"
        with processes.running("tail", "-n", "+1", "-F", str(log)) as hub_log:
            first = int(hub_log.until(lambda line: line["event"] == "supervisor.spoke.started")["pid"])
            hub_log.until(lambda line: line["event"] == "spoke.healthy" and line["spoke"] == "cmdb")
            os.kill(first, 9)
            second = hub_log.until(lambda line: line["event"] == "supervisor.spoke.started" and line["pid"] != first)
            assert fleet.run("call", "cmdb.listClasses").code in (0, 1)
        handle = os.pidfd_open(int(second["pid"]))
        started.process.kill()
        os.waitid(os.P_PID, started.process.pid, os.WEXITED | os.WNOWAIT)
    assert _ended(handle)


def _ended(handle: int) -> bool:
    try:
        return bool(select.select([handle], [], [], 30)[0])
    finally:
        os.close(handle)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in small: the real run_fleet.py, locks without packages, a `fleet` that prints its arguments."""
    for name in ("run_fleet.py", "run_tests.py"):
        shutil.copy(CHECKOUT / name, tmp_path)
    shutil.copy(Path(__file__).parent / "installable" / "backend.py", tmp_path)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (tmp_path / "requirements.lock").write_text("# nothing\n", encoding="utf-8")
    return tmp_path


def _first_words(checkout: Path, *arguments: str) -> list[str]:
    """The first word of each line that a start of the small checkout prints, and then the arguments of `fleet`."""
    with _start(str(checkout / "run_fleet.py"), *arguments, env=plain_environment()) as started:
        _, pid, *given = started.until("running ").split()
        assert int(pid) == started.process.pid
        assert started.stop() == 0
    return [*(line.split()[0] for line in started.lines[:-1]), " ".join(given)]


@pytest.mark.timeout(240)  # real environments are made
def test_the_first_start_installs_and_the_second_does_not(checkout: Path) -> None:
    assert _first_words(checkout, "--only", "cmdb") == ["Making", "Installing", "Linking", "up --only cmdb"]
    assert _first_words(checkout) == ["up"]


@pytest.mark.timeout(240)  # real environments are made
def test_a_new_lock_or_project_installs_again_and_only_that(checkout: Path) -> None:
    _first_words(checkout)
    (checkout / "requirements.lock").write_text("# still nothing\n", encoding="utf-8")
    assert _first_words(checkout) == ["Installing", "Linking", "up"]
    (checkout / "pyproject.toml").write_text(PYPROJECT + "description = 'x'\n", encoding="utf-8")
    assert _first_words(checkout) == ["Linking", "up"]


@pytest.mark.timeout(240)  # real environments are made
def test_an_installation_that_was_killed_is_repaired_by_the_next_start(checkout: Path) -> None:
    with _start(str(checkout / "run_fleet.py"), env=plain_environment()) as killed:
        killed.until("Installing")
    assert _first_words(checkout) == ["Making", "Installing", "Linking", "up"]


@pytest.mark.timeout(240)  # real environments are made
def test_an_environment_that_was_moved_is_made_anew(checkout: Path) -> None:
    _first_words(checkout)
    moved = checkout.with_name("moved")
    checkout.rename(moved)
    assert _first_words(moved) == ["Making", "Installing", "Linking", "up"]


def test_a_lock_that_cannot_be_installed_ends_with_pip_s_reason(checkout: Path) -> None:
    (checkout / "requirements.lock").write_text("./nonesuch.whl --hash=sha256:00\n", encoding="utf-8")
    with _start(str(checkout / "run_fleet.py"), env=plain_environment()) as started:
        started.until("This failed (1)")
        assert started.process.wait(45) == 1
    assert any("nonesuch" in line for line in started.lines)


def test_a_python_without_venv_is_told_what_to_install(checkout: Path) -> None:
    (checkout / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n", encoding="utf-8")
    with _start(str(checkout / "run_fleet.py"), env=plain_environment() | {"PYTHONPATH": str(checkout)}) as started:
        line = started.until("apt install python3-venv")
        assert started.process.wait(45) == 1
    assert line.startswith("This Python has no ensurepip module")
    assert not (checkout / ".venv").exists()


def test_a_linked_environment_is_not_cleared(checkout: Path) -> None:
    outside = checkout / "outside"
    outside.mkdir()
    (outside / "mine").touch()
    (checkout / ".venv").symlink_to(outside)
    with _start(str(checkout / "run_fleet.py"), env=plain_environment()) as started:
        started.until("is a link: remove it")
        assert started.process.wait(45) == 1
    assert (outside / "mine").exists()
