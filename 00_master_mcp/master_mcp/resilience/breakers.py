"""Every breaker of the hub: found by service and tool, kept in the database, shown, reset by hand."""

import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from fleetkit.errors import FleetError, NotFound
from fleetkit.log import get_logger
from fleetkit.metrics import Metrics
from fleetkit.store import Store
from master_mcp.resilience.breaker import Breaker, State, ToolBreaker
from master_mcp.resilience.subject import Tool
from master_mcp.store import breakers as table

log = get_logger()


class Breakers:
    """One breaker per spoke, and one per tool that has failed lately.

    `clock` gives seconds that never jump.
    """

    def __init__(self, store: Store, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._spokes: dict[str, Breaker] = {}
        self._tools: dict[str, ToolBreaker] = {}
        self._kept: dict[str, list[sa.Row[Any]]] = {}

    def load(self) -> None:
        """Read what was open when the hub last ran; for start-up. Each spoke takes up its own."""
        for row in self._store.read_now(lambda db: db.execute(sa.select(table)).all()):
            self._kept.setdefault(row.service, []).append(row)

    def spoke(self, service: str) -> Breaker:
        """The breaker of one spoke."""
        if service not in self._spokes:
            self._spokes[service] = Breaker(service, changed=self._changed)
            self._show(self._spokes[service])
            for row in self._kept.pop(service, ()):
                self._take_up(row)
        return self._spokes[service]

    def _take_up(self, row: sa.Row[Any]) -> None:
        breaker = self._of_tool(row.service, row.tool) if row.tool else self._spokes[row.service]
        breaker.state, breaker.reason, breaker.since = State.open, row.reason, row.since
        breaker.failures, breaker.wait_s = row.failures, row.wait_s
        if isinstance(breaker, ToolBreaker):  # a clock that was set meanwhile makes no wait longer than it was
            breaker.resume(min(max(row.retry_at - time.time(), 0.0), row.wait_s))
        self._show(breaker)

    def check(self, tool: Tool) -> None:
        """Raise Unavailable when this tool or its spoke is not to be called now."""
        self.spoke(tool.service).check()
        if self._tools and tool.id in self._tools:
            self._tools[tool.id].check()

    def claim(self, tool: Tool) -> ToolBreaker | None:
        """`check` for the call that is about to be sent. When that call is a trial it gets the breaker it tries.

        It releases that when it has ended.
        """
        self.spoke(tool.service).check()
        found = self._tools.get(tool.id) if self._tools else None
        if found is None:
            return None
        found.claim()
        return found if found.trying else None

    def failed(self, tool: Tool, reason: str) -> None:
        """A call of this tool got no answer."""
        for breaker in (self.spoke(tool.service), self._of_tool(tool.service, tool.id)):
            if breaker.failed(reason):
                log.warning("breaker.opened", service=breaker.service, tool=breaker.tool, reason=reason)

    def succeeded(self, tool: Tool) -> None:
        """A call of this tool got an answer."""
        spoke = self.spoke(tool.service)
        if spoke.failures or spoke.state is not State.closed:
            spoke.succeeded()
        if self._tools and tool.id in self._tools:
            self._tools[tool.id].succeeded()
            self._tools.pop(tool.id, None)

    def listed(self) -> list[Breaker]:
        """Every breaker: the spokes', and those of tools that have failed lately."""
        return [*self._spokes.values(), *self._tools.values()]

    def reset(self, name: str) -> list[str]:
        """Close the breaker of a spoke with those of its tools, of one tool, or of everything (`all`).

        Returns the names of those that were not closed. Raises NotFound for a name that has no breaker.
        """
        found = [one for one in self.listed() if name in ("all", one.service, one.tool)]
        if not found:
            raise NotFound(f"no breaker {name!r}: `fleet breaker list` shows them; a tool without failures has none")
        was_open = [one.name for one in found if one.state is not State.closed]
        for breaker in found:
            breaker.succeeded()
            self._tools.pop(breaker.tool, None)
        return was_open

    def _of_tool(self, service: str, tool: str) -> ToolBreaker:
        if tool not in self._tools:
            self._tools[tool] = ToolBreaker(service, tool, changed=self._changed, clock=self._clock)
        return self._tools[tool]

    def _changed(self, breaker: Breaker) -> None:
        if breaker.state is State.closed and not breaker.tool and breaker.was_lost:
            self._forgive(breaker.service)
        self._show(breaker)
        if breaker.state is State.half_open:
            return
        kept = None if breaker.state is State.closed else _row(breaker)
        try:
            self._store.submit(lambda db: _keep(db, breaker.service, breaker.tool, kept))
        except FleetError as error:  # it works without its record
            log.warning("breaker.not_kept", service=breaker.service, tool=breaker.tool, reason=error.message)

    def _forgive(self, service: str) -> None:
        """The spoke was down and is back: that its tools failed was not theirs."""
        for breaker in [one for one in self._tools.values() if one.service == service]:
            breaker.succeeded()
            del self._tools[breaker.tool]

    def _show(self, breaker: Breaker) -> None:
        if breaker.tool and breaker.state is State.closed:
            self._metrics.breaker.remove(breaker.service, breaker.tool)
        else:
            self._metrics.breaker.labels(breaker.service, breaker.tool).set(breaker.state.gauge)


def _row(breaker: Breaker) -> dict[str, Any]:
    return {
        "service": breaker.service,
        "tool": breaker.tool,
        "reason": breaker.reason,
        "failures": breaker.failures,
        "since": breaker.since,
        "wait_s": breaker.wait_s,
        "retry_at": time.time() + (breaker.left_s if isinstance(breaker, ToolBreaker) else 0.0),
    }


def _keep(db: sa.Connection, service: str, tool: str, row: dict[str, Any] | None) -> None:
    db.execute(table.delete().where(table.c.service == service, table.c.tool == tool))
    if row is not None:
        db.execute(table.insert().values(row))
