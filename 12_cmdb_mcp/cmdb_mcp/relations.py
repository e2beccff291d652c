"""Typed relations: what they mean for impact, adding and ending them, and listing a CI's."""

from typing import Literal, cast, get_args

import sqlalchemy as sa

from cmdb_mcp.change import Change
from cmdb_mcp.models import CiRef, Relation
from cmdb_mcp.record import Record
from cmdb_mcp.tables import cis, history, relations
from fleetkit import Invalid

RelationType = Literal["runs_on", "depends_on", "connects_to", "stored_on", "part_of", "backs_up"]
RELATION_TYPES: tuple[str, ...] = get_args(RelationType)

# When the far end fails, the near end is affected ...
NEEDS_TARGET = ("runs_on", "depends_on", "connects_to", "stored_on")
# ... and for these it is the other way round: a failed part harms the whole, a failed backup the backed-up.
SERVES_TARGET = ("part_of", "backs_up")

MAX_LISTED = 200

_ADD = relations.insert()
_CURRENT = sa.select(relations.c.id).where(
    relations.c.from_ci == sa.bindparam("near"),
    relations.c.type == sa.bindparam("kind"),
    relations.c.to_ci == sa.bindparam("far"),
    relations.c.ended_at.is_(None),
)


def relate(change: Change, near: Record, kind: str, far: Record) -> bool:
    """Make `near -kind-> far` hold from now on; False when it does already. Raises Invalid for a retired end."""
    if near.id == far.id:
        raise Invalid(f"{near.label} cannot be related to itself")
    retired = [record.label for record in (near, far) if not record.active]
    if retired:
        raise Invalid(f"{', '.join(retired)} is retired: bring it back with upsertCi first")
    if _current(change, near, kind, far) is not None:
        return False
    row = {"from_ci": near.id, "type": kind, "to_ci": far.id, "source": change.source, "added_at": change.at}
    change.connection.execute(_ADD, row)
    change.note("related", near, other=far, relation=arrow(near, kind, far))
    return True


def unrelate(change: Change, near: Record, kind: str, far: Record) -> bool:
    """End `near -kind-> far`; False when it does not hold."""
    number = _current(change, near, kind, far)
    if number is None:
        return False
    ended = sa.update(relations).where(relations.c.id == number).values(ended_at=change.at)
    change.connection.execute(ended)
    change.note("unrelated", near, other=far, relation=arrow(near, kind, far))
    return True


def arrow(near: Record, kind: str, far: Record) -> str:
    """`server:a -depends_on-> server:b`."""
    return f"{near.label} -{kind}-> {far.label}"


def _current(change: Change, near: Record, kind: str, far: Record) -> int | None:
    return change.connection.scalar(_CURRENT, {"near": near.id, "kind": kind, "far": far.id})


def listed(connection: sa.Connection, number: int) -> tuple[list[Relation], int]:
    """The relations of a CI to active CIs (the first 200), and how many there are."""
    found: list[Relation] = []
    total = 0
    for direction, here, there in _ends():
        chosen = (
            sa.select(relations, cis.c.ci_class, cis.c.name, cis.c.status, cis.c.id.label("other"))
            .join(cis, cis.c.id == there)
            .where(here == number, relations.c.ended_at.is_(None), cis.c.status == "active")
            .order_by(relations.c.type, cis.c.ci_class, cis.c.name)
        )
        total += connection.scalar(sa.select(sa.func.count()).select_from(chosen.subquery())) or 0
        for row in connection.execute(chosen.limit(MAX_LISTED - len(found))).mappings():
            ref = CiRef(id=f"ci-{row['other']}", ci_class=row["ci_class"], name=row["name"], status=row["status"])
            found.append(_relation(direction, ref, row))
    return found, total


def listed_at(connection: sa.Connection, number: int, at: str) -> tuple[list[Relation], int]:
    """The relations of a CI as they were at a time, to CIs that were active then."""
    found: list[Relation] = []
    for direction, here, there in _ends():
        c = relations.c
        held = (here == number, c.added_at <= at, sa.or_(c.ended_at.is_(None), c.ended_at > at))
        for row in connection.execute(sa.select(relations, there.label("other")).where(*held)).mappings():
            other = state_at(connection, row["other"], at)
            if other is not None and other.active:
                found.append(_relation(direction, other.ref(), row))
    found.sort(key=lambda item: (item.direction != "to", item.type, item.ci.ci_class, item.ci.name))
    return found[:MAX_LISTED], len(found)


def state_at(connection: sa.Connection, number: int, at: str) -> Record | None:
    """The CI as history says it was at a time; None before it existed."""
    c = history.c
    chosen = sa.select(c.state).where(c.ci == number, c.at <= at, c.state.is_not(sa.null()))
    state = connection.execute(chosen.order_by(c.seq.desc()).limit(1)).scalar()
    return Record.of(state) if state else None


def _ends() -> list[tuple[Literal["to", "from"], sa.Column[int], sa.Column[int]]]:
    c = relations.c
    return [("to", c.from_ci, c.to_ci), ("from", c.to_ci, c.from_ci)]


def _relation(direction: Literal["to", "from"], ci: CiRef, row: sa.RowMapping) -> Relation:
    source, since = cast("str", row["source"]), cast("str", row["added_at"])
    return Relation(type=row["type"], direction=direction, ci=ci, source=source, since=since)
