"""The rows that `fleet servers` writes: a file per server in `$FLEET_DATA_DIR/external`, beside the user's own."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fleetkit import settings, trust
from fleetkit.errors import Conflict, Invalid, NotFound
from fleetkit.external import ExternalRow, server_name


def path_of(data_dir: Path, name: str) -> Path:
    """Where the row of an added server is."""
    return data_dir / "external" / f"{name}.yaml"


def checked(name: str, raw: Mapping[str, Any]) -> ExternalRow:
    """A row as the hub would read it; raises Invalid naming what is wrong."""
    try:
        server_name(name)
        return ExternalRow.model_validate(dict(raw))
    except ValidationError as error:
        places = (".".join(["external", name, *map(str, item["loc"])]) for item in error.errors())
        reasons = (item["msg"].removeprefix("Value error, ") for item in error.errors())
        told = "; ".join(f"{place}: {reason}" for place, reason in zip(places, reasons, strict=True))
        raise Invalid(told) from error
    except ValueError as error:
        raise Invalid(str(error)) from error


def add(data_dir: Path, name: str, raw: Mapping[str, Any]) -> Path:
    """Write a new row; returns its file. Raises Conflict for a name in use, Invalid for a wrong row.

    The whole configuration is read with it first: a row that would keep the hub from starting is not written.
    """
    checked(name, raw)
    config = settings.load(data_dir)
    if name in config.external:
        raise Conflict(f"there is a server {name!r} already: `fleet servers show {name}`, or choose another name")
    path = path_of(data_dir, name)
    trust.write_private(path, yaml.safe_dump(dict(raw), sort_keys=False, allow_unicode=True))
    try:
        settings.load(data_dir)
    except Invalid:
        path.unlink()
        raise
    return path


def remove(data_dir: Path, name: str) -> None:
    """Take an added row out. Raises NotFound, or Conflict for a row that stands in a file of the user's."""
    path = path_of(data_dir, name)
    if path.exists():
        path.unlink()
    elif name in settings.load(data_dir).external:
        raise Conflict(
            f"{name} was not added by `fleet servers add`: take external.{name} out of {data_dir / 'fleet.yaml'}, "
            "or write `enabled: false` there"
        )
    else:
        raise NotFound(f"no external server {name!r}: `fleet servers list` names them")


def example(name: str) -> dict[str, Any]:
    """A shipped example; raises NotFound naming those that there are."""
    rows = settings.read_yaml(_example_file(name)).get("external", {})
    return dict(rows[name])


def example_note(name: str) -> str:
    """What a shipped example says of itself: what it is, where its program comes from."""
    lines = _example_file(name).read_text(encoding="utf-8").splitlines()
    return "\n".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def _example_file(name: str) -> Path:
    folder = settings.shipped_file().parent / "examples"
    found = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if name not in found:
        raise NotFound(f"no example {name!r}: there are {', '.join(found)}")
    return found[name]


def pairs(words: Iterable[str], what: str) -> dict[str, str]:
    """`NAME=value` words as a mapping; raises Invalid for a word without `=`."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not re.fullmatch(r"[^\s=]+", name):
            raise Invalid(f"{what} {word.partition('=')[0]!r}: write NAME=value")
        found[name] = value
    return found
