"""Measure the hub beside what it replaces: `python benchmarks/hub.py [--seconds N] [--json FILE]`.

Every target carries the same calls from the same generator to the same tool. The run fails when an
answer is wrong, or when the hub's audit and metrics did not grow by exactly the calls made.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
from account import usage
from children import Failed, Process
from load import Job
from report import Row, show, write_json, write_markdown
from rich.console import Console
from targets import NAMES, WIRE, Bench, Ledger, Target

ERAS = ("legacy", "modern")
COLD = ("fastmcp-proxy", "hub-process", "hub-embedded")

console = Console(width=130, highlight=False)  # the table needs it, also in a pipe


class Generator:
    """The load generator at work on one job."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        script = Path(__file__).with_name("load.py")
        self._child = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        stack.enter_context(self._child)
        stack.callback(self._child.kill)
        self.tell(orjson.dumps(asdict(job)).decode())

    def tell(self, line: str) -> None:
        """Send it a line."""
        assert self._child.stdin is not None
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Its next message; raises Failed when it ended or got a wrong answer."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise Failed("the load generator ended early")
        message = orjson.loads(line)
        if message["wrong"]:
            raise Failed("wrong answers: " + "; ".join(message["wrong"]))
        return message


def measure(target: Target, era: str, concurrency: int, seconds: float) -> Row:
    """Load one target and count what it cost; raises Failed when anything does not add up."""
    assert target.process is not None
    ledger = Ledger(target) if target.data_dir else None
    headers = {"authorization": f"Bearer {target.bearer()}"}
    job = Job(target.url, headers, era, WIRE, concurrency, seconds, warmup_s=min(1.0, seconds))
    with ExitStack() as stack:
        generator = Generator(job, stack)
        warm = generator.hear()
        before = usage(target.process.pid), _cpu(target.spoke)
        generator.tell("go")
        outcome = generator.hear()
        after = usage(target.process.pid), _cpu(target.spoke)
    if ledger is not None:
        ledger.check(warm["calls"] + outcome["calls"])
    calls, times = outcome["calls"], sorted(outcome["times_ms"])
    return Row(
        target=target.name,
        era=era,
        concurrency=concurrency,
        calls_per_s=round(calls / outcome["seconds"], 1),
        p50_ms=_quantile(times, 0.50),
        p95_ms=_quantile(times, 0.95),
        p99_ms=_quantile(times, 0.99),
        hub_cpu_ms_per_call=round((after[0].cpu_s - before[0].cpu_s) * 1000 / calls, 3),
        spoke_cpu_ms_per_call=round((after[1] - before[1]) * 1000 / calls, 3) if target.spoke else None,
        rss_mib=round(after[0].rss_mib, 1),
        cold_start_s=target.cold_start_s,
        calls=calls,
    )


def _cpu(process: Process | None) -> float:
    return usage(process.pid).cpu_s if process else 0.0


def _quantile(times: Sequence[float], share: float) -> float:
    return round(times[min(int(len(times) * share), len(times) - 1)], 3)


def run(options: argparse.Namespace, directory: Path) -> list[Row]:
    """Start every target, then measure them in turn, block by block."""
    rows: list[Row] = []
    with ExitStack() as stack:
        bench = Bench(directory, stack)
        targets = [bench.build(name) for name in options.targets]
        for target in targets:
            if target is not bench.direct:
                target.up()
        for _ in range(options.cold_starts):
            for target in targets:
                if target.name in COLD:
                    target.down()
                    target.cold_starts_s.append(target.up())
        for era in options.eras:
            for concurrency in options.concurrency:
                for target in targets:
                    console.print(f"[dim]{era}, concurrency {concurrency}: {target.name}")
                    rows.append(measure(target, era, concurrency, options.seconds))
    return rows


def about(seconds: float) -> str:
    """Where and how the figures were made."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} {platform.release()}, "
        f"{seconds:g} s per row, load average at the start {load}."
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one object per row")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="replace the figures of a page")
    parser.add_argument("--targets", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--eras", nargs="+", choices=ERAS, default=ERAS)
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--cold-starts", type=int, default=3, metavar="N", help="starts to take the median of")
    return parser.parse_args(arguments)


def main() -> int:
    """0 when every call was answered rightly and written down."""
    options = parse()
    where = about(options.seconds)
    console.print(where)
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as directory:
        try:
            rows = run(options, Path(directory))
        except Failed as problem:
            console.print(f"[red]failed:[/] {problem}", markup=True)
            return 1
    show(console, rows)
    if options.json:
        write_json(options.json, rows)
    if options.markdown:
        write_markdown(options.markdown, rows, where)
    return 0


if __name__ == "__main__":
    sys.exit(main())
