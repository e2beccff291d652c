"""docs/workflows.md: every workflow on the page is one that the hub takes, and the first one runs as it stands."""

import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from commands import Fleet
from hubs import RunningHub, call, running_hub, text_of

from fleetkit import settings
from fleetkit.workflow_settings import WorkflowSettings
from master_mcp.workflows.reading import parse

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = (settings.CHECKOUT / "docs/workflows.md").read_text(encoding="utf-8")
BLOCKS = [(match[1].strip(), match[2]) for match in re.finditer(r"^```yaml([^\n]*)\n(.*?)^```$", PAGE, re.M | re.S)]
FLOWS = [
    (mark, text) for mark, text in BLOCKS if re.search(r"^name:", text, re.M) and re.search(r"^steps:", text, re.M)
]
SPOKES: dict[str, Any] = {"linux_cli": {}, "cmdb": {}, "secrets": {}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningHub]:
    """A hub as a newcomer has it, rules included."""
    async with running_hub(tmp_path_factory.mktemp("hub"), SPOKES, {"workflows": {"poll_s": 0.05}}, {}) as running:
        yield running


async def asked(hub: RunningHub, tool: str, **arguments: Any) -> Any:
    """The structured answer of a tool of the hub, as its operator."""
    found = await call(hub, f"orchestrator.{tool}", arguments, key=hub.admin)
    assert not found.get("isError"), text_of(found)
    return found["structuredContent"]


@pytest.mark.parametrize("text", [pytest.param(text, id=str(parse(text)["name"])) for _, text in FLOWS])
async def test_a_workflow_of_the_page_is_good(hub: RunningHub, text: str) -> None:
    definition = parse(text)
    assert (await asked(hub, "validateDefinition", definition=definition))["name"] == definition["name"]


async def test_the_page_shows_every_kind_of_step_and_every_key() -> None:
    steps = [step for _, text in FLOWS for step in parse(text)["steps"]]
    keys = {key for step in steps for key in step}
    assert keys == {
        "name", "service", "tool", "params", "approval", "wait", "workflow", "inputs", "needs", "when", "forEach",
        "retry", "timeout", "onError", "compensate", "verify", "expect",
    }  # fmt: skip
    top = {key for _, text in FLOWS for key in parse(text)}
    assert top == {
        "name", "description", "input", "steps", "outputs", "timeout", "publish", "schedule", "webhook",
    }  # fmt: skip


RUNNABLE = [text for mark, text in FLOWS if mark == "runnable"]


@pytest.mark.parametrize("text", RUNNABLE)
async def test_a_workflow_that_the_page_has_one_run_runs(hub: RunningHub, text: str) -> None:
    run = await asked(hub, "executeWorkflow", definition=parse(text))
    assert (run["status"], run["reason"]) == ("completed", None)
    written = Path(run["outputs"]["file"])
    assert written.name == "facts.txt"
    assert written.read_text(encoding="utf-8") == run["outputs"]["said"]
    assert run["outputs"]["said"].endswith("processors\n")


async def test_the_page_names_every_setting_and_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", PAGE.partition("| `hub.workflows.` |")[2], re.M)
    assert [name for name, _ in rows] == list(WorkflowSettings.model_fields)
    said = dict(rows)
    for name in ("running", "queued", "lane", "poll_s"):
        assert float(said[name]) == WorkflowSettings.model_fields[name].default


async def test_the_page_names_every_shipped_workflow() -> None:
    shipped = {path.stem for path in (settings.CHECKOUT / "config/workflows").glob("*.yaml")}
    assert {name for name in shipped if f"`{name}`" not in PAGE} == set()


async def test_every_command_of_the_page_exists(tmp_path: Path) -> None:
    named = set(re.findall(r"fleet workflow (\w+)", PAGE))
    listed = Fleet(tmp_path).run("workflow", "--help").out
    assert {name for name in named if not re.search(rf"\b{name}\b", listed)} == set()
    assert named >= {"run", "save", "validate", "resume", "show", "signal"}
