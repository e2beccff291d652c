"""`/audit`: searching the record of every call; checking and exporting it, where the audit room offers that."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal, Protocol

import sqlalchemy as sa
from pydantic import ConfigDict, Field

from fleetkit.errors import NotFound
from fleetkit.store import Store
from master_mcp.rest.route import Access, Answer, Query, Reply, Request, Route, Shape
from master_mcp.store import audit as table

Form = Literal["jsonl", "csv"]
KINDS: Mapping[Form, str] = {"jsonl": "application/x-ndjson", "csv": "text/csv"}


class Trail(Protocol):
    """What the audit room offers beyond searching."""

    async def verify(self) -> Mapping[str, Any]:
        """`{ok, ...}`: whether every row is as it was written, and what was found otherwise."""
        ...

    def export(self, form: Form, since: float | None, until: float | None) -> AsyncIterator[bytes]:
        """Rows as JSON Lines or CSV, a chunk at a time."""
        ...


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


class AuditRows(Shape):
    """Rows, newest first; `next_cursor` fetches the ones before them, null at the end."""

    rows: list[AuditRow]
    next_cursor: str | None


class Verified(Shape):
    """Whether the record is whole."""

    model_config = ConfigDict(extra="allow")

    ok: bool


class Span(Query):
    """A span of time, in seconds since the epoch."""

    since: float | None = Field(default=None, ge=0)
    until: float | None = Field(default=None, ge=0)


class Search(Span):
    """Which rows; each parameter narrows it down."""

    caller: str | None = Field(default=None, description="The id of a key.")
    tool: str | None = Field(default=None, description="A canonical id; `*` stands for any characters.")
    outcome: str | None = None
    correlation_id: str | None = None
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: int | None = Field(default=None, ge=1, le=2**63 - 1, description="`next_cursor` of the page before.")


class Export(Span):
    """What to export, and as what."""

    format: Form = "jsonl"


class AuditDesk:
    """Reads the table; `trail` is None where the audit room offers no more."""

    def __init__(self, store: Store, trail: Trail | None = None) -> None:
        self._store = store
        self._trail = trail

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
                "GET", "/audit/export", self._export, "Export the record.", tag, "application/x-ndjson", query=Export,
                access=manager,
            ),
        ]  # fmt: skip

    async def _search(self, request: Request) -> Answer:
        query = _statement(request.read_query(Search))
        limit = request.read_query(Search).limit
        found = await self._store.read(lambda db: db.execute(query).mappings().all())
        rows = [AuditRow.model_validate(dict(row)) for row in found[:limit]]
        return AuditRows(rows=rows, next_cursor=str(rows[-1].seq) if len(found) > limit else None)

    async def _verify(self, _request: Request) -> Answer:
        return Verified.model_validate(dict(await self._offered().verify()))

    async def _export(self, request: Request) -> Answer:
        asked = request.read_query(Export)
        content = self._offered().export(asked.format, asked.since, asked.until)
        name = {"content-disposition": f'attachment; filename="audit.{asked.format}"'}
        return Reply(content, kind=KINDS[asked.format], headers=name)

    def _offered(self) -> Trail:
        if self._trail is None:
            raise NotFound("this hub offers that on its command line only: `fleet audit`")
        return self._trail


def _statement(asked: Search) -> sa.Select[Any]:
    columns = [table.c[name] for name in AuditRow.model_fields]
    wanted: list[sa.ColumnElement[bool]] = [
        table.c[name] == value
        for name in ("caller", "outcome", "correlation_id")
        if (value := getattr(asked, name)) is not None
    ]
    if asked.tool is not None:
        wanted.append(table.c.tool.like(_like(asked.tool), escape="\\"))
    if asked.since is not None:
        wanted.append(table.c.at >= asked.since)
    if asked.until is not None:
        wanted.append(table.c.at < asked.until)
    if asked.cursor is not None:
        wanted.append(table.c.seq < asked.cursor)
    return sa.select(*columns).where(*wanted).order_by(table.c.seq.desc()).limit(asked.limit + 1)


def _like(glob: str) -> str:
    literal = glob.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return literal.replace("*", "%")
