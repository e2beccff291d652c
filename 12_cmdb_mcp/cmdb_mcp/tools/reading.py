"""Tools that find and show CIs."""

from typing import Annotated

import sqlalchemy as sa
from pydantic import Field

from cmdb_mcp import classes, lookup, spoke
from cmdb_mcp.classes import CiClass
from cmdb_mcp.duplicates import duplicates
from cmdb_mcp.models import Ci, ClassSummary, Diff, Duplicates, EventPage, Page, ServerInfo, Servers
from cmdb_mcp.search import Filters, Query, search
from cmdb_mcp.servers import server, servers
from cmdb_mcp.tables import cis
from cmdb_mcp.tools.common import Limit, Ref, inventory
from fleetkit import Risk


@spoke.tool(risk=Risk.read)
async def list_classes() -> list[ClassSummary]:
    """Every class of CI: what it is, by which attributes a CI of it is recognised, how many are active."""
    return await inventory().read(_summaries)


@spoke.tool(risk=Risk.read)
async def describe_class(name: str) -> CiClass:
    """The attributes of a class, with types, and its identity.

    Args:
        name: As listClasses shows it, e.g. server.
    """
    return await inventory().read(lambda connection: classes.pick(classes.load(connection), name))


@spoke.tool(risk=Risk.read)
async def search_cis(
    text: str = "",
    ci_class: str | None = None,
    filters: Filters | None = None,
    fields: list[str] | None = None,
    sort: str = "name",
    limit: Limit = 50,
    cursor: str | None = None,
    include_retired: bool = False,
) -> Page:
    """Find CIs. All conditions must hold; a page says how many there are in total.

    Args:
        text: Words that must all occur (as word beginnings) in name, class or any attribute.
        ci_class: Only this class.
        filters: Attribute -> value, list of values (any of them), or condition such as
            {"contains": "12"}, {"above": 8}, {"exists": false}. Also: name, status, source, created_at, updated_at.
        fields: Attributes to show; fewer save tokens. All when left out, [] for none.
        sort: Attribute, name, created_at or updated_at; a leading - reverses.
        limit: CIs per page.
        cursor: next_cursor of the page before, with the same other arguments.
        include_retired: Also CIs that are out of use.
    """
    query = Query(text, ci_class, filters or {}, sort, include_retired)
    return await inventory().read(lambda c: search(c, query, fields=fields, limit=limit, cursor=cursor))


@spoke.tool(risk=Risk.read)
async def get_ci(ci: Ref, history: Annotated[int, Field(ge=0, le=100)] = 0) -> Ci:
    """One CI: attributes, who set each (provenance), relations to active CIs.

    Args:
        ci: id (ci-7), class:name (server:web-01), or a name that only one CI has.
        history: How many of its latest changes to add.
    """
    return await inventory().read(lambda connection: lookup.details(connection, ci, history))


@spoke.tool(risk=Risk.read)
async def get_history(
    ci: Ref | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
) -> EventPage:
    """Who changed what when, newest first: of one CI and its relations, or of everything.

    Args:
        ci: Left out: every change, classes included.
        since: ISO 8601 time (UTC when it names no zone).
        until: ISO 8601 time.
        limit: Changes per page.
        cursor: next_cursor of the page before, with the same other arguments.
    """
    return await inventory().read(lambda connection: lookup.changes(connection, ci, since, until, limit, cursor))


@spoke.tool(risk=Risk.read)
async def get_ci_as_of(ci: Ref, at: str) -> Ci:
    """A CI with its attributes and relations as they were at a time.

    Args:
        ci: What it is called today; a CI since renamed is found by its id.
        at: ISO 8601 time, e.g. 2030-12-31T08:00:00Z.
    """
    return await inventory().read(lambda connection: lookup.as_of(connection, ci, at))


@spoke.tool(risk=Risk.read)
async def diff_cis(
    left: Ref, right: Ref | None = None, left_at: str | None = None, right_at: str | None = None
) -> Diff:
    """What differs between two CIs, or between two times of one CI. Equal attributes are only counted.

    Args:
        left: The one CI.
        right: The other; left out, the same CI.
        left_at: ISO 8601 time for the left side; left out, now.
        right_at: ISO 8601 time for the right side; left out, now.
    """
    return await inventory().read(lambda connection: lookup.diff(connection, left, right or left, left_at, right_at))


@spoke.tool(risk=Risk.read)
async def find_duplicates(ci_class: str | None = None, limit: Limit = 50) -> Duplicates:
    """Active CIs that may be one and the same: equal addresses or serial numbers, names alike but for form.

    Args:
        ci_class: Only this class.
        limit: Groups at most.
    """
    return await inventory().read(lambda connection: duplicates(connection, ci_class, limit))


@spoke.tool(risk=Risk.read, aliases=("cmdb.local.getServerInfo",))
async def get_server_info(hostname: Annotated[str, Field(min_length=1, max_length=253)]) -> ServerInfo:
    """A server's address, system, services and how to log in.

    Args:
        hostname: Full host name, or its first label where that is unique.
    """
    return await inventory().read(lambda connection: server(connection, hostname))


@spoke.tool(risk=Risk.read, aliases=("cmdb.local.findServers",))
async def find_servers(query_field: str, query_value: str, limit: Limit = 100) -> Servers:
    """Servers whose field holds a text, without regard to case; for more conditions use searchCis.

    Args:
        query_field: hostname, ip_address, os_type, os_version, services, path, user, ssh_access_notes, or any
            other attribute of a server.
        query_value: Part of its value.
        limit: Servers at most.
    """
    return await inventory().read(lambda connection: servers(connection, query_field, query_value, limit))


def _summaries(connection: sa.Connection) -> list[ClassSummary]:
    chosen = sa.select(cis.c.ci_class, sa.func.count()).where(cis.c.status == "active").group_by(cis.c.ci_class)
    counts = {row[0]: row[1] for row in connection.execute(chosen)}
    return [
        ClassSummary(
            name=kind.name, description=kind.description, identity=kind.identity, active_cis=counts.get(kind.name, 0)
        )
        for kind in sorted(classes.load(connection).values(), key=lambda kind: kind.name)
    ]
