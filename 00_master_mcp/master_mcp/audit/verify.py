"""Whether the log is what was written: chain, checkpoints, anchor, segments and table, as one."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson
import sqlalchemy as sa

from fleetkit.errors import Unavailable
from fleetkit.settings import FleetSettings
from fleetkit.shapes import mapping
from fleetkit.store import Store
from master_mcp.audit.anchor import Anchored, read_anchor
from master_mcp.audit.chain import checkpoint_lines, head_of
from master_mcp.audit.check import Evidence, Progress, Report, examine
from master_mcp.audit.place import Place, chain_keys, place_of
from master_mcp.audit.segments import read_segment, table_rows
from master_mcp.store import audit_chain

__all__ = ["Report", "evidence_of", "verify"]


def verify(store: Store, config: FleetSettings, *, since: int = 0, progress: Progress | None = None) -> Report:
    """Check the log of a store. With `since`, only from the last signed checkpoint at or before that row.

    `progress` hears the rows checked so far and their total. Raises Unavailable when key, anchor or database
    cannot be read.
    """
    place = place_of(config)
    keys = chain_keys(place, create=False)
    anchor = read_anchor(place.anchor)  # before the database: it never knows more than that
    with store.engine.connect() as connection:
        db = connection
        if store.engine.dialect.name == "postgresql":
            db = connection.execution_options(isolation_level="REPEATABLE READ")
        evidence = evidence_of(db, place, anchor)
        report = examine(evidence, keys, since=since, progress=progress)
    return _with_limits(report, evidence, place)


def evidence_of(db: sa.Connection, place: Place, anchor: Anchored | None) -> Evidence:
    """The log as one transaction of the database sees it."""
    stored = db.execute(sa.select(audit_chain).where(audit_chain.c.id == 1)).mappings().first()
    if stored is None or not stored["chain"]:
        raise Unavailable("there is no audit chain yet, or its head is gone: start the hub once, or restore a backup")
    return Evidence(
        head_of(dict(stored)),
        str(stored["signature"]),
        checkpoint_lines(db),
        anchor,
        lambda after: table_rows(db, after),
        lambda file: read_segment(place.segments, file),
    )


def _with_limits(report: Report, evidence: Evidence, place: Place) -> Report:
    return replace(report, limits=list(_limits(report, evidence, place)))


def _limits(report: Report, evidence: Evidence, place: Place) -> Iterator[str]:
    if place.key_inside:
        yield (
            "the chain's key lies in the data directory: who can read that directory can write a false log that "
            "passes. Set hub.audit.key_file to a file outside"
        )
    if place.anchor_inside:
        yield (
            "the anchor lies in the data directory: who puts back an older copy of the whole directory removes rows "
            "unseen. Set hub.audit.anchor_file to a place that this directory's owner can only append to"
        )
    loose = report.last_seq - report.anchored_seq
    if loose > 0:
        yield (
            f"the last {loose} rows are not under an anchored checkpoint yet: putting back an older copy of the "
            "database removes them unseen"
        )
    yield from _limits_of_the_start(report, evidence)


def _limits_of_the_start(report: Report, evidence: Evidence) -> Iterator[str]:
    first: Mapping[str, Any] = mapping(orjson.loads(evidence.checkpoints[0])) if report.ok else {}
    if first.get("adopted"):
        yield f"rows 1 to {first['seq']} are older than the chain: what was done to them before it began is unknown"
    if report.since:
        yield f"rows up to {report.since} were not looked at: their checkpoint was taken as signed"
