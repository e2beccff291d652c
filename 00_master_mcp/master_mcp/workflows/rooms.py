"""What the steps of every run share."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from master_mcp.approvals.asking import Asking
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import Catalog
from master_mcp.proxy.request import Assess
from master_mcp.proxy.request import Run as CallTool
from master_mcp.workflows.bell import Bell
from master_mcp.workflows.expressions import Templates
from master_mcp.workflows.places import Places
from master_mcp.workflows.results import Artifacts
from master_mcp.workflows.run import Run


@dataclass(frozen=True)
class Rooms:
    """What steps need of the hub. `assess` says what a call would risk, `lane` has the places at one spoke, `child`
    starts a run for a step of another, `stop` ends it with a reason.
    """

    catalog: Catalog
    call: CallTool
    assess: Assess
    caller_of: Callable[[str], Caller | None]
    asking: Asking
    templates: Templates
    artifacts: Artifacts
    bell: Bell
    lane: Callable[[str], Places]
    child: Callable[[Run, str, str, Mapping[str, Any], str | None], Awaitable[Run]]
    look: Callable[[str], Awaitable[Run]]
    steps: Callable[[Run], Awaitable[Sequence[Mapping[str, Any]]]]
    stop: Callable[[str, str], Awaitable[Run]]
