"""No process of an external server outlives the hub, and none sees what its sandbox hides."""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import processes
import pytest
from foreign import PROGRAM, TRIES, Script, alive, approve, look, put_rows, told
from hubs import running_hub
from support import need

from fleetkit.errors import FleetError, Invalid, Refused
from fleetkit.external import ExternalRow, Sandbox
from master_mcp.external import sandbox
from master_mcp.external.process import Launcher

SANDBOXES = [
    pytest.param({"sandbox": "none"}, id="none"),
    pytest.param({}, id="bubblewrap", marks=need("bwrap", "bubblewrap")),
]
bubblewrap = need("bwrap", "bubblewrap")


@pytest.fixture
def folder() -> Generator[Path]:
    """A folder that a sandbox shows when told to: not below /tmp, of which a process has its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="fleet-") as name:
        yield Path(os.path.realpath(name))


def boxed(script: Script, **box: Any) -> dict[str, Any]:
    """A row in a sandbox in which the script's folder can be written."""
    command = [os.path.realpath(sys.executable), str(PROGRAM), str(script.path)]
    return {"transport": "stdio", "command": command, "sandbox": {"write": [str(script.path.parent)], **box}}


def ended(pids: list[int]) -> bool:
    """Whether all of them are gone, soon."""
    for _ in range(TRIES):
        if not any(map(alive, pids)):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("row", SANDBOXES)
def test_no_process_is_left_when_the_hub_is_killed(folder: Path, row: dict[str, Any]) -> None:
    script = Script(folder / "scripts", tools=[])
    put_rows(folder / "data", odd={**boxed(script), **row})
    hub = processes.Hub(folder / "data", {}, {})
    hub.process.until(lambda line: line["event"] == "external.process.started")
    hub.process.until(lambda line: line["event"] == "external.server.unapproved")
    started = int(hub.process.until(lambda line: line["event"] == "external.process.started")["pid"])
    children = [started, *descendants(started)]
    assert len(children) >= 2
    hub.process.kill()
    assert ended(children)


def descendants(pid: int) -> list[int]:
    """Every process below `pid`."""
    parents = {int(path.name): parent_of(path) for path in Path("/proc").glob("[0-9]*")}
    found: list[int] = []
    wanted = [pid]
    while wanted:
        children = [child for child, parent in parents.items() if parent == wanted[0]]
        found += children
        wanted = [*wanted[1:], *children]
    return found


