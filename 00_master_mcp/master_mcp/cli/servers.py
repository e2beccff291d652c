"""`fleet servers`: MCP servers of others. Works with the hub running or stopped; it sees a change within a second."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from master_mcp.cli.record import recorded

if TYPE_CHECKING:
    from fleetkit.settings import FleetSettings
    from master_mcp.external.pins import Snapshot
    from master_mcp.external.records import Record, Records

app = typer.Typer(help="External MCP servers: add, list, approve, see what changed.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="JSON for machines.")]
Name = Annotated[str, typer.Argument(help="The server's name in the fleet, such as github.")]


@app.command()
def add(
    name: Name,
    command: Annotated[list[str] | None, typer.Argument(help="After `--`: the program and its arguments.")] = None,
    url: Annotated[str | None, typer.Option(help="Its MCP endpoint, instead of a command.")] = None,
    example: Annotated[str | None, typer.Option(help="Start from a shipped example, such as filesystem.")] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable for its process; repeat for several.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A header for its endpoint; repeat for several.")
    ] = None,
    risk: Annotated[
        list[str] | None, typer.Option(metavar="TOOL=RISK", help="What a tool of it risks; repeat for several.")
    ] = None,
    read: Annotated[list[Path] | None, typer.Option(help="A path that it may read; repeat for several.")] = None,
    write: Annotated[list[Path] | None, typer.Option(help="A path that it may write; repeat for several.")] = None,
    network: Annotated[bool, typer.Option("--network", help="It may open connections.")] = False,
    no_sandbox: Annotated[bool, typer.Option("--no-sandbox", help="It may do all that the hub's user may.")] = False,
    per_caller: Annotated[bool, typer.Option("--per-caller", help="A process or session for each caller.")] = False,
) -> None:
    """Add a server. It offers nothing until `fleet servers approve` has pinned what it shows.

    A credential is given as a reference: --env GITHUB_TOKEN=secret://files/external/github
    """
    from fleetkit import settings
    from fleetkit.errors import Invalid
    from master_mcp.cli import show
    from master_mcp.external import rows

    if not (example or url or command):
        raise Invalid(f"say what {name} is: --example NAME, --url URL, or a command after `--`")
    row = rows.example(example) if example else {}
    row |= {"transport": "http", "url": url} if url else {}
    row |= {"transport": "stdio", "command": command} if command else {}
    for key, words in (("env", env), ("headers", header), ("risk", risk)):
        row |= {key: {**row.get(key, {}), **rows.pairs(words, key)}} if words else {}
    row |= {"identity": "per-caller"} if per_caller else {}
    row |= _sandbox(row.get("sandbox"), read, write, network=network, no_sandbox=no_sandbox)
    with recorded("servers.add", name=name, transport=row.get("transport", "stdio")):
        path = rows.add(settings.default_data_dir(), name, row)
    if example:
        show.say(rows.example_note(example))
    show.say(f"Added {name} ({path}). A running hub looks at it now; then: fleet servers approve {name}")


@app.command("list")
def list_servers(as_json: AsJson = False) -> None:
    """Every server: where it comes from, whether it is approved, how many of its tools are held back."""
    from master_mcp.cli import show

    with _records() as (config, records):
        known = records.all()
        rows = [_row(config, name, known.get(name)) for name in config.external]
    if as_json:
        show.as_json(rows)
        return
    columns = ("name", "transport", "from", "state", "tools", "held")
    show.table(columns, ([row[column] for column in columns] for row in rows))


@app.command("show")
def show_server(name: Name, as_json: AsJson = False) -> None:
    """What a server shows, tool by tool, with the risk each has here and why one is held back."""
    from master_mcp.cli import show

    with _records() as (config, records):
        found = _details(config, name, records.get(name))
    if as_json:
        show.as_json(found)
        return
    show.line(f"{name}: {found['from']}")
    show.line(f"{found['state']}; it calls itself {found['calls_itself'] or 'nothing'}")
    columns = ("tool", "own_name", "risk", "state", "why", "description")
    show.table(columns, ([tool[column] for column in columns] for tool in found["tools"]))


@app.command()
def diff(name: Name) -> None:
    """What changed since it was approved, hidden characters written out. Exit code 1 when something did."""
    from master_mcp.cli import show
    from master_mcp.external import pins

    with _records() as (config, records):
        record = _known(config, records, name)
    lines = pins.diff(record.approved or pins.Snapshot(), _seen(record))
    for line in lines:
        show.line(line)
    if lines:
        raise typer.Exit(1)
    show.say(f"{name} is as it was approved.")


@app.command()
def approve(
    name: Name,
    tool: Annotated[list[str] | None, typer.Option(help="Only this tool, by its own name; repeat for several.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Pin what a server shows now, after showing it: from then on any change holds the changed tool back."""
    from fleetkit.errors import Invalid
    from master_mcp.cli import show
    from master_mcp.external import pins

    with _records() as (config, records):
        record = _known(config, records, name)
        seen = _seen(record)
        unknown = [word for word in tool or () if word not in seen.tools]
        if unknown:
            raise Invalid(f"{name} has no tool {', '.join(unknown)}: `fleet servers show {name}` names them")
        wanted = _chosen(record.approved, seen, tool)
        for line in pins.diff(record.approved or pins.Snapshot(), wanted):
            show.line(line)
        if not yes:
            typer.confirm(f"Pin this ({len(wanted.tools)} tools) and offer it to the fleet's callers?", abort=True)
        with recorded("servers.approve", name=name, tools=sorted(wanted.tools)):
            records.approve(name, wanted, seen, by=_who())
    show.say(f"Approved {name}: {len(wanted.tools)} tools. A running hub offers them within seconds.")


