"""Every tool of every spoke, as a model will see it."""

import inspect
import re
from importlib import import_module
from typing import Any, get_type_hints

import pytest
import tree

from fleetkit import Risk, Spoke, names
from fleetkit.governed import GovernedTool
from fleetkit.spoke import ToolSpec

HARMLESS = {"timeout"}  # an argument that changes no call's risk
WIRE = re.compile(r"[a-zA-Z0-9_-]{1,48}")


def declared() -> list[Any]:
    """Each tool with the row of its spoke."""
    found: list[Any] = []
    for row in tree.spokes():
        spoke: Spoke = import_module(row.package).spoke
        for module in spoke.tool_modules:
            import_module(module)
        found += [pytest.param(row, spec, id=f"{row.namespace}.{spec.name}") for spec in spoke.tools.values()]
    return found


TOOLS = declared()
each_tool = pytest.mark.parametrize(("row", "spec"), TOOLS)


def unheard(_tool: str, _outcome: str, _seconds: float) -> None:
    """Nobody counts these calls."""


def served(row: tree.Service, spec: ToolSpec) -> GovernedTool:
    """The tool as it is listed."""
    return GovernedTool.build(spec, row.namespace, "fst_shape", unheard)


def test_every_spoke_has_tools():
    assert {param.values[0] for param in TOOLS} == set(tree.spokes())


def test_no_spelling_of_a_tool_means_another_one_too():
    seen: dict[str, str] = {}
    for row, spec in (param.values for param in TOOLS):
        own = names.canonical(row.namespace, spec.name)
        for spelling in names.spellings(own) | set(spec.aliases):
            assert seen.setdefault(spelling, own) == own, f"{spelling} means {seen[spelling]} and {own}"


@each_tool
def test_a_tool_has_a_name_that_every_client_takes(row: tree.Service, spec: ToolSpec):
    tool = served(row, spec)
    assert WIRE.fullmatch(tool.name)
    assert names.camel(names.snake(spec.name)) == names.camel(spec.name)


@each_tool
def test_a_tool_tells_the_model_what_it_does(row: tree.Service, spec: ToolSpec):
    text = inspect.cleandoc(spec.function.__doc__ or "")
    first = text.split("\n", 1)[0]
    assert 10 <= len(first) <= 160, first
    assert first[0].isupper() or first[0] in "`'\"", first
    assert len(text) <= 2500, f"{len(text)} characters are read with every list"


@each_tool
def test_a_tool_says_its_risk_and_carries_it_in_its_annotations(row: tree.Service, spec: ToolSpec):
    tool = served(row, spec)
    assert isinstance(spec.risk, Risk)
    assert tool.annotations is not None
    assert tool.annotations.read_only_hint is (spec.risk is Risk.read)
    assert tool.annotations.destructive_hint is (spec.risk is Risk.destroy)
    assert tool.meta is not None
    assert (tool.meta["risk"], tool.meta["fleet/id"]) == (spec.risk.value, names.canonical(row.namespace, spec.name))


@each_tool
def test_a_tool_says_the_shape_of_its_answer(row: tree.Service, spec: ToolSpec):
    assert "return" in get_type_hints(spec.function)
    assert served(row, spec).output_schema, "return a model, so that a client knows what comes back"


@each_tool
def test_every_argument_of_a_tool_has_a_type(row: tree.Service, spec: ToolSpec):
    hints = get_type_hints(spec.function)
    assert [name for name in inspect.signature(spec.function).parameters if name not in hints] == []
    assert served(row, spec).parameters["additionalProperties"] is False


@pytest.mark.parametrize(("row", "spec"), [param for param in TOOLS if param.values[1].assess is not None])
def test_an_assessment_takes_the_arguments_of_its_tool_with_the_same_defaults(row: tree.Service, spec: ToolSpec):
    assert spec.assess is not None
    tool, assess = inspect.signature(spec.function).parameters, inspect.signature(spec.assess).parameters
    rest = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in assess.values())
    named = {name: one.default for name, one in assess.items() if one.kind is not inspect.Parameter.VAR_KEYWORD}
    assert rest or set(named) == set(tool)
    assert {name: default for name, default in named.items() if default != tool[name].default}.keys() <= HARMLESS