def parent_of(path: Path) -> int:
    try:
        return int((path / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


async def test_no_process_is_left_after_fifty_restarts_of_a_program_that_hides_its_children(tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    shell = f"setsid sleep 600 & echo $! >>{noted}; echo $$ >>{noted}; exec sleep 600"
    row = ExternalRow.model_validate({"transport": "stdio", "command": ["/bin/sh", "-c", shell], "sandbox": "none"})
    launcher = Launcher("odd", row, tmp_path, 1000)

    async def unheard(_message: dict[str, Any]) -> None:
        """It says nothing."""

    def unfailing(_request: object, _error: FleetError) -> None:
        """Nobody asked it anything."""

    for _ in range(5):
        wires = await asyncio.gather(*(launcher.start({}, unheard, unfailing) for _ in range(10)))
        await asyncio.gather(*(wire.close() for wire in wires))
    pids = [int(line) for line in noted.read_text().split()]
    assert len(pids) >= 50
    assert not any(map(alive, pids))
    launcher.close()


async def test_a_restart_leaves_neither_the_program_nor_what_it_bred(tmp_path: Path) -> None:
    script = Script(tmp_path / "scripts")
    put_rows(tmp_path / "data", odd=script.row())
    async with running_hub(tmp_path / "data") as hub:
        await approve(hub, "odd")
        bred = await told(hub, "odd_breed")
        await hub.hub.servers.reload("odd")
        await look(hub, "odd")
        assert [alive(pid) for pid in (*script.pids, bred)] == [False, True, False]
    assert not any(map(alive, script.pids))


@bubblewrap
async def test_a_sandboxed_process_sees_a_system_to_read_its_own_folder_and_no_secret(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folder / "home"
    for place in (".ssh/id_ed25519", "notes.txt", "tools/x"):
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).write_text("planted")
    monkeypatch.setenv("HOME", str(home))
    script = Script(folder / "scripts")
    data = folder / "data"
    put_rows(data, odd=boxed(script, read=[str(home / "tools"), str(home / ".ssh")]))
    async with running_hub(data) as hub:
        await approve(hub, "odd")
        places = ["/etc/hostname", str(PROGRAM), str(home / "notes.txt"), str(home / ".ssh/id_ed25519")]
        places += [str(home / "tools/x"), str(data / "admin.key"), str(data / "keys"), "/run", "/tmp/home"]
        seen = await told(hub, "odd_reach", paths=[*places, f"/proc/{os.getpid()}"])
        assert [path for path in places if seen[path]] == [
            "/etc/hostname",
            str(PROGRAM),
            str(home / "tools/x"),
            "/run",
            "/tmp/home",
        ]
        environment = await told(hub, "odd_environment")
        assert (environment["HOME"], environment["TMPDIR"]) == ("/tmp/home", "/tmp")


@bubblewrap
@pytest.mark.parametrize("network", [False, True])
async def test_a_sandboxed_process_has_a_network_only_where_its_row_says_so(folder: Path, network: bool) -> None:
    script = Script(folder / "scripts")
    put_rows(folder / "data", odd=boxed(script, network=network))
    async with running_hub(folder / "data") as hub:
        await approve(hub, "odd")
        seen = await told(hub, "odd_interfaces")
        outside = [line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]]
        assert (sorted(seen) == sorted(outside)) is network
        assert network or seen == ["lo"]


@bubblewrap
async def test_a_secret_of_the_environment_is_in_no_command_line(folder: Path) -> None:
    secret = folder / "data" / "secrets" / "external" / "odd"
    secret.parent.mkdir(parents=True)
    secret.write_text("hunter2-of-odd\n")
    secret.chmod(0o600)
    script = Script(folder / "scripts")
    put_rows(folder / "data", odd={**boxed(script), "env": {"API_TOKEN": "secret://files/external/odd"}})
    async with running_hub(folder / "data", {"secrets": {}}) as hub:
        await approve(hub, "odd")
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
        assert any(str(script.path).encode() in line for line in lines)
        assert not any(b"hunter2-of-odd" in line for line in lines)
        assert (await told(hub, "odd_environment"))["API_TOKEN"] == "[secret]"


async def test_without_a_sandbox_a_server_is_refused_unless_its_row_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "SYSTEM_PATH", str(tmp_path))
    script = Script(tmp_path / "scripts")
    put_rows(tmp_path / "data", odd=boxed(script), bare=script.row())
    async with running_hub(tmp_path / "data") as hub:
        await approve(hub, "bare")
        assert (await told(hub, "bare_look"))["calls"] == 1
        watcher = hub.hub.fleet.members["odd"].watcher
        assert watcher is not None
        await watcher.look()
        assert "apt install bubblewrap" in watcher.health.reason


async def test_a_sandbox_that_does_not_work_here_says_so(tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho no namespaces >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(Refused, match="no namespaces"):
        await sandbox.check(str(broken))


def words(tmp_path: Path, **row: Any) -> list[str]:
    """The arguments for a row."""
    return sandbox.words(Sandbox.model_validate(row), Path("/bin/true"), None, tmp_path / "data", tmp_path / "own")


@pytest.mark.parametrize("inside", ["keys", "secrets/external", "hub.db"])
def test_no_row_can_show_the_data_directory(tmp_path: Path, inside: str) -> None:
    path = tmp_path / "data" / inside
    path.mkdir(parents=True)
    with pytest.raises(Refused, match="lies in the data directory"):
        words(tmp_path, read=[str(path)])
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(Refused, match="lies in the data directory"):
        words(tmp_path, write=[str(link)])


def test_the_workspace_can_be_given_and_comes_after_what_hides_it(tmp_path: Path) -> None:
    workspace = tmp_path / "data" / "workspace"
    workspace.mkdir(parents=True)
    made = words(tmp_path, write=[str(workspace)])
    assert made.index(str(tmp_path / "data")) < made.index(str(workspace))


def test_a_path_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        words(tmp_path, read=[str(tmp_path / "nowhere")])


def test_a_program_of_the_home_directory_is_shown_with_what_was_installed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    for name, first in (("node/bin/tool", "#!/usr/bin/env python3\n"), (".local/bin/own", "#!/bin/sh -e\n")):
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text(first)
    shown = [
        sandbox.words(Sandbox(), home / name, None, tmp_path / "data", tmp_path)
        for name in ("node/bin/tool", ".local/bin/own")
    ]
    assert str(home / "node") in shown[0]
    assert str(home / ".local/bin/own") in shown[1]
    assert str(home / ".local") not in shown[1]
