"""`fleet workflow` and the forms of `fleet approvals`, as a person uses them, against a hub with the shipped rules."""

import asyncio
import http.server
import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytest_asyncio
import spoken
import yaml
from commands import FLEET, Done, Fleet
from flows import Flows, running_flows, step
from hubs import listening, rows, settle

from fleetkit.errors import NotFound
from master_mcp.cli import workflow_view
from master_mcp.cli.wire import Hub

pytestmark = pytest.mark.asyncio(loop_scope="module")

HANG = {**spoken.TOOL, "name": "os_odd_hang", "_meta": {"fleet/id": "os.odd.hang", "risk": "change"}}


class World:
    """A hub of this process, and the command beside it."""

    def __init__(self, flows: Flows, folder: Path) -> None:
        self.flows, self._folder = flows, folder
        self.command = Fleet(folder / "data", int(flows.hub.url.rpartition(":")[2]))

    async def fleet(self, *words: str | Path) -> Done:
        """One command, while the hub goes on answering."""
        return await asyncio.to_thread(self.command.run, *map(str, words))

    async def workflow(self, *words: str | Path) -> Done:
        """`fleet workflow ...`."""
        return await self.fleet("workflow", *words)

    def file(self, name: str, *steps: dict[str, Any], **keys: Any) -> Path:
        """A definition of these steps, in YAML."""
        path = self._folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"name": name, "steps": list(steps), **keys}), encoding="utf-8")
        return path

    async def begun(self, name: str, *steps: dict[str, Any], **keys: Any) -> str:
        """The id of a run of these steps that nobody waits for."""
        return (
            await self.flows.tool("executeWorkflow", definition={"name": name, "steps": list(steps), **keys}, wait_s=0)
        )["id"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    """One hub for all tests."""
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "data").mkdir()
    async with (
        listening(spoken.spoke_app(spoken.silent, [HANG])) as url,
        running_flows(folder / "data", policies={}, rows=rows(odd=url)) as flows,
    ):
        await settle(flows.hub, "odd")
        yield World(flows, folder)


def run_in(text: str) -> str:
    """The first id of a run in a text."""
    found = re.search(r"wf_[0-9a-f]{16}", text)
    assert found is not None, text
    return found[0]


WAITS = {"name": "word", "wait": {"signal": "go"}}

# --- running ----------------------------------------------------------------------------------------


async def test_a_run_of_a_file_is_shown_line_by_line_and_ends_with_its_outputs(world: World) -> None:
    file = world.file(
        "greet",
        step("see", params={"text": "${ .input.who }", "number": "${ .input.times }"}),
        step("each", forEach="${ [1, 2] }"),
        input={"who": {"type": "string"}, "times": {"type": "integer"}},
        outputs={"who": "${ .steps.see.text }", "times": "${ .steps.see.number }"},
    )
    done = await world.workflow("run", file, "who=22", "times=22")
    assert (done.code, done.err) == (0, "")
    said = [re.sub(r"^[\d:]{8} | \([\d.]+ s\)$", "", line) for line in done.lines]
    assert "see: completed" in said
    assert "each: completed, items: 2 completed" in said
    assert re.sub(r"wf_\w+", "ID", said[-3]) == "greet ID: completed"
    assert set(said[-2:]) == {"who: 22", "times: 22"}


async def test_inputs_come_from_a_file_and_words_win_each_of_its_type(world: World) -> None:
    file = world.file("typed", step("see"), input={"who": {"type": "string"}, "times": {"type": "integer"}})
    given = file.with_suffix(".json")
    given.write_text('{"who": "ada", "times": 1}', encoding="utf-8")
    done = await world.workflow("run", file, "times=3", "--inputs", given, "--json")
    assert (done.code, done.data["status"], done.data["inputs"]) == (0, "completed", {"who": "ada", "times": 3})
    given.write_text("[1]", encoding="utf-8")
    wrong = await world.workflow("run", file, "--inputs", given)
    assert (wrong.code, wrong.err) == (2, f"fleet: {given} must hold a JSON object: the inputs by name\n")


