"""`fleet workflow`: run workflows, watch them, help them on; and the definitions there are."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from master_mcp.cli import workflow_definitions
from master_mcp.cli.workflow_definitions import AsJson, KeyFile

if TYPE_CHECKING:
    from master_mcp.cli.wire import Hub

app = typer.Typer(help="Workflows: run, watch, steer; check and save definitions.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="As `fleet workflow list` shows it.")]
INTERRUPTED = 130


@app.command()
def run(
    what: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A name of the library, or a file such as x.yaml.")],
    pairs: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Its inputs.")] = None,
    inputs: Annotated[Path | None, typer.Option(help="A JSON file with its inputs; KEY=VALUE wins.")] = None,
    key: Annotated[str | None, typer.Option(help="The same key again gives the same run, started once.")] = None,
    priority: Annotated[int, typer.Option(min=0, max=9, help="0 first, 9 last.")] = 5,
    wait: Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="Wait no longer.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Start it, do not wait.")] = False,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Run a workflow and show how it goes. Exit code 1 when it failed or has not ended in time.

    Ctrl-C ends the looking, not the run. Example: fleet workflow run deploy.yaml host=web1 --key 2027-01-31
    """
    from master_mcp.cli import workflow_inputs

    hub = workflow_definitions.hub_of(key_file)
    source = workflow_inputs.source(what)
    given = workflow_inputs.given(hub, source, pairs or [], inputs)
    order = {**source, "inputs": given, "priority": priority, "wait_s": 0} | ({"key": key} if key else {})
    begun = hub.ask("orchestrator.executeWorkflow", **order)
    if no_wait:
        _said(begun, as_json)
    else:
        _followed(hub, begun, wait, as_json)


@app.command("show")
def show_run(run_id: Id, as_json: AsJson = False, key_file: KeyFile = None) -> None:
    """One run: its steps, what it waits for and what to do about it, its outputs."""
    from master_mcp.cli import show, workflow_view

    drawn = workflow_view.view(_hub(key_file), run_id)
    found = drawn["run"]
    if as_json:
        show.as_json(found)
        return
    facts = {**found, "created_at": show.moment(found["created_at"])}
    names = ("hash", "started_by", "created_at", "parent", "inputs", "step_failed_at", "reason", "outputs")
    show.structure({name: facts[name] for name in names if facts[name] not in (None, "", {})})
    show.out().print(workflow_view.table(found, drawn["nodes"]), soft_wrap=False)


