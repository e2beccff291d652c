"""The tools by which clients run workflows. Each acts as the key that called."""

import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from fleetkit import Assessment, Risk, Spoke, correlation
from fleetkit.errors import Invalid, Refused
from fleetkit.governed import report_progress
from master_mcp.approvals.record import Approval
from master_mcp.auth.caller import Caller
from master_mcp.workflows.places import USUAL
from master_mcp.workflows.room import Workflows
from master_mcp.workflows.starting import EXECUTE, Order

MAX_WAIT_S = 3600.0
DOOR = "mcp"


class StepResult(BaseModel):
    """How one step stands or ended; `item` is its number in a step with forEach. Times are epoch seconds."""

    name: str
    item: int | None = None
    status: str
    result: Any = None
    error: dict[str, Any] | None = None
    started_at: float | None = None
    ended_at: float | None = None
    attempts: int = 0
    approval_id: str | None = None
    waits_for: str | None = None
    due_at: float | None = None
    carried: bool = False


class RunLine(BaseModel):
    """One run. `step_failed_at` and `reason` say why it failed; times are epoch seconds."""

    id: str
    workflow_name: str
    status: str
    step_failed_at: str | None
    reason: str | None
    started_by: str
    priority: int
    attempt: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    correlation_id: str
    parent: str | None
    hash: str


class RunView(RunLine):
    """One run with its steps; `waits_for` says what it waits for and what to do about it."""

    inputs: dict[str, Any]
    outputs: Any
    results: list[StepResult]
    waits_for: list[dict[str, Any]]


class Artifact(BaseModel):
    """A large result of a run; `content` is what the step would have had as its result."""

    run: str
    name: str
    content: Any


class DefinitionLine(BaseModel):
    """One workflow that can be run by name; `origin` is saved, file or shipped."""

    name: str
    description: str
    origin: str
    hash: str
    owner: str | None
    saved_at: float | None
    published: bool
    schedule: dict[str, Any] | None


class Validated(BaseModel):
    """A definition that can be run, the schema of its inputs, and its graph as Mermaid text."""

    name: str
    hash: str
    inputs: dict[str, Any]
    graph: str


def build(workflows: Workflows) -> Spoke:
    """The spoke `orchestrator` over the workflows of a hub."""
    spoke = Spoke("orchestrator", instructions="Multi-step workflows over every tool of the fleet, durable.")
    _add_running(spoke, workflows)
    _add_steering(spoke, workflows)
    _add_definitions(spoke, workflows)
    return spoke


def _add_running(spoke: Spoke, workflows: Workflows) -> None:
    async def assess(
        name: str | None = None,
        definition: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        key: str | None = None,
        priority: int = USUAL,
        wait_s: float = 20.0,
    ) -> Assessment:
        return await workflows.starting.assess(Order(name, definition, inputs, key, priority), caller_of(workflows))

    @spoke.tool(risk=Risk.destroy, assess=assess, deadline_s=MAX_WAIT_S + 10)
    async def execute_workflow(
        name: str | None = None,
        definition: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        key: str | None = None,
        priority: int = USUAL,
        wait_s: float = 20.0,
    ) -> RunView:
        """Run a workflow, and wait for its end; it goes on when you stop waiting: look with getWorkflow.

        Args:
            name: a workflow of listDefinitions; or
            definition: one written out: {name, steps: [{name, service, tool, params}]}.
            inputs: its inputs.
            key: the same key again gives the same run, started once.
            priority: 0 first, 9 last.
            wait_s: how long to wait for the end, up to 3600 seconds.
        """
        if not 0 <= wait_s <= MAX_WAIT_S or not 0 <= priority <= 9:
            raise Invalid("wait_s goes from 0 to 3600, priority from 0 to 9")
        return await execute(workflows, Order(name, definition, inputs, key, priority), wait_s)

    @spoke.tool(risk=Risk.read)
    async def get_workflow(id: str) -> RunView:
        """One run: its status, what it waits for, and every step with result or error."""
        return RunView.model_validate(await workflows.looking.get(caller_of(workflows), id))

    @spoke.tool(risk=Risk.read)
    async def list_workflows(status: str = "all", name: str | None = None, limit: int = 50) -> list[RunLine]:
        """Runs, newest first: your own, for operators all.

        Args:
            status: queued, running, waiting, in_doubt, completed, failed, cancelled, or all.
            name: only runs of this workflow.
            limit: at most so many, up to 500.
        """
        found = await workflows.looking.listed(caller_of(workflows), status, name, limit)
        return [RunLine.model_validate(one) for one in found]

    @spoke.tool(risk=Risk.read)
    async def get_artifact(run: str, name: str) -> Artifact:
        """A result too large to travel in its run: the reference in the step's result names it."""
        content = await workflows.looking.artifact(caller_of(workflows), run, name)
        return Artifact(run=run, name=name, content=content)

    _ = (execute_workflow, get_workflow, list_workflows, get_artifact)