async def test_a_run_that_fails_says_where_and_how_to_go_on(world: World) -> None:
    file = world.file("stumble", step("see"), step("act", "trip", params={"text": "stumble", "code": "invalid"}))
    done = await world.workflow("run", file)
    run_id = run_in(done.out)
    assert (done.code, "act: failed, invalid: stumble tripped" in done.out) == (1, True)
    assert done.err.splitlines() == [
        f"fleet: run {run_id} failed at step act: stumble tripped",
        f"To run it on once that is mended: fleet workflow resume {run_id}",
    ]
    assert (await world.workflow("resume", run_id)).code == 0
    watched = await world.workflow("watch", run_id)
    assert (watched.code, "see: completed, kept from an earlier attempt" in watched.out) == (0, True)


async def test_a_step_is_done_again_as_a_run_of_its_own(world: World) -> None:
    run_id = await world.begun("again", step("one", "write"), step("two", "write"))
    await world.flows.standing(run_id, "completed")
    done = await world.workflow("retry", run_id, "--step", "two", "--fork", "--json")
    forked = await world.flows.standing(done.data["id"], "completed")
    assert forked["id"] != run_id
    assert [one.get("carried") for one in forked["results"]] == [True, False]
    assert world.flows.works.did("write one", "write two") == ["write one", "write two", "write two"]


async def test_the_same_key_is_the_same_run(world: World) -> None:
    file = world.file("once", step("see"))
    first = await world.workflow("run", file, "--key", "monday", "--json")
    again = await world.workflow("run", file, "--key", "monday", "--no-wait", "--json")
    assert first.data["id"] == again.data["id"]


async def test_a_change_that_needs_a_person_is_held_with_its_plan_and_runs_once_approved(world: World) -> None:
    file = world.file("burning", step("fire", "burn"))
    held = await world.workflow("run", file)
    found = re.search(r"fleet approvals approve (ap_\w+)", held.err)
    assert (held.code, "It would: run workflow burning" in held.err) == (1, True)
    assert found is not None
    assert (await world.fleet("approvals", "approve", found[1])).code == 0
    done = await world.workflow("run", file)
    assert (done.code, world.flows.works.did("burn fire")) == (0, ["burn fire"])


# --- looking and steering ---------------------------------------------------------------------------


async def test_a_run_that_waits_says_for_what_and_which_command_helps(world: World) -> None:
    run_id = await world.begun("patient", step("see"), WAITS, step("late"))
    await world.flows.waiting(run_id, "word")
    shown = await world.workflow("show", run_id)
    assert [line.split()[:2] for line in shown.lines[-3:]] == [
        ["see", "completed"],
        ["word", "waiting"],
        ["late", "pending"],
    ]
    assert f"waits for signal go: fleet workflow signal {run_id} go" in shown.out
    listed = await world.workflow("list", "--status", "waiting", "--name", "patient")
    assert [line.split()[:3] for line in listed.lines[1:]] == [[run_id, "patient", "waiting"]]
    sent = await world.workflow("signal", run_id, "go", '{"by": "ada"}')
    assert sent.err.splitlines()[0] == f"Sent go to run {run_id}."
    watched = await world.workflow("watch", run_id, "--json")
    word = next(one for one in watched.data["results"] if one["name"] == "word")
    assert (watched.code, watched.data["status"], word["result"]) == (0, "completed", {"by": "ada"})


async def test_waiting_ends_in_time_and_the_run_goes_on(world: World) -> None:
    file = world.file("long", step("see"), WAITS)
    done = await world.workflow("run", file, "--wait", "0.5")
    run_id = run_in(done.out + done.err)
    assert (done.code, done.err.splitlines()[-1]) == (1, f"To see how it goes: fleet workflow watch {run_id}")
    await world.flows.waiting(run_id, "word")
    ended = await world.workflow("cancel", run_id, "--reason", "enough")
    assert ended.err == f"long {run_id} is cancelled.\n"
    assert (await world.flows.get(run_id))["reason"] == "cancelled by admin: enough"


