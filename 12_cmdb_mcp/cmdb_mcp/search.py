"""Searching CIs: class, typed filters, full text, sorting and pages that stay right while data changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field

from cmdb_mcp import classes, paging
from cmdb_mcp.classes import Catalog
from cmdb_mcp.models import Hit, Page
from cmdb_mcp.record import Record
from cmdb_mcp.tables import cis
from fleetkit import Invalid

Scalar = str | int | float | bool
COLUMNS = ("name", "status", "source", "version", "created_at", "updated_at")


class Condition(BaseModel):
    """Everything given must hold. Text is compared without regard to case."""

    model_config = ConfigDict(extra="forbid")

    equals: Scalar | None = None
    differs: Scalar | None = Field(default=None, description="true as well when there is no value")
    any_of: list[Scalar] | None = None
    contains: str | None = Field(default=None, description="part of the text")
    starts_with: str | None = None
    above: Scalar | None = Field(default=None, description="greater than")
    below: Scalar | None = Field(default=None, description="less than")
    exists: bool | None = Field(default=None, description="whether it has a value at all")


Filter = Scalar | list[Scalar] | Condition
Filters = dict[str, Filter]


@dataclass(frozen=True)
class Query:
    """What to look for."""

    text: str = ""
    ci_class: str | None = None
    filters: Mapping[str, Filter] = field(default_factory=dict[str, Filter])
    sort: str = "name"
    include_retired: bool = False

    def fingerprint(self) -> list[object]:
        """What a cursor is bound to."""
        filters = {
            name: item.model_dump() if isinstance(item, Condition) else item for name, item in self.filters.items()
        }
        return [self.text, self.ci_class, filters, self.sort, self.include_retired]


def search(
    connection: sa.Connection, query: Query, *, fields: Sequence[str] | None, limit: int, cursor: str | None
) -> Page:
    """One page of CIs. `fields` picks attributes, None means all."""
    records, total, next_cursor = select(connection, query, limit, cursor)
    if fields is not None:
        _known(classes.load(connection), query.ci_class, fields)
    return Page(
        items=[_hit(record, fields) for record in records],
        total=total,
        truncated=next_cursor is not None,
        next_cursor=next_cursor,
    )


def select(
    connection: sa.Connection, query: Query, limit: int, cursor: str | None
) -> tuple[list[Record], int, str | None]:
    """The records of one page, the number of all matches, and the cursor of the next page."""
    conditions = _conditions(classes.load(connection), query)
    total = connection.scalar(sa.select(sa.func.count()).select_from(cis).where(*conditions)) or 0
    column, descending = _sort(classes.load(connection), query)
    # NULLs last either way; the id makes the order total, so a page can continue after any row.
    keys = [column.is_not(None) if descending else column.is_(None), sa.func.coalesce(column, ""), cis.c.id]
    chosen = sa.select(cis, *(key.label(f"key{i}") for i, key in enumerate(keys))).where(*conditions)
    if cursor is not None:
        last = paging.decode(cursor, query.fingerprint())
        row = sa.tuple_(keys[0], keys[1].collate("NOCASE"), keys[2])
        bound = sa.tuple_(*(sa.literal(value) for value in last))
        chosen = chosen.where(row < bound if descending else row > bound)
    order = [keys[0], keys[1].collate("NOCASE"), keys[2]]
    chosen = chosen.order_by(*(key.desc() if descending else key.asc() for key in order)).limit(limit + 1)
    rows = connection.execute(chosen).mappings().all()
    records = [Record.of(dict(row)) for row in rows[:limit]]
    if len(rows) <= limit:
        return records, total, None
    end = rows[limit - 1]
    return records, total, paging.encode([end["key0"], end["key1"], end["key2"]], query.fingerprint())


def match_expression(text: str) -> str:
    """`text` as an FTS5 query that cannot break out: every word, as a prefix; raises Invalid for no words."""
    words = [word for word in text.split() if any(char.isalnum() for char in word)]
    if not words:
        raise Invalid("text holds no word to search for: leave it empty, or give letters or digits")
    return " ".join('"' + word.replace('"', '""').replace("\0", "") + '"*' for word in words)


def _conditions(catalog: Catalog, query: Query) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if query.ci_class is not None:
        found.append(cis.c.ci_class == classes.pick(catalog, query.ci_class).name)
    if not query.include_retired and "status" not in query.filters:
        found.append(cis.c.status == "active")
    if query.text:
        hits = sa.text("SELECT rowid FROM cis_fts WHERE cis_fts MATCH :words")
        found.append(cis.c.id.in_(hits.bindparams(words=match_expression(query.text)).columns(rowid=sa.Integer)))
    _known(catalog, query.ci_class, query.filters)
    for name, item in query.filters.items():
        found += _filter(name, item)
    return found


def _known(catalog: Catalog, ci_class: str | None, names: Sequence[str] | Mapping[str, object]) -> None:
    kinds = [classes.pick(catalog, ci_class)] if ci_class else list(catalog.values())
    known = {name for kind in kinds for name in kind.attributes} | set(COLUMNS)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Invalid(f"no attribute {', '.join(unknown)}; there are {', '.join(sorted(known))}")


def _filter(name: str, item: Filter) -> list[sa.ColumnElement[bool]]:
    """A filter as SQL over the one or many values that an attribute holds."""
    if isinstance(item, list):
        item = Condition(any_of=item)
    elif not isinstance(item, Condition):
        item = Condition(equals=item)
    each = _values(name)
    value: sa.ColumnElement[Any] = each.c.value
    text = sa.func.lower(sa.cast(value, sa.Text))
    tests: list[tuple[object, sa.ColumnElement[bool]]] = [
        (item.equals, _equal(value, [item.equals])),
        (item.any_of, _equal(value, item.any_of or [])),
        (item.contains, sa.func.instr(text, sa.func.lower(item.contains)) > 0),
        (item.starts_with, sa.func.instr(text, sa.func.lower(item.starts_with)) == 1),
        (item.above, sa.and_(_comparable(value, item.above), value > sa.literal(item.above))),
        (item.below, sa.and_(_comparable(value, item.below), value < sa.literal(item.below))),
    ]
    found: list[sa.ColumnElement[bool]] = [
        sa.exists(sa.select(each.c.value).where(test)) for given, test in tests if given is not None
    ]
    if item.differs is not None:
        found.append(~sa.exists(sa.select(each.c.value).where(_equal(value, [item.differs]))))
    if item.exists is not None:
        has = sa.exists(sa.select(each.c.value).where(value.is_not(None)))
        found.append(has if item.exists else ~has)
    return found


def _equal(value: sa.ColumnElement[Any], wanted: Sequence[Scalar | None]) -> sa.ColumnElement[bool]:
    """Equal as values, or as text without regard to case: `"8"` finds the number 8."""
    text = sa.func.lower(sa.cast(value, sa.Text))
    tests = [sa.or_(value == sa.literal(item), text == str(item).lower()) for item in wanted]
    return sa.or_(*tests, sa.false())


def _comparable(value: sa.ColumnElement[Any], bound: Scalar | None) -> sa.ColumnElement[bool]:
    """Numbers with numbers, text with text: SQLite would order any text above any number."""
    return sa.func.typeof(value).in_(("text",) if isinstance(bound, str) else ("integer", "real"))


def _values(name: str) -> sa.TableValuedAlias:
    """json_each over a column, or an attribute: one row per value, none when it has none."""
    if name == "name":  # the record's name and, where the class has one, the attribute
        source = sa.func.json_array(cis.c.name, _attribute("name"))
        return sa.func.json_each(source).table_valued("value", name="each")
    if name in COLUMNS and name != "version":
        return sa.func.json_each(sa.func.json_array(cis.c[name])).table_valued("value", name="each")
    return sa.func.json_each(cis.c.attributes, f"$.{name}").table_valued("value", name="each")


def _attribute(name: str) -> sa.ColumnElement[Any]:
    return sa.func.json_extract(cis.c.attributes, f"$.{name}")


def _sort(catalog: Catalog, query: Query) -> tuple[sa.ColumnElement[Any], bool]:
    name = query.sort.removeprefix("-")
    _known(catalog, query.ci_class, [name])
    column = cis.c[name] if name in COLUMNS and name != "version" else _attribute(name)
    return column, query.sort.startswith("-")


def _hit(record: Record, fields: Sequence[str] | None) -> Hit:
    names = record.attributes if fields is None else [name for name in fields if name in record.attributes]
    return Hit(
        **record.ref().model_dump(),
        version=record.version,
        updated_at=record.updated_at,
        attributes={name: record.attributes[name] for name in names},
    )
