"""Reconciling what a source delivered with what is recorded: all of it, or nothing."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice

from cmdb_mcp.change import Change
from cmdb_mcp.lifecycle import put
from cmdb_mcp.models import Imported, RowError
from cmdb_mcp.record import Record, find
from cmdb_mcp.relations import relate
from cmdb_mcp.sources import Delivery, Item
from cmdb_mcp.upsert import Result
from fleetkit import FleetError, Invalid

LISTED = 100  # problems named in an answer
SAMPLE = 5


def reconcile(change: Change, delivery: Delivery, *, preview: bool) -> Imported:
    """Write every item, then every relation, so that rows may refer to rows below.

    Raises Invalid with the first problems unless `preview`, which reports them all instead (and whose
    effects the caller undoes).
    """
    errors: list[RowError] = []
    results = list(_put_all(change, delivery.items, errors))
    added = sum(_link(change, item, result.after, errors) for item, result in results)
    if errors and not preview:
        first = "; ".join(f"line {error.line}: {error.message}" for error in errors[:5])
        raise Invalid(f"nothing was imported, {len(errors)} problems: {first}. preview=true lists them all")
    counts = Counter(result.outcome for _, result in results)
    return Imported(
        preview=preview,
        applied=not preview,
        rows=len(delivery.items),
        columns=dict(delivery.columns),
        inserted=counts["inserted"],
        updated=counts["updated"],
        reinstated=counts["reinstated"],
        unchanged=counts["unchanged"],
        relations_added=added,
        errors=errors[:LISTED],
        warnings=[RowError(line=line, message=message) for line, message in islice(delivery.warnings, LISTED)],
        sample=[result.model(change, dry_run=preview) for _, result in results if result.outcome != "unchanged"][
            :SAMPLE
        ],
    )


def _put_all(change: Change, items: Iterable[Item], errors: list[RowError]) -> Iterable[tuple[Item, Result]]:
    seen: dict[int, int] = {}
    for item in items:
        try:
            result = put(change, item.ci_class, item.attributes)
        except FleetError as error:
            errors.append(RowError(line=item.line, message=error.message))
            continue
        earlier = seen.setdefault(result.after.id, item.line)
        if earlier != item.line:
            message = f"{result.after.label} stands in line {earlier} already"
            errors.append(RowError(line=item.line, message=message))
        yield item, result


def _link(change: Change, item: Item, near: Record, errors: list[RowError]) -> int:
    added = 0
    for kind, ref in item.relations:
        try:
            added += relate(change, near, kind, _far(change, item, ref))
        except FleetError as error:
            errors.append(RowError(line=item.line, message=f"{kind}: {error.message}"))
    return added


def _far(change: Change, item: Item, ref: str) -> Record:
    """A plain name means a CI of the row's own class first."""
    try:
        return find(change.connection, f"{item.ci_class}:{ref}")
    except FleetError:
        return find(change.connection, ref)
