"""Finding audit rows: in the table, and in the segments whose rows have left it, as one log."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from fleetkit.errors import Unavailable
from fleetkit.settings import FleetSettings
from fleetkit.shapes import mapping
from fleetkit.store import Store
from master_mcp.audit.chain import checkpoint_lines
from master_mcp.audit.place import place_of
from master_mcp.audit.segments import PAGE, STORED, Sealed, file_rows, read_segment, sealed_of
from master_mcp.store import audit

EXACT = ("door", "service", "risk", "outcome", "correlation_id", "approval_id")

Entry = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """Which rows: every field that is set must fit. `tool` is a glob; `since` and `until` are seconds since the epoch.

    `callers` are ids of keys, or who an event names; none of them means everyone.
    `after` and `before` are row numbers, for reading on where an answer ended.
    """

    callers: tuple[str, ...] = ()
    tool: str | None = None
    service: str | None = None
    door: str | None = None
    risk: str | None = None
    outcome: str | None = None
    correlation_id: str | None = None
    approval_id: str | None = None
    since: float | None = None
    until: float | None = None
    after: int | None = None
    before: int | None = None

    def fits(self, entry: Entry) -> bool:
        """Whether a row is one of these."""
        exact = all(getattr(self, name) in (None, entry[name]) for name in EXACT)
        exact = exact and (not self.callers or entry["caller"] in self.callers)
        return exact and self._in_time(entry) and (self.tool is None or fnmatchcase(entry["tool"], self.tool))

    def _in_time(self, entry: Entry) -> bool:
        late = self.since is None or entry["at"] >= self.since
        early = self.until is None or entry["at"] < self.until
        above = self.after is None or entry["seq"] > self.after
        return late and early and above and (self.before is None or entry["seq"] < self.before)

    def may_be_in(self, sealed: Sealed) -> bool:
        """Whether a segment can hold such a row, by its times and numbers."""
        late = self.since is None or sealed.last_at >= self.since
        early = self.until is None or sealed.first_at < self.until
        above = self.after is None or sealed.seq > self.after
        return late and early and above and (self.before is None or sealed.first < self.before)


def search(store: Store, config: FleetSettings, query: Query, limit: int = 100) -> list[Entry]:
    """The newest rows that fit, newest first, at most `limit`. `detail` is an object, not text.

    Raises Unavailable when a segment file that is needed is missing.
    """
    return list(islice(_newest_first(store, config, query), limit))


def entries(store: Store, config: FleetSettings, query: Query | None = None) -> Iterator[Entry]:
    """All rows that fit, oldest first, as they are read: any number of them in little memory.

    Raises Unavailable when a segment file that is needed is missing.
    """
    wanted = query or Query()
    for sealed in _gone(store):
        if wanted.may_be_in(sealed):
            yield from filter(wanted.fits, _of_file(config, sealed))
    yield from filter(wanted.fits, _of_table(store, wanted, newest_first=False))


def _newest_first(store: Store, config: FleetSettings, query: Query) -> Iterator[Entry]:
    yield from filter(query.fits, _of_table(store, query, newest_first=True))
    for sealed in reversed(_gone(store)):
        if query.may_be_in(sealed):
            yield from reversed([entry for entry in _of_file(config, sealed) if query.fits(entry)])


def _gone(store: Store) -> list[Sealed]:
    """The segments whose rows have left the table, oldest first."""
    drops = [orjson.loads(line) for line in store.read_now(lambda db: checkpoint_lines(db, "drop"))]
    dropped = int(drops[-1]["seq"]) if drops else 0
    seals = (sealed_of(orjson.loads(line)) for line in store.read_now(lambda db: checkpoint_lines(db, "seal")))
    return [sealed for sealed in seals if sealed.seq <= dropped]


def _of_file(config: FleetSettings, sealed: Sealed) -> Iterator[Entry]:
    folder: Path = place_of(config).segments
    data = read_segment(folder, sealed.file)
    if data is None:
        raise Unavailable(f"the audit's segment {folder / sealed.file} is missing: put it back")
    return (_entry(values) for values in file_rows(data))


def _of_table(store: Store, query: Query, *, newest_first: bool) -> Iterator[Entry]:
    """Rows of the table page by page, narrowed by what SQL can compare alike on every database."""
    gone = _gone(store)
    floor = max(gone[-1].seq if gone else 0, query.after or 0)  # what retention is deleting is in its file
    wanted = sa.select(*(audit.c[name] for name in STORED)).where(audit.c.seq > floor, *_conditions(query))
    order = audit.c.seq.desc() if newest_first else audit.c.seq.asc()
    edge: int | None = None
    while True:
        page = wanted
        if edge is not None:
            page = wanted.where(audit.c.seq < edge if newest_first else audit.c.seq > edge)
        rows = store.read_now(lambda db, page=page: db.execute(page.order_by(order).limit(PAGE)).all())
        yield from (_entry(tuple(row)) for row in rows)
        if len(rows) < PAGE:
            return
        edge = rows[-1][0]


def _conditions(query: Query) -> Iterator[sa.ColumnElement[bool]]:
    for name in EXACT:
        value = getattr(query, name)
        if value is not None:
            yield audit.c[name] == value
    if query.callers:
        yield audit.c.caller.in_(query.callers)
    if query.since is not None:
        yield audit.c.at >= query.since
    if query.until is not None:
        yield audit.c.at < query.until
    if query.before is not None:
        yield audit.c.seq < query.before


def _entry(values: Any) -> Entry:
    entry: Entry = dict(zip(STORED, values, strict=True))
    entry["detail"] = _object(entry["detail"])
    return entry


def _object(text: object) -> dict[str, Any] | None:
    """The detail as the object that it is; a text that somebody damaged is no reason to show nothing."""
    if not isinstance(text, str):
        return None
    try:
        return dict(mapping(orjson.loads(text)))
    except orjson.JSONDecodeError:
        return {"damaged": text}
