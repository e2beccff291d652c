"""One short run of every way, what makes a run fail, and the figures against what the design asks for."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hubs import running_hub
from resting import Rest
from ways import Ways, check
from workflows import Row, goals

WORKFLOWS_PY = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "workflows.py"
SHORT = ["--seconds", "0.1", "--rounds", "1", "--concurrency", "2", "--ways", "dbos", "workflow"]
REST = ["--waiting", "1", "--starts", "0", "--settle", "0", "--idle", "0.2"]

BARE = Row("dbos", 1, 80.0, 12.0, 20.0, 14.0, 100)
OURS = replace(BARE, way="workflow", p50_ms=15.0)
MANY = [replace(BARE, concurrency=16, runs_per_s=75.0), replace(OURS, concurrency=16, runs_per_s=60.0)]
RESTS = [Rest(0, 1.0, 1.0, 100.0), Rest(1, 1.0, 2.0, 120.0), Rest(20, 1.1, 2.5, 125.0)]
ASKED = [
    "p50 over bare DBOS, c=1",
    "time per workflow over bare DBOS, c=16",
    "idle CPU, one run waiting",
    "start with 20 waiting runs, later than without",
]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, WORKFLOWS_PY, *arguments], capture_output=True, text=True, check=False)


def missed(rows: list[Row], rests: list[Rest]) -> list[str]:
    return [goal.what for goal in goals(rows, rests) if not goal.reached]


@pytest.mark.timeout(300)
def test_a_run_measures_its_ways_and_a_hub_at_rest_and_puts_them_on_its_page(tmp_path: Path):
    out, page = tmp_path / "out.json", tmp_path / "page.md"
    page.write_text("# Page\n\n<!-- figures -->kept<!-- end of figures -->\n\n", encoding="utf-8")
    page.write_text(page.read_text() + "<!-- workflow figures -->old<!-- end of workflow figures -->\n\nEnd.\n")
    done = bench(*SHORT, *REST, "--json", str(out), "--markdown", str(page))
    assert done.returncode == 0, done.stdout + done.stderr
    found = orjson.loads(out.read_bytes())
    assert [row["way"] for row in found["ways"]] == ["dbos", "workflow"]
    assert min(row["runs"] for row in found["ways"]) >= 2
    assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in found["ways"])
    assert [(rest["waiting"], rest["rss_mib"] > 1) for rest in found["rests"]] == [(1, True)]
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Page\n\n<!-- figures -->kept<!-- end of figures -->\n\n<!-- workflow figures -->\n\n")
    assert text.endswith("<!-- end of workflow figures -->\n\nEnd.\n")
    assert "| workflow | 2 | " in text
    assert "old" not in text


async def test_every_way_makes_three_calls_that_the_audit_holds(tmp_path: Path):
    async with running_hub(tmp_path, {"bench": {"number": 60, "namespace": "bench"}}) as hub:
        key = hub.hub.keys.authenticate(hub.admin)
        assert key is not None
        found = Ways(hub.hub, key.caller, tmp_path)
        for number, way in enumerate([found.calls, found.workflow, found.expressions, found.changes, found.tool]):
            await way()()
            await asyncio.wrap_future(hub.hub.audit.flush())
            check(hub.hub, 3 * (number + 1))
        with pytest.raises(SystemExit, match="16 calls were made, the audit holds 15"):
            check(hub.hub, 16)


def test_figures_on_the_limit_are_reached():
    found = goals([BARE, OURS, *MANY], RESTS)
    assert [goal.what for goal in found] == ASKED
    assert missed([BARE, OURS, *MANY], RESTS) == []


@pytest.mark.parametrize(
    ("rows", "rests", "what"),
    [
        ([BARE, replace(OURS, p50_ms=15.1)], [], ASKED[0]),
        ([MANY[0], replace(MANY[1], runs_per_s=59.0)], [], ASKED[1]),
        ([], [replace(RESTS[1], idle_percent=2.01)], ASKED[2]),
        ([], [RESTS[0], replace(RESTS[2], start_s=1.11)], ASKED[3]),
    ],
)
def test_a_figure_past_its_limit_is_missed(rows: list[Row], rests: list[Rest], what: str):
    assert missed(rows, rests) == [what]


def test_a_figure_is_judged_only_where_both_sides_were_measured():
    assert goals([BARE, MANY[1]], [RESTS[2]]) == []
