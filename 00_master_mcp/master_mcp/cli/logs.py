"""`fleet logs`: the lines of every service in one order."""

import json
import os
import time
from collections.abc import Generator, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

import typer

LEVELS = ("debug", "info", "warning", "error", "critical")
POLL_S = 0.25
_OWN = ("timestamp", "level", "service", "event", "correlation_id")

Entry = Mapping[str, Any]


def logs(
    service: Annotated[str | None, typer.Option(help="Only this service: hub, linux_cli, ...")] = None,
    level: Annotated[str, typer.Option(help="This level and above: debug, info, warning, error.")] = "debug",
    correlation_id: Annotated[str | None, typer.Option(help="Only the lines of this call.")] = None,
    number: Annotated[int, typer.Option("-n", min=0, help="How many lines to start with.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The lines as they were written.")] = False,
) -> None:
    """The log of the hub and of spokes that run as processes, oldest first."""
    from fleetkit import settings
    from fleetkit.errors import Invalid

    if level not in LEVELS:
        raise Invalid(f"level {level!r}: use one of {', '.join(LEVELS)}")
    folder = settings.load().data_dir / "logs"
    wanted = {"service": "master" if service == "hub" else service, "correlation_id": correlation_id}

    def fits(entry: Entry) -> bool:
        high_enough = LEVELS.index(str(entry.get("level", "error"))) >= LEVELS.index(level)
        return high_enough and all(entry.get(key) == value for key, value in wanted.items() if value)

    reader = _Reader(folder)
    found = sorted((entry for entry in reader.fresh() if fits(entry)), key=lambda e: str(e["timestamp"]))
    _show(islice(found, max(len(found) - number, 0), None), as_json=as_json)
    while follow:
        time.sleep(POLL_S)
        _show((entry for entry in reader.fresh() if fits(entry)), as_json=as_json)


class _Reader:
    """Reads what was added to each log file since it last looked, across rotation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[Path, tuple[int, BinaryIO]] = {}

    def fresh(self) -> Generator[Entry]:
        """The entries written since the last time, file by file."""
        for path in sorted(self._folder.glob("*.log")):
            inode = path.stat().st_ino
            known = self._open.get(path)
            if known is not None and known[0] != inode:
                yield from _entries(known[1], path.stem)
                known[1].close()
                known = None
            if known is None:
                known = self._open[path] = (inode, path.open("rb"))
            yield from _entries(known[1], path.stem)


def _entries(file: BinaryIO, service: str) -> Generator[Entry]:
    """Each line as an entry; what a crashing program wrote beside its log counts as an error."""
    last = ""
    while row := file.readline():
        if not row.endswith(b"\n"):
            file.seek(-len(row), os.SEEK_CUR)  # still being written
            return
        entry = _entry(row, service, last)
        last = str(entry["timestamp"])
        yield entry


def _entry(row: bytes, service: str, last: str) -> Entry:
    try:
        found: object = json.loads(row)
    except ValueError:
        found = None
    if isinstance(found, dict) and {"timestamp", "event"} <= found.keys():
        return cast("Entry", found)
    text = row.decode("utf-8", "replace").rstrip()
    return {"timestamp": last, "level": "error", "service": service, "event": text}


def _show(entries: Iterable[Entry], *, as_json: bool) -> None:
    from master_mcp.cli import show

    for entry in entries:
        if as_json:
            show.line(json.dumps(entry, ensure_ascii=False))
            continue
        rest = " ".join(f"{key}={value}" for key, value in entry.items() if key not in (*_OWN, "exception"))
        head = f"{entry['timestamp']} {entry.get('level', ''):<7} {entry.get('service', ''):<10} {entry['event']}"
        call = f" correlation_id={entry['correlation_id']}" if "correlation_id" in entry else ""
        show.line(f"{head} {rest}{call}".rstrip())
        if "exception" in entry:
            show.line(str(entry["exception"]))
