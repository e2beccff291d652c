"""One hub for the tests of a module, with the spoke `odd` behind it, whose tools behave in every way there is."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import gateways
import pytest
import pytest_asyncio
import spoken
from gateways import LIMIT, ORIGIN, Gateway
from hubs import listening, rows, running_hub, settle


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Gateway]:
    """A hub that answers, as its REST gateway is used."""
    data: Path = tmp_path_factory.mktemp("hub")
    settings: dict[str, Any] = {"allowed_origins": [ORIGIN], "max_request_bytes": LIMIT}
    async with (
        listening(spoken.spoke_app(gateways.odd, gateways.ODD_TOOLS)) as url,
        running_hub(data, rows(odd=url), settings) as running,
    ):
        await settle(running, "odd")
        yield Gateway(running)
