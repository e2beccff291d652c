"""`fleet keys`: who may call the hub. Works with the hub running or stopped; it sees a change within a second."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from master_mcp.cli.record import recorded

if TYPE_CHECKING:
    from fleetkit.settings import FleetSettings
    from master_mcp.auth.keys import Key, Keys

app = typer.Typer(help="API keys: create, list, revoke, rotate.", no_args_is_help=True)

FILES = {"admin": "admin.key", "client": "client.key"}
AsJson = Annotated[bool, typer.Option("--json", help="JSON for machines.")]


@app.command()
def create(
    name: str,
    role: Annotated[str, typer.Option(help="agent or operator")] = "agent",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="<read|change|destroy>:<tool glob>, such as read:os.linux.*; repeat for several."),
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="A group that policies name, such as dba; repeat for several.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="Life of the key: 90m, 12h, 30d.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the key to this file (0600) instead of showing it.")] = None,
) -> None:
    """Make a key. It is shown this once and kept nowhere."""
    with _keys() as (_, keys), recorded("keys.create", name=name, role=role, scopes=scope, groups=group) as done:
        key, secret = keys.create(name, role, scope, _seconds(expires), group)
        done["id"] = key.id
    _hand_over(key, secret, out)


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """Every key ever made: name, role, scopes, groups, state. Never the key itself."""
    from master_mcp.cli import show

    with _keys() as (_, keys):
        rows = [_row(key) for key in keys.listed()]
    if as_json:
        show.as_json(rows)
        return
    columns = ("id", "name", "role", "state", "scopes", "groups", "created", "expires")
    times = [{**row, "created": show.moment(row["created"]), "expires": show.moment(row["expires"])} for row in rows]
    show.table(columns, ([_cell(row[column]) for column in columns] for row in times))


@app.command()
def revoke(name: Annotated[str, typer.Argument(help="Name or id of a live key.")]) -> None:
    """End a key. A running hub refuses it within a second."""
    from master_mcp.cli import show

    with _keys() as (_, keys), recorded("keys.revoke", name=name) as done:
        key = keys.revoke(name)
        done["id"] = key.id
    show.say(f"Revoked {key.name} ({key.id}).")


@app.command()
def rotate(
    name: Annotated[str, typer.Argument(help="Name or id of a live key.")],
    overlap: Annotated[str, typer.Option(help="How long the old key still works: 0s, 10m, 1d.")] = "0s",
    out: Annotated[Path | None, typer.Option(help="Write the key to this file (0600) instead of showing it.")] = None,
) -> None:
    """A new key with the same name, scopes and groups. `client` and `admin` go back into their files."""
    from fleetkit import trust
    from master_mcp.cli import show

    with _keys() as (config, keys), recorded("keys.rotate", name=name, overlap=overlap) as done:
        key, secret = keys.rotate(name, _seconds(overlap) or 0)
        done["id"] = key.id
    own = FILES.get(key.name)
    if own and out is None:
        trust.write_private(config.data_dir / own, secret + "\n")
        show.say(f"Key {key.name} is in {config.data_dir / own}; clients that hold the old one need it.")
    else:
        _hand_over(key, secret, out)


@contextmanager
def _keys() -> Generator[tuple["FleetSettings", "Keys"]]:
    from fleetkit import settings, trust
    from master_mcp.auth.keys import Keys
    from master_mcp.auth.owner import claim
    from master_mcp.store import open_hub_store

    config = settings.load()
    store = open_hub_store(config)
    try:
        ring = trust.KeyRing(config.data_dir)
        claim(store, ring)
        yield config, Keys(store, ring)
    finally:
        store.close()


def _hand_over(key: "Key", secret: str, out: Path | None) -> None:
    from master_mcp.cli import show

    what = f"Key {key.name} ({key.role}: {', '.join(key.scopes)})"
    if out is None:
        show.say(f"{what}; it is shown this once:")
        show.line(secret)
    else:
        _write_new(out, secret)
        show.say(f"{what} is in {out}.")


def _write_new(path: Path, secret: str) -> None:
    from fleetkit.errors import Conflict

    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Conflict(f"{path} exists: name a new file") from error
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(secret + "\n")


def _seconds(text: str | None) -> float | None:
    from fleetkit.durations import seconds

    return None if text is None else seconds(text)


def _cell(value: Any) -> Any:
    return ", ".join(map(str, cast("list[Any]", value))) if isinstance(value, list) else value


def _row(key: "Key") -> dict[str, Any]:
    import time

    now = time.time()
    state = "live" if key.live(now) else "revoked" if key.revoked_at and key.revoked_at <= now else "expired"
    return {
        "id": key.id, "name": key.name, "role": key.role, "state": state, "scopes": list(key.scopes),
        "groups": list(key.groups),
        "created": key.created_at, "expires": key.expires_at, "revoked": key.revoked_at,
    }  # fmt: skip
