"""`fleet breaker`: which services and tools are not called for now, and closing a breaker by hand."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from master_mcp.cli.wire import Hub

app = typer.Typer(help="Circuit breakers: list, reset.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="JSON for machines.")]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="Use the key in this file.")]


@app.command("list")
def list_breakers(as_json: AsJson = False, key_file: KeyFile = None) -> None:
    """Every breaker of the running hub. Exit code 1 when one is not closed."""
    from master_mcp.cli import show

    found: list[dict[str, Any]] = _hub(key_file, operator=False).ask("master.listBreakers")
    if as_json:
        show.as_json(found)
    else:
        columns = ("service", "tool", "state", "failures", "since", "reason")
        rows = [{**row, "since": show.moment(row["since"])} for row in found]
        show.table(columns, ([row[column] for column in columns] for row in rows))
    if any(row["state"] != "closed" for row in found):
        raise typer.Exit(1)


@app.command()
def reset(
    name: Annotated[str, typer.Argument(help="A service, a tool's id, or `all`.")], key_file: KeyFile = None
) -> None:
    """Close a breaker by hand. What is still down opens it again."""
    from master_mcp.cli import show

    closed: list[str] = _hub(key_file, operator=True).ask("master.resetBreaker", name=name)
    show.say(f"Closed: {', '.join(closed)}." if closed else "It was closed already.")


def _hub(key_file: Path | None, *, operator: bool) -> "Hub":
    from fleetkit import settings
    from master_mcp.cli import wire

    config = settings.load()
    return wire.Hub(config.hub.reached_at, wire.read_key(config, key_file, operator=operator))
