"""Who is asking and which call this is: bound once per request, carried by every log line.

Nothing else rides in context variables. A correlation id is a W3C trace id: 32 hex digits.
"""

import re
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True)
class Caller:
    """Who calls, whatever proved it. `role` is agent, operator or spoke."""

    id: str
    name: str
    role: str


@dataclass(frozen=True)
class Context:
    """What is bound for the length of one call; `token` is the hub's signed proof of it, for calls onward."""

    correlation_id: str
    caller: Caller | None = None
    tool: str | None = None
    token: str | None = None


_current: ContextVar[Context | None] = ContextVar("fleet_context", default=None)


def new_id() -> str:
    """A fresh correlation id."""
    return secrets.token_hex(16)


def from_traceparent(header: object) -> str | None:
    """The trace id of a W3C `traceparent`, None when absent or malformed (a caller can send anything)."""
    found = _TRACEPARENT.fullmatch(header) if isinstance(header, str) else None
    return found.group(1) if found and found.group(1) != "0" * 32 else None


def traceparent(correlation_id: str) -> str:
    """A `traceparent` that starts a new span in this trace."""
    return f"00-{correlation_id}-{secrets.token_hex(8)}-01"


def current() -> Context | None:
    """The context of the call under way, None outside one."""
    return _current.get()


@contextmanager
def bound(context: Context) -> Generator[Context]:
    """Bind `context` for the length of a block."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
