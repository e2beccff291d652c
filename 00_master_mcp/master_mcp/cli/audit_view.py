"""What `fleet audit` shows people."""

from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from master_mcp.cli import show

if TYPE_CHECKING:
    from master_mcp.audit.report import Account, Line
    from master_mcp.audit.search import Entry
    from master_mcp.audit.verify import Report

COLUMNS = ("seq", "at", "caller", "door", "tool", "risk", "outcome", "ms", "approval", "correlation id")
LINES = ("caller", "tool", "risk", "outcome", "approval", "times", "first", "last")


def entries(found: Iterable["Entry"], names: Mapping[str, str]) -> None:
    """Rows as a table; `names` are those of keys by their ids."""
    show.table(COLUMNS, ([*_cells(entry, names)] for entry in found))


def report(report: "Report") -> None:
    """What was checked, what is not proven, and the verdict."""
    start = f" from row {report.since + 1} on" if report.since else ""
    show.say(
        f"Checked {report.rows:,} rows{start} in {report.segments} segments and the table, "
        f"{report.checkpoints:,} checkpoints, the anchor up to row {report.anchored_seq:,}."
    )
    for limit in report.limits:
        show.say(f"Not proven: {limit}.")
    if report.ok:
        show.line("The log is whole.")
    else:
        show.line(f"The log is NOT whole: {report.problem}.")


def account(found: "Account", names: Mapping[str, str]) -> None:
    """Who did what, and what is not complete."""
    show.say(f"{found.rows:,} rows, {show.moment(found.first_at)} to {show.moment(found.last_at)}")
    for title, lines in (("Changes", found.changes), ("Decisions and administration", found.events)):
        if lines:
            show.line(f"\n{title}")
            show.table(LINES, ([*_line(line, names)] for line in lines))
    if found.reads:
        show.line("\nOther calls")
        show.table(("caller", "times"), ([_named(caller, names), count] for caller, count in found.reads.items()))
    _gaps("Intents without an outcome: the hub died, or they are under way", found.without_outcome, names)
    _gaps("Changes without an intent", found.without_intent, names)
    if found.complete:
        show.line(f"\nEvery executed change ({found.executed:,}) has its intent and its outcome on record.")


def _gaps(title: str, entries: Iterable["Entry"], names: Mapping[str, str]) -> None:
    rows = [[*_cells(entry, names)] for entry in entries]
    if rows:
        show.line(f"\n{title}")
        show.table(COLUMNS, rows)


def _line(line: "Line", names: Mapping[str, str]) -> Generator[Any]:
    yield from (_named(line.caller, names), line.tool, line.risk, line.outcome, line.approval_id, line.count)
    yield from (show.moment(line.first_at), show.moment(line.last_at))


def _cells(entry: "Entry", names: Mapping[str, str]) -> Generator[Any]:
    yield from (entry["seq"], show.moment(entry["at"]), _named(entry["caller"], names), entry["door"])
    yield from (entry["tool"], entry["risk"], entry["outcome"])
    yield "" if entry["duration_ms"] is None else f"{entry['duration_ms']:.1f}"
    yield from (entry["approval_id"], entry["correlation_id"])


def _named(caller: str, names: Mapping[str, str]) -> str:
    return f"{names[caller]} ({caller})" if caller in names else caller
