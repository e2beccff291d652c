"""The workflows that can be run by name: saved ones, then the user's files, then the shipped ones."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fleetkit import settings
from fleetkit.errors import FleetError, NotFound
from fleetkit.log import get_logger
from fleetkit.store import Store
from master_mcp.auth.caller import Caller
from master_mcp.store.workflows import definitions
from master_mcp.workflows.reading import digest, parse

log = get_logger()

SAVED, YOURS, SHIPPED = "saved", "file", "shipped"


@dataclass(frozen=True)
class Entry:
    """One workflow of the library. `owner_id` is who saved it; files have none, and start nothing by themselves."""

    name: str
    hash: str
    origin: str
    content: Mapping[str, Any] = field(repr=False)
    owner_id: str | None = None
    owner_name: str | None = None
    saved_at: float | None = None


class Library:
    """Looks definitions up and keeps saved ones by version."""

    def __init__(self, store: Store, data_dir: Path) -> None:
        self._store = store
        self._read: dict[Path, tuple[tuple[int, int], Entry]] = {}
        self._folders = ((YOURS, data_dir / "workflows"), (SHIPPED, settings.shipped_file().parent / "workflows"))

    async def get(self, name: str) -> Entry:
        """The workflow of that name; raises NotFound."""
        found = (await self.all()).get(name)
        if found is None:
            raise NotFound(f"no workflow {name!r}: orchestrator.listDefinitions names them all")
        return found

    async def all(self) -> dict[str, Entry]:
        """Every workflow by name."""
        files = await asyncio.to_thread(self._files)
        return dict(sorted({**files, **await self.saved()}.items()))

    async def saved(self) -> dict[str, Entry]:
        """Those that somebody saved."""
        query = sa.select(definitions).where(definitions.c.current.is_(True))
        rows = await self._store.read(lambda db: db.execute(query).mappings().all())
        return {row["name"]: _entry(row) for row in rows}

    async def save(self, name: str, content: Mapping[str, Any], owner: Caller) -> Entry:
        """Make this the version in force; runs under way keep theirs."""
        row: dict[str, Any] = {
            "name": name,
            "hash": digest(content),
            "content": dict(content),
            "owner_id": owner.id,
            "owner_name": owner.name,
            "saved_at": time.time(),
            "current": True,
        }

        def work(db: sa.Connection) -> None:
            same = definitions.c.name == name
            db.execute(definitions.update().where(same).values(current=False))
            db.execute(definitions.delete().where(same, definitions.c.hash == row["hash"]))
            db.execute(definitions.insert().values(row))

        await self._store.write(work)
        return _entry(row)

    async def remove(self, name: str) -> None:
        """Take a saved workflow out of the library; its versions stay on record. Raises NotFound."""
        change = definitions.update().where(definitions.c.name == name, definitions.c.current.is_(True))
        if not await self._store.write(lambda db: db.execute(change.values(current=False)).rowcount):
            raise NotFound(f"no saved workflow {name!r}: only those that were saved can be removed")

    def _files(self) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for origin, folder in self._folders:
            for path in sorted(folder.glob("*.yaml")) if folder.is_dir() else ():
                try:
                    entry = self._file(path, origin)
                except (FleetError, OSError, UnicodeDecodeError) as error:
                    log.warning("workflow.file.unreadable", file=str(path), reason=str(error))
                    continue
                found.setdefault(entry.name, entry)
        return found

    def _file(self, path: Path, origin: str) -> Entry:
        """The workflow in a file, read again when that has changed."""
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size)
        known = self._read.get(path)
        if known is None or known[0] != stamp:
            content = parse(path.read_text(encoding="utf-8"), path.name)
            entry = Entry(str(content.get("name", path.stem)), digest(content), origin, content)
            known = self._read[path] = (stamp, entry)
        return known[1]


def _entry(row: Any) -> Entry:
    return Entry(row["name"], row["hash"], SAVED, row["content"], row["owner_id"], row["owner_name"], row["saved_at"])