async def test_a_step_in_doubt_is_settled_by_a_person(world: World) -> None:
    hang = {"name": "act", "service": "odd", "tool": "hang", "params": {"text": "x"}, "timeout": "1s"}
    run_id = await world.begun("unsure", hang, outputs={"it": "${ .steps.act }"})
    await world.flows.standing(run_id, "in_doubt")
    shown = await world.workflow("show", run_id)
    assert f"fleet workflow resume {run_id} --step act --outcome done|repeat|failed" in shown.out
    told = await world.workflow("resume", run_id, "--step", "act", "--outcome", "done", "--result", "[7]")
    assert told.err.splitlines()[0] == f"Told run {run_id}: step act done."
    assert (await world.flows.standing(run_id, "completed"))["outputs"] == {"it": [7]}


async def test_a_form_is_shown_and_filled_in_with_values_of_its_types(world: World) -> None:
    form = {"until": {"type": "string", "description": "when it ends"}, "hosts": {"type": "integer", "default": 1}}
    ask = {"name": "ask", "approval": {"message": "When?", "form": form}}
    run_id = await world.begun("asking", ask, outputs={"said": "${ .steps.ask }"})
    approval = (await world.flows.waiting(run_id, "ask"))["approval_id"]
    shown = await world.fleet("approvals", "show", approval)
    assert [line.split()[:3] for line in shown.lines[-2:]] == [
        ["until", "string", "required"],
        ["hosts", "integer", "1"],
    ]
    assert f"To approve it: fleet approvals approve {approval} --value until=..." in shown.err
    lacking = await world.fleet("approvals", "approve", approval)
    assert (lacking.code, "has a form (until, hosts)" in lacking.err) == (2, True)
    done = await world.fleet("approvals", "approve", approval, "--value", "until=22", "--value", "hosts=3")
    assert done.code == 0, done.err
    assert (await world.flows.standing(run_id, "completed"))["outputs"] == {"said": {"until": "22", "hosts": 3}}


async def test_a_key_sees_its_own_runs_and_lists_say_when_there_is_none(world: World) -> None:
    run_id = await world.begun("hidden", step("see"))
    client = world.command.data_dir / "client.key"
    none = await world.workflow("list", "--key-file", client)
    assert (none.code, none.out, none.err) == (0, "", "No run.\n")
    unseen = await world.workflow("watch", run_id, "--key-file", client)
    assert (unseen.code, f"no run '{run_id}'" in unseen.err) == (1, True)


# --- definitions ------------------------------------------------------------------------------------


async def test_a_definition_is_checked_saved_listed_written_out_run_and_removed(world: World) -> None:
    file = world.file(
        "kept", step("see"), step("more"), description="Look twice.", input={"a": {}, "b": {"default": 1}}
    )
    good = await world.workflow("validate", file)
    assert (good.code, re.sub(r"[0-9a-f]{64}", "HASH", good.out)) == (
        0,
        "kept is good: version HASH, inputs: a, [b].\n",
    )
    assert (await world.workflow("save", file)).err.endswith("To run it: fleet workflow run kept\n")
    listed = await world.workflow("definitions", "twice")
    assert [line.split() for line in listed.lines[1:]] == [["kept", "saved", "admin", "Look", "twice."]]
    written = await world.workflow("definition", "kept")
    assert yaml.safe_load(written.out) == yaml.safe_load(file.read_text(encoding="utf-8"))
    assert (await world.workflow("run", "kept", "a=1", "--json")).data["inputs"] == {"a": 1, "b": 1}
    assert (await world.workflow("remove", "kept")).err == "Removed kept.\n"
    gone = await world.workflow("run", "kept")
    assert (gone.code, "no workflow 'kept'" in gone.err) == (1, True)


async def test_mistakes_are_named_with_their_step(world: World) -> None:
    done = await world.workflow(
        "validate", world.file("bad", step("see", params={"txt": 1}), step("more", when="${ .steps.x }"))
    )
    assert done.code == 2
    assert "step 'see': lab.works.look: no argument 'txt'" in done.err
    assert "step 'more': when: ${ .steps.x }: step 'x' does not exist" in done.err
    missing = await world.workflow("validate", "nowhere.yaml")
    assert (missing.code, missing.err) == (1, "fleet: no file nowhere.yaml\n")