def _add_steering(spoke: Spoke, workflows: Workflows) -> None:
    @spoke.tool(risk=Risk.change)
    async def cancel_workflow(id: str, reason: str = "") -> RunView:
        """End a run now. Nothing is undone; a change that was under way is in doubt."""
        caller = caller_of(workflows)
        await workflows.steering.cancel(caller, id, reason)
        return RunView.model_validate(await workflows.looking.get(caller, id))

    @spoke.tool(risk=Risk.change)
    async def resume_workflow(
        id: str,
        step: str | None = None,
        item: int | None = None,
        outcome: Literal["done", "repeat", "failed"] | None = None,
        result: Any = None,
    ) -> RunView:
        """Go on with a run: say what became of a step in doubt, or run a failed or cancelled run on.

        Args:
            id: the run.
            step: the step in doubt.
            item: its item, in a step with forEach.
            outcome: done (it took effect, with `result`), repeat (it did not: do it), failed (it did not: give up).
            result: what the step would have answered.
        """
        caller = caller_of(workflows)
        if (step is None) != (outcome is None):
            raise Invalid("step and outcome go together; without both a failed or cancelled run goes on")
        if step is not None:
            await workflows.steering.decide(caller, id, step, item, {"outcome": outcome, "result": result})
        else:
            await workflows.steering.retry(caller, id, None, None, fork=False)
        return RunView.model_validate(await workflows.looking.get(caller, id))

    @spoke.tool(risk=Risk.change)
    async def retry_from_step(
        id: str, step: str | None = None, fork: bool = False, definition: dict[str, Any] | None = None
    ) -> RunView:
        """Do a step of an ended run again, with all that depends on it; other results are kept.

        Args:
            id: the run.
            step: the first step to do again; without it, what was not completed.
            fork: as a run of its own, the old one stays as it is.
            definition: a mended definition; steps that are the same in it keep their results.
        """
        caller = caller_of(workflows)
        run = await workflows.steering.retry(caller, id, step, definition, fork=fork)
        return RunView.model_validate(await workflows.looking.get(caller, run.id))

    @spoke.tool(risk=Risk.change)
    async def signal_workflow(id: str, name: str, payload: Any = None) -> RunView:
        """Send a signal that a step waits for, or will; each name once. The payload is the step's result."""
        caller = caller_of(workflows)
        await workflows.steering.signal(caller, id, name, payload)
        return RunView.model_validate(await workflows.looking.get(caller, id))

    _ = (cancel_workflow, resume_workflow, retry_from_step, signal_workflow)


def _add_definitions(spoke: Spoke, workflows: Workflows) -> None:
    @spoke.tool(risk=Risk.change)
    async def save_definition(definition: dict[str, Any]) -> DefinitionLine:
        """Save a workflow under its name, checked. Schedule and webhook start it as you; runs keep their version."""
        return DefinitionLine.model_validate(await workflows.shelf.save(caller_of(workflows), definition))

    @spoke.tool(risk=Risk.change)
    async def remove_definition(name: str) -> list[DefinitionLine]:
        """Take a saved workflow out of the library, with its schedule; runs go on. What is left of that name."""
        return [DefinitionLine.model_validate(one) for one in await workflows.shelf.remove(caller_of(workflows), name)]

    @spoke.tool(risk=Risk.read)
    async def list_definitions(query: str = "") -> list[DefinitionLine]:
        """Workflows that can be run by name: saved ones, the operator's files, the shipped ones.

        Args:
            query: only those whose name or description holds every one of these words.
        """
        return [DefinitionLine.model_validate(one) for one in await workflows.shelf.listed(query)]

    @spoke.tool(risk=Risk.read)
    async def get_definition(name: str) -> dict[str, Any]:
        """A workflow as it is written."""
        return dict((await workflows.shelf.library.get(name)).content)

    @spoke.tool(risk=Risk.read)
    async def validate_definition(definition: dict[str, Any]) -> Validated:
        """Look for mistakes without running anything: unknown tools and arguments, cycles, wrong expressions."""
        return Validated.model_validate(await workflows.shelf.validate(caller_of(workflows), definition))

    _ = (save_definition, remove_definition, list_definitions, get_definition, validate_definition)


def caller_of(workflows: Workflows) -> Caller:
    """Who makes the call under way. Raises Refused for one without a live key."""
    context = correlation.current()
    if context is None or context.caller is None:
        raise Refused("workflows are run by a caller with a key: call through the hub")
    return workflows.caller(context.caller.id)


async def execute(workflows: Workflows, order: Order, wait_s: float) -> RunView:
    """Start a run as whoever calls, and how it stands at its end or after so many seconds."""
    caller = caller_of(workflows)
    run = await workflows.starting.start(order, caller, DOOR, await _approval(workflows, order, caller))
    return await _awaited(workflows, caller, run.id, wait_s)


async def _approval(workflows: Workflows, order: Order, caller: Caller) -> Approval | None:
    """The approval under which this very call runs, None when its caller may run it alone."""
    if (await workflows.starting.assess(order, caller)).risk is Risk.read:
        return None
    context = correlation.current()
    tool = str(context.tool) if context is not None else EXECUTE
    found = await workflows.starting.approving(caller, tool)
    return next((one for one in found if _means(tool, one.arguments or {}, order)), None)


def _means(tool: str, said: Mapping[str, Any], order: Order) -> bool:
    """Whether these arguments of a tool are this order."""
    if tool != EXECUTE:  # a published workflow: its arguments are the inputs
        return said == order.inputs
    return (said.get("name"), said.get("definition"), said.get("inputs")) == (
        order.name,
        order.definition,
        order.inputs,
    )


async def _awaited(workflows: Workflows, caller: Caller, run_id: str, wait_s: float) -> RunView:
    """The run at its end, or after so many seconds; meanwhile the client hears how far it is."""
    ends = time.monotonic() + wait_s
    done = -1
    while True:
        run = await workflows.looking.ended(run_id, min(max(ends - time.monotonic(), 0.0), 1.0))
        whole = RunView.model_validate(await workflows.looking.get(caller, run_id))
        if run.ended or time.monotonic() >= ends:
            return whole
        now = sum(one.status == "completed" for one in whole.results)
        if now != done:
            done = now
            await report_progress(float(done), None, f"{whole.status}: {done} steps done")
