"""`fleet status | tools | describe | call` against a hub in a process of its own."""

import asyncio
from collections.abc import Generator
from pathlib import Path

import processes
import pytest
from commands import Fleet
from hubs import OWN, running_hub
from support import free_port


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """A running hub with two spokes."""
    data_dir: Path = tmp_path_factory.mktemp("fleet")
    with processes.hub(data_dir, {"linux_cli": {}, "cmdb": {}}) as hub:
        yield Fleet(data_dir, hub.port)


def test_status_shows_every_service_with_its_health(fleet: Fleet) -> None:
    done = fleet.run("status")
    assert done.code == 0
    assert [line.split()[:3] for line in done.lines[1:6]] == [
        *([name, name, "healthy"] for name in OWN),
        ["linux_cli", "os.linux", "healthy"],
        ["cmdb", "cmdb", "healthy"],
    ]


def test_status_as_json_is_what_the_hub_says(fleet: Fleet) -> None:
    found = fleet.run("status", "--json").data
    assert [(s["name"], s["breaker"]) for s in found["services"]] == [
        *((name, "closed") for name in OWN),
        ("linux_cli", "closed"),
        ("cmdb", "closed"),
    ]


async def test_status_fails_when_a_service_is_down_and_says_why(tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    async with running_hub(tmp_path, {"cmdb": {"url": dead}}) as hub:
        fleet = Fleet(tmp_path, int(hub.url.rpartition(":")[2]))
        done = await asyncio.to_thread(fleet.run, "status")
    assert done.code == 1
    assert "cmdb" in done.out
    assert "cannot be reached" in done.out


@pytest.mark.parametrize("command", [("status",), ("tools",), ("describe", "x"), ("call", "x")])
def test_without_a_hub_every_command_says_how_to_start_it(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "client.key").write_text("key", encoding="utf-8")
    done = Fleet(tmp_path).run(*command)
    assert (done.code, done.out) == (1, "")
    assert done.err == "fleet: no hub answers at http://127.0.0.1:1: start it with `fleet up`\n"


def test_without_a_key_a_command_says_where_it_comes_from(tmp_path: Path) -> None:
    done = Fleet(tmp_path).run("status")
    assert done.code == 1
    assert done.err == (f"fleet: no key at {tmp_path}/client.key: start the hub once with `fleet up`, which makes it\n")


def test_a_key_that_does_not_hold_is_named_as_such(fleet: Fleet, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.key"
    wrong.write_text("flt_00000000_nobody", encoding="utf-8")
    done = fleet.run("tools", "--key-file", str(wrong))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("fleet: the key is unknown, revoked or expired")


def test_another_program_on_the_port_is_suspected(tmp_path: Path) -> None:
    with processes.program("plain_http.py") as other:
        (tmp_path / "client.key").write_text("key", encoding="utf-8")
        done = Fleet(tmp_path, other.port).run("tools")
    assert done.code == 1
    assert "is another program on this port?" in done.err


def test_tools_are_filtered_by_all_words(fleet: Fleet) -> None:
    found = fleet.run("tools", "SEARCH", "cmdb", "--json").data
    assert "cmdb.searchCis" in [tool["_meta"]["fleet/id"] for tool in found]
    assert {tool["_meta"]["fleet/id"].partition(".")[0] for tool in found} == {"cmdb"}


def test_tools_are_shown_with_risk_and_first_sentence(fleet: Fleet) -> None:
    done = fleet.run("tools", "os.linux.readFile")
    assert done.code == 0
    assert done.lines[0].split() == ["tool", "risk", "what", "it", "does"]
    assert done.lines[1].startswith("os.linux.readFile  read")


def test_no_matching_tool_is_exit_code_1(fleet: Fleet) -> None:
    done = fleet.run("tools", "nonesuch")
    assert (done.code, done.out) == (1, "")
    assert "`fleet tools` shows all of them" in done.err


@pytest.mark.parametrize("spelling", ["os.linux.runCommand", "os_linux_runCommand", "runCommand", "run_command"])
def test_describe_takes_every_spelling(fleet: Fleet, spelling: str) -> None:
    done = fleet.run("describe", spelling)
    assert done.lines[:3] == ["tool: os.linux.runCommand", "name on the wire: os_linux_runCommand", "risk: destroy"]
    assert any(line.split()[:3] == ["command", "array", "|"] for line in done.lines)


def test_an_unknown_tool_is_named(fleet: Fleet) -> None:
    done = fleet.run("describe", "nonesuch")
    assert (done.code, done.out) == (1, "")
    assert done.err == "fleet: no tool 'nonesuch' for this key: `fleet tools` shows what there is\n"


def test_an_ambiguous_tool_is_answered_with_the_candidates(fleet: Fleet) -> None:
    done = fleet.run("call", "getServerInfo")
    assert done.code == 2
    assert "cmdb.getServerInfo" in done.err
    assert "master.getServerInfo" in done.err


def test_a_call_shows_its_result_field_by_field(fleet: Fleet) -> None:
    done = fleet.run("call", "runCommand", 'command=["echo", "hello"]')
    assert done.code == 0
    assert done.lines[0] == "exit_code: 0"
    assert done.lines[1:3] == ["stdout:", "hello"]


def test_rows_are_shown_as_a_table(fleet: Fleet) -> None:
    done = fleet.run("call", "master.listServices")
    assert done.lines[0].split()[:3] == ["name", "namespace", "number"]
    assert done.lines[1].split()[:3] == ["master", "master", "0"]


def test_text_that_looks_like_json_stays_text_where_text_is_wanted(fleet: Fleet) -> None:
    done = fleet.run("call", "os.linux.writeFile", "path=note.txt", "content=123", "--json")
    assert (done.code, done.err) == (0, "")
    assert (fleet.data_dir / "workspace" / "note.txt").read_text(encoding="utf-8") == "123"


def test_numbers_and_lists_are_json(fleet: Fleet) -> None:
    found = fleet.run("call", "runCommand", 'command=["printf", "%s", "1"]', "timeout=7.5", "--json").data
    assert found["stdout"] == "1"


def test_an_argument_without_a_value_is_refused_with_the_parameters(fleet: Fleet) -> None:
    done = fleet.run("call", "master.getServiceHealth", "cmdb")
    assert done.code == 2
    assert done.err == "fleet: 'cmdb' is not KEY=VALUE; this tool takes service\n"


def test_a_tool_s_error_is_one_line_and_exit_code_1(fleet: Fleet) -> None:
    done = fleet.run("call", "master.getServiceHealth", "service=nobody")
    assert (done.code, done.out) == (1, "")
    assert done.err == "fleet: no service 'nobody': the fleet has master, orchestrator, workflows, linux_cli, cmdb\n"


def test_a_tool_s_error_as_json_keeps_its_shape(fleet: Fleet) -> None:
    done = fleet.run("call", "master.getServiceHealth", "service=nobody", "--json")
    assert done.code == 1
    assert (done.data["code"], done.data["retryable"]) == ("not_found", False)


def test_a_held_call_shows_its_plan_and_an_operator_runs_it(fleet: Fleet) -> None:
    doomed = fleet.data_dir / "workspace" / "doomed.txt"
    doomed.touch()
    held = fleet.run("call", "runCommand", "command=rm doomed.txt")
    assert (held.code, held.out, doomed.exists()) == (1, "", True)
    assert "It would: run: rm doomed.txt" in held.err
    ran = fleet.run("call", "runCommand", "command=rm doomed.txt", "--operator")
    assert (ran.code, doomed.exists()) == (0, False)


def test_progress_is_shown_while_a_tool_works(tmp_path: Path) -> None:
    with (
        processes.program("conformance/fixture/server.py") as server,
        processes.hub(tmp_path, {"conformance": processes.row_of(server)}) as hub,
    ):
        fleet = Fleet(tmp_path, hub.port)
        done = fleet.run("call", "test_tool_with_progress", "--operator", "--json", FORCE_COLOR="1")
    assert done.code == 0
    assert "100/100" in done.err
