"""Tools that change CIs, relations and classes. Each change is one transaction with its history."""

from typing import Annotated

from pydantic import Field, ValidationError

from cmdb_mcp import lifecycle, seed, spoke
from cmdb_mcp.change import Change
from cmdb_mcp.classes import AttributeSpec, CiClass, Name
from cmdb_mcp.inventory import dry_run_is_read
from cmdb_mcp.models import Related, Removed, Retired, Written
from cmdb_mcp.record import find
from cmdb_mcp.relations import RelationType, arrow, relate, unrelate
from cmdb_mcp.tools.common import Ref, SourceName, inventory
from cmdb_mcp.values import Value
from fleetkit import Invalid, Risk

Version = Annotated[int, Field(ge=0)]


@spoke.tool(risk=Risk.change, idempotent=True, assess=dry_run_is_read("dry_run", "write one CI", default=False))
async def upsert_ci(
    ci_class: str,
    attributes: dict[str, Value | None],
    ci: Ref | None = None,
    source: SourceName = "manual",
    expected_version: Version | None = None,
    dry_run: bool = False,
) -> Written:
    """Insert a CI, or update the one its identity attributes recognise; a retired one comes back.

    Attributes not named stay as they are. A value set by a stronger source is kept, and the answer says so.

    Args:
        ci_class: As listClasses shows it; describeClass names its attributes.
        attributes: Attribute -> value; null removes one. Never a password: a secret:// reference.
        ci: Only to rename: the CI whose identity attributes are to change.
        source: Who says so: manual, discovery, ...
        expected_version: The version you read; the write is refused (conflict) when it has moved on. 0: must be new.
        dry_run: Say what would happen, change nothing.
    """

    def work(change: Change) -> Written:
        result = lifecycle.put(change, ci_class, attributes, ref=ci, expected_version=expected_version)
        return result.model(change, dry_run=dry_run)

    return await inventory().change(work, source=source, dry_run=dry_run)


@spoke.tool(risk=Risk.change, idempotent=True, assess=dry_run_is_read("dry_run", "retire one CI", default=False))
async def retire_ci(ci: Ref, expected_version: Version | None = None, dry_run: bool = False) -> Retired:
    """Take a CI out of use, a server with its listed services. It keeps its history; upsertCi brings it back.

    Args:
        ci: id, class:name or a unique name.
        expected_version: The version you read; refused (conflict) when it has moved on.
        dry_run: Only show what directly needs it.
    """

    def work(change: Change) -> Retired:
        return lifecycle.retire(change, find(change.connection, ci), expected_version, dry_run=dry_run)

    return await inventory().change(work, dry_run=dry_run)


@spoke.tool(risk=Risk.change, idempotent=True)
async def relate_cis(ci: Ref, relation: RelationType, target: Ref, source: SourceName = "manual") -> Related:
    """Record that `ci` runs_on, depends_on, connects_to, is stored_on, is part_of or backs_up `target`.

    Args:
        ci: The one that runs, depends, ... e.g. application:shop.
        relation: What it has to do with the target.
        target: The other one, e.g. server:db-01.
        source: Who says so.
    """

    def work(change: Change) -> Related:
        near, far = find(change.connection, ci), find(change.connection, target)
        added = relate(change, near, relation, far)
        return Related(relation=arrow(near, relation, far), outcome="added" if added else "unchanged", at=change.at)

    return await inventory().change(work, source=source)


@spoke.tool(risk=Risk.change, idempotent=True)
async def unrelate_cis(ci: Ref, relation: RelationType, target: Ref) -> Related:
    """End a relation; getCiAsOf and getHistory still know it.

    Args:
        ci: The near end, as in relateCis.
        relation: Its type.
        target: The far end.
    """

    def work(change: Change) -> Related:
        near, far = find(change.connection, ci), find(change.connection, target)
        ended = unrelate(change, near, relation, far)
        return Related(relation=arrow(near, relation, far), outcome="ended" if ended else "unchanged", at=change.at)

    return await inventory().change(work)


@spoke.tool(risk=Risk.change, idempotent=True)
async def save_class(
    name: Name, description: str, attributes: dict[Name, AttributeSpec], identity: list[str]
) -> CiClass:
    """Add a class, or replace one (start from describeClass). Refused when a CI it has would no longer fit.

    Args:
        name: e.g. printer.
        description: What such a CI is.
        attributes: Attribute -> {"type": ..., "required": ..., "choices": ...}; {} is plain text. Those that
            every class has (owner, environment, tags, ...) come by themselves.
        identity: The one to three attributes that recognise a CI.
    """
    try:
        item = CiClass(name=name, description=description, attributes=attributes, identity=identity)
    except ValidationError as error:
        rows = [f"{'.'.join(map(str, item['loc'])) or name}: {item['msg']}" for item in error.errors()]
        raise Invalid("; ".join(rows)) from error
    return await inventory().change(lambda change: lifecycle.save_class(change, item))


@spoke.tool(risk=Risk.change, idempotent=True)
async def remove_example() -> Removed:
    """Retire the shipped example fleet: every CI that only the source `example` ever described."""

    def work(change: Change) -> Removed:
        retired, left = lifecycle.retire_source(change, seed.SOURCE)
        return Removed(retired=retired, left=left)

    return await inventory().change(work)
