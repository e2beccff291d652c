"""Templates: what expressions are in a text, what they see, and what becomes of the bad ones."""

import os
import signal
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from fleetkit.errors import Invalid, OverBudget
from master_mcp.workflows.expressions import Templates, parts, results_in, steps_in

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCOPE: dict[str, Any] = {
    "input": {"name": "ada", "n": 3, "list": [1, 2], "empty": None, "yes": True},
    "steps": {"a": {"text": "hi", "tags": ["x", "y"]}, "b": {"number": 7}},
    "status": {"a": "completed", "b": "failed"},
    "run": {"id": "wf_1"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def templates() -> AsyncGenerator[Templates]:
    """One worker for all tests."""
    found = Templates()
    try:
        yield found
    finally:
        await found.close()


PARTS: list[tuple[str, list[tuple[bool, str]]]] = [
    ("plain", [(False, "plain")]),
    ("", []),
    ("${ .a }", [(True, ".a")]),
    ("${.a}${.b}", [(True, ".a"), (True, ".b")]),
    ("x ${ .a } y", [(False, "x "), (True, ".a"), (False, " y")]),
    ("${ {a: {b: 1}} }", [(True, "{a: {b: 1}}")]),
    ('${ "}" } {', [(True, '"}"'), (False, " {")]),
    ('${ "\\"}" }', [(True, '"\\"}"')]),
    ('${ "{" + .a }', [(True, '"{" + .a')]),
    ("$${ .a }", [(False, "${ .a }")]),
    ("$${ .a } is ${ .a }", [(False, "${ .a } is "), (True, ".a")]),
    ("$$ $x {y} $", [(False, "$$ $x {y} $")]),
]


@pytest.mark.parametrize(("text", "found"), PARTS)
async def test_a_text_is_cut_into_expressions_and_the_rest(text: str, found: list[tuple[bool, str]]) -> None:
    assert parts(text) == found


@pytest.mark.parametrize("text", ["${ .a", "a ${ {b: 1}", '${ "}', '${ "a\\"} '])
async def test_an_expression_without_an_end_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"an expression is not closed: .* needs a \}"):
        parts(text)


FILLED: list[tuple[Any, Any]] = [
    ("${ .input.n }", 3),
    ("${ .input.list }", [1, 2]),
    ("${ .input.yes }", True),
    ("${ .input.empty }", None),
    ("${ .input.nothing }", None),
    ("${ {n: .input.n} }", {"n": 3}),
    ("n=${ .input.n }", "n=3"),
    ("${ .input.list } ${ .input.yes } ${ .input.empty }", "[1,2] true null"),
    (" ${ .input.n }", " 3"),
    ("$${ .input.n }", "${ .input.n }"),
    (["${ .input.n }", {"deep": ["${ .input.name }!"]}], [3, {"deep": ["ada!"]}]),
    ({"${ .input.n }": 1}, {"${ .input.n }": 1}),
    (5, 5),
    ('${ "\\(.input.name)}" }', "ada}"),
    ('${ "\\(.steps.a.text) \\(.steps.b.number)" }', "hi 7"),
    ('${ .steps["a"].tags[1] }', "y"),
    ("${ .steps | keys }", ["a", "b"]),
    ("${ keys }", ["input", "run", "status", "steps"]),
    ("${ . | .steps.b.number }", 7),
    ("${ .input as $i | .steps.b.number + $i.n }", 10),
    ('${ .["steps"].b.number }', 7),
    ('${ getpath(["steps", "b", "number"]) }', 7),
    ('${ if .status.b == "failed" then .steps.a.text else null end }', "hi"),
    ("${ [.steps[] | length] }", [2, 1]),
]


@pytest.mark.parametrize(("template", "value"), FILLED)
async def test_an_expression_gives_its_value_and_text_around_it_makes_text(
    templates: Templates, template: Any, value: Any
) -> None:
    assert await templates.fill(template, SCOPE) == value


BROKEN: list[tuple[str, str]] = [
    ("${ .input.n + }", "syntax error"),
    ("${ .input.name + 1 }", r"\$\{ .input.name \+ 1 \}: jq: string .* and number .* cannot be added"),
    ("${ .input.list[] }", "gives more than one result"),
    ("${ empty }", "gives no result"),
    ('${ error("broken") }', "broken"),
    ("${ nope(1) }", "nope"),
    ('${ include "x"; 1 }', "syntax error|module"),
]


@pytest.mark.parametrize(("template", "said"), BROKEN)
async def test_an_expression_that_fails_says_which_and_why(templates: Templates, template: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        await templates.fill(template, SCOPE)


GREEDY = ["${ range(1e12) | select(. < 0) }", "${ [range(1e9)] | length }"]


@pytest.mark.parametrize("template", GREEDY)
async def test_an_expression_that_takes_too_much_is_ended_and_the_next_one_works(
    templates: Templates, template: str
) -> None:
    with pytest.raises(OverBudget):
        await templates.fill(template, SCOPE)
    assert await templates.fill("${ .input.n }", SCOPE) == 3


async def test_a_result_that_is_too_large_is_refused(templates: Templates) -> None:
    with pytest.raises(Invalid, match="more than 1048576 bytes"):
        await templates.fill('${ "x" * 2000000 }', SCOPE)


async def test_a_worker_that_dies_is_replaced(templates: Templates) -> None:
    pid = templates._jq.pid  # pyright: ignore[reportPrivateUsage] - no caller sees the worker
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(OverBudget):
        await templates.fill("${ .input.n }", SCOPE)
    assert await templates.fill("${ .input.n }", SCOPE) == 3


async def test_expressions_see_no_environment_and_no_files(templates: Templates) -> None:
    assert set(await templates.fill("${ $ENV | keys }", SCOPE)) <= {"LC_CTYPE"}
    assert await templates.fill("${ env.HOME }", SCOPE) is None
    with pytest.raises(Invalid):
        await templates.fill("${ input_filename | error }", SCOPE)


HOLDS: list[tuple[str | bool, bool]] = [
    (True, True), (False, False), ("${ .input.yes }", True), (".input.n > 3", False),
    (".input.n == 3 and .input.yes", True),
]  # fmt: skip


@pytest.mark.parametrize(("text", "found"), HOLDS)
async def test_a_condition_is_written_with_or_without_braces(
    templates: Templates, text: str | bool, found: bool
) -> None:
    assert await templates.holds(text, SCOPE) is found


@pytest.mark.parametrize("text", [".input.n", ".input.nothing", '"true"', ".input.list"])
async def test_a_condition_that_is_neither_true_nor_false_is_refused(templates: Templates, text: str) -> None:
    with pytest.raises(Invalid, match="gives neither true nor false: compare something"):
        await templates.holds(text, SCOPE)


NAMED: list[tuple[str, set[str]]] = [
    (".steps.a.x + .steps.b", {"a", "b"}),
    ('.steps["a"].x', {"a"}),
    ('.status.a == "steps.z"', {"a"}),
    ("[.errors.a, .status.b]", {"a", "b"}),
    (".input.steps.z", set()),
    ('".steps.z"', set()),
    ('"\\(.steps.a.x)"', {"a"}),
    (".steps | keys", set()),
]


@pytest.mark.parametrize(("expression", "found"), NAMED)
async def test_the_steps_that_an_expression_names_are_known(expression: str, found: set[str]) -> None:
    assert steps_in(expression) == found


SEEN: list[tuple[str, set[str] | None]] = [
    (".steps.a.x", {"a"}),
    (".input.x", set()),
    (".steps.a.list | map(. + 1)", None),
    (".steps", None),
    (".", None),
    ("keys", None),
    ("[keys]", None),
    (". as $x | $x.input", None),
    (".input as $i | keys", None),
    ("..", None),
    (".[]", None),
]


@pytest.mark.parametrize(("expression", "found"), SEEN)
async def test_an_expression_gets_the_results_that_it_can_look_at(expression: str, found: set[str] | None) -> None:
    assert results_in(expression) == found


async def test_large_results_of_other_steps_stay_at_home(templates: Templates) -> None:
    large = {**SCOPE, "steps": {**SCOPE["steps"], "big": "x" * 5_000_000}}
    assert await templates.fill("${ .steps.b.number }", large) == 7
    with pytest.raises(OverBudget):
        await templates.fill("${ .steps.big | length }", large)
