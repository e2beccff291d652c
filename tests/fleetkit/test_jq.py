"""jq expressions: what they answer, what they cannot reach, what they may cost."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from fleetkit import jq as module
from fleetkit.errors import Invalid, OverBudget, Unavailable
from fleetkit.jq import DEFAULT, Jq

QUICK = replace(DEFAULT, cpu_s=0.1)


@pytest.fixture
async def jq() -> AsyncGenerator[Jq]:
    worker = Jq()
    yield worker
    await worker.close()


def gone(pid: int) -> bool:
    """Whether a process of ours has ended and was waited for."""
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("program", "result"),
    [
        (".count > 2", True),
        ('.name | startswith("web")', True),
        ('.name == "db"', False),
        (".missing", None),
        ('[.tags[] | select(. != "b")]', ["a", "c"]),
        ("{twice: (.count * 2)}", {"twice": 6}),
        ('.name | test("^WEB"; "i")', True),
        ("now | type", "number"),
    ],
)
async def test_an_expression_gives_its_one_result(jq: Jq, program: str, result: Any) -> None:
    assert await jq.evaluate(program, {"count": 3, "name": "web1", "tags": ["a", "b", "c"]}) == result


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("empty", "gives no result"),
        ("1, 2", "more than one result"),
        ("repeat(1)", "more than one result"),
        ('error("boo")', "boo"),
        (".a.b.c[", "syntax error"),
        ("$nobody", r"\$nobody is not defined"),
        ("halt", "gives no result"),
        ("input", "break"),
        ("[inputs] | .[0] | tojson | input", "break"),
        ("reduce range(20000) as $i (0; [.])", "recursion depth"),
        ("true\0 and false", "NUL"),
    ],
)
async def test_what_gives_no_one_result_is_invalid_and_costs_no_worker(jq: Jq, program: str, words: str) -> None:
    await jq.evaluate("1", None)
    before = jq.pid
    with pytest.raises(Invalid, match=words):
        await jq.evaluate(program, {})
    assert jq.pid == before


async def test_a_wrong_expression_is_found_before_it_is_used(jq: Jq) -> None:
    await jq.check(".arguments.count < 10")
    for wrong in (".arguments.", "  ", "a\0"):
        with pytest.raises(Invalid, match="jq"):
            await jq.check(wrong)


async def test_an_expression_that_fails_on_every_input_is_still_an_expression(jq: Jq) -> None:
    await jq.check("error")


@pytest.mark.parametrize("program", ["env", "$ENV", "[env, $ENV] | add"])
async def test_an_expression_sees_no_environment(jq: Jq, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_TEST_SECRET", "hidden")
    assert await jq.evaluate(program, None) == {}


def test_nor_does_it_under_the_loop_that_the_hub_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_TEST_SECRET", "hidden")

    async def seen() -> tuple[object, bytes]:
        worker = Jq()
        found = await worker.evaluate("$ENV", None)
        inherited = Path(f"/proc/{worker.pid}/environ").read_bytes()
        await worker.close()
        return found, inherited

    assert uvloop.run(seen()) == ({}, b"")


@pytest.mark.parametrize(
    "program",
    [
        'import "secret" as $s {search: "DIR"}; $s',
        'import "DIR/secret" as $s; $s',
        'include "module" {search: "DIR"}; found',
        'import "module" as m {search: "DIR"}; m::found',
    ],
)
async def test_an_expression_opens_no_file(jq: Jq, program: str, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('"hidden"', encoding="utf-8")
    (tmp_path / "module.jq").write_text('def found: "hidden";', encoding="utf-8")
    with pytest.raises(Invalid, match="Too many open files"):
        await jq.evaluate(program.replace("DIR", str(tmp_path)), None)


async def test_the_worker_holds_its_three_pipes_and_can_open_nothing(jq: Jq) -> None:
    await jq.evaluate("1", None)
    assert sorted(os.listdir(f"/proc/{jq.pid}/fd")) == ["0", "1", "2"]
    limits = Path(f"/proc/{jq.pid}/limits").read_text(encoding="utf-8")
    given = {line[:26].strip(): line[26:].split()[:2] for line in limits.splitlines()}
    assert given["Max open files"] == ["0", "0"]
    assert given["Max processes"] == ["0", "0"]
    assert given["Max file size"] == ["0", "0"]
    assert given["Max core file size"] == ["0", "0"]
    assert int(given["Max address space"][1]) <= 256 * 1024 * 1024


async def test_the_worker_loads_nothing_of_the_fleet(jq: Jq) -> None:
    await jq.evaluate("1", None)
    mapped = Path(f"/proc/{jq.pid}/maps").read_text(encoding="utf-8")
    assert "jq" in mapped
    assert [name for name in ("pydantic", "orjson", "yaml", "uvloop") if name in mapped] == []


@pytest.mark.parametrize(
    "program",
    [
        "def f: f; f",
        "last(range(1e12))",
        "[limit(1e9; repeat(.))] | length",
        "until(false; .)",
        '[range(1e9)] | map(tostring) | join(",")',
    ],
)
async def test_an_expression_that_never_ends_is_ended(jq: Jq, program: str) -> None:
    with pytest.raises(OverBudget, match=r"0\.1 s of processor time|more memory"):
        await jq.evaluate(program, 1, QUICK)
    assert await jq.evaluate("1 + 1", None) == 2


@pytest.mark.parametrize("program", ['"x" * 1000000000 | length', "def f: [f, f]; f", "[range(1e8)] | length"])
async def test_an_expression_that_wants_all_memory_gets_none(jq: Jq, program: str) -> None:
    with pytest.raises(OverBudget, match=r"more memory|processor time"):
        await jq.evaluate(program, None, replace(DEFAULT, cpu_s=20.0, wall_s=40.0))
    assert await jq.evaluate("1 + 1", None) == 2


async def test_a_frozen_worker_is_replaced(jq: Jq) -> None:
    await jq.evaluate("1", None)
    frozen = jq.pid
    assert frozen is not None
    os.kill(frozen, signal.SIGSTOP)
    with pytest.raises(OverBudget, match=r"did not end within 0\.05 s"):
        await jq.evaluate("1", None, replace(DEFAULT, wall_s=0.05))
    assert gone(frozen)
    assert await jq.evaluate("1 + 1", None) == 2


async def test_a_worker_that_was_killed_is_replaced(jq: Jq) -> None:
    await jq.evaluate("1", None)
    assert jq.pid is not None
    os.kill(jq.pid, signal.SIGKILL)
    with pytest.raises(OverBudget, match="its worker was ended"):
        await jq.evaluate("1", None)
    assert await jq.evaluate("1 + 1", None) == 2


async def test_a_result_and_an_input_have_a_largest_size(jq: Jq) -> None:
    small = replace(DEFAULT, input_bytes=100, output_bytes=100)
    with pytest.raises(Invalid, match="more than 100 bytes"):
        await jq.evaluate('"x" * 99', None, small)
    with pytest.raises(OverBudget, match="at most 100 bytes"):
        await jq.evaluate(".", "x" * 99, small)
    assert await jq.evaluate(".", "x" * 98, small) == "x" * 98


async def test_a_value_that_is_no_json_is_invalid(jq: Jq) -> None:
    with pytest.raises(Invalid, match="no JSON"):
        await jq.evaluate(".", {"number": 2**70})


async def test_a_large_input_and_a_large_result_travel_whole(jq: Jq) -> None:
    large = ["x" * 1000] * 900
    roomy = replace(DEFAULT, input_bytes=2_000_000, output_bytes=2_000_000)
    assert await jq.evaluate(".", large, roomy) == large


async def test_evaluations_at_once_each_get_their_own_answer(jq: Jq) -> None:
    answers = await asyncio.gather(*(jq.evaluate(". * 2", number) for number in range(50)))
    assert answers == [number * 2 for number in range(50)]


async def test_an_answer_that_nobody_waits_for_is_never_anothers(jq: Jq) -> None:
    await jq.evaluate("1", None)
    abandoned = asyncio.create_task(jq.evaluate("last(range(1e12))", None, replace(DEFAULT, cpu_s=30.0)))
    following = asyncio.create_task(jq.evaluate('"mine"', None))
    await asyncio.sleep(0)
    abandoned.cancel()
    assert await following == "mine"
    with pytest.raises(asyncio.CancelledError):
        await abandoned


async def test_who_waits_too_long_for_a_turn_is_told(jq: Jq, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.01)  # the real wait is longer than a test should be
    await jq.evaluate("1", None)
    busy = asyncio.create_task(jq.evaluate("last(range(1e12))", None, replace(DEFAULT, cpu_s=30.0, wall_s=50.0)))
    await asyncio.sleep(0)
    with pytest.raises(OverBudget, match="too many expressions"):
        await jq.evaluate("1", None)
    busy.cancel()
    await asyncio.wait([busy])


async def test_no_worker_runs_before_the_first_expression_or_after_the_last(jq: Jq) -> None:
    assert jq.pid is None
    await jq.evaluate("1", None)
    pid = jq.pid
    assert pid is not None
    await jq.close()
    assert jq.pid is None
    assert gone(pid)


@pytest.mark.parametrize("program", ["import time; time.sleep(60)", "raise SystemExit(3)"])
async def test_a_worker_that_does_not_start_is_said(
    jq: Jq, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text(program, encoding="utf-8")
    monkeypatch.setattr(module, "WORKER", tmp_path / "broken.py")  # a machine that cannot start it
    monkeypatch.setattr(module, "START_S", 0.3)
    with pytest.raises(Unavailable, match="does not start"):
        await jq.evaluate("1", None)
    assert jq.pid is None


async def test_without_the_package_it_is_said(jq: Jq, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_name: str) -> None: ...

    monkeypatch.setattr(module.importlib.util, "find_spec", nothing)  # it is installed here
    with pytest.raises(Unavailable, match="jq is not installed"):
        await jq.evaluate("1", None)
