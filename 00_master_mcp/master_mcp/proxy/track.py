"""What is known of a call, or of a request for something that is no tool, for its audit row and metrics."""

import asyncio
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from fleetkit.errors import BY_CODE, FleetError
from fleetkit.governed import RISK_META
from fleetkit.shapes import mapping
from master_mcp.audit import Row, shape_of
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import CatalogTool
from master_mcp.proxy.answer import Message


class Traced(Protocol):
    """Who asks, by which door, and under which id it is found again."""

    @property
    def correlation_id(self) -> str:
        """The trace it belongs to."""
        ...

    @property
    def caller(self) -> Caller:
        """Who asks."""
        ...

    @property
    def door(self) -> str:
        """How it came in."""
        ...


@dataclass
class Track:
    """One call so far, filled in as it goes: of `arguments` the record shows the shape.

    `intended` when an intent row is on disk, `sent` once a spoke may have got it.
    """

    call: Traced
    args_hash: str
    arguments: object = field(default=None, repr=False)
    started: float = field(default_factory=time.perf_counter)
    service: str = "hub"
    tool: str = "unknown"
    risk: str = "unknown"
    outcome: str = "ok"
    intended: bool = False
    sent: bool = False
    approval_id: str | None = None

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return time.perf_counter() - self.started

    @contextmanager
    def watched(self) -> Generator[None]:
        """Around everything that is done for it: what stops the block is its outcome."""
        try:
            yield
        except FleetError as error:
            self.outcome = error.code
            self.approval_id = self.approval_id or error.approval_id
            raise
        except asyncio.CancelledError:
            self.outcome = "cancelled"
            raise

    def found(self, tool: CatalogTool) -> None:
        """The call means this tool."""
        self.service, self.tool, self.risk = tool.service, tool.id, tool.risk.value

    def answered(self, answer: Message) -> None:
        """The call got this answer."""
        self.outcome = outcome_of(answer)
        self.risk = str(mapping(mapping(answer.get("result")).get("_meta")).get(RISK_META, self.risk))

    def row(self, outcome: str) -> Row:
        """The audit row for `outcome`."""
        return Row(
            correlation_id=self.call.correlation_id,
            caller=self.call.caller.id,
            door=self.call.door,
            service=self.service,
            tool=self.tool,
            risk=self.risk,
            outcome=outcome,
            args_hash=self.args_hash,
            duration_ms=None if outcome == "intent" else self.seconds * 1000,
            approval_id=self.approval_id,
            detail=None if self.intended else shape_of(self.arguments),
        )


def outcome_of(answer: Message) -> str:
    """`ok`, `input_required`, or the code of what went wrong."""
    result = cast("Mapping[str, Any] | None", answer.get("result"))
    if result is None:
        return "protocol_error"
    if result.get("resultType") == "input_required":
        return "input_required"
    if not result.get("isError"):
        return "ok"
    code = mapping(result.get("structuredContent")).get("code")
    return code if code in BY_CODE else "tool_error"
