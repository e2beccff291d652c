"""Runs and definitions as people and machines see them."""

from collections.abc import Mapping, Sequence
from typing import Any

from fleetkit.scrub import scrubber
from master_mcp.workflows.book import WHOLE
from master_mcp.workflows.carrying import steps_in
from master_mcp.workflows.graph import Ask, Graph, Invoke, Listen, Node, Pause, Sub
from master_mcp.workflows.interpreter import UNDO
from master_mcp.workflows.library import Entry
from master_mcp.workflows.record import StepStatus
from master_mcp.workflows.run import Run

_CLASSES = {
    StepStatus.completed: "fill:#d4edda,stroke:#28a745",
    StepStatus.failed: "fill:#f8d7da,stroke:#dc3545",
    StepStatus.running: "fill:#cce5ff,stroke:#007bff",
    StepStatus.waiting: "fill:#fff3cd,stroke:#ffc107",
    StepStatus.in_doubt: "fill:#ffe0b2,stroke:#e65100",
    StepStatus.skipped: "fill:#eeeeee,stroke:#999999",
}


def summary(run: Run) -> dict[str, Any]:
    """One run in a list."""
    return {
        "id": run.id,
        "workflow_name": run.name,
        "status": run.status.value,
        "step_failed_at": run.failed_step,
        "reason": _clean(run.reason),
        "started_by": run.caller_name,
        "priority": run.priority,
        "attempt": run.epoch,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "correlation_id": run.correlation_id,
        "parent": run.parent,
        "hash": run.hash,
    }


def whole(run: Run, graph: Graph, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One run with its steps: in the order of the definition, carried ones of earlier attempts included."""
    results = [*map(step, rows), *(_carried(name, record.as_json()) for name, record in steps_in(run.carried).items())]
    order = {node.name: number for number, node in enumerate(graph.nodes)}
    results.sort(key=lambda one: (order.get(one["name"].removesuffix(UNDO), len(order)), one["name"], one["item"] or 0))
    return {
        **summary(run),
        "inputs": _clean(dict(run.inputs)),
        "outputs": _clean(run.outputs),
        "results": results,
        "waits_for": waits_for(run, results),
    }


def step(row: Mapping[str, Any]) -> dict[str, Any]:
    """One step of a run, for people and machines: `{name, item, status, result | error, started_at, ...}`."""
    shown: dict[str, Any] = {
        "name": row["step"],
        "item": None if row["item"] == WHOLE else row["item"],
        "status": row["status"],
        "started_at": row["started_at"],
        "ended_at": row["ended_at"],
        "attempts": row["attempts"],
    }
    for name in ("error", "approval_id", "waits_for", "due_at"):
        if row[name] is not None:
            shown[name] = _clean(row[name])
    if row["error"] is None and row["status"] == StepStatus.completed:
        shown["result"] = _clean(row["result"])
    return shown


def waits_for(run: Run, results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a run waits for, and what to do about it."""
    found: list[dict[str, Any]] = []
    for one in results:
        if one["status"] == StepStatus.in_doubt:
            item = "" if one["item"] is None else f" --item {one['item']}"
            do = f"fleet workflow resume {run.id} --step {one['name']}{item} --outcome done|repeat|failed"
        elif run.ended:
            continue
        elif one.get("approval_id") and one["status"] == StepStatus.waiting:
            do = f"fleet approvals show {one['approval_id']}"
        elif str(one.get("waits_for", "")).startswith("signal "):
            do = f"fleet workflow signal {run.id} {one['waits_for'].removeprefix('signal ')}"
        elif str(one.get("waits_for", "")).startswith("run "):
            do = f"fleet workflow show {one['waits_for'].removeprefix('run ')}"
        else:
            continue
        found.append({"step": one["name"], "item": one["item"], "for": one.get("waits_for"), "do": do})
    return found


def definition(entry: Entry) -> dict[str, Any]:
    """One workflow in a list."""
    return {
        "name": entry.name,
        "description": str(entry.content.get("description") or ""),
        "origin": entry.origin,
        "hash": entry.hash,
        "owner": entry.owner_name,
        "saved_at": entry.saved_at,
        "published": entry.origin == "saved" and bool(entry.content.get("publish")),
        "schedule": entry.content.get("schedule"),
    }


def mermaid(graph: Graph, states: Mapping[str, str] | None = None) -> str:
    """The graph as a Mermaid flowchart; `states` colours the steps of a run."""
    lines = ["flowchart TD"]
    for node in graph.nodes:
        left, right = _SHAPES.get(type(node.task), ("[", "]"))
        lines.append(f'    {node.name}{left}"{_label(node)}"{right}')
    for node in graph.nodes:
        lines += [f"    {need} --> {node.name}" for need in node.needs]
        if node.goto is not None:
            lines.append(f"    {node.name} -. on error .-> {node.goto}")
        if node.compensate is not None:
            lines.append(f'    {node.name} -. undo .-> {node.name}_undo["{node.compensate.tool}"]')
    for name, state in (states or {}).items():
        style = _CLASSES.get(StepStatus(state)) if state in StepStatus.__members__ else None
        if style and name in {node.name for node in graph.nodes}:
            lines.append(f"    style {name} {style}")
    return "\n".join(lines) + "\n"


_SHAPES: dict[type, tuple[str, str]] = {Ask: ("{{", "}}"), Pause: ("([", "])"), Listen: ("([", "])"), Sub: ("[[", "]]")}


def _label(node: Node) -> str:
    task = node.task
    match task:
        case Invoke():
            what = task.tool
        case Ask():
            what = f"approval by {task.quorum} of {task.group}"
        case Pause():
            what = "wait" if task.seconds is None else f"wait {task.seconds:g} s"
        case Listen():
            what = f"signal {task.signal}"
        case Sub():
            what = f"workflow {task.workflow}"
    extra = " for each" if node.each is not None else ""
    condition = " if ..." if isinstance(node.when, str) else ""
    return f"{node.name}{extra}{condition}<br/>{what}"


def _carried(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: content[key] for key in ("status", "started_at", "ended_at", "attempts")}
    return {"name": name, "item": None, **shown, "result": _clean(content["result"]), "carried": True}


def _clean(value: Any) -> Any:
    return (
        scrubber.data(value)
        if isinstance(value, dict | list)
        else scrubber.text(value)
        if isinstance(value, str)
        else value
    )
