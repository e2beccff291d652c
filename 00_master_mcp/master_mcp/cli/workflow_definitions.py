"""`fleet workflow validate | save | remove | definitions | definition`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from master_mcp.cli.wire import Hub

AsJson = Annotated[bool, typer.Option("--json", help="JSON for machines.")]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="Use the key in this file instead of admin.key.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A definition, YAML or JSON.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="As `fleet workflow definitions` shows it.")]


def add(app: typer.Typer) -> None:
    """Put these commands into `app`."""
    app.command()(validate)
    app.command()(save)
    app.command()(remove)
    app.command()(definitions)
    app.command()(definition)


def validate(file: File, as_json: AsJson = False, key_file: KeyFile = None) -> None:
    """Look for mistakes without running anything. Exit code 2, and each mistake with its step, when there are some."""
    from master_mcp.cli import show

    found = hub_of(key_file).ask("orchestrator.validateDefinition", definition=read_file(file))
    if as_json:
        show.as_json(found)
        return
    inputs = found["inputs"]
    required = inputs.get("required", [])
    takes = ", ".join(name if name in required else f"[{name}]" for name in inputs.get("properties", {}))
    show.line(f"{found['name']} is good: version {found['hash']}, inputs: {takes or 'none'}.")


def save(file: File, as_json: AsJson = False, key_file: KeyFile = None) -> None:
    """Save a workflow under its name, checked; runs under way keep their version. Its schedule starts it as you."""
    from master_mcp.cli import show

    found = hub_of(key_file).ask("orchestrator.saveDefinition", definition=read_file(file))
    if as_json:
        show.as_json(found)
        return
    show.say(f"Saved {found['name']}, version {found['hash']}. To run it: fleet workflow run {found['name']}")


def remove(name: Name, as_json: AsJson = False, key_file: KeyFile = None) -> None:
    """Take a saved workflow out of the library, with its schedule; runs under way go on."""
    from master_mcp.cli import show

    left = hub_of(key_file).ask("orchestrator.removeDefinition", name=name)
    if as_json:
        show.as_json(left)
        return
    show.say(f"Removed {name}." + "".join(f" The {one['origin']} one of that name counts again." for one in left))


def definitions(
    words: Annotated[list[str] | None, typer.Argument(metavar="[QUERY]...", help="Words that it must hold.")] = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """The workflows that can be run by name: saved ones, files of yours, shipped ones."""
    from master_mcp.cli import show

    found = hub_of(key_file).ask("orchestrator.listDefinitions", query=" ".join(words or ()))
    if as_json:
        show.as_json(found)
        return
    if not found:
        show.say("No workflow holds these words: `fleet workflow definitions` shows all." if words else "No workflow.")
        return
    columns = ("name", "origin", "owner", "starts by itself", "tool", "what it does")
    show.table(columns, (_row(one) for one in found))


def definition(name: Name, as_json: AsJson = False, key_file: KeyFile = None) -> None:
    """A workflow as it is written, in YAML: change it and `fleet workflow save` it."""
    import yaml

    from master_mcp.cli import show

    found = hub_of(key_file).ask("orchestrator.getDefinition", name=name)
    if as_json:
        show.as_json(found)
    else:
        show.line(yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=110).rstrip("\n"))


def hub_of(key_file: Path | None) -> "Hub":
    """The hub, as the operator unless a file holds another key."""
    from fleetkit import settings
    from master_mcp.cli import wire

    config = settings.load()
    return wire.Hub(config.hub.reached_at, wire.read_key(config, key_file, operator=True))


def read_file(path: Path) -> dict[str, Any]:
    """The definition in a file; raises NotFound, Invalid naming the file and the line."""
    from master_mcp.workflows import reading

    return reading.parse(read_text(path), str(path))


def read_text(path: Path) -> str:
    """A file's text; raises NotFound, Invalid."""
    from fleetkit.errors import Invalid, NotFound

    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot read {path}: {error}") from error


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    from fleetkit.shapes import mapping

    cron = mapping(one["schedule"]).get("cron")
    tool = f"workflows.{one['name']}" if one["published"] else ""
    return (one["name"], one["origin"], one["owner"], cron, tool, one["description"].split("\n", 1)[0])
