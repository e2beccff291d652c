"""Walking relations: what a failure reaches, what something needs, how two CIs are connected.

Breadth first, one query per level, each CI visited once: cycles end by themselves and the first path
found is a shortest one.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from cmdb_mcp.models import Affected, CiRef, Hop, Impact, Route
from cmdb_mcp.record import Record, find
from cmdb_mcp.relations import NEEDS_TARGET, SERVES_TARGET
from cmdb_mcp.tables import cis, relations

CHUNK = 500  # ids in one query
MAX_VISITED = 20_000  # CIs looked at when searching a path

Direction = Literal["downstream", "upstream", "both"]


@dataclass(frozen=True)
class Edge:
    """A step of a walk from a CI already reached to the next; `forward` when the relation points that way."""

    start: int
    type: str
    end: int
    forward: bool


Condition = sa.ColumnElement[bool]
Neighbours = Callable[[Sequence[int]], tuple[Condition | None, Condition | None]]


def impact(connection: sa.Connection, ref: str, direction: Direction, max_depth: int, limit: int) -> Impact:
    """What depends on a CI (downstream) and what it depends on (upstream), directly and through others."""
    start = find(connection, ref)
    down, cut_down = _reach(connection, start, _affected, max_depth, limit) if direction != "upstream" else ([], False)
    up, cut_up = _reach(connection, start, _needed, max_depth, limit) if direction != "downstream" else ([], False)
    return Impact(
        ci=start.ref(),
        downstream=down,
        upstream=up,
        downstream_by_class=dict(sorted(Counter(item.ci.ci_class for item in down).items())),
        truncated=cut_down or cut_up,
    )


def route(connection: sa.Connection, source: str, target: str, max_depth: int) -> Route:
    """A shortest connection between two CIs, following relations either way."""
    start, goal = find(connection, source), find(connection, target)
    came: dict[int, Edge | None] = {start.id: None}
    frontier = [start.id]
    for _ in range(max_depth):
        if goal.id in came or not frontier or len(came) > MAX_VISITED:
            break
        frontier = _step(connection, frontier, came, _any_way)
    if goal.id not in came:
        return Route(found=False, path=[], hops=[])
    edges = _trace(came, goal.id)
    names = {
        number: item.label for number, item in _refs(connection, [start.id, *(edge.end for edge in edges)]).items()
    }
    return Route(found=True, path=[names[start.id], *(names[edge.end] for edge in edges)], hops=_hops(edges, names))


def _reach(
    connection: sa.Connection, start: Record, neighbours: Neighbours, max_depth: int, limit: int
) -> tuple[list[Affected], bool]:
    came: dict[int, Edge | None] = {start.id: None}
    frontier, depth_of = [start.id], {start.id: 0}
    for depth in range(1, max_depth + 1):
        if len(came) > limit or not frontier:
            break
        frontier = _step(connection, frontier, came, neighbours)
        depth_of |= dict.fromkeys(frontier, depth)
    more = len(came) - 1 > limit or bool(frontier and _step(connection, frontier, dict(came), neighbours))
    order = list(came)[1 : limit + 1]
    refs = _refs(connection, [start.id, *order])
    found: list[Affected] = []
    for number in order:
        edges = _trace(came, number)
        path = [refs[start.id].label, *(refs[edge.end].label for edge in edges)]
        via = [edge.type for edge in edges]
        found.append(Affected(ci=refs[number], depth=depth_of[number], path=path, via=via))
    return found, more


def _step(
    connection: sa.Connection, frontier: Sequence[int], came: dict[int, Edge | None], neighbours: Neighbours
) -> list[int]:
    """Reach one level further; notes in `came` how, and returns what is new."""
    new: list[int] = []
    for edge in _edges(connection, frontier, neighbours):
        if edge.end not in came:
            came[edge.end] = edge
            new.append(edge.end)
    return new


def _edges(connection: sa.Connection, frontier: Sequence[int], neighbours: Neighbours) -> Iterable[Edge]:
    c = relations.c
    for at in range(0, len(frontier), CHUNK):
        forwards, backwards = neighbours(frontier[at : at + CHUNK])
        for condition, here, there in ((forwards, c.from_ci, c.to_ci), (backwards, c.to_ci, c.from_ci)):
            if condition is None:
                continue
            chosen = (
                sa.select(here, c.type, there)
                .join(cis, cis.c.id == there)
                .where(condition, c.ended_at.is_(None), cis.c.status == "active")
                .order_by(cis.c.ci_class, cis.c.name, c.id)
            )
            for start, kind, end in connection.execute(chosen):
                yield Edge(start, kind, end, forward=here is c.from_ci)


def _affected(ids: Sequence[int]) -> tuple[Condition | None, Condition | None]:
    """From what fails to what misses it."""
    c = relations.c
    return sa.and_(c.from_ci.in_(ids), c.type.in_(SERVES_TARGET)), sa.and_(c.to_ci.in_(ids), c.type.in_(NEEDS_TARGET))


def _needed(ids: Sequence[int]) -> tuple[Condition | None, Condition | None]:
    """From what works to what it needs for that."""
    c = relations.c
    return sa.and_(c.from_ci.in_(ids), c.type.in_(NEEDS_TARGET)), sa.and_(c.to_ci.in_(ids), c.type.in_(SERVES_TARGET))


def _any_way(ids: Sequence[int]) -> tuple[Condition | None, Condition | None]:
    return relations.c.from_ci.in_(ids), relations.c.to_ci.in_(ids)


def _trace(came: dict[int, Edge | None], number: int) -> list[Edge]:
    edges: list[Edge] = []
    while (edge := came[number]) is not None:
        edges.append(edge)
        number = edge.start
    return edges[::-1]


def _hops(edges: Sequence[Edge], names: dict[int, str]) -> list[Hop]:
    ends = [(edge.start, edge.end) if edge.forward else (edge.end, edge.start) for edge in edges]
    return [
        Hop(source=names[near], type=edge.type, target=names[far])
        for edge, (near, far) in zip(edges, ends, strict=True)
    ]


def _refs(connection: sa.Connection, numbers: Sequence[int]) -> dict[int, CiRef]:
    c = cis.c
    found: dict[int, CiRef] = {}
    for at in range(0, len(numbers), CHUNK):
        chosen = sa.select(c.id, c.ci_class, c.name, c.status).where(c.id.in_(numbers[at : at + CHUNK]))
        for number, ci_class, name, status in connection.execute(chosen):
            found[number] = CiRef(id=f"ci-{number}", ci_class=ci_class, name=name, status=status)
    return found
