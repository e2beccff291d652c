"""`fleet status | tools | describe | call`: the hub as a client sees it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from master_mcp.cli.wire import Hub, Message

AsJson = Annotated[bool, typer.Option("--json", help="JSON for machines.")]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="Use the key in this file.")]
Operator = Annotated[bool, typer.Option("--operator", help="Use admin.key, the operator's.")]


def status(as_json: AsJson = False, key_file: KeyFile = None) -> None:
    """Every service with its health, tools and breaker. Exit code 1 when one is not healthy."""
    from master_mcp.cli import show

    found = _hub(key_file).ask("master.getServerInfo")
    services = found["services"]
    if as_json:
        show.as_json(found)
    else:
        columns = ("service", "namespace", "health", "tools", "breaker", "runs", "since", "reason")
        show.table(columns, (_service_row(service) for service in services))
        show.line(f"{found['name']} {found['version']}: {found['tools']} tools, up since {_since(found)}")
    if any(service["health"] != "healthy" for service in services):
        raise typer.Exit(1)


def tools(
    words: Annotated[list[str] | None, typer.Argument(metavar="[FILTER]...", help="Words it must hold.")] = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """The tools that your key may see, with their risk. Exit code 1 when none matches."""
    from master_mcp.cli import show

    wanted = [word.lower() for word in words or ()]
    found = [tool for tool in _hub(key_file).tools() if _matches(tool, wanted)]
    if as_json:
        show.as_json(found)
    elif found:
        show.table(("tool", "risk", "what it does"), ((_id(t), _risk(t), _summary(t)) for t in found))
    if not found:
        show.say("no tool holds these words: `fleet tools` shows all of them")
        raise typer.Exit(1)


def describe(tool: str, as_json: AsJson = False, key_file: KeyFile = None) -> None:
    """One tool: what it does, its parameters and its risk."""
    from master_mcp.cli import show

    found = _find(_hub(key_file).tools(), tool)
    if as_json:
        show.as_json(found)
        return
    show.structure({"tool": _id(found), "name on the wire": found["name"], "risk": _risk(found)})
    show.line(f"\n{str(found.get('description', '')).strip()}\n")
    rows = parameters(found.get("inputSchema", {}))
    if rows:
        show.table(("parameter", "type", "default", "description"), rows)


def call(
    tool: str,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
    operator: Operator = False,
) -> None:
    """Call a tool. A value is JSON where it parses as such and the parameter is not plain text.

    Example: fleet call os.linux.runCommand command='df -h' timeout=10
    """
    from master_mcp.cli import show, wire

    hub = _hub(key_file, operator=operator)
    definition = _find(hub.tools(), tool)
    given = read_arguments(arguments or [], definition.get("inputSchema", {}).get("properties", {}))
    with show.err().status(f"{_id(definition)} ...") as spinner:
        result = hub.call(definition["name"], given, lambda message: spinner.update(_progress(message)))
    content = result.get("structuredContent")
    if as_json:
        show.as_json(result if content is None else content)
    elif result.get("isError"):
        raise wire.as_error(content or {}, _text(result) or "the tool failed without a message")
    elif content is None:
        show.line(_text(result))
    else:
        show.structure(content["result"] if set(content) == {"result"} else content)
    if result.get("isError"):
        raise typer.Exit(1)


def _hub(key_file: Path | None, *, operator: bool = False) -> "Hub":
    from fleetkit import settings
    from master_mcp.cli import wire

    config = settings.load()
    return wire.Hub(config.hub.reached_at, wire.read_key(config, key_file, operator=operator))


def _find(definitions: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The definition that a name means: any spelling of the id, or its last segment where that is unique."""
    from fleetkit import names
    from fleetkit.errors import Invalid, NotFound

    for tool in definitions:
        if name in {tool["name"], *names.spellings(_id(tool))}:
            return tool
    found = [tool for tool in definitions if _id(tool).rpartition(".")[2] == names.camel(name)]
    if len(found) > 1:
        raise Invalid(f"tool {name!r} is ambiguous: say one of {', '.join(map(_id, found))}")
    if not found:
        raise NotFound(f"no tool {name!r} for this key: `fleet tools` shows what there is")
    return found[0]


def read_arguments(pairs: list[str], properties: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that KEY=VALUE words mean, for parameters of these schemas; raises Invalid for another word."""
    from fleetkit.errors import Invalid

    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise Invalid(f"{pair!r} is not KEY=VALUE; this tool takes {', '.join(properties) or 'no arguments'}")
        found[key] = value if _kind(properties.get(key, {})) in {"string", "path"} else json_or_text(value)
    return found


def parameters(schema: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Each property of an object's schema: name, type, `required` or its default, description."""
    required = schema.get("required", [])
    return [
        (name, _kind(part), "required" if name in required else json.dumps(part.get("default")), _words(part))
        for name, part in schema.get("properties", {}).items()
    ]


def json_or_text(value: str) -> Any:
    """A word as the JSON that it is, else as the text."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def _kind(schema: Mapping[str, Any]) -> str:
    """A parameter's type in a word or two; optional text is still text."""
    if "anyOf" in schema:
        kinds = [_kind(part) for part in schema["anyOf"] if part.get("type") != "null"]
        return " | ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("format") == "path":
        return "path"
    return str(schema.get("type", "any"))


def _progress(message: "Message") -> str:
    params = message.get("params", {})
    if message.get("method") != "notifications/progress":
        return str(params.get("data", message.get("method")))
    total = f"/{params['total']:g}" if params.get("total") else ""
    return f"{params.get('progress', 0):g}{total} {params.get('message') or ''}"


def _service_row(service: Mapping[str, Any]) -> tuple[object, ...]:
    from master_mcp.cli import show

    runs = "in the hub" if service["embedded"] else service["url"]
    since = show.moment(service["since"]) if service["since"] else ""
    return (
        service["name"], service["namespace"], service["health"], service["tools"], service["breaker"],
        runs, since, service["reason"],
    )  # fmt: skip


def _since(found: Mapping[str, Any]) -> str:
    from master_mcp.cli import show

    return show.moment(found["started_at"])


def _matches(tool: Mapping[str, Any], words: list[str]) -> bool:
    text = f"{_id(tool)} {tool['name']} {_risk(tool)} {tool.get('description', '')}".lower()
    return all(word in text for word in words)


def _id(tool: Mapping[str, Any]) -> str:
    from fleetkit.shapes import mapping

    return str(mapping(tool.get("_meta")).get("fleet/id") or tool["name"])


def _risk(tool: Mapping[str, Any]) -> str:
    from fleetkit.shapes import mapping

    return str(mapping(tool.get("_meta")).get("risk") or "destroy")


def _summary(tool: Mapping[str, Any]) -> str:
    return str(tool.get("description") or "").strip().split("\n", 1)[0]


def _words(schema: Mapping[str, Any]) -> str:
    return " ".join(str(schema.get("description", "")).split())


def _text(result: Mapping[str, Any]) -> str:
    return "\n".join(part.get("text", "") for part in result.get("content", []))
