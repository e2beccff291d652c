"""One hub per data directory."""

import os
from pathlib import Path

import pytest

from fleetkit.errors import Conflict
from master_mcp.lock import DataDirLock, holder


def test_the_holder_is_named_to_whoever_comes_second(tmp_path: Path) -> None:
    with DataDirLock(tmp_path), pytest.raises(Conflict, match=f"in use by the hub with pid {os.getpid()}"):
        DataDirLock(tmp_path).__enter__()


def test_the_lock_ends_with_its_block(tmp_path: Path) -> None:
    with DataDirLock(tmp_path):
        assert holder(tmp_path) == os.getpid()
    assert holder(tmp_path) is None
    with DataDirLock(tmp_path):
        assert holder(tmp_path) == os.getpid()


def test_a_directory_that_no_hub_used_has_no_holder(tmp_path: Path) -> None:
    assert holder(tmp_path / "none") is None


def test_the_data_directory_is_made_private(tmp_path: Path) -> None:
    with DataDirLock(tmp_path / "data"):
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "data" / "hub.lock").stat().st_mode & 0o777 == 0o600
