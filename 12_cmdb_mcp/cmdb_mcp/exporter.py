"""CIs as CSV (importCsv reads it back) or JSON."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import orjson
import sqlalchemy as sa

from cmdb_mcp import classes, csv_io
from cmdb_mcp.models import Exported
from cmdb_mcp.record import Record
from cmdb_mcp.relations import RELATION_TYPES
from cmdb_mcp.search import Query, select
from cmdb_mcp.tables import cis, relations

CHUNK = 500


def export(
    connection: sa.Connection, query: Query, form: Literal["csv", "json"], limit: int, cursor: str | None
) -> Exported:
    """Every CI that `query` finds, attributes and relations, up to `limit`."""
    records, _, next_cursor = select(connection, query, limit, cursor)
    links = _links(connection, [record.id for record in records])
    rows = [_row(record, links[record.id]) for record in records]
    text = csv_io.render(_columns(connection, records, rows), rows) if form == "csv" else orjson.dumps(rows).decode()
    return Exported(
        format=form, content=text, rows=len(rows), truncated=next_cursor is not None, next_cursor=next_cursor
    )


def _row(record: Record, links: dict[str, list[str]]) -> dict[str, object]:
    return {"class": record.ci_class, **record.attributes, **links}


def _columns(connection: sa.Connection, records: Sequence[Record], rows: Sequence[dict[str, object]]) -> list[str]:
    """`class`, the attributes in the order of their classes, the relations; only those that hold something."""
    catalog = classes.load(connection)
    kinds = dict.fromkeys(record.ci_class for record in records)
    order = ["class", *(name for kind in kinds for name in catalog[kind].attributes), *RELATION_TYPES]
    used = {name for row in rows for name in row}
    return [name for name in dict.fromkeys(order) if name in used]


def _links(connection: sa.Connection, numbers: Sequence[int]) -> dict[int, dict[str, list[str]]]:
    found: dict[int, dict[str, list[str]]] = defaultdict(dict)
    c = relations.c
    for at in range(0, len(numbers), CHUNK):
        chosen = (
            sa.select(c.from_ci, c.type, cis.c.ci_class, cis.c.name)
            .join(cis, cis.c.id == c.to_ci)
            .where(c.from_ci.in_(numbers[at : at + CHUNK]), c.ended_at.is_(None), cis.c.status == "active")
            .order_by(c.id)
        )
        for number, kind, ci_class, name in connection.execute(chosen):
            found[number].setdefault(kind, []).append(f"{ci_class}:{name}")
    return found
