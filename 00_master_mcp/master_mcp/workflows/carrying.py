"""What the next attempt at a run keeps of the one before.

Steps that were done, the items of loops that stopped, and where the runs of parts were that did not come to their end.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fleetkit import trust
from fleetkit.errors import NotFound
from master_mcp.workflows import book
from master_mcp.workflows.graph import Graph, Sub
from master_mcp.workflows.interpreter import UNDO
from master_mcp.workflows.ledger import At
from master_mcp.workflows.record import StepRecord, StepStatus, record_of
from master_mcp.workflows.run import Run, part_id

HASH = "args_hash"  # what an item or a part was done with: with something else it is done again
PART = "part"

Rows = Sequence[Mapping[str, Any]]


def kept_of(run: Run, rows: Rows, old: Graph, new: Graph, step: str | None) -> dict[str, Any]:
    """What is carried on: completed steps that nothing to be done again comes before, and items likewise."""
    if step is not None and step not in {node.name for node in new.nodes}:
        raise NotFound(f"the workflow has no step {step!r}: it has {', '.join(node.name for node in new.nodes)}")
    same = [node for node in new.nodes if node in old.nodes]
    done = _done(rows)
    undone = {row["step"].removesuffix(UNDO) for row in done if row["step"].endswith(UNDO)}
    steps = steps_in(run.carried) | {row["step"]: book.record_in(row) for row in done if row["item"] == book.WHOLE}
    good = {node.name for node in same if node.name in steps and node.name not in undone}
    again = {node.name for node in new.nodes if node.name not in good or node.name == step}
    over = new.after(*again)
    kept = {name: steps[name].as_json() for name in good - over}
    for node in same:
        if node.name in again - {step} - undone and not new.before(node.name) & over:
            kept |= _items(run, done, node.name) if node.each is not None else {}
            kept |= _parts(run, rows, node.name) if isinstance(node.task, Sub) else {}
    return kept


def steps_in(carried: Mapping[str, Any]) -> dict[str, StepRecord]:
    """The steps among what is carried, by name."""
    return {name: record_of(content) for name, content in carried.items() if HASH not in content}


def item_in(run: Run, at: At, arguments: Mapping[str, Any]) -> StepRecord | None:
    """How an item ended in an earlier attempt; None when it did not, or was something else then."""
    found = run.carried.get(_name(*at))
    if found is None or found.get(HASH) != trust.canonical_hash(dict(arguments)):
        return None
    return record_of({name: value for name, value in found.items() if name != HASH})


def part_in(run: Run, at: At, inputs: Mapping[str, Any]) -> str | None:
    """The run of that part in an earlier attempt, when it had these inputs and did not come to its end."""
    found = run.carried.get(f"{PART}:{_name(*at)}")
    return None if found is None or found[HASH] != trust.canonical_hash(dict(inputs)) else found[PART]


def _done(rows: Rows) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["status"] == StepStatus.completed]


def _items(run: Run, done: Rows, step: str) -> dict[str, Any]:
    carried = {name: one for name, one in run.carried.items() if name.startswith(f"{step}[")}
    mine = [row for row in done if row["step"] == step and row["item"] != book.WHOLE and row[HASH]]
    return carried | {_name(step, row["item"]): {**book.record_in(row).as_json(), HASH: row[HASH]} for row in mine}


def _parts(run: Run, rows: Rows, step: str) -> dict[str, Any]:
    """Where the parts of a step are: in this attempt, else where they were before it."""
    begun = [row for row in rows if row["step"] == step and row[HASH] and row["status"] != StepStatus.completed]
    now = {_at(row): {HASH: row[HASH], PART: part_id(run, *_at(row))} for row in begun}
    mine = (f"{PART}:{step}", f"{PART}:{step}[")
    before = {name: one for name, one in run.carried.items() if name == mine[0] or name.startswith(mine[1])}
    return before | {f"{PART}:{_name(*at)}": one for at, one in now.items()}


def _at(row: Mapping[str, Any]) -> At:
    return row["step"], None if row["item"] == book.WHOLE else row["item"]


def _name(step: str, item: int | None) -> str:
    return step if item is None else f"{step}[{item}]"
