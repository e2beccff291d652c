"""The example fleet: what a newcomer finds in an empty CMDB. All of it says `source: example`."""

import sqlalchemy as sa

from cmdb_mcp.change import Change
from cmdb_mcp.importer import reconcile
from cmdb_mcp.sources.csv_file import EXAMPLES, PACKAGE, CsvSource
from cmdb_mcp.tables import history

SOURCE = "example"


def load_if_empty(change: Change) -> None:
    """Load the shipped CSV files unless anything was ever recorded."""
    if change.connection.scalar(sa.select(sa.func.count()).select_from(history)):
        return
    for name in EXAMPLES:
        text = (PACKAGE / name).read_text(encoding="utf-8")
        reconcile(change, CsvSource(text, change.catalog, 1_000, SOURCE).read("server"), preview=False)
