"""What happens to workflows, on the audit."""

from collections.abc import Mapping
from typing import Any

from master_mcp.audit import Audit, event_row
from master_mcp.auth.caller import Caller
from master_mcp.workflows.run import Run

DOOR = "workflow"


class Notes:
    """Writes audit rows of the service `hub` for what is no call."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def of_run(self, action: str, run: Run, caller: Caller | None = None, **more: Any) -> None:
        """Something happened to a run: by `caller`, else by itself."""
        detail = {"run": run.id, "workflow": run.name, "hash": run.hash, "attempt": run.epoch, **more}
        who = run.caller_id if caller is None else caller.id
        self.note(action, who, detail, correlation_id=run.correlation_id)

    def note(self, action: str, who: str, detail: Mapping[str, Any], *, correlation_id: str | None = None) -> None:
        """Something happened."""
        self._audit.note(event_row(action, caller=who, door=DOOR, detail=detail, correlation_id=correlation_id))
