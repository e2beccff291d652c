"""What a REST endpoint is: one row that routes, checks and documents it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from fleetkit.asgi import Exchange
from master_mcp.auth.caller import Caller

M = TypeVar("M", bound=BaseModel)


class Shape(BaseModel):
    """A body or an answer: unknown keys are refused, nothing is converted."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Query(BaseModel):
    """Query parameters: text from outside, converted to what the field says."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Access(StrEnum):
    """Who may use a route: anybody, any key, keys that administer the fleet."""

    open = "open"
    key = "key"
    manager = "manager"


@dataclass(frozen=True)
class Request:
    """One request, checked: `path` holds the template's parameters, `raw` the bytes that `body` was read from."""

    exchange: Exchange
    path: Mapping[str, str]
    correlation_id: str
    known: Caller | None
    query: BaseModel | None = None
    body: BaseModel | None = None
    raw: bytes = b""

    @property
    def caller(self) -> Caller:
        """Who calls; only for routes that need a key."""
        assert self.known is not None, "an open route asks who calls"
        return self.known

    def read_body(self, kind: type[M]) -> M:
        """The body as the model that the route names."""
        assert isinstance(self.body, kind)
        return self.body

    def read_query(self, kind: type[M]) -> M:
        """The query parameters as the model that the route names."""
        assert isinstance(self.query, kind)
        return self.query


@dataclass(frozen=True)
class Reply:
    """An answer with a status of its own, or one that is no JSON: then `kind` is its content type."""

    content: BaseModel | bytes | AsyncIterator[bytes]
    status: int | None = None
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


Answer = BaseModel | Reply
Handler = Callable[[Request], Awaitable[Answer]]


@dataclass(frozen=True)
class Route:
    """One method on one path template, such as `/keys/{id}/revoke`.

    `answer` is the model of a good answer, or its content types where it is no JSON. `calls` marks a route
    that runs a tool: it is cancelled when the client goes away, and can answer 202. `streams` marks one that tells
    news until the client goes away. `max_bytes` is for bodies that have to be smaller than elsewhere.
    """

    method: str
    path: str
    handler: Handler = field(repr=False)
    summary: str
    tag: str
    answer: type[BaseModel] | str
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    access: Access = Access.key
    status: int = 200
    also: Mapping[int, str] = field(default_factory=dict[int, str])  # further statuses with the same answer
    calls: bool = False
    streams: bool = False
    max_bytes: int | None = None
    path_doc: Mapping[str, str] = field(default_factory=dict[str, str])


JsonObject = dict[str, Any]
