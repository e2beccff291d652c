"""Putting a backup in the place of a data directory: checked first, in one step, the old one kept."""

import shutil
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fleetkit import archive
from fleetkit.errors import Conflict, Unavailable
from fleetkit.store import open_store, quick_check
from master_mcp import store as hub_store
from master_mcp.cli.backing_up import HUB
from master_mcp.lock import DataDirLock, holder
from master_mcp.workflows import book
from master_mcp.workflows.record import LIVE, RunStatus

STOPPED = "stopped when the backup was restored: `fleet workflow resume` goes on with it"


@dataclass(frozen=True)
class Restored:
    """What is in place now: the backup's manifest, where the old directory is, the runs that go on or were stopped."""

    manifest: dict[str, Any]
    aside: Path | None
    live: list[str]


def restore(file: Path, data_dir: Path, *, force: bool, stop_runs: bool) -> Restored:
    """Replace `data_dir` by what a backup holds; `stop_runs` cancels the runs that were under way.

    Nothing is touched before all of the backup is found to be whole and fit for this version. Raises Conflict when a
    hub runs there, or a fleet is there and `force` is not said; Invalid for a bad file; Unavailable.
    """
    _check_target(data_dir, force=force)
    with _beside(data_dir) as staged:
        manifest = archive.unpack(file, staged)
        for name in manifest["databases"]:
            quick_check(staged / name)
        live = _runs(staged, stop=stop_runs)
        return Restored(manifest, _swap(staged, data_dir), live)


def _check_target(data_dir: Path, *, force: bool) -> None:
    pid = holder(data_dir)
    if pid is not None:
        raise Conflict(f"the hub with pid {pid} runs on {data_dir}: stop it first, or name another --data-dir")
    if not _has_something(data_dir):
        return
    if not any((data_dir / name).exists() for name in ("keys", HUB, "fleet.yaml", "hub.lock")):
        raise Conflict(f"{data_dir} is no data directory of a fleet: name an empty one with --data-dir")
    if not force:
        raise Conflict(f"a fleet is in {data_dir}: --force puts the backup in its place and keeps it beside that")


def _has_something(data_dir: Path) -> bool:
    return data_dir.exists() and (not data_dir.is_dir() or any(data_dir.iterdir()))


@contextmanager
def _beside(data_dir: Path) -> Generator[Path]:
    """A private directory on the same disk, gone afterwards unless it has been moved."""
    try:
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{data_dir.name}.restore-", dir=data_dir.parent))
    except OSError as error:
        raise Unavailable(f"cannot write beside {data_dir}: {error.strerror}") from error
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _runs(staged: Path, *, stop: bool) -> list[str]:
    """The runs under way in a backup, stopped if so told. Raises Unavailable when it is of a newer version."""
    if not (staged / HUB).exists():  # it is kept elsewhere
        return []
    store = open_store(staged, "hub", Path(hub_store.__file__).parent / "migrations")
    try:
        live = store.read_now(book.live)
        if stop:
            store.write_now(_stop)
        return [run.id for run in live]
    finally:
        store.close()


def _stop(db: sa.Connection) -> None:
    for run in book.live(db):
        book.move(db, run, LIVE, status=RunStatus.cancelled, reason=STOPPED)
        book.stop_steps(db, run)


def _swap(staged: Path, data_dir: Path) -> Path | None:
    """Where the old directory is now, None when there was nothing in it."""
    aside = data_dir.with_name(f"{data_dir.name}.before-restore-{time.strftime('%Y%m%d-%H%M%S')}")
    with ExitStack() as stack:
        there = _has_something(data_dir)
        if there:
            stack.enter_context(DataDirLock(data_dir))
        stack.enter_context(DataDirLock(staged))
        try:
            if there:
                data_dir.rename(aside)
            staged.rename(data_dir)
            archive.sync_folder(data_dir.parent)
        except OSError as error:
            if there and aside.exists() and not data_dir.exists():
                aside.rename(data_dir)
            raise Unavailable(
                f"cannot put the backup in the place of {data_dir} ({error.strerror}): name another --data-dir"
            ) from error
    return aside if there else None
