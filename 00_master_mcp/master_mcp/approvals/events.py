"""What happens to held calls, told to everybody who wants to know: metrics, webhooks, the sweeper."""

from asyncio import Event as Flag
from collections.abc import Callable

from fleetkit.approval_settings import Event
from fleetkit.metrics import Metrics
from master_mcp.approvals.hooks import Hooks
from master_mcp.approvals.record import Approval
from master_mcp.audit import Audit, Row


class Events:
    """Tells of events; never waits, never fails a call."""

    def __init__(self, audit: Audit, metrics: Metrics, hooks: Hooks) -> None:
        self._audit = audit
        self._metrics = metrics
        self._hooks = hooks
        self.news = Flag()  # set with each event; whoever waits for it clears it
        self.listeners: list[Callable[[Approval], None]] = []

    def tell(self, event: Event, approval: Approval) -> None:
        """`event` has happened to `approval`, and is on disk."""
        self._metrics.approvals.labels(event).inc()
        self._hooks.tell(event, approval)
        self.news.set()
        for listener in self.listeners:
            listener(approval)

    def by_hub(self, event: Event, approval: Approval) -> None:
        """`tell`, for what no caller did: it gets an audit row of the hub's own."""
        self._audit.note(row_of(approval, "hub", "hub", event))
        self.tell(event, approval)


def row_of(approval: Approval, who: str, channel: str, outcome: str) -> Row:
    """The audit row for what `who` did to a held call."""
    return Row(
        correlation_id=approval.correlation_id,
        caller=who,
        door=channel,
        service=approval.service,
        tool=approval.tool,
        risk=approval.risk.value,
        outcome=outcome,
        args_hash=approval.args_hash,
        approval_id=approval.id,
    )
