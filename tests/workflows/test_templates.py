"""Every shipped workflow is good as it stands, says how to run it, and is in the documentation."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from hubs import RunningHub, call, running_hub

from fleetkit import settings

in_one_loop = pytest.mark.asyncio(loop_scope="module")
FOLDER = settings.shipped_file().parent / "workflows"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningHub]:
    """A hub with every shipped service, as it is installed."""
    shipped = yaml.safe_load(settings.shipped_file().read_text(encoding="utf-8"))["spokes"]
    async with running_hub(tmp_path_factory.mktemp("hub"), {name: {} for name in shipped}) as running:
        yield running


@in_one_loop
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_a_shipped_workflow_fits_the_shipped_tools(hub: RunningHub, path: Path) -> None:
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = await call(hub, "orchestrator.validateDefinition", {"definition": definition}, key=hub.admin)
    assert not found.get("isError"), found
    assert found["structuredContent"]["name"] == path.stem
    assert definition["description"]


@in_one_loop
async def test_the_library_offers_every_shipped_workflow(hub: RunningHub) -> None:
    found = await call(hub, "orchestrator.listDefinitions", key=hub.admin)
    offered = {one["name"] for one in found["structuredContent"]["result"] if one["origin"] == "shipped"}
    assert offered == {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_workflow_begins_with_how_to_run_it(path: Path) -> None:
    head = path.read_text(encoding="utf-8").partition("\nname:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"fleet workflow run {path.stem}" in head


def test_the_documentation_names_every_shipped_workflow() -> None:
    pages = [settings.CHECKOUT / "README.md", *(settings.CHECKOUT / "docs").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert [path.stem for path in FILES if path.stem not in text] == []
