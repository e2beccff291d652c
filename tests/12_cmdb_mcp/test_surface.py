"""What a client sees: names, risks, schemas, and a spoke that serves over HTTP."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from inventories import Start

from fleetkit import Invalid, NeedsApproval, Risk, names

READ = {
    *("listClasses", "describeClass", "searchCis", "getCi", "getHistory", "getCiAsOf", "diffCis", "getImpact"),
    *("findPath", "findDuplicates", "exportCis", "getServerInfo", "findServers"),
}
CHANGE = {"upsertCi", "retireCi", "relateCis", "unrelateCis", "saveClass", "importCsv", "removeExample"}
SERVICE = Path(__file__).parents[2] / "12_cmdb_mcp"


async def listed(start: Start) -> dict[str, Any]:
    """The tools as a client lists them, by last segment."""
    async with start() as cmdb:
        return {tool.name.removeprefix("cmdb_"): tool for tool in await cmdb.client.list_tools()}


async def test_the_tools_and_their_risks_are_these(empty: Start) -> None:
    tools = await listed(empty)
    assert {name for name, tool in tools.items() if tool.meta["risk"] == "read"} == READ
    assert {name for name, tool in tools.items() if tool.meta["risk"] == "change"} == CHANGE
    assert tools.keys() == READ | CHANGE


async def test_the_names_of_the_original_are_aliases(empty: Start) -> None:
    tools = await listed(empty)
    assert tools["getServerInfo"].meta["fleet/aliases"] == ["cmdb.local.getServerInfo"]
    assert tools["findServers"].meta["fleet/aliases"] == ["cmdb.local.findServers"]
    assert {"hostname"} == tools["getServerInfo"].input_schema["properties"].keys()
    assert tools["findServers"].input_schema["required"] == ["query_field", "query_value"]


async def test_every_argument_is_explained_and_every_answer_has_a_schema(empty: Start) -> None:
    for name, tool in (await listed(empty)).items():
        assert tool.output_schema, name
        missing = [argument for argument in tool.input_schema["properties"] if f"{argument}:" not in tool.description]
        assert missing == [] or name == "listClasses", name


@pytest.mark.parametrize("tool", sorted(CHANGE))
async def test_no_change_is_made_without_permission(example: Start, tool: str) -> None:
    arguments: dict[str, dict[str, Any]] = {
        "upsertCi": {"ci_class": "server", "attributes": {"hostname": "x"}},
        "retireCi": {"ci": "db-01"},
        "relateCis": {"ci": "db-01", "relation": "depends_on", "target": "db-02"},
        "unrelateCis": {"ci": "db-02", "relation": "depends_on", "target": "db-01"},
        "saveClass": {"name": "x", "description": "x", "attributes": {"name": {}}, "identity": ["name"]},
        "importCsv": {"content": "hostname\nx\n", "preview": False},
        "removeExample": {},
    }
    async with example() as cmdb:
        before = await cmdb.call("getHistory", limit=1)
        with pytest.raises(NeedsApproval):
            await cmdb.call(tool, arguments[tool], allow=Risk.read)
        assert await cmdb.call("getHistory", limit=1) == before


async def test_an_argument_that_does_not_exist_is_refused(example: Start) -> None:
    async with example() as cmdb:
        with pytest.raises(Invalid, match="owner"):
            await cmdb.call("searchCis", owner="shop")


async def test_an_option_that_does_not_exist_is_refused_by_name(empty: Start) -> None:
    with pytest.raises(Invalid, match=r"spokes\.cmdb\.seeds"):
        async with empty(seeds=True):
            pass


def test_importing_the_spoke_brings_no_database_library() -> None:
    code = "import sys, cmdb_mcp; print(sorted({'sqlalchemy', 'alembic', 'fastmcp'} & set(sys.modules)))"
    paths = f"{SERVICE}:{SERVICE.parent}"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_container_listens_on_the_port_that_derives_from_its_number() -> None:
    dockerfile = (SERVICE / "Dockerfile").read_text()
    assert f":{names.port(12)}/health" in dockerfile
    assert "--require-hashes" in dockerfile
    assert "USER fleet" in dockerfile
    assert "# syntax=" not in dockerfile
    assert (SERVICE / "entrypoint.sh").stat().st_mode & 0o111
