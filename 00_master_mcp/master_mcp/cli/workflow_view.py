"""A run as people see it: a table that moves at a terminal, elsewhere a line for each change."""

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from fleetkit.errors import FleetError, Unavailable
from master_mcp.cli import show
from master_mcp.cli.wire import Hub

AWAY_S = 1.0  # between attempts to reach a hub that went away: the run goes on when it is back
ENDED = ("completed", "failed", "cancelled")
_UNDER_WAY = ("in_doubt", "waiting", "running")

Run = Mapping[str, Any]
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One step as it is shown, its items together. Times are epoch seconds."""

    step: str
    status: str
    started_at: float | None
    ended_at: float | None
    note: str

    @property
    def took(self) -> str:
        """How long it has taken, so far or in all."""
        return duration(self.started_at, self.ended_at)


def place(run_id: str) -> str:
    """Where a run is found over REST."""
    return f"/workflows/runs/{quote(run_id, safe='')}"


def view(hub: Hub, run_id: str) -> Mapping[str, Any]:
    """`{run, nodes, edges}`: a run, and all steps that it has or will have. Raises NotFound."""
    return hub.rest("GET", f"{place(run_id)}/view")


def follow(hub: Hub, run_id: str, within_s: float | None) -> Run | None:
    """Show a run until it ends or so many seconds are over; as it stood last, None when nothing was heard of it."""
    console = Console(highlight=False)
    changes = watched(hub, run_id, within_s)
    if not console.is_terminal or console.no_color:
        return _lines(changes)
    return _live(console, changes, view(hub, run_id)["nodes"])


def watched(hub: Hub, run_id: str, within_s: float | None) -> Generator[Run]:
    """The run whenever it has changed, until it has ended or the time is over; a hub that went away is waited for."""
    until = None if within_s is None else time.monotonic() + within_s
    heard = False
    while until is None or time.monotonic() < until:
        try:
            for run in hub.events(f"{place(run_id)}/events", until):
                heard = True
                yield run
                if run["status"] in ENDED:
                    return
        except Unavailable:
            if not heard:
                raise
        time.sleep(AWAY_S if until is None else max(min(AWAY_S, until - time.monotonic()), 0))


def rows(run: Run) -> list[Row]:
    """The steps of a run that have begun, in the order of the definition."""
    grouped: dict[str, list[Result]] = {}
    for one in run["results"]:
        grouped.setdefault(one["name"], []).append(one)
    return [_row(run, name, parts) for name, parts in grouped.items()]


def table(run: Run, nodes: Sequence[Mapping[str, Any]]) -> Table:
    """A run as one table: each step, how it stands, how long it took, what it waits for or why it failed."""
    begun = {row.step: row for row in rows(run)}
    known = [begun.pop(node["name"], Row(node["name"], "pending", None, None, "")) for node in nodes]
    whole = duration(run["started_at"], run["ended_at"])
    title = f"{escape(run['workflow_name'])} {run['id']}: {show.cell(run['status'])} {whole}"
    drawn = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False, header_style="bold")
    for name in ("step", "status", "took"):
        drawn.add_column(name, no_wrap=True)
    drawn.add_column("", overflow="fold")
    for row in (*known, *begun.values()):  # behind the steps what was undone
        drawn.add_row(escape(row.step), show.cell(row.status), row.took, escape(row.note))
    return drawn


def outcome(run: Run, *, quiet: bool) -> bool:
    """Say how a run ended, with its outputs unless `quiet`; whether it did what it should."""
    if run["status"] == "completed":
        if run["outputs"] and not quiet:
            show.structure(run["outputs"])
        return True
    at = f" at step {run['step_failed_at']}" if run["step_failed_at"] else ""
    reason = f": {run['reason']}" if run["reason"] else ""
    show.problem(FleetError(f"run {run['id']} {run['status']}{at}{reason}"))
    show.say(f"To run it on once that is mended: fleet workflow resume {run['id']}")
    return False


def standing(run: Run) -> str:
    """How a run stands, in one sentence, and what to do about it."""
    waits = [f"{_at(one)} waits for {one['for']}: {one['do']}" for one in run["waits_for"]]
    return "\n".join([f"{run['workflow_name']} {run['id']} is {run['status']}.", *waits])


def duration(begin: float | None, end: float | None = None) -> str:
    """The time between two moments, or since one; empty when it has not begun."""
    if begin is None:
        return ""
    seconds = max((time.time() if end is None else end) - begin, 0.0)
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _live(console: Console, changes: Iterable[Run], nodes: Sequence[Mapping[str, Any]]) -> Run | None:
    last: list[Run] = []
    with Live(console=console, get_renderable=lambda: table(last[-1], nodes) if last else "", refresh_per_second=4):
        for run in changes:
            last[:] = [run]
    return last[-1] if last else None


def _lines(changes: Iterable[Run]) -> Run | None:
    last: Run | None = None
    told: dict[str, str] = {}
    for run in changes:
        last = run
        for row in rows(run):
            said = f"{row.status}, {row.note}" if row.note else row.status
            if told.get(row.step) != said:
                told[row.step] = said
                took = f" ({row.took})" if row.ended_at is not None and row.took else ""
                show.line(f"{time.strftime('%H:%M:%S')} {row.step}: {said}{took}")
    if last is not None:
        took = duration(last["started_at"], last["ended_at"])
        show.line(f"{time.strftime('%H:%M:%S')} {last['workflow_name']} {last['id']}: {last['status']} ({took})")
    return last


def _row(run: Run, name: str, parts: list[Result]) -> Row:
    note = _notes(run, name, parts)
    whole = next((one for one in parts if one["item"] is None), None)
    if whole is not None:
        return Row(name, whole["status"], whole["started_at"], whole["ended_at"], note)
    states = {one["status"] for one in parts}
    status = next((state for state in _UNDER_WAY if state in states), "running")
    begun = [one["started_at"] for one in parts if one["started_at"] is not None]
    return Row(name, status, min(begun, default=None), None, note)


def _notes(run: Run, name: str, parts: list[Result]) -> str:
    found = [f"{_item(one)}waits for {one['for']}: {one['do']}" for one in run["waits_for"] if one["step"] == name]
    items = [one["status"] for one in parts if one["item"] is not None]
    if items:
        found.append("items: " + ", ".join(f"{items.count(status)} {status}" for status in dict.fromkeys(items)))
    for one in (one for one in parts if one["item"] is None):
        found += _note(run, one)
        if one["attempts"] > 1 and not items:
            found.append(f"attempt {one['attempts']}")
    return "; ".join(found)


def _note(run: Run, one: Result) -> Generator[str]:
    """What is to be said of one step that is not among what the run waits for."""
    error, waits_for = one.get("error"), one.get("waits_for")
    if error:
        yield f"{error['code']}: {error['message']}"
    elif waits_for == "time":
        yield f"until {show.moment(one.get('due_at'))}"
    elif waits_for and all(said["step"] != one["name"] for said in run["waits_for"]):
        run_id = waits_for.removeprefix("run ")
        yield f"waits for {waits_for}" + (f": fleet workflow watch {run_id}" if run_id != waits_for else "")
    if one.get("carried"):
        yield "kept from an earlier attempt"


def _at(one: Mapping[str, Any]) -> str:
    return f"step {one['step']}" + ("" if one["item"] is None else f", item {one['item']},")


def _item(one: Mapping[str, Any]) -> str:
    return "" if one["item"] is None else f"item {one['item']} "
