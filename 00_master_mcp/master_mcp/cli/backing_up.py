"""What a backup of a fleet holds, copied so that it fits together, whether or not the fleet runs.

While the databases are copied nobody writes to hub.db. Every change is announced there before it is made: none begins
meanwhile, and one that is under way is in the copy as begun. The journals of runs (workflows.db) are copied first and
hub.db last, because hub.db is the truth about a run. A journal that is behind it costs nothing: a step that hub.db
says is done is not done again, and one that it says has begun is in doubt, for its probe or a person. A journal that
is ahead of it could have ended a run that hub.db says goes on, and that run would stand still. Files come first of
all: a change that hub.db does not know of would be made twice.

The audit's anchor is copied with hub.db under the lock that its writer takes, so that it knows no checkpoint that the
copy lacks. Sealed segments come last: one that hub.db does not know yet is as after a crash.
"""

import fcntl
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fleetkit import engines, sqlite_files
from fleetkit.errors import Refused
from fleetkit.settings import FleetSettings
from fleetkit.store import quick_check
from master_mcp.audit.place import Place, place_of

JOURNALS, HUB = "workflows.db", "hub.db"
LEFT_OUT = ("logs", "hub.lock")
WORKSPACE = "workspace"
_OLD = (".bak", ".partial")  # databases as they were before a migration
_BESIDE = ("-wal", "-shm", "-journal")  # behind a database's name: files of its own making


def gather(config: FleetSettings, folder: Path, *, workspace: bool) -> dict[str, Any]:
    """Copy what a backup holds into `folder`; `{hub_database, databases, notes}` for its manifest.

    `databases` are their newest migrations by name, `notes` say what is not in it and what to do about that. Raises
    Unavailable, Refused when something cannot be read.
    """
    source, place, hub = config.data_dir, place_of(config), hub_file(config)
    found, links = _found(source, LEFT_OUT if workspace else (*LEFT_OUT, WORKSPACE))
    databases = {path for path in found if sqlite_files.is_database(path)}
    own = {Path(f"{path}{suffix}") for path in databases for suffix in _BESIDE}
    for path in found:
        if path not in databases | own | {place.anchor}:
            _copy_file(path, folder / path.relative_to(source))
    copied = sorted(path for path in databases if path.suffix not in _OLD and path != source / HUB)
    with _still(hub, place.anchor):
        for path in sorted(copied, key=lambda path: path.name != JOURNALS):
            _copy_database(path, folder / path.relative_to(source))
        if hub is not None:
            _copy_database(hub, folder / HUB)
        if place.anchor.is_relative_to(source):
            _copy_file(place.anchor, folder / place.anchor.relative_to(source))
    if place.segments.is_relative_to(source):
        for path in _found(place.segments, ())[0]:
            target = folder / path.relative_to(source)
            if not target.exists() and path != place.anchor:
                _copy_file(path, target)
    notes = [*_notes(config, place), *(f"{path} is a link to a directory: what is in it is not here" for path in links)]
    return {"hub_database": _where(config), "databases": _checked(folder), "notes": notes}


def hub_file(config: FleetSettings) -> Path | None:
    """The hub's database when it is a file."""
    if config.hub.database_url is None:
        return config.data_dir / HUB
    return engines.sqlite_file(engines.engine_for(config.hub.database_url))


def _found(folder: Path, left_out: tuple[str, ...]) -> tuple[list[Path], list[Path]]:
    """The files below a folder, without these at its top; and the links to directories, which are not followed."""
    files: list[Path] = []
    links: list[Path] = []
    for at, folders, names in os.walk(folder, onerror=_refuse):
        here = Path(at)
        kept = [name for name in folders if here != folder or name not in left_out]
        links += [here / name for name in kept if (here / name).is_symlink()]
        folders[:] = kept
        files += [here / name for name in names if here != folder or name not in left_out]
    return sorted(path for path in files if path.is_file()), links


@contextmanager
def _still(hub: Path | None, anchor: Path) -> Generator[None]:
    """Nobody writes to hub.db or the anchor for the length of a block."""
    with ExitStack() as stack:
        if anchor.exists():
            handle = os.open(anchor, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_SH)
        if hub is not None:
            stack.enter_context(sqlite_files.held(hub))
        yield


def _copy_file(path: Path, target: Path) -> None:
    """A file with its times; one that was there for a moment only is left out."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        shutil.copy2(path, target)
    except (FileNotFoundError, PermissionError) as error:
        target.unlink(missing_ok=True)
        _refuse(error)


def _copy_database(path: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sqlite_files.copy(path, target)


def _refuse(error: OSError) -> None:
    """Raises Refused for what may not be read; what is gone meanwhile is not missed."""
    if isinstance(error, FileNotFoundError):
        return
    raise Refused(f"cannot read {error.filename} ({error.strerror}): run this as the user of the hub") from error


def _checked(folder: Path) -> dict[str, str | None]:
    """The newest migration of each copied database; raises Unavailable for one that is damaged."""
    copies = [path for path in _found(folder, ())[0] if sqlite_files.is_database(path)]
    for path in copies:
        quick_check(path)
    return {path.relative_to(folder).as_posix(): sqlite_files.revision(path) for path in copies}


def _where(config: FleetSettings) -> str:
    url = config.hub.database_url
    return HUB if url is None else engines.where(engines.engine_for(url))


def _notes(config: FleetSettings, place: Place) -> Iterator[str]:
    """What lies outside of the data directory."""
    url, where = config.hub.database_url, _where(config)
    if url is not None and sa.make_url(url).get_backend_name() == "postgresql":
        yield (
            f"the hub's database is not in it; copy that too, after this: "
            f"pg_dump --format=custom --file=hub.dump {where}"
        )
    elif url is not None:
        yield f"hub.db in it is the copy of {where}: put it back there when you restore"
    if not place.key_inside:
        yield f"the audit's key {place.key_file} is not in it: keep a copy elsewhere"
    if not place.anchor_inside:
        yield f"the audit's anchor {place.anchor} is not in it: it stays where it is, and says so when rows are missing"
    if not place.segments.is_relative_to(config.data_dir):
        yield f"the audit's sealed segments in {place.segments} are not in it: copy them too"