@app.command("list")
def list_runs(
    status: Annotated[str, typer.Option(help="queued, running, waiting, in_doubt, completed, ... or all.")] = "all",
    name: Annotated[str | None, typer.Option(help="Only runs of this workflow.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="The newest so many.")] = 50,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Runs, newest first: with the operator key all, else those of that key."""
    from master_mcp.cli import show
    from master_mcp.cli.workflow_view import duration

    wanted = {"status": status, "limit": limit} | ({"name": name} if name else {})
    found = _hub(key_file).ask("orchestrator.listWorkflows", **wanted)
    if as_json:
        show.as_json(found)
        return
    if not found:
        show.say("No run." if status == "all" else f"No run is {status}.")
        return
    columns = ("id", "workflow", "status", "started_by", "begun", "took", "reason")
    show.table(
        columns,
        (
            (
                one["id"], one["workflow_name"], one["status"], one["started_by"], show.moment(one["created_at"]),
                duration(one["started_at"], one["ended_at"]), one["reason"],
            )
            for one in found
        ),
    )  # fmt: skip


@app.command()
def watch(run_id: Id, as_json: AsJson = False, key_file: KeyFile = None) -> None:
    """Show how a run goes until it ends; at a terminal as a table that moves. Exit code 1 when it failed."""
    hub = _hub(key_file)
    _followed(hub, hub.ask("orchestrator.getWorkflow", id=run_id), None, as_json)


@app.command()
def cancel(
    run_id: Id,
    reason: Annotated[str, typer.Option(help="Kept with the run.")] = "",
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """End a run now. Nothing is undone; a change that was under way is in doubt."""
    _said(_hub(key_file).ask("orchestrator.cancelWorkflow", id=run_id, reason=reason), as_json)


@app.command()
def resume(
    run_id: Id,
    step: Annotated[str | None, typer.Option(help="The step in doubt.")] = None,
    item: Annotated[int | None, typer.Option(min=0, help="Its item, in a step with forEach.")] = None,
    outcome: Annotated[str | None, typer.Option(help="done, repeat or failed: what became of it.")] = None,
    result: Annotated[str | None, typer.Option(metavar="JSON", help="What the step would have answered.")] = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Go on: say what became of a step in doubt, or without --step run a failed or cancelled run on."""
    from master_mcp.cli.calls import json_or_text

    said = {"id": run_id, "step": step, "item": item, "outcome": outcome}
    said |= {"result": None if result is None else json_or_text(result)}
    given = {name: value for name, value in said.items() if value is not None}
    found = _hub(key_file).ask("orchestrator.resumeWorkflow", **given)
    _said(found, as_json, f"Told run {run_id}: step {step} {outcome}." if step else None)


@app.command()
def retry(
    run_id: Id,
    step: Annotated[str, typer.Option(help="The first step to do again; what depends on it is done again too.")],
    fork: Annotated[bool, typer.Option("--fork", help="As a run of its own.")] = False,
    definition: Annotated[Path | None, typer.Option(help="A mended definition, YAML or JSON.")] = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Do a step of an ended run again, and what depends on it; other results are kept."""
    given: dict[str, Any] = {"id": run_id, "step": step, "fork": fork}
    if definition is not None:
        given["definition"] = workflow_definitions.read_file(definition)
    _said(_hub(key_file).ask("orchestrator.retryFromStep", **given), as_json)


@app.command()
def signal(
    run_id: Id,
    name: Annotated[str, typer.Argument(help="The signal's name.")],
    payload: Annotated[str | None, typer.Argument(metavar="[PAYLOAD]", help="JSON, else text.")] = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Send a signal that a step waits for, or will; each name once."""
    from master_mcp.cli.calls import json_or_text

    content = None if payload is None else json_or_text(payload)
    found = _hub(key_file).ask("orchestrator.signalWorkflow", id=run_id, name=name, payload=content)
    _said(found, as_json, f"Sent {name} to run {run_id}.")


@app.command()
def graph(
    what: Annotated[str, typer.Argument(metavar="ID|NAME|FILE", help="A run, a workflow, or a file.")],
    key_file: KeyFile = None,
) -> None:
    """The steps as a Mermaid flowchart; those of a run coloured by how they stand."""
    from master_mcp.cli import show, workflow_inputs, workflow_view

    hub = _hub(key_file)
    if workflow_inputs.is_run(what):
        text = hub.text(f"{workflow_view.place(what)}/graph")
    else:
        content = workflow_inputs.content(hub, workflow_inputs.source(what))
        text = hub.ask("orchestrator.validateDefinition", definition=content)["graph"]
    show.line(text.rstrip("\n"))


workflow_definitions.add(app)


def _hub(key_file: Path | None) -> "Hub":
    return workflow_definitions.hub_of(key_file)


def _said(found: Mapping[str, Any], as_json: bool, done: str | None = None) -> None:
    """What was done, or how a run stands now; and how to see the rest."""
    from master_mcp.cli import show, workflow_view

    if as_json:
        show.as_json(found)
        return
    show.say(done or workflow_view.standing(found))
    if found["status"] not in workflow_view.ENDED:
        show.say(f"To see how it goes: fleet workflow watch {found['id']}")


def _followed(hub: "Hub", begun: Mapping[str, Any], within_s: float | None, as_json: bool) -> None:
    """Show a run as it goes; exits 1 unless it completes, 130 when a person stops looking."""
    from master_mcp.cli import show, workflow_view

    run_id = begun["id"]
    try:
        if as_json:
            *_, last = (begun, *workflow_view.watched(hub, run_id, within_s))
            show.as_json(last)
        else:
            last = workflow_view.follow(hub, run_id, within_s) or begun
    except KeyboardInterrupt:
        show.say(f"{run_id} goes on. To see how: fleet workflow watch {run_id}")
        raise typer.Exit(INTERRUPTED) from None
    ended = last["status"] in workflow_view.ENDED
    if not ended:
        _said(last, as_json=False)
    if not ended or not workflow_view.outcome(last, quiet=as_json):
        raise typer.Exit(1)
