"""Running commands through the tools: results, limits, approval, time and cancellation."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from boxes import SANDBOXES, Box, box
from hubs import ask, running_hub

from fleetkit import Invalid, NeedsApproval, NotFound, Risk, TimedOut, trust
from fleetkit.testing import SpokeClient, running
from linux_cli_mcp import spoke

# Holds `fifo` open from a session of its own, a child and a grandchild, and says so: whoever reads the fifo to its
# end knows that all of them are gone.
TREE = """
exec 9>fifo
setsid bash -c '(exec -a grandchild sleep 900) & exec sleep 900' &
(trap "" TERM INT HUP; while :; do sleep 900; done) &
echo up >&9
sleep 900
"""


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[SpokeClient]:
    async with running(spoke, tmp_path, "os.linux", max_output_bytes=1024) as found:
        yield found


@pytest.fixture(params=SANDBOXES)
async def linux(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Box]:
    async with box(monkeypatch, request.param) as found:
        os.mkfifo(found.workspace / "fifo")
        yield found


async def hear(fifo: Path) -> asyncio.StreamReader:
    """The reading end of `fifo` once somebody has said `up` in it."""
    file = await asyncio.to_thread(fifo.open, "rb", 0)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    assert await reader.readline() == b"up\n"
    return reader


# Results


async def test_a_list_runs_without_a_shell(client: SpokeClient) -> None:
    done = await client.call("runCommand", command=["printf", "%s|", "a b", "$(id)", ";", "*"])
    assert (done["stdout"], done["stderr"], done["exit_code"]) == ("a b|$(id)|;|*|", "", 0)
    assert (done["risk"], done["truncated"], done["bytes_total"], done["output_id"]) == ("read", False, 14, None)


async def test_a_line_runs_in_a_shell(client: SpokeClient) -> None:
    done = await client.call("runCommand", command="echo a | tr a b; echo c >&2; exit 3")
    assert (done["stdout"], done["stderr"], done["exit_code"]) == ("b\n", "c\n", 3)


async def test_a_signal_is_the_exit_code_of_shells(client: SpokeClient) -> None:
    done = await client.call("runCommand", command="kill -SEGV $$")
    assert done["exit_code"] == 128 + signal.SIGSEGV


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_an_exit_code_passes_every_sandbox(sandbox: tuple[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    async with box(monkeypatch, sandbox) as linux:
        codes = [(await linux.run(line))["exit_code"] for line in ("exit 7", "kill -KILL $$", "true", "none-such 2>a")]
    assert codes == [7, 128 + signal.SIGKILL, 0, 127]


async def test_it_runs_in_the_workspace_or_where_it_is_told(client: SpokeClient, tmp_path: Path) -> None:
    (tmp_path / "workspace" / "sub").mkdir()
    places = [await client.call("runCommand", command=["pwd"], cwd=cwd) for cwd in (None, "sub", "/usr")]
    assert [place["stdout"].strip() for place in places] == [
        str(tmp_path / "workspace"),
        str(tmp_path / "workspace" / "sub"),
        "/usr",
    ]


async def test_it_gets_the_environment_and_the_input_it_is_given(client: SpokeClient) -> None:
    done = await client.call(
        "runCommand", command='cat; echo "$greeting"', env={"greeting": "hello $HOME"}, stdin="ünïcode\n" * 20_000
    )
    assert done["bytes_total"] == len("ünïcode\n".encode()) * 20_000 + len("hello $HOME\n")


async def test_input_that_nobody_reads_does_no_harm(client: SpokeClient) -> None:
    done = await client.call("runCommand", command=["true"], stdin="x" * 1_000_000)
    assert done["exit_code"] == 0


async def test_output_that_is_no_text_is_replaced(client: SpokeClient) -> None:
    done = await client.call("runCommand", command=r"printf 'a\377b\0c'")
    assert done["stdout"] == "a\ufffdbc"


async def test_long_output_is_cut_in_its_middle_and_kept_whole(client: SpokeClient) -> None:
    done = await client.call("runCommand", command="seq 1 2000; echo problem >&2")
    whole = "".join(f"{number}\n" for number in range(1, 2001))
    assert done["truncated"]
    assert done["stdout"].startswith("1\n2\n3\n")
    assert done["stdout"].endswith("1999\n2000\n")
    assert f"getJobOutput(job_id='{done['output_id']}', offset=512)" in done["stdout"]
    assert (done["stderr"], done["bytes_total"]) == ("problem\n", len(whole) + len("problem\n"))
    text, offset, complete = "", 0, False
    while not complete:
        page = await client.call("getJobOutput", job_id=done["output_id"], offset=offset, limit=1000)
        text, offset, complete = text + page["text"], page["next_offset"], page["complete"]
    assert text == whole


async def test_a_short_result_leaves_nothing_behind(client: SpokeClient, tmp_path: Path) -> None:
    await client.call("runCommand", command=["true"])
    assert list((tmp_path / "jobs").iterdir()) == []
    assert await client.call("listJobs") == []


async def test_a_cut_never_splits_a_character(client: SpokeClient) -> None:
    done = await client.call("runCommand", command=[*("printf", "%.0sa€"), *map(str, range(900))])
    assert "\ufffd" not in done["stdout"].partition("\n[...")[0]


# What is refused before anything runs


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ({"command": ""}, Invalid, "empty"),
        ({"command": []}, Invalid, "empty"),
        ({"command": ["ls", "a\0b"]}, Invalid, "null byte"),
        ({"command": "ls \0"}, Invalid, "null byte"),
        ({"command": ["no-such-program"]}, NotFound, "no-such-program"),
        ({"command": ["ls"], "cwd": "nowhere"}, NotFound, "no directory"),
        ({"command": ["ls"], "env": {"a=b": "c"}}, Invalid, "variable name"),
        ({"command": ["ls"], "env": {"a": "\0"}}, Invalid, "null byte"),
        ({"command": ["ls"], "timeout": 0}, Invalid, "timeout"),
        ({"command": ["ls"], "shell": True}, Invalid, "shell"),
    ],
)
async def test_a_wrong_call_says_what_is_wrong(
    client: SpokeClient, arguments: dict[str, object], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        await client.call("runCommand", arguments)


@pytest.mark.parametrize(
    ("allow", "command", "needs"),
    [
        (Risk.read, "touch a", "change"),
        (Risk.read, ["touch", "a"], "change"),
        (Risk.change, "rm -f a", "destroy"),
        (Risk.change, "some-unknown-program", "unknown"),
    ],
)
@pytest.mark.parametrize("tool", ["runCommand", "startJob"])
async def test_above_its_allowance_a_caller_gets_the_plan_and_nothing_runs(
    client: SpokeClient, tmp_path: Path, tool: str, allow: Risk, command: list[str] | str, needs: str
) -> None:
    with pytest.raises(NeedsApproval) as held:
        await client.call(tool, command=command, allow=allow)
    assert held.value.plan is not None
    assert f"- {needs}: " in held.value.plan
    assert list((tmp_path / "workspace").iterdir()) == []
    assert list((tmp_path / "jobs").iterdir()) == []


async def test_within_its_allowance_a_caller_needs_nobody(client: SpokeClient) -> None:
    assert (await client.call("runCommand", command="ls | wc -l", allow=Risk.read))["stdout"] == "0\n"
    assert (await client.call("runCommand", command="touch a", allow=Risk.change))["risk"] == "change"


async def test_the_environment_is_part_of_the_risk(client: SpokeClient) -> None:
    with pytest.raises(NeedsApproval):
        await client.call("runCommand", command=["ls"], env={"PATH": "."}, allow=Risk.change)


async def test_explaining_runs_nothing(client: SpokeClient, tmp_path: Path) -> None:
    found = await client.call("explainCommand", command="touch a; rm -rf b", allow=Risk.read)
    assert found["risk"] == "destroy"
    assert [step["label"] for step in found["steps"]] == ["change", "destroy"]
    assert "- destroy: rm -rf b" in found["plan"]
    assert list((tmp_path / "workspace").iterdir()) == []


def test_the_original_s_name_is_accepted() -> None:
    assert spoke.tools["run_command"].aliases == ("os.linux.cli.runCommand",)


# The end of everything that a command started


async def test_a_timeout_ends_the_whole_tree_and_keeps_what_was_written(linux: Box) -> None:
    heard = asyncio.create_task(hear(linux.workspace / "fifo"))
    with pytest.raises(TimedOut, match="startJob") as late:
        await linux.run(f"echo so far\n{TREE}", timeout=3)
    assert await (await heard).read() == b""
    job = late.value.message.partition("job_id='")[2].partition("'")[0]
    page = await linux.client.call("getJobOutput", job_id=job)
    assert (page["text"], page["job"]["status"], page["complete"]) == ("so far\n", "timed_out", True)


async def test_a_command_that_ends_leaves_nothing_running(linux: Box) -> None:
    heard = asyncio.create_task(hear(linux.workspace / "fifo"))
    done = await linux.run("exec 9>fifo; setsid sleep 900 & setsid sleep 900 & echo up >&9; echo done")
    assert (done["stdout"], done["exit_code"]) == ("done\n", 0)
    assert await (await heard).read() == b""


async def test_a_cancelled_call_ends_the_whole_tree(linux: Box) -> None:
    call = asyncio.create_task(linux.run(TREE, timeout=900))
    heard = await hear(linux.workspace / "fifo")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await heard.read() == b""
    while (job := (await linux.client.call("listJobs"))[0])["status"] == "running":
        pass
    assert job["status"] == "cancelled"


async def test_a_client_that_disconnects_ends_the_whole_tree(tmp_path: Path) -> None:
    os.mkfifo(trust.private_dir(tmp_path / "workspace") / "fifo")
    async with running_hub(tmp_path, {"linux_cli": {}}) as hub:
        call = {"name": "os_linux_runCommand", "arguments": {"command": TREE, "timeout": 900}}
        request = asyncio.create_task(ask(hub, "tools/call", call, key=hub.admin))
        heard = await hear(tmp_path / "workspace" / "fifo")
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert await heard.read() == b""


HUB = """
import asyncio, sys
from pathlib import Path
from fleetkit.testing import running
from linux_cli_mcp import spoke
async def main():
    async with running(spoke, Path(sys.argv[1]), "os.linux", sandbox=sys.argv[2]) as client:
        await client.call(sys.argv[3], command=sys.argv[4], timeout=900)
        print("started", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("sandbox", SANDBOXES[:2])
async def test_a_killed_hub_takes_its_commands_with_it(sandbox: tuple[str, bool], tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    os.mkfifo(workspace / "fifo")
    hub = subprocess.Popen([sys.executable, "-c", HUB, str(tmp_path), sandbox[0], "runCommand", TREE])
    heard = await hear(workspace / "fifo")
    hub.kill()
    hub.wait()
    assert await heard.read() == b""


# Jobs


async def test_a_job_runs_on_while_its_output_is_read(linux: Box) -> None:
    os.mkfifo(linux.workspace / "go")
    job = await linux.client.call("startJob", command="echo one; echo oops >&2; read -r x < go; echo two; exit 4")
    assert (job["status"], job["risk"], job["command"].split(";")[0]) == ("running", "read", "echo one")
    page = await linux.client.call("getJobOutput", job_id=job["job_id"])
    while not page["text"]:
        page = await linux.client.call("getJobOutput", job_id=job["job_id"])
    assert (page["text"], page["next_offset"], page["complete"]) == ("one\n", 4, False)
    await asyncio.to_thread((linux.workspace / "go").write_text, "\n")
    while not (page := await linux.client.call("getJobOutput", job_id=job["job_id"], offset=4))["complete"]:
        pass
    errors = await linux.client.call("getJobOutput", job_id=job["job_id"], stream="stderr")
    assert (page["text"], errors["text"]) == ("two\n", "oops\n")
    ended = page["job"]
    assert (ended["status"], ended["exit_code"], ended["stdout_bytes"], ended["stderr_bytes"]) == ("finished", 4, 8, 5)
    assert ended["ended_at"] >= ended["started_at"]


async def test_cancelling_a_job_ends_the_whole_tree(linux: Box) -> None:
    job = await linux.client.call("startJob", command=TREE)
    heard = await hear(linux.workspace / "fifo")
    ended = await linux.client.call("cancelJob", job_id=job["job_id"])
    assert await heard.read() == b""
    assert (ended["status"], ended["exit_code"]) == ("cancelled", None)
    again = await linux.client.call("cancelJob", job_id=job["job_id"])
    assert again == ended


async def test_a_job_ends_at_its_timeout(linux: Box) -> None:
    job = await linux.client.call("startJob", command=TREE, timeout=3)
    assert await (await hear(linux.workspace / "fifo")).read() == b""
    while (found := await linux.client.call("getJobOutput", job_id=job["job_id"]))["job"]["status"] == "running":
        pass
    assert found["job"]["status"] == "timed_out"


async def test_jobs_are_listed_newest_first(client: SpokeClient) -> None:
    started = [await client.call("startJob", command=["echo", str(number)]) for number in range(3)]
    listed = await client.call("listJobs")
    assert [job["job_id"] for job in listed] == [job["job_id"] for job in reversed(started)]
    assert [job["command"] for job in listed] == ["echo 2", "echo 1", "echo 0"]


async def test_a_job_outlives_the_hub_and_can_be_cancelled_by_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    os.mkfifo(tmp_path / "workspace" / "fifo")
    hub = subprocess.Popen(
        [sys.executable, "-c", HUB, str(tmp_path), "auto", "startJob", TREE], stdout=subprocess.PIPE, text=True
    )
    assert hub.stdout is not None
    assert hub.stdout.readline() == "started\n"
    heard = await hear(tmp_path / "workspace" / "fifo")
    hub.kill()
    hub.wait()
    hub.stdout.close()
    async with running(spoke, tmp_path, "os.linux") as client:
        [job] = await client.call("listJobs")
        assert job["status"] == "running"
        assert (await client.call("cancelJob", job_id=job["job_id"]))["status"] == "cancelled"
    assert await heard.read() == b""


async def test_a_job_whose_process_was_killed_is_lost(client: SpokeClient, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "workspace" / "fifo")
    job = await client.call("startJob", command=f"echo before\n{TREE}")
    heard = await hear(tmp_path / "workspace" / "fifo")
    runner = int((tmp_path / "jobs" / job["job_id"] / "pid.json").read_text())
    os.kill(runner, signal.SIGKILL)
    assert await heard.read() == b""
    [found] = await client.call("listJobs")
    assert (found["status"], found["exit_code"], found["ended_at"]) == ("lost", None, None)
    page = await client.call("getJobOutput", job_id=job["job_id"])
    assert (page["text"], page["complete"]) == ("before\n", True)
    assert (await client.call("cancelJob", job_id=job["job_id"]))["status"] == "lost"


@pytest.mark.parametrize("job_id", ["job-000000000000", "../workspace", "", "/etc", "."])
@pytest.mark.parametrize("tool", ["getJobOutput", "cancelJob"])
async def test_an_unknown_job_is_not_found(client: SpokeClient, tool: str, job_id: str) -> None:
    with pytest.raises(NotFound, match="listJobs"):
        await client.call(tool, job_id=job_id)


async def test_what_a_job_was_asked_is_private(client: SpokeClient, tmp_path: Path) -> None:
    job = await client.call("startJob", command=["echo", "secret"], env={"token": "not-written-down"})
    folder = tmp_path / "jobs" / job["job_id"]
    while (await client.call("getJobOutput", job_id=job["job_id"]))["job"]["status"] == "running":
        pass
    assert [oct(path.stat().st_mode & 0o077) for path in [folder, *folder.iterdir()]] == ["0o0"] * 7
    assert not [path for path in folder.iterdir() if "not-written-down" in path.read_text()]
