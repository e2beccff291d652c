"""Errors as HTTP says them: problem+json (RFC 9457) with the fleet's own keys beside the standard ones."""

import math
from collections.abc import Mapping

import orjson
from pydantic import BaseModel

from fleetkit.asgi import Exchange
from fleetkit.errors import FleetError, Invalid, OverBudget, body

KIND = "application/problem+json"


class Problem(BaseModel):
    """What went wrong, and what to do next. `retry_after` is in seconds; `approval_id` names a held call."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    message: str
    retryable: bool
    correlation_id: str | None = None
    approval_id: str | None = None
    plan: str | None = None
    retry_after: float | None = None


class Malformed(Invalid):
    """The bytes are no JSON."""

    http = 400


class SlowBody(Invalid):
    """The body did not come in time."""

    http = 408


class TooLarge(Invalid):
    """The body is larger than the hub takes."""

    http = 413


class WrongKind(Invalid):
    """The body is declared as something else than JSON."""

    http = 415


class WrongMethod(Invalid):
    """The path is there, the method is not."""

    http = 405


async def problem(
    exchange: Exchange,
    error: FleetError,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    correlation_id: str | None = None,
) -> None:
    """Answer with the error; `Retry-After` goes with every 429 and wherever the error knows a time."""
    status = status or error.http
    content = {"type": "about:blank", "title": error.code, "status": status, "detail": error.message}
    wait = 1.0 if error.retry_after is None and isinstance(error, OverBudget) else error.retry_after
    later = {} if wait is None else {"retry-after": str(math.ceil(wait))}
    shown = {**later, "cache-control": "no-store", **(headers or {})}
    await exchange.raw(status, orjson.dumps(content | body(error, correlation_id)), KIND, shown)
