"""`fleet backup` and `fleet restore`: the whole fleet as one file, and back."""

from pathlib import Path
from typing import Annotated, Any

import typer

from master_mcp.cli.record import recorded

MIB = 1024 * 1024
AsJson = Annotated[bool, typer.Option("--json", help="JSON for machines.")]


def backup(
    target: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="A directory, or a file such as x.tar.gz.")],
    workspace: Annotated[bool, typer.Option("--workspace", help="With the workspace.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy the fleet into one file while it runs: databases, keys, settings, rules, the audit. Not the logs.

    Whoever has the file has every key in it.
    """
    import tempfile

    from fleetkit import archive, settings
    from master_mcp.cli import backing_up, show

    config = settings.load()
    file = _target(target, config.data_dir)
    with (
        recorded("fleet.backup", file=str(file), workspace=workspace) as done,
        tempfile.TemporaryDirectory(prefix=f".{file.name}-", dir=file.parent) as folder,
    ):
        facts = backing_up.gather(config, Path(folder), workspace=workspace)
        manifest = archive.pack(Path(folder), file, _made() | facts)
        done["files"] = len(manifest["files"])
    if as_json:
        show.as_json({"file": str(file), **manifest})
        return
    held = f"{len(manifest['files'])} files, {len(manifest['databases'])} of them databases"
    show.line(f"{file}: {held}, {file.stat().st_size / MIB:.1f} MiB")
    for note in manifest["notes"]:
        show.say(f"Note: {note}.")
    show.say(f"It holds the fleet's keys: keep it where nobody else reads it. To use it: fleet restore {file}")


def restore(
    file: Annotated[Path, typer.Argument(help="What `fleet backup` wrote.")],
    data_dir: Annotated[Path | None, typer.Option(help="Where to; default the data directory.")] = None,
    force: Annotated[bool, typer.Option("--force", help="A fleet that is there is kept aside.")] = False,
    stop_runs: Annotated[
        bool, typer.Option("--stop-runs", help="Cancel the runs that were under way: nothing goes on by itself.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup in the place of a data directory whose hub is stopped. The file is checked whole before."""
    from fleetkit import settings
    from master_mcp.cli import restoring, show

    place = (data_dir or settings.default_data_dir()).expanduser().absolute()
    found = restoring.restore(file, place, force=force, stop_runs=stop_runs)
    _record(place, file, found.manifest)
    if as_json:
        aside = None if found.aside is None else str(found.aside)
        show.as_json({"data_dir": str(place), "aside": aside, "runs": found.live, "made_at": found.manifest["made_at"]})
        return
    show.line(f"{place} is as it was at {show.moment(found.manifest['made_at'])}.")
    if found.aside is not None:
        show.say(f"What was there is in {found.aside}: delete it when you need it no more.")
    for text in _next(place, found.manifest, found.live, stopped=stop_runs):
        show.say(text)


def _target(target: Path, data_dir: Path) -> Path:
    """The file to write; raises Invalid, NotFound, Conflict when it cannot be that one."""
    import time

    from fleetkit.errors import Conflict, Invalid, NotFound

    if not (data_dir / "keys" / "root.key").exists():
        raise NotFound(f"no fleet in {data_dir}: nothing to back up")
    file = target.expanduser().absolute()
    if file.is_dir():
        file /= f"fleet-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"
    if not file.parent.is_dir():
        raise NotFound(f"no directory {file.parent}: make it first")
    if file.resolve().is_relative_to(data_dir.resolve()):
        raise Invalid(f"{file} lies in what is backed up: name a place outside of {data_dir}")
    if file.exists():
        raise Conflict(f"{file} exists: name another file")
    return file


def _made() -> dict[str, Any]:
    """When and with what a backup was made."""
    import platform
    import time
    from importlib.metadata import version

    return {"made_at": time.time(), "fleet": version("mcp-fleet"), "python": platform.python_version()}


def _record(place: Path, file: Path, manifest: dict[str, Any]) -> None:
    """Put it on the record of the restored fleet; a fleet whose database is elsewhere and down goes without."""
    from fleetkit import settings
    from fleetkit.errors import FleetError
    from master_mcp.cli import show

    try:
        with recorded("fleet.restore", settings.load(place), file=str(file), made_at=manifest["made_at"]):
            pass
    except FleetError as error:
        show.say(f"It is not on the record that this was restored: {error.message}")


def _next(place: Path, manifest: dict[str, Any], live: list[str], *, stopped: bool) -> list[str]:
    """What to know and to do now."""
    from fleetkit import settings

    said = [f"Note: {note}." for note in manifest["notes"]]
    if live and stopped:
        said.append(f"Runs that were under way are cancelled; `fleet workflow resume` goes on: {', '.join(live)}.")
    elif live:
        said.append(
            f"Runs that were under way then go on when the hub starts: {', '.join(live)}. What they did after the "
            "backup is not known here and would be done again: where that can be, restore with --stop-runs."
        )
    said.append("Keys are those of then too: one that was revoked since is valid again (`fleet keys list`).")
    own = "" if place == settings.default_data_dir() else f"FLEET_DATA_DIR={place} "
    return [*said, f"To start it: {own}fleet up"]
