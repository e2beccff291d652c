"""The engine to be killed, loaded once for each process that runs tests."""

from collections.abc import Callable, Generator
from functools import cache

import pytest
from kills.nursery import Nursery


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Generator[Nursery]:
    """See Nursery."""
    made = Nursery(tmp_path_factory.mktemp("kills"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def boundaries(nursery: Nursery) -> Callable[[str], list[str]]:
    """The boundaries that a run of a workflow passes when nobody kills it, in order."""

    @cache
    def passed(workflow: str) -> list[str]:
        return nursery.chain(workflow).lives[0].passed

    return passed
