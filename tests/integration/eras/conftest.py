"""A hub over the conformance fixture server, and clients of both eras."""

from collections.abc import AsyncGenerator, Generator

import processes
import pytest
import pytest_asyncio
from hubs import RunningHub, running_hub, settle
from wire import ERAS, Either, ModernClient, SessionClient


@pytest.fixture(scope="module")
def server() -> Generator[processes.Program]:
    """The fixture server of the conformance suite, as a process."""
    with processes.program("conformance/fixture/server.py") as program:
        yield program


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(server: processes.Program, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningHub]:
    """A hub whose only spoke is the fixture server, and whose deadline ends no call before the test does."""
    rows = {"conformance": processes.row_of(server)}
    async with running_hub(tmp_path_factory.mktemp("eras"), rows, {"deadline_s": 600}) as found:
        await settle(found, "conformance")
        yield found


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    """One of the two protocol eras."""
    return str(request.param)


@pytest_asyncio.fixture(loop_scope="module")
async def client(hub: RunningHub, era: str) -> AsyncGenerator[Either]:
    """An operator's client of this era."""
    async with ERAS[era](f"{hub.url}/mcp", hub.admin) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def session(hub: RunningHub) -> AsyncGenerator[SessionClient]:
    """An operator's session of 2025-11-25."""
    async with SessionClient(f"{hub.url}/mcp", hub.admin) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def modern(hub: RunningHub) -> AsyncGenerator[ModernClient]:
    """An operator's client of 2026-07-28."""
    async with ModernClient(f"{hub.url}/mcp", hub.admin) as found:
        yield found
