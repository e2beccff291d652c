"""The figures against what the design asks for, and the page that shows them."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from report import Row, goals, write_json, write_markdown

DIRECT = Row("direct", "modern", 16, 1000.0, 10.0, 20.0, 30.0, 0.9, 0.9, 90.0, None, 5000)
HUB = replace(DIRECT, target="hub-process", calls_per_s=700.0, hub_cpu_ms_per_call=1.5)
EMBEDDED = replace(DIRECT, target="hub-embedded", rss_mib=150.0, cold_start_s=3.0, spoke_cpu_ms_per_call=None)
PEER = replace(DIRECT, target="fastmcp-proxy", cold_start_s=2.0)


def verdicts(*rows: Row) -> dict[str, bool]:
    return {goal.what: goal.reached for goal in goals(rows)}


def test_figures_on_the_limit_are_reached():
    assert verdicts(DIRECT, HUB, EMBEDDED, PEER) == {
        "hub CPU per call, modern, c=16": True,
        "throughput of direct, modern, c=16": True,
        "RSS embedded, all spokes, after load": True,
        "cold start embedded / bare FastMCP proxy": True,
    }


@pytest.mark.parametrize(
    ("worse", "missed"),
    [
        (replace(HUB, hub_cpu_ms_per_call=1.51), "hub CPU per call, modern, c=16"),
        (replace(HUB, calls_per_s=699.0), "throughput of direct, modern, c=16"),
        (replace(EMBEDDED, rss_mib=150.1), "RSS embedded, all spokes, after load"),
        (replace(EMBEDDED, cold_start_s=3.01), "cold start embedded / bare FastMCP proxy"),
        (replace(HUB, concurrency=1, p50_ms=12.01), "added p50, modern, c=1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_figure_past_its_limit_is_missed(worse: Row, missed: str):
    assert verdicts(DIRECT, replace(DIRECT, concurrency=1), worse, PEER)[missed] is False


def test_a_figure_is_judged_only_where_both_sides_were_measured():
    assert verdicts(DIRECT) == {}
    assert verdicts(replace(HUB, era="legacy"), DIRECT) == {"hub CPU per call, legacy, c=16": True}


def test_json_has_one_object_per_row_with_the_agreed_keys(tmp_path: Path):
    write_json(tmp_path / "out.json", [DIRECT, HUB])
    first, second = orjson.loads((tmp_path / "out.json").read_bytes())
    assert (first["target"], second["target"]) == ("direct", "hub-process")
    agreed = "target era concurrency calls_per_s p50_ms p95_ms p99_ms hub_cpu_ms_per_call spoke_cpu_ms_per_call rss_mib"
    assert set(agreed.split()) <= set(first)


def test_only_the_figures_of_a_page_are_replaced(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- figures -->old<!-- end of figures -->\n\nEnd.\n", encoding="utf-8")
    write_markdown(page, [DIRECT], "Made here.")
    write_markdown(page, [HUB], "Made there.")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Title\n\n<!-- figures -->\n\nMade there.\n\n| target |")
    assert text.endswith("<!-- end of figures -->\n\nEnd.\n")
    assert "| hub-process | modern | 16 | 700 |" in text
    assert "direct | modern" not in text
    assert "old" not in text
