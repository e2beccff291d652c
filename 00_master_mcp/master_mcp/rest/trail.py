"""`/audit`: searching the record of every call; checking and exporting it, where the audit room offers that."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from pydantic import Field

from fleetkit.settings import FleetSettings
from fleetkit.store import Store
from master_mcp.audit.export import Form, exported
from master_mcp.audit.search import Query, entries, search
from master_mcp.audit.verify import verify
from master_mcp.rest import route
from master_mcp.rest.route import Access, Answer, Reply, Request, Route, Shape

KINDS: Mapping[Form, str] = {"jsonl": "application/x-ndjson", "csv": "text/csv"}


class AuditRow(Shape):
    """One row. `at` is in seconds since the epoch; `args_hash` is all that is kept of the arguments."""

    seq: int
    at: float
    correlation_id: str
    caller: str
    door: str
    service: str
    tool: str
    risk: str
    outcome: str
    duration_ms: float | None
    args_hash: str
    approval_id: str | None
    detail: dict[str, Any] | None


class AuditRows(Shape):
    """Rows, newest first; `next_cursor` fetches the ones before them, null at the end."""

    rows: list[AuditRow]
    next_cursor: str | None


class Verified(Shape):
    """Whether the record is whole; `problem` says what is wrong, `limits` what this check cannot prove."""

    ok: bool
    rows: int
    segments: int
    checkpoints: int
    since: int
    last_seq: int
    anchored_seq: int
    problem: str | None
    first_bad_seq: int | None
    limits: list[str]


class Span(route.Query):
    """A span of time, in seconds since the epoch."""

    since: float | None = Field(default=None, ge=0)
    until: float | None = Field(default=None, ge=0)


class Search(Span):
    """Which rows; each parameter narrows it down."""

    caller: str | None = Field(default=None, description="The id of a key.")
    tool: str | None = Field(default=None, description="A canonical id; `*` stands for any characters.")
    outcome: str | None = None
    correlation_id: str | None = None
    approval_id: str | None = None
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: int | None = Field(default=None, ge=1, le=2**63 - 1, description="`next_cursor` of the page before.")


class Export(Span):
    """What to export, and as what."""

    format: Form = "jsonl"


class AuditDesk:
    """Reads the log: what is in the database, and the segments whose rows have left it."""

    def __init__(self, store: Store, config: FleetSettings) -> None:
        self._store = store
        self._config = config

    def routes(self) -> list[Route]:
        """The rows of these endpoints."""
        manager, tag = Access.manager, "audit"
        return [
            Route(
                "GET", "/audit", self._search, "Search the record of calls.", tag, AuditRows, query=Search,
                access=manager,
            ),
            Route("GET", "/audit/verify", self._verify, "Check the whole record.", tag, Verified, access=manager),
            Route(
                "GET", "/audit/export", self._export, "Export the record.", tag, ", ".join(KINDS.values()),
                query=Export, access=manager,
            ),
        ]  # fmt: skip

    async def _search(self, request: Request) -> Answer:
        asked = request.read_query(Search)
        found = await asyncio.to_thread(search, self._store, self._config, _wanted(asked), asked.limit + 1)
        rows = [AuditRow.model_validate({name: row[name] for name in AuditRow.model_fields}) for row in found]
        more = len(rows) > asked.limit
        rows = rows[: asked.limit]
        return AuditRows(rows=rows, next_cursor=str(rows[-1].seq) if more else None)

    async def _verify(self, _request: Request) -> Answer:
        report = await asyncio.to_thread(verify, self._store, self._config)
        return Verified.model_validate(vars(report))

    async def _export(self, request: Request) -> Answer:
        asked = request.read_query(Export)
        name = {"content-disposition": f'attachment; filename="audit.{asked.format}"'}
        return Reply(self._chunks(asked), kind=KINDS[asked.format], headers=name)

    async def _chunks(self, asked: Export) -> AsyncIterator[bytes]:
        rows = entries(self._store, self._config, Query(since=asked.since, until=asked.until))
        written = exported(rows, asked.format)
        while chunk := await asyncio.to_thread(next, written, ""):
            yield chunk.encode()


def _wanted(asked: Search) -> Query:
    return Query(
        callers=(asked.caller,) if asked.caller is not None else (),
        tool=asked.tool,
        outcome=asked.outcome,
        correlation_id=asked.correlation_id,
        approval_id=asked.approval_id,
        since=asked.since,
        until=asked.until,
        before=asked.cursor,
    )
