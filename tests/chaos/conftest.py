"""One fleet of processes for the module, found whole by each test."""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path

import pytest
from chaos_fleet import Fleet, Machinery, Stopwatch
from wire import ModernClient


@pytest.fixture(scope="module")
def machinery(tmp_path_factory: pytest.TempPathFactory) -> Generator[Machinery]:
    """Every process of the fleet."""
    made = Machinery(Path(tmp_path_factory.mktemp("fleet")))
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
async def fleet(machinery: Machinery) -> AsyncIterator[Fleet]:
    """The fleet, whole; afterwards what it did is held to account."""
    async with ModernClient(f"{machinery.hub.url}/mcp", machinery.hub.key("admin")) as client:
        await client.call("master.resetBreaker", {"name": "all"})
        made = Fleet(machinery, client)
        yield made
        await asyncio.to_thread(made.hold_to_account)


@pytest.fixture
def stopwatch(record_property: Callable[[str, object], None]) -> Stopwatch:
    """See Stopwatch."""
    return Stopwatch(record_property)
