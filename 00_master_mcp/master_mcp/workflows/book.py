"""The tables of runs and steps. Every change of state is one conditional statement in the store's writer."""

import time
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from fleetkit.errors import NotFound
from master_mcp.store.workflows import artifacts, runs, signals, steps
from master_mcp.workflows.record import ENDED, LIVE, Fault, RunStatus, StepRecord, StepStatus
from master_mcp.workflows.run import Run, run_of

WHOLE = -1  # the item of a step that has none

StepKey = tuple[str, int, str, int]  # run, epoch, step, item

# Built once: with its values in it, to build a statement of SQLAlchemy takes longer than SQLite takes to do it.
_RUN = sa.select(runs).where(runs.c.id == sa.bindparam("run"))
_SAME_RUN = sa.select(runs).where(
    (runs.c.id == sa.bindparam("run"))
    | ((runs.c.caller_id == sa.bindparam("caller")) & (runs.c.key == sa.bindparam("said")))
)
_NEW_RUN = runs.insert()
_CHANGED_RUN = runs.update().where(
    runs.c.id == sa.bindparam("run"),
    runs.c.epoch == sa.bindparam("attempt"),
    runs.c.status.in_(sa.bindparam("before", expanding=True)),
)
_MOVED_RUN = _CHANGED_RUN.returning(*runs.c)
_THIS_STEP = (
    steps.c.run_id == sa.bindparam("run"),
    steps.c.epoch == sa.bindparam("attempt"),
    steps.c.step == sa.bindparam("name"),
    steps.c.item == sa.bindparam("number"),
)
_STEP = sa.select(steps).where(*_THIS_STEP)
_NEW_STEP = steps.insert()
_CHANGED_STEP = steps.update().where(*_THIS_STEP)
_STEPS = (
    sa.select(steps)
    .where(steps.c.run_id == sa.bindparam("run"), steps.c.epoch == sa.bindparam("attempt"))
    .order_by(steps.c.started_at, steps.c.step, steps.c.item)
)


def insert(db: sa.Connection, run: Run) -> tuple[Run, bool]:
    """The run, or the one that this caller has started under the same key or id; and whether it is new."""
    known = None if run.key is None and run.parent is None else same(db, run)  # other ids are drawn, never given
    if known is not None:
        return known, False
    db.execute(_NEW_RUN, {**vars(run), "status": run.status.value})
    return run, True


def same(db: sa.Connection, run: Run) -> Run | None:
    """The run that was started before by this id, or by this caller under this key."""
    row = db.execute(_SAME_RUN, {"run": run.id, "caller": run.caller_id, "said": run.key}).mappings().first()
    return None if row is None else run_of(row)


def get(db: sa.Connection, run_id: str) -> Run:
    """One run; raises NotFound."""
    row = db.execute(_RUN, {"run": run_id}).mappings().first()
    if row is None:
        raise NotFound(f"no run {run_id!r}: `fleet workflow list` or orchestrator.listWorkflows name them")
    return run_of(row)


def listed(db: sa.Connection, limit: int, *where: sa.ColumnElement[bool]) -> list[Run]:
    """The newest runs that meet all conditions."""
    query = sa.select(runs).where(*where).order_by(runs.c.created_at.desc(), runs.c.id).limit(limit)
    return [run_of(row) for row in db.execute(query).mappings()]


def live(db: sa.Connection) -> list[Run]:
    """Every run that has to go on, the most important and oldest first."""
    query = sa.select(runs).where(runs.c.status.in_(LIVE)).order_by(runs.c.priority, runs.c.created_at, runs.c.id)
    return [run_of(row) for row in db.execute(query).mappings()]


def move(db: sa.Connection, run: Run, before: Collection[RunStatus], **values: Any) -> Run | None:
    """Change a run that stands in one of these states in this attempt; None when it does not."""
    row = db.execute(_MOVED_RUN, _change(run, before, values)).mappings().first()
    return None if row is None else run_of(row)


def change(db: sa.Connection, run: Run, before: Collection[RunStatus], **values: Any) -> bool:
    """The same for who does not need the row; whether it was changed."""
    return bool(db.execute(_CHANGED_RUN, _change(run, before, values)).rowcount)


def _change(run: Run, before: Collection[RunStatus], values: Mapping[str, Any]) -> dict[str, Any]:
    ended = {"ended_at": time.time()} if values.get("status") in ENDED else {}
    return {"run": run.id, "attempt": run.epoch, "before": list(before), **ended, **values}


