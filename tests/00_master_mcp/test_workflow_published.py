"""Saved workflows that are tools of their own."""

import asyncio
from pathlib import Path
from typing import Any

from hubs import RunningHub, ask, call, running_hub, text_of

from master_mcp.catalog.tools import CatalogTool

GREET: dict[str, Any] = {
    "name": "greet_people",
    "description": "Say who is greeted.",
    "publish": True,
    "input": {"who": {"type": "string", "description": "their name"}, "loud": {"type": "boolean", "default": False}},
    "steps": [{"name": "look", "tool": "master.getServerInfo"}],
    "outputs": {"said": "hello ${ .input.who }", "by": "${ .steps.look.name }", "loud": "${ .input.loud }"},
}


async def saved(hub: RunningHub, **changes: Any) -> None:
    """Save the workflow as the operator, and wait until the hub has listed the published ones anew."""
    watcher = hub.hub.fleet.members["workflows"].watcher
    assert watcher is not None
    before = watcher.health.listed_at
    result = await call(hub, "orchestrator.saveDefinition", {"definition": GREET | changes}, key=hub.admin)
    assert not result.get("isError"), text_of(result)
    while watcher.health.listed_at == before:
        await asyncio.sleep(0.01)


def tool(hub: RunningHub) -> CatalogTool | None:
    """The published workflow in the catalog."""
    return next(iter(hub.hub.catalog.of("workflows")), None)


async def test_a_published_workflow_is_a_tool_with_its_inputs_as_arguments(tmp_path: Path):
    async with running_hub(tmp_path) as hub:
        await saved(hub)
        listed = (await ask(hub, "tools/list"))[1]["result"]["tools"]
        (shown,) = [one for one in listed if one["name"] == "workflows_greetPeople"]
        assert shown["description"] == "Say who is greeted."
        assert shown["inputSchema"]["properties"]["who"] == {"type": "string", "description": "their name"}
        assert shown["inputSchema"]["required"] == ["who"]
        answer = (await call(hub, "workflows.greetPeople", {"who": "ada"}))["structuredContent"]
        assert answer["outputs"] == {"said": "hello ada", "by": "mcp-fleet", "loud": False}
        assert (answer["workflow_name"], answer["status"], answer["started_by"]) == (
            "greet_people",
            "completed",
            "client",
        )


async def test_wrong_arguments_of_a_published_workflow_are_refused_like_those_of_any_tool(tmp_path: Path):
    async with running_hub(tmp_path) as hub:
        await saved(hub)
        assert "whom: Unexpected keyword argument" in text_of(await call(hub, "workflows.greetPeople", {"whom": "ada"}))
        assert "who" in text_of(await call(hub, "workflows.greetPeople", {}))
        assert "who" in text_of(await call(hub, "workflows.greetPeople", {"who": 7}))


async def test_a_changed_workflow_is_another_tool_at_once_and_an_unpublished_one_is_gone(tmp_path: Path):
    async with running_hub(tmp_path) as hub:
        await saved(hub)
        await saved(hub, description="Greets somebody.")
        found = tool(hub)
        assert found is not None
        assert found.definition["description"] == "Greets somebody."
        await saved(hub, publish=False)
        assert tool(hub) is None


async def test_published_workflows_are_there_again_after_a_restart(tmp_path: Path):
    async with running_hub(tmp_path) as hub:
        await saved(hub)
    async with running_hub(tmp_path) as hub:
        answer = (await call(hub, "workflows.greetPeople", {"who": "bo"}))["structuredContent"]
        assert answer["outputs"]["said"] == "hello bo"


async def test_saving_a_workflow_that_is_not_published_leaves_those_that_are_alone(tmp_path: Path):
    async with running_hub(tmp_path) as hub:
        await saved(hub)
        watcher = hub.hub.fleet.members["workflows"].watcher
        assert watcher is not None
        listed = watcher.health.listed_at
        plain = {"name": "plain", "steps": GREET["steps"]}
        await call(hub, "orchestrator.saveDefinition", {"definition": plain}, key=hub.admin)
        await call(hub, "workflows.greetPeople", {"who": "bo"})
        assert watcher.health.listed_at == listed
