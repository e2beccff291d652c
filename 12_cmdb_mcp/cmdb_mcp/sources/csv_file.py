"""CSV text as a source of CIs."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cmdb_mcp import csv_io
from cmdb_mcp.classes import Catalog, pick
from cmdb_mcp.relations import RELATION_TYPES
from cmdb_mcp.sources import Delivery, Item
from fleetkit import Invalid, NotFound, Refused

PACKAGE = Path(__file__).resolve().parent.parent
EXAMPLES = ("example_fleet.csv", "example_landscape.csv")


@dataclass(frozen=True)
class CsvSource:
    """Rows of a CSV. A column sets the attribute of its name, a relation (`depends_on`), or `class`.

    `mapping` renames columns (column -> attribute, relation or `class`; "" ignores one).
    """

    text: str
    catalog: Catalog
    max_rows: int
    name: str = "csv"
    mapping: Mapping[str, str] = field(default_factory=dict[str, str])

    async def fetch(self, ci_class: str) -> Delivery:
        """Each row as an item, of `ci_class` unless its `class` column says otherwise."""
        return self.read(ci_class)

    def read(self, ci_class: str) -> Delivery:
        """`fetch` for callers already in a thread."""
        table = csv_io.parse(self.text, self.max_rows)
        targets = self._targets(table.columns)
        items = [self._item(line, cells, targets, ci_class) for line, cells in table.rows]
        known = {name for kind in {item.ci_class for item in items} for name in pick(self.catalog, kind).attributes}
        known |= {*RELATION_TYPES, "class"}
        columns = {column: target if target in known else "ignored" for column, target in targets.items()}
        return Delivery([_only(item, known) for item in items], columns, table.warnings)

    def _targets(self, columns: list[str]) -> dict[str, str]:
        given = {column.strip().lower(): target.strip() for column, target in self.mapping.items()}
        unknown = sorted(given.keys() - set(columns))
        if unknown:
            raise Invalid(f"mapping names columns the CSV lacks: {', '.join(unknown)}; it has {', '.join(columns)}")
        targets = {column: given.get(column, column) for column in columns}
        used = [target for target in targets.values() if target]
        twice = sorted({target for target in used if used.count(target) > 1})
        if twice:
            raise Invalid(f"several columns set {', '.join(twice)}: map all but one to an empty name")
        return targets

    def _item(self, line: int, cells: Mapping[str, str], targets: Mapping[str, str], ci_class: str) -> Item:
        set_by = {targets[column]: cell for column, cell in cells.items() if cell and targets[column]}
        kind = set_by.pop("class", ci_class)
        links = [(name, far.strip()) for name in RELATION_TYPES for far in set_by.pop(name, "").split(";")]
        return Item(line, kind, set_by, [link for link in links if link[1]])


def _only(item: Item, known: set[str]) -> Item:
    """`item` without the columns that no class in the file knows."""
    return Item(item.line, item.ci_class, {k: v for k, v in item.attributes.items() if k in known}, item.relations)


def read_text(path: str, workspace: Path, max_bytes: int) -> str:
    """The text of a file in the workspace, or of a shipped example.

    Judged by where the opened file really is. Raises Refused outside, NotFound, or Invalid for what is
    no UTF-8 text file of at most `max_bytes`.
    """
    if path in EXAMPLES:
        return (PACKAGE / path).read_text(encoding="utf-8")
    wanted = workspace / path
    try:
        handle = os.open(wanted, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise NotFound(f"cannot open {path}: put the file into {workspace}, or pass its text as content") from error
    try:
        real = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if not real.is_relative_to(workspace.resolve()):
            raise Refused(f"{path} is outside {workspace}: put the file there, or pass its text as content")
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Invalid(f"{path} is not a file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            raw = file.read(max_bytes + 1)
    finally:
        os.close(handle)
    if len(raw) > max_bytes:
        raise Invalid(f"{path} is larger than {max_bytes} bytes: split it (spokes.cmdb.max_import_bytes)")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not UTF-8 text: save it as UTF-8") from error
