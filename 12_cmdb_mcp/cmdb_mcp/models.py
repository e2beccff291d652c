"""What tools answer. Times are UTC, ISO 8601 with microseconds."""

from typing import Literal

from pydantic import BaseModel, Field

from cmdb_mcp.values import Value

Status = Literal["active", "retired"]


class CiRef(BaseModel):
    """Enough to name a CI: `id`, or `ci_class:name`, is accepted wherever a tool asks for one."""

    id: str
    ci_class: str
    name: str
    status: Status = "active"

    @property
    def label(self) -> str:
        """`class:name`."""
        return f"{self.ci_class}:{self.name}"


class Origin(BaseModel):
    """Who set an attribute, and when its value last changed."""

    source: str
    at: str


class Delta(BaseModel):
    """One attribute before and after; null means it had no value."""

    before: Value | None
    after: Value | None


class Relation(BaseModel):
    """One relation of a CI. `to`: this CI -type-> `ci`; `from`: `ci` -type-> this CI."""

    type: str
    direction: Literal["to", "from"]
    ci: CiRef
    source: str
    since: str


class Event(BaseModel):
    """One change, as it was recorded together with its effect."""

    seq: int
    at: str
    action: str = Field(description="created, updated, reinstated, retired, related, unrelated, class_saved")
    subject: str = Field(description="class:name at that time")
    changes: dict[str, Delta]
    relation: str | None = Field(default=None, description="`from -type-> to`, when a relation changed")
    source: str
    who: str
    correlation_id: str


class EventPage(BaseModel):
    """Changes, newest first."""

    events: list[Event]
    truncated: bool
    next_cursor: str | None = None


class Ci(CiRef):
    """A CI as it is, or as it was `as_of` a time."""

    version: int
    source: str = Field(description="who created it")
    created_at: str
    updated_at: str
    as_of: str | None = None
    attributes: dict[str, Value]
    provenance: dict[str, Origin]
    relations: list[Relation] = []
    relations_total: int = 0
    history: list[Event] = []


class Hit(CiRef):
    """One result of a search, with the attributes asked for."""

    version: int
    updated_at: str
    attributes: dict[str, Value]


class Page(BaseModel):
    """A page of search results; `total` counts all matches."""

    items: list[Hit]
    total: int
    truncated: bool
    next_cursor: str | None = None


class AttributeOutcome(Delta):
    """What a write did to one attribute; `kept` means a stronger source owns it."""

    outcome: Literal["inserted", "updated", "removed", "unchanged", "confirmed", "kept"]
    kept_for: str | None = None


class Written(BaseModel):
    """What a write did, or with `dry_run` would do."""

    ci: CiRef
    outcome: Literal["inserted", "updated", "reinstated", "unchanged"]
    version: int
    at: str
    dry_run: bool = False
    attributes: dict[str, AttributeOutcome]


class Retired(BaseModel):
    """What retiring did. `needed_by` are CIs that directly depend on it and now miss it."""

    ci: CiRef
    outcome: Literal["retired", "unchanged"]
    version: int
    at: str
    dry_run: bool = False
    needed_by: list[str]


class Related(BaseModel):
    """`relation` as `from -type-> to`, and whether anything changed."""

    relation: str
    outcome: Literal["added", "ended", "unchanged"]
    at: str


class Removed(BaseModel):
    """The example records: how many were retired, and which were left because another source changed them."""

    retired: int
    left: list[str]


class Affected(BaseModel):
    """A CI reached through relations. `path` leads from the start to it; `via` are the relations between."""

    ci: CiRef
    depth: int
    path: list[str]
    via: list[str]


class Impact(BaseModel):
    """`downstream` is affected when `ci` fails; `upstream` is what `ci` needs. Nearest first."""

    ci: CiRef
    downstream: list[Affected]
    upstream: list[Affected]
    downstream_by_class: dict[str, int]
    truncated: bool = Field(description="more lies beyond max_depth or limit")


class Hop(BaseModel):
    """One relation on a path, in its own direction."""

    source: str
    type: str
    target: str


class Route(BaseModel):
    """The shortest connection of two CIs, whichever way its relations point."""

    found: bool
    path: list[str]
    hops: list[Hop]


class Difference(BaseModel):
    """One attribute that differs."""

    attribute: str
    left: Value | None
    right: Value | None


class Diff(BaseModel):
    """What differs between two states."""

    left: str
    right: str
    attributes: list[Difference]
    same: int = Field(description="attributes that are equal")
    relations_only_left: list[str]
    relations_only_right: list[str]


class Group(BaseModel):
    """CIs that may be one and the same."""

    reason: str
    cis: list[CiRef]


class Duplicates(BaseModel):
    """Suspected duplicates, exact matches first."""

    groups: list[Group]
    truncated: bool


class ServerInfo(BaseModel):
    """A server in the columns of the fleet CSV."""

    id: str
    hostname: str
    ip_address: str | None = None
    os_type: str | None = None
    os_version: str | None = None
    services: list[str] = []
    path: str | None = None
    user: str | None = None
    ssh_access_notes: str | None = None


class Servers(BaseModel):
    """Servers that matched; `total` counts all of them."""

    servers: list[ServerInfo]
    total: int
    truncated: bool


class ClassSummary(BaseModel):
    """A class and how many active CIs it has."""

    name: str
    description: str
    identity: list[str]
    active_cis: int


class RowError(BaseModel):
    """What is wrong in one line of an import (line 1 is the header)."""

    line: int
    message: str


class Imported(BaseModel):
    """What an import did, or with `preview` would do; nothing is written while `errors` has entries."""

    preview: bool
    applied: bool
    rows: int
    columns: dict[str, str] = Field(description="column -> what it sets; `ignored` when nothing")
    inserted: int
    updated: int
    reinstated: int
    unchanged: int
    relations_added: int
    errors: list[RowError]
    warnings: list[RowError]
    sample: list[Written] = Field(description="the first changes, attribute by attribute")


class Exported(BaseModel):
    """CIs as text."""

    format: Literal["csv", "json"]
    content: str
    rows: int
    truncated: bool
    next_cursor: str | None = None
