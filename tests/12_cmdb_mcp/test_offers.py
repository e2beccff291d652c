"""What the CMDB offers besides tools: CIs to read, a prompt to plan by, names that complete themselves."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hubs import RunningHub, call, running_hub
from inventories import Start
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference, ResourceTemplateReference, TextContent, TextResourceContents
from wire import SessionClient

from fleetkit.testing import SpokeClient

PROMPT = PromptReference(name="cmdb_planOutage")
TEMPLATE = ResourceTemplateReference(uri="cmdb://ci/{ci}")
SHOP = {"ci_class": "application", "attributes": {"name": "Web shop"}}
CHANGED = {"ci_class": "application", "attributes": {"name": "Web shop", "owner": "ada"}}
URIS = ("cmdb://ci/ci-1", "cmdb://ci/application:Web%20shop", "cmdb://ci/Web%20shop")


@pytest_asyncio.fixture
async def hub(tmp_path: Path) -> AsyncGenerator[RunningHub]:
    """A hub over an empty CMDB."""
    async with running_hub(tmp_path, {"cmdb": {"seed_example": False}}) as found:
        yield found


async def document(cmdb: SpokeClient, uri: str) -> Any:
    """What a resource holds."""
    (found,) = await cmdb.client.read_resource(uri)
    assert isinstance(found, TextResourceContents)
    return json.loads(found.text)


async def plan(cmdb: SpokeClient, ci: str) -> str:
    """The text of the prompt."""
    (message,) = (await cmdb.client.get_prompt("cmdb_planOutage", {"ci": ci})).messages
    assert isinstance(message.content, TextContent)
    return message.content.text


async def complete(cmdb: SpokeClient, typed: str) -> list[str]:
    """What `typed` may become, as an argument of the prompt."""
    return (await cmdb.client.complete(PROMPT, {"name": "ci", "value": typed})).values


async def test_what_is_offered_is_this(empty: Start) -> None:
    async with empty() as cmdb:
        assert [str(entry.uri) for entry in await cmdb.client.list_resources()] == ["cmdb://classes"]
        assert [entry.uri_template for entry in await cmdb.client.list_resource_templates()] == ["cmdb://ci/{ci}"]
        assert [entry.name for entry in await cmdb.client.list_prompts()] == ["cmdb_planOutage"]


async def test_a_ci_is_read_by_each_of_its_names(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", SHOP)
        documents = [await document(cmdb, uri) for uri in URIS]
    assert documents[0]["attributes"]["name"] == "Web shop"
    assert documents == [documents[0]] * 3


async def test_the_classes_are_a_resource(example: Start) -> None:
    async with example() as cmdb:
        found = {entry["name"]: entry for entry in await document(cmdb, "cmdb://classes")}
        assert found["server"]["active_cis"] > 0


@pytest.mark.parametrize("uri", ["cmdb://ci/ci-99999", "cmdb://ci/nobody", "cmdb://elsewhere"])
async def test_what_is_not_recorded_is_not_there(empty: Start, uri: str) -> None:
    async with empty() as cmdb:
        with pytest.raises(MCPError) as caught:
            await cmdb.client.read_resource(uri)
    assert caught.value.error.code == -32602


async def test_the_prompt_names_who_is_hit_and_what_is_needed(empty: Start) -> None:
    async with empty() as cmdb:
        for name in ("app", "db"):
            await cmdb.call("upsertCi", ci_class="application", attributes={"name": name})
        await cmdb.call("relateCis", ci="application:app", relation="depends_on", target="application:db")
        hit, needed = await plan(cmdb, "application:db"), await plan(cmdb, "application:app")
    assert "What fails with it (1):\n- application:app (1 away): application:db > application:app" in hit
    assert "It needs (0):\n- nothing that is recorded" in hit
    assert "It needs (1):\n- application:db: application:app > application:db" in needed


async def test_the_prompt_about_nothing_fails_with_a_hint(example: Start) -> None:
    async with example() as cmdb:
        with pytest.raises(MCPError) as caught:
            await plan(cmdb, "server:nobody")
    assert caught.value.error.data["code"] == "not_found"


async def test_the_name_of_a_ci_completes_itself(empty: Start) -> None:
    async with empty() as cmdb:
        for name in ("web-01", "web-02", "db_01"):
            await cmdb.call("upsertCi", ci_class="application", attributes={"name": name})
        await cmdb.call("retireCi", ci="web-02")
        assert await complete(cmdb, "") == ["application:db_01", "application:web-01"]
        assert await complete(cmdb, "WEB") == ["application:web-01"]
        assert await complete(cmdb, "application:d") == ["application:db_01"]
        assert await complete(cmdb, "db%") == []
        found = await cmdb.client.complete(TEMPLATE, {"name": "ci", "value": "db"})
        assert found.values == ["application:db_01"]


async def test_who_watches_a_ci_hears_of_its_change(hub: RunningHub) -> None:
    await call(hub, "cmdb_upsertCi", SHOP)
    async with SessionClient(f"{hub.url}/mcp", hub.client) as session:
        for uri in URIS:
            assert (await session.request("resources/subscribe", {"uri": uri})).result == {}
        async with session.changes() as stream:
            await call(hub, "cmdb_upsertCi", CHANGED)
            told = {(await stream.next())["params"]["uri"] for _ in URIS}
    assert told == set(URIS)


async def test_a_change_that_is_only_tried_is_told_to_nobody(hub: RunningHub) -> None:
    await call(hub, "cmdb_upsertCi", SHOP)
    async with SessionClient(f"{hub.url}/mcp", hub.client) as session:
        await session.request("resources/subscribe", {"uri": "cmdb://ci/ci-1"})
        async with session.changes() as stream:
            assert (await call(hub, "cmdb_upsertCi", {**CHANGED, "dry_run": True}))["isError"] is False
            await call(hub, "cmdb_upsertCi", CHANGED)
            assert (await stream.next())["params"]["uri"] == "cmdb://ci/ci-1"
            await asyncio.sleep(0)
            assert stream.arrived().strip() == b""