def step(db: sa.Connection, key: StepKey) -> Mapping[str, Any] | None:
    """One row of a step, None when it never began."""
    row = db.execute(_STEP, _this(key)).mappings().first()
    return None if row is None else dict(row)


def steps_of(db: sa.Connection, run: Run) -> list[dict[str, Any]]:
    """Every row of a run's last attempt, in the order in which the steps began."""
    rows = db.execute(_STEPS, {"run": run.id, "attempt": run.epoch}).mappings()
    return [dict(row) for row in rows]


def put(db: sa.Connection, key: StepKey, **values: Any) -> None:
    """Write a row of a step, new or changed."""
    if not db.execute(_CHANGED_STEP, {**_this(key), **values}).rowcount:
        put_new(db, {key: values})


def put_new(db: sa.Connection, rows: Mapping[StepKey, Mapping[str, Any]]) -> None:
    """Write rows of steps that have none."""
    empty: dict[str, Any] = {**dict.fromkeys(steps.c.keys()), "attempts": 0}
    names = ("run_id", "epoch", "step", "item")
    new = [{**empty, **dict(zip(names, key, strict=True)), **values} for key, values in rows.items()]
    if new:
        db.execute(_NEW_STEP, new)


def values_of(record: StepRecord) -> dict[str, Any]:
    """How a step ended, as it stands in its row."""
    return {
        "status": record.status.value,
        "attempts": record.attempts,
        "waits_for": None,
        "due_at": None,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "result": record.result,
        "error": None if record.error is None else vars(record.error),
        "items": record.items,
        "unsure": None,
    }


def record_in(row: Mapping[str, Any]) -> StepRecord:
    """How a step ended, from its row."""
    error = row["error"]
    return StepRecord(
        row["step"],
        StepStatus(row["status"]),
        row["result"],
        None if error is None else Fault(**error),
        row["started_at"],
        row["ended_at"],
        row["attempts"],
        row["items"],
    )


def stop_steps(db: sa.Connection, run: Run) -> None:
    """Mark what was still going on in a cancelled run: a change that was begun is in doubt."""
    mine = (steps.c.run_id == run.id, steps.c.epoch == run.epoch)
    running, waiting = steps.c.status == StepStatus.running, steps.c.status == StepStatus.waiting
    doubt = {"status": StepStatus.in_doubt.value, "waits_for": "a person"}
    db.execute(steps.update().where(*mine, running, steps.c.unsure.is_(True)).values(**doubt))
    ended = {"status": StepStatus.cancelled.value, "ended_at": time.time(), "waits_for": None}
    db.execute(steps.update().where(*mine, running | waiting).values(**ended))


def settle(db: sa.Connection, key: StepKey, *, done: bool, result: Any, note: str) -> None:
    """Write what a person said became of a step that was in doubt when its run ended."""
    ended: dict[str, Any] = {"waits_for": None, "ended_at": time.time()}
    if done:
        put(db, key, status=StepStatus.completed.value, result=result, error=None, **ended)
    else:
        put(db, key, status=StepStatus.failed.value, result=None, error={"code": "error", "message": note}, **ended)


def signal(db: sa.Connection, run_id: str, name: str) -> Mapping[str, Any] | None:
    """What was sent to a run under that name."""
    row = db.execute(sa.select(signals).where(signals.c.run_id == run_id, signals.c.name == name)).mappings().first()
    return None if row is None else dict(row)


def send(db: sa.Connection, run_id: str, name: str, payload: Any, sent_by: str, at: float) -> bool:
    """Keep a signal; False when there is one of that name already, which stays."""
    if signal(db, run_id, name) is not None:
        return False
    db.execute(signals.insert().values(run_id=run_id, name=name, payload=payload, sent_by=sent_by, at=at))
    return True


def delete(db: sa.Connection, run_ids: Collection[str]) -> None:
    """Forget runs with everything of theirs."""
    for table in (steps, signals, artifacts):
        db.execute(table.delete().where(table.c.run_id.in_(run_ids)))
    db.execute(runs.delete().where(runs.c.id.in_(run_ids)))


def _this(key: StepKey) -> dict[str, Any]:
    return dict(zip(("run", "attempt", "name", "number"), key, strict=True))
