"""SQLite files as files: copied while others write to them, held still, looked at."""

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fleetkit import engines
from fleetkit.errors import Unavailable

MAGIC = b"SQLite format 3\0"


@contextmanager
def held(path: Path) -> Generator[None]:
    """Nobody else writes to the file for the length of a block; reading goes on. Raises Unavailable."""
    with _said(path), closing(_opened(path, "rw")) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.rollback()


def copy(path: Path, target: Path) -> None:
    """A copy of the file as it stands at one moment, whoever writes to it meanwhile. Raises Unavailable."""
    target.touch(mode=0o600)
    with _said(path), closing(_opened(path, "ro")) as source, closing(_opened(target, "rw")) as made:
        source.backup(made)


def is_database(path: Path) -> bool:
    """Whether a file is a SQLite database."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def revision(path: Path) -> str | None:
    """The newest migration that the file has been through, None when it knows none. Raises Unavailable."""
    with _said(path), closing(_opened(path, "ro")) as database:
        known = "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
        if database.execute(known).fetchone() is None:
            return None
        row: Any = database.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=engines.BUSY_S, isolation_level=None)


@contextmanager
def _said(path: Path) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _unavailable(path, error) from error


def _unavailable(path: Path, error: sqlite3.Error) -> Unavailable:
    return engines.unavailable(engines.engine_for(sa.URL.create("sqlite", database=str(path))), error)
