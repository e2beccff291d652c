"""Reading one CI: now, at a time, its history, and how two states differ."""

from typing import Any

import sqlalchemy as sa

from cmdb_mcp import relations
from cmdb_mcp.change import parse_time
from cmdb_mcp.models import Ci, Delta, Diff, Difference, Event, EventPage
from cmdb_mcp.paging import decode, encode
from cmdb_mcp.record import find
from cmdb_mcp.tables import history
from fleetkit import NotFound


def details(connection: sa.Connection, ref: str, events: int = 0) -> Ci:
    """A CI with its relations, and its last `events` changes."""
    record = find(connection, ref)
    listed, total = relations.listed(connection, record.id)
    past = changes(connection, ref, None, None, events, None).events if events else []
    return record.model().model_copy(update={"relations": listed, "relations_total": total, "history": past})


def as_of(connection: sa.Connection, ref: str, at: str) -> Ci:
    """A CI as it was at a time; raises NotFound when it did not exist then."""
    record, moment = find(connection, ref), parse_time(at)
    then = relations.state_at(connection, record.id, moment)
    if then is None:
        raise NotFound(f"{record.label} did not exist at {moment}: it was recorded at {record.created_at}")
    listed, total = relations.listed_at(connection, record.id, moment)
    return then.model().model_copy(update={"as_of": moment, "relations": listed, "relations_total": total})


def changes(
    connection: sa.Connection, ref: str | None, since: str | None, until: str | None, limit: int, cursor: str | None
) -> EventPage:
    """What changed, newest first: one CI's history (its relations included), or everything."""
    c = history.c
    chosen = sa.select(history).order_by(c.seq.desc()).limit(limit + 1)
    if ref is not None:
        number = find(connection, ref).id
        chosen = chosen.where(sa.or_(c.ci == number, c.other_ci == number))
    if since is not None:
        chosen = chosen.where(c.at >= parse_time(since))
    if until is not None:
        chosen = chosen.where(c.at <= parse_time(until))
    query = [ref, since, until]
    if cursor is not None:
        chosen = chosen.where(c.seq < int(decode(cursor, query)[0]))
    events = [_event(row) for row in connection.execute(chosen).mappings()]
    more = len(events) > limit
    events = events[:limit]
    return EventPage(events=events, truncated=more, next_cursor=encode([events[-1].seq], query) if more else None)


def diff(connection: sa.Connection, left: str, right: str, left_at: str | None, right_at: str | None) -> Diff:
    """What differs between two CIs, or between two times of one."""
    a = as_of(connection, left, left_at) if left_at else details(connection, left)
    b = as_of(connection, right, right_at) if right_at else details(connection, right)
    names = sorted(a.attributes.keys() | b.attributes.keys())
    differing = [name for name in names if a.attributes.get(name) != b.attributes.get(name)]
    mine, theirs = _arrows(a), _arrows(b)
    return Diff(
        left=_side(a),
        right=_side(b),
        attributes=[
            Difference(attribute=name, left=a.attributes.get(name), right=b.attributes.get(name)) for name in differing
        ]
        + ([Difference(attribute="status", left=a.status, right=b.status)] if a.status != b.status else []),
        same=len(names) - len(differing),
        relations_only_left=sorted(mine - theirs),
        relations_only_right=sorted(theirs - mine),
    )


def _side(ci: Ci) -> str:
    return f"{ci.label} ({'as of ' + ci.as_of if ci.as_of else 'now'})"


def _arrows(ci: Ci) -> set[str]:
    return {
        f"-{item.type}-> {item.ci.label}" if item.direction == "to" else f"{item.ci.label} -{item.type}->"
        for item in ci.relations
    }


def _event(row: sa.RowMapping) -> Event:
    changed: dict[str, Any] = row["changes"]
    relation = changed.get("relation") if row["action"] in ("related", "unrelated") else None
    plain = row["ci"] is not None and relation is None
    return Event(
        seq=row["seq"],
        at=row["at"],
        action=row["action"],
        subject=row["label"],
        changes={name: Delta.model_validate(delta) for name, delta in changed.items()} if plain else {},
        relation=relation,
        source=row["source"],
        who=row["who"],
        correlation_id=row["correlation_id"],
    )
