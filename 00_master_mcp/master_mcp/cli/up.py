"""`fleet up`: the hub in the foreground."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fleetkit.settings import FleetSettings


def up(
    processes: Annotated[bool, typer.Option("--processes", help="Each spoke as a process of its own.")] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="Start this spoke alone; repeat for several.")
    ] = None,
) -> None:
    """Run the hub until Ctrl-C or SIGTERM. Its log goes to $FLEET_DATA_DIR/logs/hub.log."""
    from fleetkit import log, settings
    from master_mcp.cli import show

    show.say("Starting the fleet ...")
    from master_mcp.logfile import LogFile
    from master_mcp.serving import serve

    config = settings.load()
    for name in only or ():
        config.row(name)
    with LogFile(config.data_dir / "logs" / "hub.log") as stream:
        log.configure("master", config.hub.log_level, stream)
        serve(config, processes=processes, only=tuple(only or ()), announce=lambda port: announce(config, port))
    show.say("The fleet has stopped.")


def announce(config: "FleetSettings", port: int) -> None:
    """Say where the hub is and how a client gets there."""
    from master_mcp.cli import show, wire

    url = config.hub.model_copy(update={"port": port}).reached_at
    for text in (f"The fleet is ready: {url}/mcp", "", *snippets(f"{url}/mcp", wire.read_key(config))):
        show.line(text)
    show.line(f"Operator key: {config.data_dir / 'admin.key'}   Log: {config.data_dir / 'logs' / 'hub.log'}")
    fleet = _fleet()
    show.line(f"Look around: {fleet} status, {fleet} tools, {fleet} logs   Stop: Ctrl-C")
    show.line(f"What agents may not do alone waits for you: {fleet} approvals list")
    sys.stdout.flush()


def snippets(url: str, key: str) -> list[str]:
    """What to paste into each client."""
    bearer = {"Authorization": f"Bearer {key}"}
    fleet = str(Path(sys.executable).with_name("fleet"))
    cursor = {"mcpServers": {"fleet": {"url": url, "headers": bearer}}}
    code = {"servers": {"fleet": {"type": "http", "url": url, "headers": bearer}}}
    desktop = {"mcpServers": {"fleet": {"command": fleet, "args": ["stdio"]} | _settings_for_desktop()}}
    return [
        "Claude Code (run this):",
        f'  claude mcp add --transport http fleet {url} --header "Authorization: Bearer {key}"',
        "Cursor (~/.cursor/mcp.json):",
        f"  {json.dumps(cursor)}",
        "VS Code (.vscode/mcp.json):",
        f"  {json.dumps(code)}",
        "Claude Desktop (claude_desktop_config.json; it holds no key):",
        f"  {json.dumps(desktop)}",
        "",
    ]


def _fleet() -> str:
    """How this shell reaches the command: by its name, else by its path from here where that is shorter."""
    import shutil

    fleet, here = Path(sys.executable).with_name("fleet"), Path.cwd()
    if shutil.which("fleet") == str(fleet):
        return "fleet"
    return str(fleet.relative_to(here) if fleet.is_relative_to(here) else fleet)


def _settings_for_desktop() -> dict[str, object]:
    """Where `fleet stdio` finds this hub when it is not where it would look: the client starts it bare."""
    from fleetkit import settings

    found = settings.environment("FLEET_DATA_DIR", "FLEET_HUB__HOST", "FLEET_HUB__PORT")
    return {"env": found} if found else {}
