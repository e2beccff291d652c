"""Starting the spoke on a database of the test's own."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from inventories import Start

from cmdb_mcp import spoke
from fleetkit.testing import SpokeClient, running


@pytest.fixture
def empty(tmp_path: Path) -> Start:
    """`async with empty() as cmdb`: the spoke without the example fleet; again in one test: the same database."""

    def start(**options: Any) -> AbstractAsyncContextManager[SpokeClient]:
        return running(spoke, tmp_path, "cmdb", **({"seed_example": False} | options))

    return start


@pytest.fixture
def example(tmp_path: Path) -> Start:
    """`async with example() as cmdb`: the spoke as a newcomer finds it."""

    def start(**options: Any) -> AbstractAsyncContextManager[SpokeClient]:
        return running(spoke, tmp_path, "cmdb", **options)

    return start
