"""`fleet servers`, with the hub stopped and running."""

import json
from pathlib import Path
from typing import Any

import processes
import pytest
import yaml
from commands import Done, Fleet
from foreign import Script, put_rows, tool

from fleetkit import settings
from fleetkit.external import Sandbox
from master_mcp.external.pins import snapshot
from master_mcp.external.records import Records
from master_mcp.store import open_hub_store


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """The command on an empty data directory."""
    return Fleet(tmp_path / "data")


async def seen(fleet: Fleet, name: str, tools: list[dict[str, Any]], **said: Any) -> None:
    """What a hub writes down once it has looked at a server."""
    config = settings.load(fleet.data_dir)
    store = open_hub_store(config)
    shown = snapshot(config.external[name], {"name": "scripted", "instructions": None, **said}, tools)
    await Records(store).saw(name, shown)
    store.close()


def rows_of(done: Done) -> dict[str, Any]:
    assert done.code == 0, done
    return {row["name"]: row for row in done.data}


def test_a_server_is_added_listed_and_removed(fleet: Fleet) -> None:
    added = fleet.run(
        *("servers", "add", "odd", "--env", "MODE=x", "--env", "API_TOKEN=secret://files/external/odd"),
        *("--risk", "get_*=read", "--network", "--write", "/srv", "--per-caller", "--", "server", "--flag"),
    )
    assert (added.code, "fleet servers approve odd" in added.err) == (0, True)
    row = yaml.safe_load((fleet.data_dir / "external" / "odd.yaml").read_text())
    assert row == {
        "transport": "stdio",
        "command": ["server", "--flag"],
        "env": {"MODE": "x", "API_TOKEN": "secret://files/external/odd"},
        "risk": {"get_*": "read"},
        "identity": "per-caller",
        "sandbox": {"write": ["/srv"], "network": True},
    }
    assert rows_of(fleet.run("servers", "list", "--json"))["odd"]["state"] == "not seen yet"
    shown = fleet.run("config", "show", "--json")
    assert {r["source"] for r in shown.data if r["setting"] == "external.odd.transport"} == {
        str(fleet.data_dir / "external")
    }
    assert fleet.run("servers", "remove", "odd").code == 0
    assert rows_of(fleet.run("servers", "list", "--json")) == {}
    record = fleet.run("audit", "search", "--tool", "servers.*", "--outcome", "ok", "--json").data
    assert {(row["tool"], row["door"]) for row in record} == {("servers.add", "cli"), ("servers.remove", "cli")}


def test_an_http_server_is_added_from_an_example(fleet: Fleet) -> None:
    assert fleet.run("servers", "add", "github", "--example", "github").code == 0
    assert settings.load(fleet.data_dir).external["github"].headers
    files = fleet.run("servers", "add", "files", "--example", "filesystem", "--write", "/tmp", "--", "server", "/tmp")
    assert settings.load(fleet.data_dir).external["files"].sandbox == Sandbox(write=[Path("/tmp")])
    assert files.err.startswith("Files below chosen folders. npm install -g @modelcontextprotocol/server-filesystem@")
    assert "there are bigquery" in fleet.run("servers", "add", "x", "--example", "nothing").err
    added = fleet.run("servers", "add", "web", "--url", "https://example.org/mcp", "--no-sandbox")
    assert (added.code, settings.load(fleet.data_dir).external["web"].sandbox) == (0, "none")


MISTAKES = [
    (["add", "odd"], 2, "say what odd is: --example NAME, --url URL, or a command after `--`"),
    (["add", "cmdb", "--", "server"], 2, "name of a spoke"),
    (["add", "odd", "--env", "TOKEN", "--", "server"], 2, "write NAME=value"),
    (["add", "odd", "--env", "API_TOKEN=abc", "--", "server"], 2, "holds a credential"),
    (["show", "nobody"], 1, "no external server"),
    (["diff", "nobody"], 1, "no external server"),
    (["approve", "nobody"], 1, "no external server"),
    (["reload", "nobody"], 1, "no external server"),
    (["remove", "nobody"], 1, "no external server"),
]


@pytest.mark.parametrize(("words", "code", "reason"), MISTAKES, ids=[" ".join(words[:2]) for words, _, _ in MISTAKES])
def test_a_mistake_is_named(fleet: Fleet, words: list[str], code: int, reason: str) -> None:
    done = fleet.run("servers", *words)
    assert done.code == code
    assert reason in done.err
    assert "abc" not in done.err


