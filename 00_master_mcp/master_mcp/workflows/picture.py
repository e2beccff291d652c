"""A run as it is drawn: its steps as nodes with how each stands, and the edges between them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from master_mcp.workflows.graph import Ask, Graph, Invoke, Listen, Node, Pause, Sub
from master_mcp.workflows.interpreter import UNDO
from master_mcp.workflows.record import StepStatus

PENDING = "pending"  # a step that has not begun
_KINDS: dict[type, str] = {Invoke: "tool", Ask: "approval", Pause: "wait", Listen: "signal", Sub: "workflow"}
_OPEN = (StepStatus.in_doubt, StepStatus.running, StepStatus.waiting)  # what some item is says most about all
_FACTS = ("attempts", "started_at", "ended_at", "error", "approval_id", "waits_for", "due_at")

Result = Mapping[str, Any]


def nodes(graph: Graph, results: Sequence[Result]) -> list[dict[str, Any]]:
    """Every step in the order of the definition; `items` counts those of a step with forEach by status."""
    return [_node(node, results) for node in graph.nodes]


def edges(graph: Graph) -> list[dict[str, str]]:
    """What leads to what: `then` when a step is over, `error` when it has failed."""
    found: list[dict[str, str]] = []
    for node in graph.nodes:
        found += [{"source": need, "target": node.name, "kind": "then"} for need in node.needs]
        if node.goto is not None:
            found.append({"source": node.name, "target": node.goto, "kind": "error"})
    return found


def _node(node: Node, results: Sequence[Result]) -> dict[str, Any]:
    mine = [one for one in results if one["name"] == node.name]
    whole = next((one for one in mine if one["item"] is None), None)
    items = Counter(str(one["status"]) for one in mine if one["item"] is not None)
    facts = {name: whole.get(name) if whole is not None else None for name in _FACTS}
    return {
        "name": node.name,
        "kind": _KINDS[type(node.task)],
        "does": _does(node),
        "needs": list(node.needs),
        "status": _together(items) if whole is None else str(whole["status"]),
        "items": dict(items) if node.each is not None else None,
        "undo": _undo(node, results),
        **facts,
        "attempts": facts["attempts"] or 0,
    }


def _does(node: Node) -> str | None:
    """The tool or the workflow of a step."""
    match node.task:
        case Invoke(tool=tool):
            return tool
        case Sub(workflow=workflow):
            return workflow
        case Listen(signal=signal):
            return signal
        case _:
            return None


def _together(items: Mapping[str, int]) -> str:
    """How a step stands of which only items are known."""
    if not items:
        return PENDING
    return next((str(one) for one in _OPEN if one in items), str(StepStatus.running))


def _undo(node: Node, results: Sequence[Result]) -> dict[str, Any] | None:
    """What takes a step back, and how that stands."""
    if node.compensate is None:
        return None
    states = [str(one["status"]) for one in results if one["name"] == node.name + UNDO]
    return {"tool": node.compensate.tool, "status": states[-1] if states else PENDING}
