"""What became of a step, as it is recorded, read by expressions and shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class RunStatus(StrEnum):
    """Where a run stands. `in_doubt`: a change was begun and nobody knows whether it took effect."""

    queued = "queued"
    running = "running"
    waiting = "waiting"
    in_doubt = "in_doubt"
    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"


ENDED = (RunStatus.completed, RunStatus.failed, RunStatus.cancelled)
LIVE = (RunStatus.queued, RunStatus.running, RunStatus.waiting, RunStatus.in_doubt)


class StepStatus(StrEnum):
    """Where a step stands."""

    running = "running"
    waiting = "waiting"
    in_doubt = "in_doubt"
    completed = "completed"
    failed = "failed"
    skipped = "skipped"
    cancelled = "cancelled"


OVER = (StepStatus.completed, StepStatus.failed, StepStatus.skipped)


@dataclass(frozen=True)
class Fault:
    """Why a step failed: the code of a FleetError, or `error` for a tool's own; the message says what to do."""

    code: str
    message: str


@dataclass(frozen=True)
class StepRecord:
    """How a step ended. Times are in seconds since the epoch; `result` is JSON.

    A step with items has a list as its result, None for each that gave none, and in `items` what each was and
    how it ended.
    """

    name: str
    status: StepStatus
    result: Any = None
    error: Fault | None = None
    started_at: float | None = None
    ended_at: float | None = None
    attempts: int = 0
    items: list[dict[str, Any]] | None = None

    def as_json(self) -> dict[str, Any]:
        """As it stands in a journal."""
        return {**vars(self), "error": None if self.error is None else vars(self.error)}

    @property
    def completed(self) -> bool:
        """Whether it did what it should."""
        return self.status is StepStatus.completed


def record_of(content: Mapping[str, Any]) -> StepRecord:
    """The record that `as_json` wrote."""
    error = content["error"]
    known: dict[str, Any] = dict(content)
    known |= {"status": StepStatus(content["status"]), "error": None if error is None else Fault(**error)}
    return StepRecord(**known)