async def test_a_graph_is_drawn_of_a_file_and_of_a_run_with_its_colours(world: World) -> None:
    file = world.file("drawn", step("see"), WAITS)
    drawn = await world.workflow("graph", file)
    assert drawn.lines[0] == "flowchart TD"
    assert "see --> word" in drawn.lines
    run_id = await world.begun("drawn", step("see"), WAITS)
    await world.flows.waiting(run_id, "word")
    coloured = await world.workflow("graph", run_id)
    assert {line.split()[1] for line in coloured.lines if line.startswith("style")} == {"see", "word"}


# --- at a terminal ----------------------------------------------------------------------------------


@contextmanager
def at_a_terminal(command: Fleet, *words: str) -> Generator[tuple[subprocess.Popen[bytes], int]]:
    """A command on a terminal of its own, and the end of it that a person sees."""
    seen, own = pty.openpty()
    env = {
        name: value for name, value in command.env(TERM="xterm-256color", COLUMNS="150").items() if name != "NO_COLOR"
    }
    process = subprocess.Popen([FLEET, *words], stdin=own, stdout=own, stderr=own, env=env, start_new_session=True)
    os.close(own)
    try:
        yield process, seen
    finally:
        process.kill()
        process.wait()
        os.close(seen)


def read_until(seen: int, *texts: str) -> str:
    """What appears on a terminal until all of that has."""
    shown = ""
    while any(text not in shown for text in texts):
        shown += os.read(seen, 4096).decode()
    return shown


async def test_at_a_terminal_a_table_moves_and_ctrl_c_leaves_the_run_going(world: World) -> None:
    file = world.file("live", step("see"), WAITS, step("late"))
    with at_a_terminal(world.command, "workflow", "run", str(file)) as (process, seen):
        shown = await asyncio.to_thread(read_until, seen, "waits for signal go", "pending")
        process.send_signal(signal.SIGINT)
        said = await asyncio.to_thread(read_until, seen, "fleet workflow watch")
        assert await asyncio.to_thread(process.wait) == 130
    run_id = run_in(shown)
    assert "\x1b[32mcompleted\x1b[0m" in shown
    assert f"{run_id} goes on. To see how: fleet workflow watch" in said
    assert (await world.flows.get(run_id))["status"] == "waiting"


# --- a hub that goes away ---------------------------------------------------------------------------


class _Breaking(http.server.BaseHTTPRequestHandler):
    """Sends each of `answers` as the events of one connection, and breaks it off."""

    answers: ClassVar[list[list[Mapping[str, Any]]]]

    def do_GET(self) -> None:
        """Answer as written in the script."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for run in self.answers.pop(0):
            self.wfile.write(b": ping\n\nevent: run\ndata: %b\n\n" % json.dumps(run).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def breaking(*answers: list[Mapping[str, Any]]) -> Generator[Hub]:
    """A hub that breaks off after each of these."""
    handler = type("Handler", (_Breaking,), {"answers": list(answers)})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Hub(f"http://127.0.0.1:{server.server_port}", "key")
        server.shutdown()
        thread.join()


async def test_watching_goes_on_when_the_hub_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_view, "AWAY_S", 0.01)
    with breaking([{"status": "running"}], [], [{"status": "running"}, {"status": "completed"}]) as hub:
        seen = await asyncio.to_thread(lambda: list(workflow_view.watched(hub, "wf_1", None)))
    assert [one["status"] for one in seen] == ["running", "running", "completed"]


async def test_a_run_that_is_not_there_is_not_waited_for(world: World) -> None:
    hub = Hub(world.flows.hub.url, world.flows.hub.admin)
    with pytest.raises(NotFound, match="no run 'wf_none'"):
        await asyncio.to_thread(lambda: list(workflow_view.watched(hub, "wf_none", None)))
