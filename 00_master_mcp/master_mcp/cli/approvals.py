"""`fleet approvals`: look at held calls and decide them, where a person sits."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Held calls: list, show, approve, deny, redeem.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="JSON for machines.")]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="Use the key in this file instead of admin.key.")]
Reason = Annotated[str, typer.Option("--reason", help="Kept with the decision.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="As `fleet approvals list` shows it.")]


@app.command("list")
def list_approvals(
    status: Annotated[str, typer.Option(help="pending, approved, executed, ... or all.")] = "pending",
    limit: Annotated[int, typer.Option(min=1, max=500, help="The newest so many.")] = 100,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Held calls that wait for a decision, newest first."""
    from urllib.parse import urlencode

    from master_mcp.cli import show

    query = urlencode({"status": status, "limit": limit})
    found = _ask("GET", f"/approvals?{query}", key_file)["approvals"]
    if as_json:
        show.as_json(found)
        return
    if not found:
        show.say("No held call." if status == "all" else f"No held call is {status}.")
        return
    columns = ("id", "status", "tool", "risk", "requester", "decides", "held", "plan")
    show.table(columns, (_row(one) for one in found))


@app.command("show")
def show_approval(approval_id: Id, as_json: AsJson = False, key_file: KeyFile = None) -> None:
    """One held call: plan, arguments, who decided what, and its result once it ran."""
    _print(_ask("GET", f"/approvals/{_quoted(approval_id)}", key_file), as_json)


@app.command()
def approve(
    approval_id: Id,
    reason: Reason = "",
    value: Annotated[
        list[str] | None, typer.Option("--value", metavar="KEY=VALUE", help="A field of its form; repeat for several.")
    ] = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Let a held call run, once. Your own only where the rule asks for no more than a confirmation.

    Where it has a form, fill it in: --value until=22:00 --value hosts='["web1"]'
    """
    from master_mcp.cli.calls import read_arguments

    said: dict[str, Any] = {"reason": reason}
    if value:
        form = _form(_ask("GET", f"/approvals/{_quoted(approval_id)}", key_file))
        said["values"] = read_arguments(value, form.get("properties", {}))
    _decide(approval_id, "approve", said, as_json, key_file)


@app.command()
def deny(approval_id: Id, reason: Reason = "", as_json: AsJson = False, key_file: KeyFile = None) -> None:
    """End a held call without running it."""
    _decide(approval_id, "deny", {"reason": reason}, as_json, key_file)


@app.command()
def redeem(approval_id: Id, as_json: AsJson = False, key_file: KeyFile = None) -> None:
    """Run an approved call of your own, once."""
    from master_mcp.cli import show

    found = _ask("POST", f"/approvals/{_quoted(approval_id)}/redeem", key_file, {})
    answer = found["answer"]
    if as_json:
        show.as_json(found)
    else:
        show.structure(answer.get("structuredContent") or answer)
    if answer.get("isError"):
        raise typer.Exit(1)


def _decide(approval_id: str, word: str, said: Mapping[str, Any], as_json: bool, key_file: Path | None) -> None:
    from master_mcp.cli import show

    found = _ask("POST", f"/approvals/{_quoted(approval_id)}/{word}", key_file, said)
    if as_json:
        show.as_json(found)
    else:
        show.say(f"{found['id']} ({found['tool']} for {found['requester_name']}) is {found['status']}{_next(found)}.")


def _next(found: Mapping[str, Any]) -> str:
    """What is to be done after this decision; nothing once the call has ended."""
    from master_mcp.cli import show

    if found["status"] == "pending":
        return f": {found['quorum'] - found['approvals']} more of {found['group']} have to approve"
    if found["status"] != "approved":
        return ""
    if found["execute_on_approval"]:
        return ": the hub runs it now"
    until = show.moment(found["execution_expires_at"])
    return f": {found['requester_name']} runs it, once, by repeating the identical call until {until}"


def _ask(method: str, path: str, key_file: Path | None, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The hub's JSON answer; raises the FleetError that it answered with."""
    from fleetkit import settings
    from master_mcp.cli import wire

    config = settings.load()
    hub = wire.Hub(config.hub.reached_at, wire.read_key(config, key_file, operator=True))
    return hub.rest(method, path, None if body is None else json.dumps(body).encode())


def _print(found: Mapping[str, Any], as_json: bool) -> None:
    from master_mcp.cli import show

    if as_json:
        show.as_json(found)
        return
    times = {name: show.moment(found[name]) for name in found if name.endswith("_at")}
    facts = {**found, **times, "decisions": [{**one, "at": show.moment(one["at"])} for one in found["decisions"]]}
    for_machines = ("schema_hash", "args_hash", "requester_id", "form")
    show.structure({n: value for n, value in facts.items() if value not in (None, "", []) and n not in for_machines})
    if found.get("form"):
        _print_form(found)


def _print_form(found: Mapping[str, Any]) -> None:
    """The fields that who approves fills in, and how."""
    from master_mcp.cli import show
    from master_mcp.cli.calls import parameters

    fields = _form(found)
    show.line("form:")
    show.table(("field", "type", "default", "description"), parameters(fields))
    if found["status"] == "pending":
        said = " ".join(f"--value {name}=..." for name in fields.get("required", ()))
        show.say(f"To approve it: fleet approvals approve {found['id']} {said}".rstrip())


def _form(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The form of an approval as JSON Schema."""
    from master_mcp.approvals.forms import schema_of

    return schema_of(found.get("form") or {})


def _row(one: Mapping[str, Any]) -> tuple[object, ...]:
    from master_mcp.cli import show

    decides = one["group"] if one["effect"] == "confirm" else f"{one['quorum']} of {one['group']}"
    plan = one["plan"].split("\n", 1)[0]
    held = show.moment(one["created_at"])
    return (one["id"], one["status"], one["tool"], one["risk"], one["requester_name"], decides, held, plan)


def _quoted(approval_id: str) -> str:
    from urllib.parse import quote

    return quote(approval_id, safe="")
