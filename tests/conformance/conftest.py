"""The fixture server behind a real hub, once per module."""

from collections.abc import Generator
from pathlib import Path

import processes
import pytest


@pytest.fixture(scope="session")
def fixture_server() -> Generator[processes.Program]:
    """The server that this project wrote for the suite."""
    with processes.program("conformance/fixture/server.py") as program:
        yield program


@pytest.fixture(scope="session")
def conformance_hub(
    fixture_server: processes.Program, tmp_path_factory: pytest.TempPathFactory
) -> Generator[processes.Hub]:
    """A hub whose only spoke is the fixture server, under its own tool names."""
    data_dir: Path = tmp_path_factory.mktemp("conformance")
    with processes.hub(data_dir, {"conformance": processes.row_of(fixture_server)}) as hub:
        yield hub


@pytest.fixture(scope="session")
def relayed_url(conformance_hub: processes.Hub) -> Generator[str]:
    """The hub's MCP endpoint for a client that cannot send a key."""
    key_file = conformance_hub.data_dir / "admin.key"
    with processes.program("conformance/relay.py", conformance_hub.url, str(key_file)) as relay:
        yield f"{relay.url}/mcp"
