"""CIs that may be one and the same: equal values that should be unique, and names that differ only in form."""

import re
from collections import defaultdict
from collections.abc import Iterable

import sqlalchemy as sa

from cmdb_mcp import classes
from cmdb_mcp.models import Duplicates, Group
from cmdb_mcp.record import Record
from cmdb_mcp.tables import cis
from cmdb_mcp.values import fold


def duplicates(connection: sa.Connection, ci_class: str | None, limit: int) -> Duplicates:
    """Groups of active CIs that look like one. A value shared across classes counts; a name does not."""
    catalog = classes.load(connection)
    chosen = sa.select(cis).where(cis.c.status == "active").order_by(cis.c.id)
    if ci_class is not None:
        chosen = chosen.where(cis.c.ci_class == classes.pick(catalog, ci_class).name)
    records = [Record.of(dict(row)) for row in connection.execute(chosen).mappings()]
    groups = [*_same_values(catalog, records), *_similar_names(records)]
    return Duplicates(groups=groups[:limit], truncated=len(groups) > limit)


def _same_values(catalog: classes.Catalog, records: Iterable[Record]) -> Iterable[Group]:
    sharing: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        for name, spec in catalog[record.ci_class].attributes.items():
            if spec.unique and name in record.attributes:
                sharing[name, fold(str(record.attributes[name]))].append(record)
    for (name, value), same in sharing.items():
        if len(same) > 1:
            yield Group(reason=f"same {name} {value}", cis=[record.ref() for record in same])


def _similar_names(records: Iterable[Record]) -> Iterable[Group]:
    sharing: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        sharing[record.ci_class, _bare(record)].append(record)
    for (ci_class, _), same in sharing.items():
        if len(same) > 1:
            names = ", ".join(record.name for record in same)
            yield Group(reason=f"{ci_class} names alike: {names}", cis=[record.ref() for record in same])


def _bare(record: Record) -> str:
    """A name without domain, case and punctuation: web-01.example.com and WEB01 are both web01."""
    name, _, host = record.name.partition("@")
    if "hostname" in record.attributes:
        name = name.partition(".")[0]
    return f"{re.sub(r'[^0-9a-z]', '', fold(name)) or name}@{host.partition('.')[0]}"
