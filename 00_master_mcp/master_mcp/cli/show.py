"""What people and machines read: tables and sentences, or JSON."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from fleetkit.errors import FleetError

COLOURS = {
    "read": "green", "change": "yellow", "destroy": "red",
    "healthy": "green", "starting": "yellow", "unavailable": "red",
    "closed": "green", "half_open": "yellow", "open": "red",
    "ok": "green", "warning": "yellow", "error": "red", "live": "green", "revoked": "red", "expired": "red",
    "pending": "yellow", "approved": "green", "executed": "green", "denied": "red", "failed": "red", "in_doubt": "red",
    "queued": "blue", "running": "cyan", "waiting": "yellow", "completed": "green", "skipped": "bright_black",
    "cancelled": "red",
}  # fmt: skip
PIPED_WIDTH = 240  # a pipe has no width: a table there must not cut what is searched for


def out() -> Console:
    """The console for answers, on stdout."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPED_WIDTH)


def err() -> Console:
    """The console for everything that is not an answer, on stderr."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A sentence about what happened, on stderr."""
    err().print(text, markup=False)


def line(text: str) -> None:
    """One line of an answer, exactly as it is."""
    out().out(text, highlight=False)


def problem(error: "FleetError") -> None:
    """One line on stderr; for a call that was held also its plan and the command that lets it run."""
    err().print(f"[red]fleet:[/red] {escape(error.message)}")
    if error.plan:
        say(f"It would: {error.plan}")
    if error.approval_id:
        held = error.code == "needs_approval"
        way = "To let it run: fleet approvals approve" if held else "What became of it: fleet approvals show"
        say(f"{way} {error.approval_id}")


def as_json(value: object) -> None:
    """`value` as indented JSON on stdout."""
    line(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; known words (risks, states) have their colour."""
    view = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        view.add_column(name, overflow="fold")
    for row in rows:
        view.add_row(*(cell(value) for value in row))
    out().print(view, soft_wrap=False)


def cell(value: object) -> str:
    """A value as Rich markup of one cell."""
    text = "" if value is None else str(value) if not isinstance(value, dict | list) else json.dumps(value)
    colour = COLOURS.get(text)
    return f"[{colour}]{text}[/{colour}]" if colour else escape(text)


def moment(seconds: float | None) -> str:
    """Seconds since the epoch as local time; empty for None."""
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def structure(value: object) -> None:
    """A tool's result for people: rows as a table, an object as its keys, text as it is."""
    rows = _rows(value)
    if rows:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        table(columns, ([row.get(key) for key in columns] for row in rows))
    elif isinstance(value, dict):
        for key, item in cast("Mapping[str, Any]", value).items():
            _field(key, item)
    elif isinstance(value, str):
        line(value)
    else:
        as_json(value)


def _rows(value: object) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        return []
    items = cast("list[Any]", value)
    return items if all(isinstance(item, dict) for item in items) else []


def _field(key: str, item: object) -> None:
    if _rows(item):
        out().print(f"[bold]{escape(key)}[/bold]:")
        structure(item)
    elif isinstance(item, str) and "\n" in item:
        out().print(f"[bold]{escape(key)}[/bold]:")
        line(item.rstrip("\n"))
    else:
        out().print(f"[bold]{escape(key)}[/bold]: {cell(item)}")
