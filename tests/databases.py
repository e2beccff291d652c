"""Fixtures: the databases that a store runs on."""

from collections.abc import Generator
from pathlib import Path

import pytest
from postgres import Postgres, need_postgres, running_postgres

KINDS = ["sqlite", "libsql", pytest.param("postgresql", marks=need_postgres)]


@pytest.fixture(scope="session")
def postgres() -> Generator[Postgres]:
    """A PostgreSQL server, one for each worker of the test run."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind in turn."""
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        return server.new_database()
    path = tmp_path / f"{request.param}.db"
    return f"sqlite:///{path}" if request.param == "sqlite" else f"sqlite+libsql:///{path}"
