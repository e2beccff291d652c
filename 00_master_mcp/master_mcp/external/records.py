"""The table of pins: written by the hub (what it saw) and by operators (what they approved)."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fleetkit.errors import Conflict, NotFound
from fleetkit.store import Store
from master_mcp.external.pins import Snapshot
from master_mcp.store import catalog as listed
from master_mcp.store import external_servers as table


@dataclass(frozen=True)
class Record:
    """What is known of one server; times are seconds since the epoch."""

    name: str
    approved: Snapshot | None = None
    approved_at: float | None = None
    approved_by: str | None = None
    seen: Snapshot | None = None
    seen_at: float | None = None
    reloads: int = 0


class Records:
    """Every record of one hub."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def version(self) -> tuple[int, int]:
        """A value that differs after every change."""
        query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.max(table.c.changed), 0))
        count, newest = self._store.read_now(lambda db: db.execute(query).one())
        return int(count), int(newest)

    def all(self) -> dict[str, Record]:
        """Every record by name."""
        rows = self._store.read_now(lambda db: db.execute(sa.select(table)).mappings().all())
        return {row["name"]: _record(dict(row)) for row in rows}

    def get(self, name: str) -> Record:
        """One record; an empty one for a server that was never seen."""
        return self.all().get(name, Record(name))

    async def saw(self, name: str, seen: Snapshot) -> None:
        """Keep what a server shows; nothing is written when that is no news."""
        digest = seen.digest

        def keep(db: sa.Connection) -> None:
            known = db.execute(sa.select(table.c.seen_digest).where(table.c.name == name)).scalar()
            if known != digest:
                _put(db, name, seen=seen.to_json(), seen_digest=digest, seen_at=time.time())

        await self._store.write(keep)

    def approve(self, name: str, approved: Snapshot, shown: Snapshot, by: str) -> None:
        """Pin `approved`, a part of `shown`. Raises Conflict when the server shows something else by now."""

        def pin(db: sa.Connection) -> None:
            known = db.execute(sa.select(table.c.seen_digest).where(table.c.name == name)).scalar()
            if known != shown.digest:
                raise Conflict(f"{name} changed while you looked at it: look again, then approve")
            _put(db, name, approved=approved.to_json(), approved_at=time.time(), approved_by=by)

        self._store.write_now(pin)

    def reload(self, name: str) -> None:
        """Have a running hub start the server anew."""

        def ask(db: sa.Connection) -> None:
            known = db.execute(sa.select(table.c.reloads).where(table.c.name == name)).scalar()
            _put(db, name, reloads=(known or 0) + 1)

        self._store.write_now(ask)

    def forget(self, name: str) -> None:
        """Drop what was approved and what was listed. Raises NotFound when nothing is known of it."""

        def drop(db: sa.Connection) -> int:
            db.execute(listed.delete().where(listed.c.service == name))
            return db.execute(table.delete().where(table.c.name == name)).rowcount

        if not self._store.write_now(drop):
            raise NotFound(f"nothing is known of a server {name!r}")


def _put(db: sa.Connection, name: str, **values: Any) -> None:
    values["changed"] = time.time_ns()
    if not db.execute(table.update().where(table.c.name == name).values(values)).rowcount:
        db.execute(table.insert().values({"name": name, "reloads": 0, **values}))


def _record(row: Mapping[str, Any]) -> Record:
    return Record(
        name=row["name"],
        approved=Snapshot.from_json(row["approved"]),
        approved_at=row["approved_at"],
        approved_by=row["approved_by"],
        seen=Snapshot.from_json(row["seen"]),
        seen_at=row["seen_at"],
        reloads=row["reloads"],
    )
