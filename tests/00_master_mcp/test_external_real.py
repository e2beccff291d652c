"""Servers that others wrote, in the sandbox, behind the hub: files, memory, everything, time, git."""

import json
import os
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from foreign import approve, gate, put_rows
from hubs import RunningHub, ask, call, running_hub, text_of
from real_servers import MODULES, NODE, VENV, needs_npm, needs_pypi, npm, pypi
from support import need

pytestmark = [need("bwrap", "bubblewrap"), pytest.mark.timeout(180)]

CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"


@pytest.fixture
def folder() -> Generator[Path]:
    """A folder outside /tmp."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="fleet-") as name:
        yield Path(os.path.realpath(name))


def node_row(name: str, *words: str, **box: Any) -> dict[str, Any]:
    """A row for one of the npm packages."""
    box["read"] = [str(MODULES), *box.get("read", [])]
    return {"transport": "stdio", "command": [NODE, str(npm(name)), *words], "sandbox": box}


def python_row(name: str, *words: str, **box: Any) -> dict[str, Any]:
    """A row for one of the Python packages."""
    box["read"] = [str(VENV), *box.get("read", [])]
    return {"transport": "stdio", "command": [str(pypi(name)), *words], "sandbox": box}


async def done(hub: RunningHub, tool: str, **arguments: Any) -> dict[str, Any]:
    """The result of a call that works, made by the operator."""
    result = await call(hub, tool, arguments, key=hub.admin)
    assert not result.get("isError"), result
    return dict(result)


@needs_npm
async def test_the_filesystem_server_reads_and_writes_its_folder_and_nothing_else(folder: Path) -> None:
    (folder / "shared").mkdir()
    (folder / "shared" / "a.txt").write_text("hello")
    (folder / "b.txt").write_text("hidden")
    shared = str(folder / "shared")
    put_rows(folder / "data", files=node_row("filesystem", shared, write=[shared]))
    async with running_hub(folder / "data") as hub:
        await approve(hub, "files")
        assert "hello" in text_of(await done(hub, "files_readTextFile", path=f"{shared}/a.txt"))
        await done(hub, "files.write_file", path=f"{shared}/new.txt", content="written")
        assert (folder / "shared" / "new.txt").read_text() == "written"
        assert (await call(hub, "files_readTextFile", {"path": f"{folder}/b.txt"}, key=hub.admin))["isError"]
        refused = await call(hub, "files_writeFile", {"path": f"{shared}/x", "content": "x"}, key=hub.client)
        assert refused["structuredContent"]["code"] == "needs_approval"
        assert not (folder / "shared" / "x").exists()


@needs_npm
async def test_the_memory_server_remembers_in_its_own_folder_across_hubs(folder: Path) -> None:
    row = node_row("memory") | {"env": {"MEMORY_FILE_PATH": "/tmp/home/memory.jsonl"}}
    put_rows(folder / "data", memory=row)
    entity = {"name": "fleet", "entityType": "thing", "observations": ["it remembers"]}
    async with running_hub(folder / "data") as hub:
        await approve(hub, "memory")
        await done(hub, "memory_createEntities", entities=[entity])
    async with running_hub(folder / "data") as hub:
        found = await done(hub, "memory_readGraph")
        assert "it remembers" in json.dumps(found)
    assert (folder / "data" / "external" / "memory" / "memory.jsonl").exists()


@needs_npm
async def test_the_everything_server_is_asked_answers_and_asks_back(folder: Path) -> None:
    put_rows(folder / "data", every=node_row("everything"))
    async with running_hub(folder / "data") as hub:
        await approve(hub, "every")
        assert gate(hub, "every").held == {}
        assert "hi" in text_of(await done(hub, "every_echo", message="hi"))
        environment = json.loads(text_of(await done(hub, "every_getEnv")))
        assert set(environment) <= {"PATH", "HOME", "LANG", "TMPDIR", "PWD", "LC_CTYPE"}
        params: dict[str, Any] = {
            "name": "every_triggerElicitationRequest",
            "_meta": {CAPABILITIES: {"elicitation": {}}},
        }
        _, asked = await ask(hub, "tools/call", params, key=hub.admin)
        assert asked["result"]["inputRequests"]["question"]["method"] == "elicitation/create"
        state = asked["result"]["requestState"]
        again = {**params, "requestState": state, "inputResponses": {"question": {"action": "decline"}}}
        _, answered = await ask(hub, "tools/call", again, key=hub.admin)
        assert "declined" in json.dumps(answered["result"])


@needs_pypi
async def test_the_time_and_git_servers_answer(folder: Path) -> None:
    repository = folder / "repository"
    repository.mkdir()
    git = ["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=n@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "the first one"], check=True)
    row = python_row("git", "--repository", str(repository), read=[str(repository)])
    put_rows(folder / "data", time=python_row("time"), git=row)
    async with running_hub(folder / "data") as hub:
        await approve(hub, "time", "git")
        assert "UTC" in text_of(await done(hub, "time_getCurrentTime", timezone="UTC"))
        assert "the first one" in text_of(await done(hub, "git_gitLog", repo_path=str(repository)))
