"""The figures: as a table, as JSON, as Markdown, and against what the design asks for."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One target in one era at one concurrency.

    `hub_cpu_ms_per_call` is the process tree between client and spoke (for `direct` the spoke's own, for
    `hub-embedded` hub and spoke together).
    """

    target: str
    era: str
    concurrency: int
    calls_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    hub_cpu_ms_per_call: float
    spoke_cpu_ms_per_call: float | None
    rss_mib: float
    cold_start_s: float | None
    calls: int


@dataclass(frozen=True)
class Goal:
    """One figure of the design and what was measured."""

    what: str
    limit: str
    found: str
    reached: bool


HEAD = ("target", "era", "c", "calls/s", "p50 ms", "p95 ms", "p99 ms", "CPU ms/call", "spoke CPU", "RSS MiB", "start s")


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of HEAD."""
    spoke = "-" if row.spoke_cpu_ms_per_call is None else f"{row.spoke_cpu_ms_per_call:.2f}"
    start = "-" if row.cold_start_s is None else f"{row.cold_start_s:.2f}"
    times = (f"{value:.1f}" for value in (row.p50_ms, row.p95_ms, row.p99_ms))
    cpu = f"{row.hub_cpu_ms_per_call:.2f}"
    return (row.target, row.era, str(row.concurrency), f"{row.calls_per_s:.0f}", *times, cpu, spoke,
            f"{row.rss_mib:.0f}", start)  # fmt: skip


def goals(rows: Sequence[Row]) -> list[Goal]:
    """What the design asks of the hub, for every figure that these rows can answer."""
    found: list[Goal] = []
    for era in dict.fromkeys(row.era for row in rows):
        for c in dict.fromkeys(row.concurrency for row in rows):
            direct, hub = _pick(rows, "direct", era, c), _pick(rows, "hub-process", era, c)
            if hub and c == 16:
                found.append(at_most(f"hub CPU per call, {era}, c=16", hub.hub_cpu_ms_per_call, 1.5, "ms"))
            if hub and direct and c == 1:
                found.append(at_most(f"added p50, {era}, c=1", hub.p50_ms - direct.p50_ms, 2.0, "ms"))
            if hub and direct and c in (16, 64):
                share = 100 * hub.calls_per_s / direct.calls_per_s
                found.append(Goal(f"throughput of direct, {era}, c={c}", ">= 70 %", f"{share:.0f} %", share >= 70))
    return found + _memory_and_start(rows)


def _memory_and_start(rows: Sequence[Row]) -> list[Goal]:
    found: list[Goal] = []
    embedded = [row for row in rows if row.target == "hub-embedded"]
    if embedded:
        found.append(at_most("RSS embedded, all spokes, after load", max(r.rss_mib for r in embedded), 150, "MiB"))
    starts = {row.target: row.cold_start_s for row in rows if row.cold_start_s}
    peer, hub = starts.get("fastmcp-proxy"), starts.get("hub-embedded")
    if peer and hub:
        found.append(at_most("cold start embedded / bare FastMCP proxy", hub / peer, 1.5, "x"))
    return found


def at_most(what: str, value: float, limit: float, unit: str) -> Goal:
    """A figure that shall not be larger than its limit."""
    return Goal(what, f"<= {limit:g} {unit}", f"{value:.2f} {unit}", value <= limit)


def _pick(rows: Iterable[Row], target: str, era: str, concurrency: int) -> Row | None:
    return next((r for r in rows if (r.target, r.era, r.concurrency) == (target, era, concurrency)), None)


def show(console: Console, rows: Sequence[Row]) -> None:
    """Print the table and the goals."""
    table = Table(*HEAD, title="One tool call with a 200-byte answer")
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)
    verdict = Table("figure", "asked", "measured", "")
    for goal in goals(rows):
        verdict.add_row(goal.what, goal.limit, goal.found, "reached" if goal.reached else "[red]missed")
    console.print(verdict)


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """A list with one object per row."""
    path.write_bytes(orjson.dumps([asdict(row) for row in rows], option=orjson.OPT_INDENT_2) + b"\n")


def write_markdown(path: Path, rows: Sequence[Row], about: str) -> None:
    """The same two tables for a page of the docs, replacing what stands between the page's markers."""
    write_figures(path, "figures", [about, markdown(HEAD, map(cells, rows)), verdicts(goals(rows))])


def verdicts(found: Iterable[Goal]) -> str:
    """What was asked and what was measured, as a table for a page."""
    rows = [(g.what, g.limit, g.found, "reached" if g.reached else "missed") for g in found]
    return markdown(("figure", "asked", "measured", ""), rows)


def write_figures(path: Path, name: str, parts: Sequence[str]) -> None:
    """Replace what stands between the markers `name` of a page."""
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text = "\n\n".join([first, *parts, last])
    page = path.read_text(encoding="utf-8") if path.exists() else f"{first}{last}\n"
    before, _, rest = page.partition(first)
    path.write_text(before + text + rest.partition(last)[2], encoding="utf-8")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for a page."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
