"""A whole hub is killed (SIGKILL) in the middle of steps and between them; the run ends as if nobody had done it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from kills import demo
from kills.stage import ENDED, Stage, stage

pytestmark = pytest.mark.timeout(300)  # a hub starts many times on a machine that may be busy

Report = Callable[[str, object], None]
BEFORE = ["first", "sure", "yes", "each 1", "rescue", "gone first", "inner", "last"]
AFTER = ["first", "sure", "left", "each 0", "tried", "rescue", "gone first", "inner", "last"]
STANDS = [("look", "completed"), ("flaky", "completed"), ("ask", "waiting"), ("nap", "waiting"), ("late", "completed"),
          ("hear", "waiting"), ("sub", "waiting"), ("sub", "completed")]  # fmt: skip
UNDONE = ["one", "two 1", "gone one", "undo ones end", "undo two 0", "undo one"]


def killed(on: Stage, workflow: str, holds: Sequence[str], stands: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The run at its end, the hub killed while each of these calls is held and when steps first stand so."""
    for hold in holds:
        on.beside(f"hold {hold}").touch()
    run_id, left = on.start(demo.WORKFLOWS[workflow], {"who": "ada"}), list(stands)
    while (run := on.run(run_id))["status"] not in ENDED:
        on.moves(run)
        held = next((hold for hold in holds if is_held(on, hold)), None)
        stood = next((stand for stand in left if stand in states(run)), None)
        if held is not None:
            on.kill(f"a whole hub: inside of a tool, {held.split()[0]} its effect", held)
        elif stood is not None:
            left.remove(stood)
            on.kill(f"a whole hub: a step is {stood[1]}")
        else:
            on.attend(run_id)
    return run


def is_held(on: Stage, hold: str) -> bool:
    """Whether a call stands still there."""
    return on.beside(f"hold {hold}").exists() and on.beside(f"held {hold}").exists()


def states(run: dict[str, Any]) -> set[tuple[str, str]]:
    """How the steps of a run stand."""
    return {(step["name"], step["status"]) for step in run["results"] if step["item"] is None}


def ended_well(on: Stage, lines: Sequence[str]) -> None:
    """Nothing was done twice, nothing left out; what was asked and awaited stayed the same."""
    assert sorted(line for line in on.lines() if line != "tried") == sorted(lines)
    assert {fact: values for fact, values in on.facts.items() if len(values) > 1} == {}


def tell(report: Report, on: Stage) -> None:
    """Add the kills to the kill table."""
    asked = list(on.asked)
    kills = list[tuple[str, bool]]()
    for kill in on.kills:
        kills.append((kill, kill in asked))
        if kill in asked:
            asked.remove(kill)
    report("kills", json.dumps(kills))


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_hub_killed_inside_of_calls(tmp_path: Path, record_property: Report, where: str) -> None:
    lines = BEFORE if where == "before" else AFTER
    with stage(tmp_path) as on:
        run = killed(on, "demo", [f"{where} {line}" for line in lines], [])
        assert (run["status"], run["outputs"]) == ("completed", demo.OUTPUTS)
        ended_well(on, demo.LINES)
        assert len(on.kills) == len(lines)
        tell(record_property, on)


def test_a_hub_killed_between_steps_and_while_it_waits(tmp_path: Path, record_property: Report) -> None:
    with stage(tmp_path) as on:
        run = killed(on, "demo", [], STANDS)
        assert (run["status"], run["outputs"]) == ("completed", demo.OUTPUTS)
        ended_well(on, demo.LINES)
        assert on.facts.keys() >= {"ask approval_id", "ask due_at", "hear due_at"}
        tell(record_property, on)


def test_a_hub_killed_while_it_undoes_what_was_done(tmp_path: Path, record_property: Report) -> None:
    with stage(tmp_path) as on:
        run = killed(on, "undone", [f"after {line}" for line in UNDONE], [])
        assert (run["status"], run["step_failed_at"]) == ("failed", "fail")
        assert on.lines() == demo.UNDONE_LINES
        assert len(on.kills) == len(UNDONE)
        tell(record_property, on)