def test_the_users_own_row_is_not_touched(fleet: Fleet) -> None:
    fleet.data_dir.mkdir()
    own = fleet.data_dir / "fleet.yaml"
    own.write_text("# mine\nexternal:\n  odd: {transport: stdio, command: [server]}\n")
    assert "already" in fleet.run("servers", "add", "odd", "--", "server").err
    removed = fleet.run("servers", "remove", "odd")
    assert (removed.code, "was not added by" in removed.err) == (1, True)
    assert own.read_text().startswith("# mine")


async def test_what_is_seen_is_shown_approved_and_compared(fleet: Fleet, tmp_path: Path) -> None:
    put_rows(fleet.data_dir, odd=Script(tmp_path / "s").row(risk={"look": "read"}))
    assert "no hub has looked" in fleet.run("servers", "approve", "odd", "--yes").err
    await seen(fleet, "odd", [tool("look", "Look.\u200b"), tool("put")])
    assert rows_of(fleet.run("servers", "list", "--json"))["odd"]["state"] == "not approved"
    assert fleet.run("servers", "approve", "odd", stdin="n\n").code == 1
    asked = fleet.run("servers", "approve", "odd", stdin="y\n")
    assert (asked.code, "Look.\\u200b" in asked.out) == (0, True)
    assert fleet.run("servers", "diff", "odd").code == 0
    shown = fleet.run("servers", "show", "odd", "--json").data
    assert [(t["tool"], t["risk"], t["state"]) for t in shown["tools"]] == [
        ("odd.look", "read", "approved"),
        ("odd.put", "destroy", "approved"),
    ]
    assert "hidden characters" in shown["tools"][0]["why"]
    await seen(fleet, "odd", [tool("look", "Changed."), tool("put"), tool("fresh")])
    changed = fleet.run("servers", "diff", "odd")
    assert (changed.code, "Changed." in changed.out) == (1, True)
    assert "" not in changed.lines
    assert "2 tools are held back" in fleet.run("servers", "list").out
    only = fleet.run("servers", "approve", "odd", "--tool", "fresh", "--yes")
    assert only.code == 0
    held = {t["own_name"]: t["state"] for t in fleet.run("servers", "show", "odd", "--json").data["tools"]}
    assert held == {"look": "held", "put": "approved", "fresh": "approved"}
    assert "has no tool nothing" in fleet.run("servers", "approve", "odd", "--tool", "nothing", "--yes").err
    assert "odd.look" in fleet.run("servers", "show", "odd").out


async def test_approving_what_changed_meanwhile_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    put_rows(fleet.data_dir, odd=Script(tmp_path / "s").row())
    await seen(fleet, "odd", [tool("look")])
    store = open_hub_store(settings.load(fleet.data_dir))
    records = Records(store)
    shown = records.get("odd").seen
    assert shown is not None
    await records.saw("odd", snapshot(settings.load(fleet.data_dir).external["odd"], {}, [tool("evil")]))
    with pytest.raises(Exception, match="changed while you looked"):
        records.approve("odd", shown, shown, "me")
    store.close()


def test_doctor_names_a_missing_program(fleet: Fleet) -> None:
    put_rows(
        fleet.data_dir,
        odd={"transport": "stdio", "command": ["no-such-program"], "sandbox": "none"},
        web={"transport": "http", "url": "https://example.org/"},
        fine={"transport": "stdio", "command": ["sh"], "sandbox": "none"},
    )
    found = {row["check"]: row for row in fleet.run("doctor", "--json").data}
    assert "install it" in found["server odd"]["detail"]
    assert found["server fine"]["state"] == "ok"
    assert "server web" not in found


@pytest.mark.timeout(180)
def test_a_running_hub_takes_up_what_the_command_line_does(tmp_path: Path) -> None:
    script = Script(tmp_path / "scripts")
    with processes.hub(tmp_path / "data", {}) as hub:
        fleet = Fleet(hub.data_dir, hub.port)
        command = script.row()["command"]
        assert fleet.run("servers", "add", "odd", "--no-sandbox", "--", *command).code == 0
        hub.process.until(lambda line: line["event"] == "external.server.unapproved")
        hub.process.until(lambda line: line["event"] == "spoke.healthy" and line["spoke"] == "odd")
        assert fleet.run("servers", "approve", "odd", "--yes").code == 0
        while fleet.run("tools", "odd.look").code:
            pass
        called = fleet.run("call", "odd.look", "--operator", "--json")
        assert json.loads(called.data["content"][0]["text"])["calls"] == 1
        assert fleet.run("servers", "reload", "odd").code == 0
        hub.process.until(lambda line: line["event"] == "external.stopped")
        assert fleet.run("servers", "remove", "odd").code == 0
        while not fleet.run("tools", "odd.look").code:
            pass
