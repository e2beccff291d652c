"""`fleet config`: what is set, where it comes from, and whether it holds together."""

import re
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from fleetkit.settings import FleetSettings

app = typer.Typer(help="Configuration: check it, show it with its sources.", no_args_is_help=True)

_SECRET_WORDS = ("password", "secret", "token", "api_key", "passphrase", "pepper")
MASK = "********"
_SAID_PASSWORD = re.compile(r"([?&](?:password|sslpassword|authToken)=)[^&]*")


@app.command()
def check() -> None:
    """Read everything as the hub would. Exit code 2 and one sentence when something is wrong."""
    from fleetkit import settings
    from master_mcp.cli import show

    config = settings.load()
    checked = [name for name in config.spokes if _options(config, name) is not None]
    show.line(f"The configuration is good: {', '.join(checked)}.")


@app.command("show")
def show_config(as_json: Annotated[bool, typer.Option("--json", help="JSON for machines.")] = False) -> None:
    """Every setting, its value and the file or variable that set it. Secrets are never shown."""
    from fleetkit import settings
    from master_mcp.cli import show

    config = settings.load()
    sources = _sources(config)
    rows = [
        {"setting": ".".join(path), "value": _shown(path, value), "source": _source(path, sources)}
        for path, value in _leaves(_everything(config))
    ]
    if as_json:
        show.as_json(rows)
    else:
        show.table(("setting", "value", "source"), (list(row.values()) for row in rows))


def _everything(config: "FleetSettings") -> dict[str, Any]:
    """The settings with each spoke's own options, defaults included."""
    merged = config.model_dump(mode="json")
    for name, row in merged["spokes"].items():
        row.update(_options(config, name) or {})
    return merged


def _options(config: "FleetSettings", name: str) -> dict[str, Any] | None:
    """A spoke's checked options; None when its package is not installed."""
    from fleetkit.errors import Unavailable
    from master_mcp.cli import show
    from master_mcp.finder import find_spoke

    try:
        return find_spoke(name).read_options(config.row(name).options).model_dump(mode="json")
    except Unavailable as error:
        show.say(f"{name}: its options cannot be checked: {error.message}")
        return None


def _sources(config: "FleetSettings") -> list[tuple[str, Mapping[str, Any]]]:
    """Where a value can come from, strongest first."""
    from fleetkit import settings

    return [
        ("environment", _nested(settings.fleet_variables())),
        (str(config.data_dir / "fleet.yaml"), settings.read_yaml(config.data_dir / "fleet.yaml")),
        (str(config.data_dir / "external"), settings.added_servers(config.data_dir)),
        ("config/fleet.yaml", settings.read_yaml(settings.shipped_file())),
    ]


def _nested(variables: Mapping[str, str]) -> dict[str, Any]:
    """`FLEET_HUB__PORT` as `{"hub": {"port": "FLEET_HUB__PORT"}}`: the leaf is the variable's name."""
    tree: dict[str, Any] = {}
    for name in sorted(variables, key=str.isupper):  # a variable wins over a secret file
        *parents, leaf = name.lower().removeprefix("fleet_").split("__")
        level = tree
        for part in parents:
            level = level.setdefault(part, {})
        level[leaf] = name
    return tree


def _source(path: tuple[str, ...], sources: list[tuple[str, Mapping[str, Any]]]) -> str:
    for label, tree in sources:
        found = _at(tree, path)
        if found is not None:
            return found if label == "environment" else label
    return "default"


def _at(tree: Mapping[str, Any], path: tuple[str, ...]) -> str | None:
    """What a source says at `path` or, whole, at a level above it."""
    level: Any = tree
    for part in path:
        if not isinstance(level, Mapping):
            return str(level)
        if part not in level:
            return None
        level = cast("Mapping[str, Any]", level)[part]
    return str(level)


def _leaves(value: object, path: tuple[str, ...] = ()) -> Generator[tuple[tuple[str, ...], object]]:
    if isinstance(value, dict) and value:
        for key, item in cast("dict[str, Any]", value).items():
            yield from _leaves(item, (*path, key))
    else:
        yield path, value


def _shown(path: tuple[str, ...], value: object) -> object:
    """A value that may be seen: no password, in a setting of its own or inside a URL."""
    leaf = path[-1]
    if value and not leaf.endswith(("_file", "_path")) and any(word in leaf for word in _SECRET_WORDS):
        text = str(value)
        return text if text.startswith("secret://") else MASK
    if isinstance(value, str) and "://" in value:
        scheme, _, rest = value.partition("://")
        login, at, place = rest.rpartition("@")
        shown = _SAID_PASSWORD.sub(rf"\1{MASK}", place)
        return f"{scheme}://{MASK if login else ''}{at}{shown}"
    return value
