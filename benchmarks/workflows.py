"""Measure workflows: `python benchmarks/workflows.py [--seconds N] [--rounds N] [--json FILE] [--markdown FILE]`.

Three calls of one tool, each way in a process of its own: plain, in a bare DBOS workflow, in a workflow of the hub.
The ways take turns, and each row is the quickest of its rounds: the one that other programs disturbed least. Then a
hub at rest. The run fails when a call is missing from the audit, or a run did not complete.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
from children import Failed
from hub import about
from report import Goal, at_most, markdown, verdicts, write_figures
from resting import Rest, Resting
from rich.console import Console
from rich.table import Table
from ways import NAMES, TEXTS, Job, Outcome

HEAD = ("way", "c", "workflows/s", "steps/s", "p50 ms", "p95 ms", "CPU ms/workflow")
REST_HEAD = ("waiting runs", "start s", "idle CPU %", "RSS MiB")
WAITING = (0, 1, 20)
STARTED = Job(concurrency=1, seconds=0.1, warmup_s=0.0)  # its answer says that a way is there

console = Console(width=130, highlight=False)


@dataclass(frozen=True)
class Row:
    """One way at one concurrency; the times and the processor time are those of three calls."""

    way: str
    concurrency: int
    runs_per_s: float
    p50_ms: float
    p95_ms: float
    cpu_ms_per_run: float
    runs: int


class Way:
    """The process that goes one way."""

    def __init__(self, name: str, directory: Path, stack: ExitStack) -> None:
        self.name = name
        script = Path(__file__).with_name("ways.py")
        self._child = subprocess.Popen(
            [sys.executable, str(script), name, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(self._child.kill)

    def measure(self, job: Job) -> Row:
        """One round; raises Failed when the process ended."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(orjson.dumps(asdict(job)).decode() + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise Failed(f"the way {self.name!r} ended early")
        found = Outcome(**orjson.loads(line))
        times = sorted(found.times_ms)
        return Row(
            way=self.name,
            concurrency=job.concurrency,
            runs_per_s=round(found.runs / found.seconds, 1),
            p50_ms=round(times[len(times) // 2], 2),
            p95_ms=round(times[int(len(times) * 0.95)], 2),
            cpu_ms_per_run=round(found.cpu_s * 1000 / found.runs, 2),
            runs=found.runs,
        )

    def end(self) -> None:
        """Let it check its books; raises Failed when they do not balance."""
        self._child.communicate(timeout=60)
        if self._child.returncode:
            raise Failed(f"the way {self.name!r} ended with {self._child.returncode}")


def ways(options: argparse.Namespace, directory: Path) -> list[Row]:
    """Every way at every concurrency."""
    rows: list[Row] = []
    with ExitStack() as stack:
        found: list[Way] = []
        for name in options.ways:
            found.append(Way(name, directory / name, stack))
            found[-1].measure(STARTED)
        for concurrency in options.concurrency:
            console.print(f"[dim]concurrency {concurrency}: {', '.join(options.ways)}")
            job = Job(concurrency, options.seconds, warmup_s=min(0.5, options.seconds))
            rounds = [[way.measure(job) for way in found] for _ in range(options.rounds)]
            rows += [max(turns, key=lambda row: row.runs_per_s) for turns in zip(*rounds, strict=True)]
        for way in found:
            way.end()
    return rows


def rests(options: argparse.Namespace, directory: Path) -> list[Rest]:
    """Hubs with no, one and many waiting runs: started in turn, then at rest side by side."""
    with ExitStack() as stack:
        hubs = [Resting(directory / f"waiting-{count}", count) for count in options.waiting]
        for hub in hubs:
            stack.callback(hub.down)
            hub.prepare()
        for turn in range(options.starts):
            console.print(f"[dim]start {turn + 1} of {options.starts}")
            for hub in hubs:
                hub.up()
                hub.down()
        for hub in hubs:
            hub.up()
        for hub in hubs:
            hub.settle()
        console.print("[dim]at rest")
        time.sleep(options.settle)
        rounds: list[list[Rest]] = []
        for _ in range(options.rounds):
            before = [hub.spent() for hub in hubs]
            time.sleep(options.idle)
            rounds.append([hub.since(then) for hub, then in zip(hubs, before, strict=True)])
        return [min(turns, key=lambda rest: rest.idle_percent) for turns in zip(*rounds, strict=True)]


def goals(rows: Sequence[Row], found: Sequence[Rest]) -> list[Goal]:
    """What the design asks of workflows, for every figure that was measured."""
    by = {(row.way, row.concurrency): row for row in rows}
    resting = {rest.waiting: rest for rest in found}
    goals: list[Goal] = []
    bare, ours = by.get(("dbos", 1)), by.get(("workflow", 1))
    if bare and ours:
        goals.append(at_most("p50 over bare DBOS, c=1", 100 * (ours.p50_ms / bare.p50_ms - 1), 25, "%"))
    bare, ours = by.get(("dbos", 16)), by.get(("workflow", 16))
    if bare and ours:
        more = 100 * (bare.runs_per_s / ours.runs_per_s - 1)
        goals.append(at_most("time per workflow over bare DBOS, c=16", more, 25, "%"))
    if 1 in resting:
        goals.append(at_most("idle CPU, one run waiting", resting[1].idle_percent, 2, "% of a core"))
    if {0, 20} <= resting.keys():
        later = round(resting[20].start_s - resting[0].start_s, 3)
        goals.append(at_most("start with 20 waiting runs, later than without", later, 0.1, "s"))
    return goals


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of HEAD."""
    steps = f"{row.runs_per_s * len(TEXTS):.0f}"
    times = (f"{row.p50_ms:.1f}", f"{row.p95_ms:.1f}", f"{row.cpu_ms_per_run:.1f}")
    return (row.way, str(row.concurrency), f"{row.runs_per_s:.1f}", steps, *times)


def rest_cells(rest: Rest) -> tuple[str, ...]:
    """A hub at rest as text, in the order of REST_HEAD."""
    return (str(rest.waiting), f"{rest.start_s:.2f}", f"{rest.idle_percent:.1f}", f"{rest.rss_mib:.0f}")


def show(rows: Sequence[Row], found: Sequence[Rest]) -> None:
    """Print the tables."""
    table, resting = Table(*HEAD, title="Three calls"), Table(*REST_HEAD, title="A hub at rest")
    for row in rows:
        table.add_row(*cells(row))
    for rest in found:
        resting.add_row(*rest_cells(rest))
    verdict = Table("figure", "asked", "measured", "")
    for goal in goals(rows, found):
        verdict.add_row(goal.what, goal.limit, goal.found, "reached" if goal.reached else "[red]missed")
    console.print(table, resting, verdict)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of which the quickest counts")
    parser.add_argument("--ways", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--waiting", nargs="*", type=int, default=WAITING, help="hubs at rest with so many runs")
    parser.add_argument("--starts", type=int, default=5, help="starts to take the median of")
    parser.add_argument("--settle", type=float, default=60.0, help="seconds after which a started hub is at rest")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds of rest")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every row")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="replace the figures of a page")
    return parser.parse_args(arguments)


def main() -> int:
    """0 when every run completed and every call was written down."""
    options = parse()
    where = about(options.seconds).replace("per row", f"a round, the quickest of {options.rounds}")
    console.print(where)
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as directory:
        try:
            rows, found = ways(options, Path(directory)), rests(options, Path(directory))
        except Failed as problem:
            console.print(f"[red]failed:[/] {problem}", markup=True)
            return 1
    show(rows, found)
    if options.json:
        content = {"ways": [asdict(row) for row in rows], "rests": [asdict(rest) for rest in found]}
        options.json.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    if options.markdown:
        tables = [markdown(HEAD, map(cells, rows)), markdown(REST_HEAD, map(rest_cells, found))]
        write_figures(options.markdown, "workflow figures", [where, *tables, verdicts(goals(rows, found))])
    return 0


if __name__ == "__main__":
    sys.exit(main())
