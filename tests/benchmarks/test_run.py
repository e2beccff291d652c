"""One short run against real processes, and what makes a run fail."""

import asyncio
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from children import Failed, Process
from hubs import ask, running_hub
from support import need
from targets import Ledger, Target

HUB_PY = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "hub.py"
SHORT = ["--seconds", "0.2", "--concurrency", "2", "--cold-starts", "0"]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, HUB_PY, *SHORT, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.timeout(300)
@need("nginx", "nginx-light")
def test_a_run_measures_every_target_in_both_eras(tmp_path: Path):
    out = tmp_path / "out.json"
    done = bench("--json", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = orjson.loads(out.read_bytes())
    targets = ["direct", "hub-process", "hub-embedded", "fastmcp-proxy", "nginx"]
    assert [(r["era"], r["target"]) for r in rows] == [(era, t) for era in ("legacy", "modern") for t in targets]
    assert min(row["calls"] for row in rows) >= 2
    assert min(row["rss_mib"] for row in rows) > 1
    assert all(row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] for row in rows)


def test_an_unknown_target_is_refused_with_the_known_ones():
    done = bench("--targets", "apache")
    assert done.returncode == 2
    assert "fastmcp-proxy" in done.stderr


def test_a_process_that_does_not_come_up_shows_the_end_of_its_log(tmp_path: Path):
    process = Process([sys.executable, "-c", "raise SystemExit('no licence')"], tmp_path / "log")
    with pytest.raises(Failed, match="no licence"):
        process.wait_until(lambda: False)


async def test_a_hub_that_wrote_down_more_or_fewer_calls_fails_the_run(tmp_path: Path):
    async with running_hub(tmp_path) as hub:
        target = Target("hub", lambda: Process([], tmp_path), f"{hub.url}/mcp", lambda: hub.client, data_dir=tmp_path)
        ledger = await asyncio.to_thread(Ledger, target)
        await ask(hub, "tools/call", {"name": "master_listServices", "arguments": {}})
        with pytest.raises(Failed, match=r"hub: 2 calls, but counted .*'audit rows': 1.*expected .*'audit rows': 2"):
            await asyncio.to_thread(ledger.check, 2)