@app.command()
def reload(name: Name) -> None:
    """Have a running hub end the server's processes and sessions and start it anew, with fresh credentials."""
    from master_mcp.cli import show

    with _records() as (config, records):
        _require(config, name)
        records.reload(name)
    show.say(f"A running hub starts {name} anew within a second.")


@app.command()
def remove(name: Name) -> None:
    """Take a server out that `fleet servers add` put in; what was approved of it is forgotten."""
    from fleetkit import settings
    from fleetkit.errors import NotFound
    from master_mcp.cli import show
    from master_mcp.external import rows

    with recorded("servers.remove", name=name):
        rows.remove(settings.default_data_dir(), name)
        with _records() as (_, records), suppress(NotFound):  # a hub never saw it
            records.forget(name)
    show.say(f"Removed {name}. A running hub ends it within a second.")


@contextmanager
def _records() -> "Generator[tuple[FleetSettings, Records]]":
    from fleetkit import settings
    from master_mcp.external.records import Records
    from master_mcp.store import open_hub_store

    config = settings.load()
    store = open_hub_store(config)
    try:
        yield config, Records(store)
    finally:
        store.close()


def _require(config: "FleetSettings", name: str) -> None:
    from fleetkit.errors import NotFound

    if name not in config.external:
        raise NotFound(f"no external server {name!r}: the fleet has {', '.join(config.external) or 'none'}")


def _known(config: "FleetSettings", records: "Records", name: str) -> "Record":
    _require(config, name)
    return records.get(name)


def _seen(record: "Record") -> "Snapshot":
    from fleetkit.errors import Unavailable

    if record.seen is None:
        raise Unavailable(
            f"no hub has looked at {record.name} yet, or it did not start: `fleet status` tells, `fleet up` starts one"
        )
    return record.seen


def _chosen(approved: "Snapshot | None", seen: "Snapshot", tools: list[str] | None) -> "Snapshot":
    """What is to be pinned: all of it, or the named tools beside what was approved before."""
    from master_mcp.external.pins import Snapshot

    if not tools:
        return seen
    before = (approved or Snapshot()).tools
    return Snapshot(seen.server, {**before, **{name: seen.tools[name] for name in tools}})


def _sandbox(
    given: object, read: list[Path] | None, write: list[Path] | None, *, network: bool, no_sandbox: bool
) -> dict[str, Any]:
    from fleetkit.shapes import mapping

    if no_sandbox:
        return {"sandbox": "none"}
    row = dict(mapping(given))
    for key, paths in (("read", read), ("write", write)):
        row |= {key: [str(path.absolute()) for path in paths]} if paths else {}  # instead of an example's
    row |= {"network": True} if network else {}
    return {"sandbox": row} if row else {}


def _row(config: "FleetSettings", name: str, record: "Record | None") -> dict[str, Any]:
    from master_mcp.external.gate import Gate

    row = config.external[name]
    gate = Gate(name, row, lambda _spelling: None)
    gate.approve(record.approved if record else None)
    if record is not None and record.seen is not None:
        gate.take(record.seen)
    state = "disabled" if not row.enabled else "not seen yet" if gate.seen is None else _state(gate.summary())
    return {
        "name": name,
        "transport": row.transport,
        "from": row.url or " ".join(row.command),
        "state": state,
        "tools": len(gate.seen.tools) - len(gate.held) if gate.seen else 0,
        "held": len(gate.held),
    }


def _state(summary: str) -> str:
    return summary.partition(":")[0] or "approved"


def _details(config: "FleetSettings", name: str, record: "Record") -> dict[str, Any]:
    from master_mcp.cli import show
    from master_mcp.external import hygiene
    from master_mcp.external.gate import Gate

    _require(config, name)
    seen = _seen(record)
    gate = Gate(name, config.external[name], lambda _spelling: None)
    gate.approve(record.approved)
    gate.take(seen)
    server: Mapping[str, Any] = seen.server
    return {
        **_row(config, name, record),
        "approved_at": show.moment(record.approved_at),
        "approved_by": record.approved_by,
        "seen_at": show.moment(record.seen_at),
        "calls_itself": hygiene.clean(server.get("name")),
        "instructions": hygiene.clean(server.get("instructions")),
        "tools": gate.report(),
    }


def _who() -> str:
    import getpass

    return f"{getpass.getuser()} on the command line"
