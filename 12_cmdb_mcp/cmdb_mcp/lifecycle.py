"""Writing a CI with what hangs on it: a server's listed services are CIs of their own."""

from collections.abc import Mapping
from dataclasses import replace

import sqlalchemy as sa

from cmdb_mcp.change import Change
from cmdb_mcp.classes import CiClass, complete, shipped
from cmdb_mcp.models import Delta, Retired
from cmdb_mcp.record import Record, by_identity
from cmdb_mcp.relations import NEEDS_TARGET, relate
from cmdb_mcp.tables import cis, classes, relations
from cmdb_mcp.upsert import Result, expect, key_of, reread, store, upsert
from cmdb_mcp.values import check, fold
from fleetkit import Conflict, FleetError, Invalid


def put(
    change: Change,
    ci_class: str,
    given: Mapping[str, object],
    *,
    ref: str | None = None,
    expected_version: int | None = None,
) -> Result:
    """`upsert`, and for a server its service CIs: new ones run on it, dropped ones are retired."""
    result = upsert(change, ci_class, given, ref=ref, expected_version=expected_version)
    _sync_services(change, result.before, result.after)
    return result


def retire(change: Change, record: Record, expected_version: int | None, *, dry_run: bool) -> Retired:
    """Take a CI (a server: with its services) out of use. Its history, and its relations, stay."""
    expect(record, expected_version)
    needed_by = _dependants(change, record)
    after = record
    if record.active:
        after = replace(record, status="retired", version=record.version + 1, updated_at=change.at)
        store(change, after)
        change.note("retired", after, deltas={"status": Delta(before="active", after="retired")})
        _sync_services(change, record, after)
    return Retired(
        ci=after.ref(),
        outcome="retired" if record.active else "unchanged",
        version=after.version,
        at=change.at,
        dry_run=dry_run,
        needed_by=needed_by,
    )


def retire_source(change: Change, source: str) -> tuple[int, list[str]]:
    """Retire every CI that only `source` ever described; the number, and the labels of the others it created."""
    chosen = sa.select(cis).where(cis.c.status == "active", cis.c.source == source).order_by(cis.c.id)
    records = [Record.of(dict(row)) for row in change.connection.execute(chosen).mappings()]
    left = [record for record in records if {item["source"] for item in record.provenance.values()} != {source}]
    gone = [record for record in records if record not in left]
    for record in gone:
        retire(change, reread(change, record), None, dry_run=False)
    return len(gone), [record.label for record in left]


def save_class(change: Change, item: CiClass) -> CiClass:
    """Store a class, after checking that every CI it has still fits it."""
    item = item.model_copy(update={"attributes": complete(item.attributes), "shipped": False})
    old = change.catalog.get(item.name)
    if item.name in shipped() and item.identity != shipped()[item.name].identity:
        raise Invalid(f"{item.name} is recognised by {', '.join(shipped()[item.name].identity)}; that cannot change")
    rows = change.connection.execute(sa.select(cis).where(cis.c.ci_class == item.name)).mappings()
    for record in (Record.of(dict(row)) for row in rows):
        if old is not None and item.identity != old.identity:
            raise Conflict(f"{item.name} has CIs recognised by {', '.join(old.identity)}: keep that identity")
        _still_fits(item, record)
    definition = item.model_dump(exclude={"shipped"})
    change.connection.execute(sa.delete(classes).where(classes.c.name == item.name))
    change.connection.execute(classes.insert().values(name=item.name, definition=definition))
    change.note_class(item.name, definition)
    return item


def _still_fits(item: CiClass, record: Record) -> None:
    try:
        same = check(item, record.attributes) == record.attributes
    except FleetError as error:
        raise Conflict(f"{record.label} would no longer fit: {error.message}") from error
    missing = [name for name in item.attributes if item.required(name) and name not in record.attributes]
    if missing or not same:
        raise Conflict(f"{record.label} would no longer fit: {', '.join(missing) or 'a type changed'}; change it first")


def _dependants(change: Change, record: Record) -> list[str]:
    c = relations.c
    chosen = (
        sa.select(cis.c.ci_class, cis.c.name)
        .join(relations, cis.c.id == c.from_ci)
        .where(c.to_ci == record.id, c.ended_at.is_(None), c.type.in_(NEEDS_TARGET), cis.c.status == "active")
        .order_by(cis.c.ci_class, cis.c.name)
        .limit(200)
    )
    return [f"{ci_class}:{name}" for ci_class, name in change.connection.execute(chosen)]


def _sync_services(change: Change, before: Record | None, after: Record) -> None:
    if after.ci_class != "server":
        return
    old, new = _services(before), _services(after)
    for host, key in sorted(old.keys() - new.keys()):
        service = by_identity(change.connection, "service", _service_key(change, old[host, key], host))
        if service is not None:
            retire(change, service, None, dry_run=False)
    for host, key in sorted(new.keys() - old.keys()):
        service = upsert(change, "service", {"name": new[host, key], "host": host}).after
        relate(change, service, "runs_on", after)


def _services(server: Record | None) -> dict[tuple[str, str], str]:
    """(host, folded name) -> name of what an active server lists."""
    names = server.attributes.get("services") if server is not None and server.active else None
    if server is None or not isinstance(names, list):
        return {}
    return {(str(server.attributes["hostname"]), fold(name)): name for name in names}


def _service_key(change: Change, name: str, host: str) -> str:
    return key_of(change.catalog["service"], {"name": name, "host": host})
