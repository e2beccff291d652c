"""Tools that bring CIs in and take them out."""

import asyncio
from typing import Annotated, Literal

from pydantic import Field

from cmdb_mcp import classes, seed, spoke
from cmdb_mcp.exporter import export
from cmdb_mcp.importer import reconcile
from cmdb_mcp.inventory import dry_run_is_read
from cmdb_mcp.models import Exported, Imported
from cmdb_mcp.search import Filters, Query
from cmdb_mcp.sources.csv_file import EXAMPLES, CsvSource, read_text
from cmdb_mcp.tools.common import SourceName, inventory
from fleetkit import Invalid, Risk


@spoke.tool(
    risk=Risk.change,
    idempotent=True,
    deadline_s=120,
    assess=dry_run_is_read("preview", "import CIs from a CSV", default=True),
)
async def import_csv(
    content: str | None = None,
    path: str | None = None,
    ci_class: str = "server",
    mapping: dict[str, str] | None = None,
    source: SourceName | None = None,
    preview: bool = True,
) -> Imported:
    """Bring in CIs from a CSV with a header line. Looks only, until preview is false; then all rows or none.

    Columns set the attribute of the same name. For servers: hostname, ip_address, os_type, os_version,
    services (separated by ; , or |, each becomes a service CI), path, user, ssh_access_notes. A column `class`
    gives each row its class, a column named like a relation (depends_on, ...) holds far ends separated by ;.
    Empty cells leave values as they are.

    Args:
        content: The CSV itself.
        path: Instead of content: a file in the workspace, or example_fleet.csv, or example_landscape.csv.
        ci_class: Class of the rows where no `class` column says it.
        mapping: Column -> attribute for columns with other names; "" ignores a column.
        source: Who says so, as provenance of each attribute: csv unless given (example for a shipped example).
        preview: Say what would happen and what is wrong, change nothing.
    """
    if (content is None) == (path is None):
        raise Invalid("give either content or path")
    state = inventory()
    limit = state.options.max_import_bytes
    text = content if path is None else await asyncio.to_thread(read_text, path, state.workspace, limit)
    text = text or ""
    if len(text.encode("utf-8", "replace")) > limit:
        raise Invalid(f"content is larger than {limit} bytes: split it (spokes.cmdb.max_import_bytes)")
    catalog = await state.read(classes.load)
    name = source or (seed.SOURCE if path in EXAMPLES else "csv")
    csv_source = CsvSource(text, catalog, state.options.max_import_rows, name, mapping or {})
    delivery = await csv_source.fetch(ci_class)
    return await state.change(
        lambda change: reconcile(change, delivery, preview=preview), source=csv_source.name, dry_run=preview
    )


@spoke.tool(risk=Risk.read, deadline_s=60)
async def export_cis(
    format: Literal["csv", "json"] = "csv",
    ci_class: str | None = None,
    filters: Filters | None = None,
    text: str = "",
    limit: Annotated[int, Field(ge=1)] = 1000,
    cursor: str | None = None,
    include_retired: bool = False,
) -> Exported:
    """CIs with their attributes and relations as CSV (which importCsv reads back) or JSON.

    Cells that a spreadsheet would run as a formula are quoted by a leading '.

    Args:
        format: csv or json.
        ci_class: Only this class.
        filters: As in searchCis.
        text: As in searchCis.
        limit: CIs at most.
        cursor: next_cursor of the export before, with the same other arguments.
        include_retired: Also CIs that are out of use.
    """
    state = inventory()
    query = Query(text, ci_class, filters or {}, "name", include_retired)
    rows = min(limit, state.options.max_export_rows)
    return await state.read(lambda connection: export(connection, query, format, rows, cursor))
