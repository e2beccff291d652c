"""Logging is global to the process: each test gets it back as it was."""

import logging
from collections.abc import Generator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logging_restored() -> Generator[None]:
    """Undo what `fleetkit.log.configure` did."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level
