"""One run as it is stored."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import sqlalchemy as sa

from master_mcp.workflows.places import USUAL
from master_mcp.workflows.record import ENDED, RunStatus

INTERPRETER = 1  # of the graphs and journals that this version writes


def new_run_id() -> str:
    """An id for a run that a caller starts; it sorts nowhere and cannot be guessed."""
    return f"wf_{secrets.token_hex(8)}"


@dataclass(frozen=True)
class Approved:
    """What a person let a run do as a whole: exactly these calls (`[tool, hash of arguments]`), under these terms."""

    approval_id: str
    risk: str
    effect: str
    quorum: int
    group: str
    calls: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Run:
    """A row of `workflow_runs`. It holds its definition: editing one changes no run. Times are epoch seconds."""

    id: str
    name: str
    hash: str
    definition: Mapping[str, Any] = field(repr=False)
    inputs: Mapping[str, Any] = field(repr=False)
    caller_id: str
    caller_name: str
    door: str
    correlation_id: str
    created_at: float
    status: RunStatus = RunStatus.queued
    epoch: int = 0
    interpreter: int = INTERPRETER
    priority: int = USUAL
    key: str | None = None
    parent: str | None = None
    depth: int = 0
    approved: Mapping[str, Any] | None = field(default=None, repr=False)
    carried: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    started_at: float | None = None
    ended_at: float | None = None
    failed_step: str | None = None
    reason: str | None = None
    outputs: Any = field(default=None, repr=False)

    @property
    def execution_id(self) -> str:
        """The engine's name for this attempt at the run."""
        return f"{self.id}.{self.epoch}"

    @property
    def ended(self) -> bool:
        """Whether it goes no further by itself."""
        return self.status in ENDED


def run_of(row: sa.RowMapping) -> Run:
    """A row of the table as its value."""
    known: dict[str, Any] = {one.name: row[one.name] for one in fields(Run)}
    known["status"] = RunStatus(row["status"])
    return Run(**known)


def part_id(run: Run, step: str, item: int | None) -> str:
    """The id of the run of a step that is a workflow, in this attempt."""
    number = "" if item is None else f"-{item}"
    return f"{run.id}-{step}{number}-{run.epoch}"


def split(execution_id: str) -> tuple[str, int]:
    """The run and the attempt that an execution is."""
    run_id, _, epoch = execution_id.rpartition(".")
    return run_id, int(epoch)
