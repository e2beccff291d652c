"""Servers in the columns of the fleet CSV, for those who only want that."""

import sqlalchemy as sa

from cmdb_mcp.models import ServerInfo, Servers
from cmdb_mcp.record import Record, find
from cmdb_mcp.search import Condition, Query, select
from cmdb_mcp.tables import cis
from fleetkit import Invalid, NotFound

COLUMNS = tuple(name for name in ServerInfo.model_fields if name != "id")


def server(connection: sa.Connection, hostname: str) -> ServerInfo:
    """The server with this host name, or the only one whose first label it is; NotFound, Invalid otherwise."""
    try:
        return _info(find(connection, f"server:{hostname}"))
    except NotFound:
        prefix = cis.c.name_key.startswith(f"{hostname.strip().lower()}.", autoescape=True)
        chosen = sa.select(cis).where(cis.c.ci_class == "server", cis.c.status == "active", prefix).limit(3)
        found = [Record.of(dict(row)) for row in connection.execute(chosen).mappings()]
        if not found:
            raise
    if len(found) > 1:
        raise Invalid(f"{hostname!r} may be {', '.join(record.name for record in found)}: give the full name")
    return _info(found[0])


def servers(connection: sa.Connection, field: str, value: str, limit: int) -> Servers:
    """Servers whose `field` holds `value` somewhere, without regard to case."""
    query = Query(ci_class="server", filters={field: Condition(contains=value)})
    records, total, cursor = select(connection, query, limit, None)
    return Servers(servers=[_info(record) for record in records], total=total, truncated=cursor is not None)


def _info(record: Record) -> ServerInfo:
    return ServerInfo.model_validate(
        {"id": f"ci-{record.id}"} | {name: record.attributes[name] for name in COLUMNS if name in record.attributes}
    )
