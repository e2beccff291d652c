"""Measure the audit: `python benchmarks/audit.py [--rows N] [--json FILE]`.

Rows are appended through the hub's own path (chained, committed to a database on disk) by callers that
wait for the disk and by callers that do not; then the log is verified. The run fails when a row is
missing or the log is not whole.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from fleetkit import settings
from fleetkit.store import Store
from master_mcp.audit import Audit, Row, open_audit
from master_mcp.audit.verify import verify
from master_mcp.store import open_hub_store

GOAL = 5000
CALLERS = 64


@dataclass(frozen=True)
class Figure:
    """One way to use the audit; `cpu_us_per_row` is this process's."""

    what: str
    rows: int
    rows_per_s: float
    cpu_us_per_row: float


def row(number: int, outcome: str) -> Row:
    """A row as a call makes one."""
    shape = '{"command":"str 24","timeout":"int"}'
    return Row(
        f"{number:032x}", "4f1d2c3b", "mcp", "linux_cli", "os.linux.runCommand", "change", outcome, "ab" * 32, 12.5,
        None, shape,
    )  # fmt: skip


async def waited_for(audit: Audit, rows: int) -> None:
    """Callers side by side, each waiting for its intent and its outcome."""

    async def caller(first: int) -> None:
        for number in range(first, rows, CALLERS * 2):
            await audit.commit(row(number, "intent"))
            await audit.commit(row(number, "ok"))

    await asyncio.gather(*(caller(first) for first in range(0, CALLERS * 2, 2)))


async def noted(audit: Audit, rows: int) -> None:
    """Reads, whose rows nobody waits for; the queue is bounded, so they go on as it empties."""
    for first in range(0, rows, 1000):
        for number in range(first, min(first + 1000, rows)):
            audit.note(row(number, "ok"))
        await asyncio.wrap_future(audit.flush())


def timed(what: str, rows: int, work: Callable[[], object]) -> Figure:
    """The figure of one piece of work over so many rows."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Figure(what, rows, round(rows / wall, 1), round(cpu * 1_000_000 / rows, 2))


def measure(data_dir: Path, rows: int) -> list[Figure]:
    """Append and verify; raises SystemExit when anything does not add up."""
    config = settings.load(data_dir)
    store: Store = open_hub_store(config)
    audit = open_audit(store, config)

    def appended(how: Callable[[Audit, int], Awaitable[None]]) -> Callable[[], object]:
        async def run() -> None:
            await how(audit, rows)

        return lambda: asyncio.run(run())

    figures = [
        timed(f"append, {CALLERS} callers that wait", rows, appended(waited_for)),
        timed("append, nobody waits", rows, appended(noted)),
    ]
    audit.close()
    figures.append(timed("verify", rows * 2, lambda: check(store, config, rows * 2)))
    store.close()
    return figures


def check(store: Store, config: settings.FleetSettings, rows: int) -> None:
    """The log has to be whole and to hold every row."""
    report = verify(store, config)
    if not report.ok or report.rows != rows:
        raise SystemExit(f"{rows} rows were written, {report.rows} are there: {report.problem}")


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000, help="rows per way of appending")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fleet-audit-") as directory:
        figures = measure(Path(directory), options.rows)
    table = Table("what", "rows", "rows/s", "CPU us/row", title="The audit, on disk")
    for figure in figures:
        table.add_row(figure.what, f"{figure.rows:,}", f"{figure.rows_per_s:,.0f}", f"{figure.cpu_us_per_row:.1f}")
    Console(highlight=False).print(table)
    slowest = min(figure.rows_per_s for figure in figures)
    Console(highlight=False).print(f"asked: >= {GOAL:,} rows/s; slowest: {slowest:,.0f} rows/s")
    if options.json:
        options.json.write_bytes(orjson.dumps([asdict(one) for one in figures], option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
