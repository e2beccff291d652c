"""Steering runs: cancel, signal, decide what is in doubt, run again."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fleetkit.errors import Conflict, Invalid
from fleetkit.store import Store
from master_mcp.approvals.room import Approvals
from master_mcp.auth.caller import Caller
from master_mcp.store.workflows import runs
from master_mcp.workflows import book
from master_mcp.workflows.bell import Bell
from master_mcp.workflows.calling import doubt_signal
from master_mcp.workflows.carrying import kept_of
from master_mcp.workflows.checking import Checked, Checker
from master_mcp.workflows.executing import Executor
from master_mcp.workflows.looking import MAX_LISTED, Looking, graph_of
from master_mcp.workflows.notes import Notes
from master_mcp.workflows.record import LIVE, RunStatus, StepStatus
from master_mcp.workflows.run import Run, new_run_id
from master_mcp.workflows.starting import Starting


class Steering:
    """What callers may do to runs that they may see."""

    def __init__(
        self,
        store: Store,
        looking: Looking,
        starting: Starting,
        checker: Checker,
        executor: Executor,
        approvals: Approvals,
        notes: Notes,
        bell: Bell,
    ) -> None:
        self._store = store
        self._looking = looking
        self._starting = starting
        self._checker = checker
        self._executor = executor
        self._approvals = approvals
        self._notes = notes
        self._bell = bell

    async def cancel(self, caller: Caller, run_id: str, reason: str = "") -> Run:
        """End a run now, its parts too. Raises NotFound, Conflict when it has ended."""
        await self._looking.visible(caller, run_id)
        note = f"cancelled by {caller.name}" + (f": {reason}" if reason else "")
        return await self.stop(run_id, note, caller)

    async def stop(self, run_id: str, note: str, caller: Caller | None = None) -> Run:
        """`cancel`, by the hub itself when there is no caller."""
        run, rows = await self._looking.whole(run_id)
        moved = await self._store.write(lambda db: book.move(db, run, LIVE, status=RunStatus.cancelled, reason=note))
        if moved is None:
            raise _over(run)
        self._notes.of_run("workflow.cancelled", run, caller)
        await self._executor.cancel(run)
        await self._store.write(lambda db: book.stop_steps(db, run))
        for row in rows:
            if row["approval_id"] and row["status"] == StepStatus.waiting:
                await self._approvals.asking.withdraw(row["approval_id"], note)
        for part in await self._store.read(lambda db: book.listed(db, MAX_LISTED, runs.c.parent == run.id)):
            if not part.ended:
                await self.stop(part.id, note, caller)
        return moved

    async def signal(self, caller: Caller, run_id: str, name: str, payload: Any) -> None:
        """Send a signal to a run. Raises NotFound, Invalid for a reserved name, Conflict when it was sent before."""
        if ":" in name:
            raise Invalid(f"{name!r} is no name of a signal")
        run, _ = await self._looking.visible(caller, run_id)
        if run.ended:
            raise _over(run)
        await self._send(run, name, payload, caller)

    async def decide(self, caller: Caller, run_id: str, step: str, item: int | None, said: Mapping[str, Any]) -> Run:
        """Say what became of a step in doubt: `{outcome: done | repeat | failed, result?}`.

        Raises NotFound, Conflict when the step is not in doubt.
        """
        run, rows = await self._looking.visible(caller, run_id)
        wanted = book.WHOLE if item is None else item
        row = next((row for row in rows if row["step"] == step and row["item"] == wanted), None)
        if row is None or row["status"] != StepStatus.in_doubt:
            raise Conflict(f"step {step!r} of run {run_id} is not in doubt")
        if run.ended:  # nobody waits for a signal any more: it counts when the run is tried again
            done = said["outcome"] == "done"
            key = (run.id, run.epoch, step, wanted)
            note = f"{caller.name} said that it did not take effect"
            result = said.get("result")
            await self._store.write(lambda db: book.settle(db, key, done=done, result=result, note=note))
            self._notes.of_run("workflow.signalled", run, caller)
        else:
            await self._send(run, doubt_signal((step, item), run.epoch, row["attempts"]), dict(said), caller)
        return run

    async def retry(
        self, caller: Caller, run_id: str, step: str | None, definition: Mapping[str, Any] | None, *, fork: bool
    ) -> Run:
        """Run an ended run again from a step on, which and what depends on it is done again; the rest is kept.

        Without a step: from whatever was not completed. `fork` makes a run of its own. A changed `definition` keeps
        the results of steps that are the same in it. Raises NotFound, Conflict while it runs, Invalid.
        """
        run, rows = await self._looking.visible(caller, run_id)
        if not run.ended:
            raise Conflict(f"run {run_id} is {run.status}: cancel it first, or wait for its end")
        await self._refuse_in_doubt(run, rows)
        content = run.definition if definition is None else definition
        checked = await self._checker.check(content, caller)
        carried = kept_of(run, rows, graph_of(run), checked.graph, step)
        if definition is None:  # what a run keeps names its tools otherwise than what was written
            checked = replace(checked, hash=run.hash)
        if step is not None or definition is not None or fork:  # that is another run than the one that was approved
            run = replace(run, approved=None)
        self._notes.of_run("workflow.retried", run, caller)
        if fork:
            fresh = replace(
                run,
                id=new_run_id(),
                definition=checked.content,
                hash=checked.hash,
                carried=carried,
                created_at=time.time(),
                status=RunStatus.queued,
                epoch=0,
                key=None,
                caller_id=caller.id,
                caller_name=caller.name,
                started_at=None,
                ended_at=None,
                failed_step=None,
                reason=None,
                outputs=None,
            )
            return await self._starting.begin(fresh)
        return await self._again(run, checked, carried)

    async def _refuse_in_doubt(self, run: Run, rows: list[dict[str, Any]]) -> None:
        """Raises Conflict while nobody has said what became of a step of a run, or of its parts."""
        doubtful = [row["step"] for row in rows if row["status"] == StepStatus.in_doubt]
        if doubtful:
            raise Conflict(
                f"step {doubtful[0]!r} of run {run.id} is in doubt: find out whether it took effect and say so first, "
                f"`fleet workflow resume {run.id} --step {doubtful[0]} --outcome done|failed`"
            )
        for part in await self._store.read(lambda db: book.listed(db, MAX_LISTED, runs.c.parent == run.id)):
            await self._refuse_in_doubt(*await self._looking.whole(part.id))

    async def _again(self, run: Run, checked: Checked, carried: Mapping[str, Any]) -> Run:
        """The next attempt of the same run."""
        values: dict[str, Any] = {
            "epoch": run.epoch + 1,
            "definition": checked.content,
            "hash": checked.hash,
            "carried": dict(carried),
            "approved": run.approved,
            "status": RunStatus.queued,
            "created_at": time.time(),
            "ended_at": None,
            "failed_step": None,
            "reason": None,
            "outputs": None,
        }
        moved = await self._store.write(lambda db: book.move(db, run, (run.status,), **values))
        if moved is None:
            raise Conflict(f"run {run.id} was changed meanwhile: look again")
        await self._executor.begin(moved)
        return moved

    async def _send(self, run: Run, name: str, payload: Any, caller: Caller) -> None:
        at = time.time()
        is_new = await self._store.write(lambda db: book.send(db, run.id, name, payload, caller.name, at))
        if not is_new:
            raise Conflict(f"{name!r} was sent to run {run.id} before, and stays as it was")
        self._notes.of_run("workflow.signalled", run, caller)
        self._bell.ring(f"signal:{run.id}")


def _over(run: Run) -> Conflict:
    return Conflict(f"run {run.id} has ended: it is {run.status}")
